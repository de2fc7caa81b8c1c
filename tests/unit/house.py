"""What the tests of worker/ share: an installation on fakeredis, and messages and requests to put through it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import fakeredis
import redis

from handlers import message
from handlers.message import InboundMessage
from handlers.request import Action, DecidedMessage, Outcome, Request, request_id
from tests.unit.letters import JANE, KEYS, tagged
from worker import installation
from worker.installation import Installation
from worker.settings import load_settings

HEX = KEYS.masters[0].hex()
ENVIRON = {
    "UNSUBD_REDIS_URL": "redis://fake", "UNSUBD_SECRET_KEYS": HEX, "UNSUBD_ADDRESS": "u+{tag}@unsub.example.com",
}  # fmt: skip


@contextmanager
def opened(server: fakeredis.FakeServer, **environ: str) -> Iterator[Installation]:
    """Open an installation by production's own function; every URL leads to *server*."""
    given = ENVIRON | {f"UNSUBD_{name.upper()}": value for name, value in environ.items()}
    with (
        patch.object(installation, "connect", autospec=True, side_effect=lambda _: client(server)),
        installation.open_installation(load_settings(given)) as found,
    ):
        yield found


def client(server: fakeredis.FakeServer) -> redis.Redis:
    """Return a client of *server*."""
    return fakeredis.FakeRedis(server=server)


def now_ms() -> int:
    """Return now."""
    return time.time_ns() // 1_000_000


def mail(to: str | None = None, message_id: str = "one", subject: str = "unsubscribe", **facts: Any) -> InboundMessage:
    """Return a mail as a source hands it over; default: to Jane's tag. *facts* as in `message.read`."""
    head = (
        f"From: <x@example.net>\r\nTo: <{to or tagged()}>\r\nSubject: {subject}\r\nMessage-ID: <{message_id}>\r\n\r\n"
    )
    return message.read(head.encode(), source="maildir:default", **facts)


def decided(
    key: str = "k1", group: int = JANE.group, sender: str = JANE.sender, recipient: str = JANE.recipient, **facts: Any
) -> DecidedMessage:
    """Return a decided message with one unsubscribe. *facts*: fields of the message."""
    at_ms = facts.get("received_ms", now_ms())
    action = Action.UNSUBSCRIBE
    wish_id = request_id(key, sender, group, recipient, action)
    wish = Request(wish_id, action, sender, group, recipient, at_ms, "imap:INBOX", key)
    return DecidedMessage(
        **{"key": key, "source": "imap:INBOX", "outcome": Outcome.HONOUR, "reason": "valid tag", "received_ms": at_ms}
        | {"requests": (wish,)} | facts
    )  # fmt: skip
