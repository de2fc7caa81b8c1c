"""`unsubd doctor --canary` against the real thing: a mail server that delivers into Dovecot, a webhook, LMTP."""

from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from tests.harness.dovecot import Mailbox
from tests.harness.processes import free_port
from tests.harness.service import MASTERS, Service


class _Delivery:
    """An SMTP server's delivery agent: what it takes is in the mailbox."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_DATA(self, _: Any, __: Any, envelope: Any) -> str:
        self._mailbox.append(b"Delivered-To: " + envelope.rcpt_tos[0].encode() + b"\r\n" + envelope.content)
        return "250 OK"


@pytest.mark.fault
@pytest.mark.needs("dovecot")
def test_a_canary_comes_back_by_every_way_in(tmp_path: Path, redis_url: str, dovecot: Mailbox) -> None:
    smtp = Controller(_Delivery(dovecot), hostname="127.0.0.1", port=free_port())
    service = Service(
        tmp_path, redis_url=redis_url, secret_keys=",".join(MASTERS), address="u+{tag}@unsub.example.com",
        imap_url=dovecot.url, imap_password=dovecot.password, imap_ca_file=str(dovecot.ca_file),
        lmtp=f"unix:{tmp_path}/lmtp", in_relay="s3cret", canary_smtp_url=f"smtp://127.0.0.1:{smtp.port}",
    )  # fmt: skip
    smtp.start()
    try:
        with service.running("run"):
            rows = service.rows("doctor", "--canary")
            suppressed = service.command("check", "canary", "0", "x@canary.invalid")
    finally:
        smtp.stop()

    found = [row["detail"] for row in rows if row["layer"] == "canary"]
    assert [each.partition(", ")[0] for each in found] == [
        "lmtp: came by lmtp:default", "/in/relay: came by relay:default", "mail: came by imap:default",
    ]  # fmt: skip
    assert suppressed.returncode == 65  # no such sender: it left no row
