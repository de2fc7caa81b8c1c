"""Lists as users handle them: `check --file`, `import` and `export` as processes, with their exit codes and what they leave."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from redis import Redis

from handlers.errors import StoreUnavailable
from tests.harness.mails import recipient
from tests.harness.service import MASTERS, Service
from worker.accounts import Accounts
from worker.check import Answer
from worker.cli import check

KEYS = {"secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}


@pytest.fixture
def acme(tmp_path: Path, redis_url: str) -> Service:
    """An installation with the sender acme, its groups 1 and 2, and beta."""
    with Redis.from_url(redis_url) as client:
        accounts = Accounts(client)
        accounts.add_sender("acme")
        accounts.add_group("acme", "Weekly news", "")
        accounts.add_group("acme", "Offers", "")
        accounts.add_sender("beta")
    return Service(tmp_path, redis_url=redis_url, **KEYS)


def files(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir() if each.is_file()}


@pytest.mark.fault
def test_a_list_is_imported_asked_for_exported_and_imported_again(acme: Service) -> None:
    list_csv, out, clean = (acme.folder / name for name in ("list.csv", "out.csv", "clean.csv"))
    list_csv.write_text("email;why\nperson.1@example.com;\nperson.2@example.com;spam complaint\nnobody;\n")

    first = acme.command("import", "acme", "1", str(list_csv))
    again = acme.rows("import", "acme", "1", str(list_csv), "--rejects", str(acme.folder / "bad"))

    assert re.fullmatch(
        r"3 rows: 2 added, 0 already present, 0 stale \(they came back later\), 1 rejected \(see .*list\.csv\.rejected\.csv\)\n"
        r"import [0-9a-f]{16}\n",
        first.stdout,
    ), first.stderr
    assert [{**each, "id": ""} for each in again] == [
        {"id": "", "rows": 3, "added": 0, "present": 2, "stale": 0, "rejected": 1}
    ]
    assert "nobody;;" in (acme.folder / "bad").read_text()

    done = acme.command("export", "acme", "-o", str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "2 suppressions\n")
    assert out.stat().st_mode & 0o777 == 0o600
    rows = sorted(csv.DictReader(out.read_text().splitlines()), key=lambda each: each["email"])
    assert [(each["email"], each["group"], each["source"]) for each in rows] == [
        (recipient(1), "1", "import"), (recipient(2), "1", "import"),
    ]  # fmt: skip

    [back] = acme.rows("import", "acme", "0", str(out))
    assert (back["added"], back["present"], back["rejected"]) == (0, 2, 0)
    by_pipe = acme.command("import", "acme", "2", "-", "--json", given=f"{recipient(9)}\n".encode())
    assert json.loads(by_pipe.stdout)["added"] == 1

    checked = acme.command("check", "acme", "1", "--file", "-", "--allowed", str(clean), given=b"mail\r\n%b" % b"".join(
        f"{recipient(number)}\r\n".encode() for number in (1, 9, 3)) + b"nobody\r\n")  # fmt: skip
    assert checked.stdout == (
        "4 rows: 2 allowed, 1 suppressed (group 1, global 0), 1 not an address\n"
        f"{clean}: the 2 allowed rows\n"
    )  # fmt: skip
    assert clean.read_bytes() == f"mail\r\n{recipient(9)}\r\n{recipient(3)}\r\n".encode()
    assert files(acme.folder) == {"list.csv", "list.csv.rejected.csv", "bad", "out.csv", "clean.csv"}


def test_check_of_a_list_for_programs_is_a_line_each(acme: Service) -> None:
    path = acme.folder / "list.jsonl"
    path.write_text(f'{{"n": 1, "who": "{recipient(1)}"}}\n{{"n": 2}}\n{{"n": 3, "who": "a@x.com,b@y.org"}}\n')

    rows = acme.rows("check", "acme", "1", "--file", str(path), "--column", "WHO")

    assert [each.get("error", each.get("suppressed")) for each in rows] == [False, "not an address", "not an address"]
    assert [each["recipient"] for each in rows] == [recipient(1), "", "a@x.com,b@y.org"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("check", "acme", "7", "--file", "LIST", "--allowed", "CLEAN"), 65, "group 7: sender 'acme' has none"),
        (("check", "acme", "1", "--file", "LIST", "--column", "x", "--allowed", "CLEAN"), 65, "--column 'x': expected"),
        (("import", "acme", "7", "LIST"), 65, "group 7: sender 'acme' has none"),
        (("export", "acme", "7", "-o", "CLEAN"), 65, "group 7: sender 'acme' has none"),
        (("check", "acme", "1", "--allowed", "CLEAN", recipient(1)), 64, ""),
    ],
)
def test_what_cannot_be_done_leaves_no_file(acme: Service, words: tuple[str, ...], code: int, message: str) -> None:
    path = acme.folder / "list.csv"
    path.write_text(f"email\n{recipient(1)}\n")
    named = {"LIST": str(path), "CLEAN": str(acme.folder / "clean.csv")}

    done = acme.command(*(named.get(word, word) for word in words))

    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert files(acme.folder) == {"list.csv"}


def test_a_store_that_is_away_leaves_no_clean_file(acme: Service, free_port: Callable[[], int]) -> None:
    path, clean = acme.folder / "list.csv", acme.folder / "clean.csv"
    path.write_text(f"email\n{recipient(1)}\n")
    clean.write_text("of yesterday")
    acme.env["UNSUBD_STORE_URL"] = f"redis://127.0.0.1:{free_port()}"

    for words in (("check", "acme", "1", "--file", str(path), "--allowed", str(clean)), ("import", "acme", "1", str(path)),
                  ("export", "acme", "-o", str(clean))):  # fmt: skip
        done = acme.command(*words)
        assert (done.returncode, done.stdout) == (75, "")
        assert done.stderr.startswith("unsubd: UNSUBD_STORE_URL: the server does not answer")
    assert clean.read_text() == "of yesterday"
    assert files(acme.folder) == {"list.csv", "clean.csv"}


def test_a_store_that_goes_away_in_the_middle_leaves_no_clean_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_CHUNK", 2)
    path, clean = tmp_path / "list.csv", tmp_path / "clean.csv"
    path.write_text("".join(f"{recipient(number)}\n" for number in range(5)))
    asked: list[Sequence[str]] = []

    def asker(some: Sequence[str]) -> list[Answer]:
        asked.append(some)
        if len(asked) == 3:
            raise StoreUnavailable("UNSUBD_STORE_URL: the server does not answer")
        return [Answer(each, None, None, "") for each in some]

    with pytest.raises(StoreUnavailable):
        check._check_list(path, "", clean, asker, False)

    assert [len(some) for some in asked] == [2, 2, 1]
    assert files(tmp_path) == {"list.csv"}
