"""The straightforward program: imap-tools, mail-parser, one RQ job and one MOVE per message. Measured beside ours."""

import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mailparser
from imap_tools import MailBox
from redis import Redis
from rq import Queue

from tests.harness.dovecot import Mailbox

STOPPED = "rival:stopped"
_QUEUE = "rival"


@contextmanager
def worker(redis_url: str, folder: Path) -> Iterator[None]:
    """Run RQ's own worker as its documentation starts it."""
    command = [Path(sys.executable).parent / "rq", "worker", _QUEUE, "--url", redis_url, "--quiet"]
    with (folder / "rival.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def drain(mailbox: Mailbox, redis_url: str) -> None:
    """Enqueue every message and move it; the worker applies them meanwhile."""
    context = ssl.create_default_context(cafile=mailbox.ca_file)
    with (
        Redis.from_url(redis_url) as client,
        MailBox(mailbox.host, mailbox.imaps_port, ssl_context=context).login(mailbox.user, mailbox.password) as box,
    ):
        queue = Queue(_QUEUE, connection=client)
        for message in box.fetch(mark_seen=False):
            parsed = mailparser.parse_from_bytes(message.obj.as_bytes())
            queue.enqueue(suppress, redis_url, parsed.to[0][1])
            box.move(message.uid, "Processed")


def suppress(redis_url: str, address: str) -> None:
    """The job: one write."""
    with Redis.from_url(redis_url) as client:
        client.sadd(STOPPED, address)
