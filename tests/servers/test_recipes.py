"""The recipes of deploy/MTA.md on real servers: a mail from outside arrives, and `unsubd doctor --canary` says so."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.exim import Exim
from tests.harness.mails import address, mail, recipient
from tests.harness.postfix import Postfix
from tests.harness.processes import PACKAGES, require
from tests.harness.service import MASTERS, Service, until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]  # starts a mail server, and waits for its queue

KEYS = {"secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}


def _postfix(folder: Path) -> Postfix:
    return Postfix(require("postfix", PACKAGES["postfix"]), folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="unsubd-mta-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("server", [_postfix, Exim], ids=["postfix", "exim"])
def test_a_recipe_holds(folder: Path, tmp_path: Path, redis_url: str, server: Callable[[Path], Postfix | Exim]) -> None:
    mta = server(folder)
    lmtp, canary = f"unix:{mta.socket_folder}/lmtp", f"smtp://127.0.0.1:{mta.port}"
    service = Service(tmp_path, redis_url=redis_url, lmtp=lmtp, canary_smtp_url=canary, **KEYS)
    assert service.command("sender", "add", "acme").returncode == 0
    with mta:
        mta.send(
            mail("nobody@example.com", "before"), address(1), address(2)
        )  # unsubd is not there: the queue keeps it
        with service.running("run"):
            if isinstance(mta, Postfix):
                until(lambda: len(mta.waiting()) == 1, 60, "the queue")
                mta.flush()
            until(lambda: _suppressed(service) == {recipient(1), recipient(2)}, 90, "both requests")
            rows = [json.loads(line) for line in service.command("doctor", "--canary", "--json").stdout.splitlines()]

    flights = {row["detail"]: row["ok"] for row in rows if row["layer"] == "canary"}
    assert [detail for detail, is_ok in flights.items() if not is_ok] == []
    assert any(what.startswith("mail: came by lmtp") for what in flights)


def _suppressed(service: Service) -> set[str]:
    checked = service.command("check", "acme", "0", recipient(1), recipient(2), "--json")
    return {row["recipient"] for row in map(json.loads, checked.stdout.splitlines()) if row["suppressed"]}
