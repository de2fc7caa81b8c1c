"""How much of a message is fetched, and whose fault a failed fetch is."""

import asyncio
from collections.abc import Iterable
from typing import cast

import pytest

from handlers.errors import MailboxUnavailable
from handlers.message import FIRST_LOOK_BYTES
from tests.unit.letters import KEYS, tagged
from worker.sources import look
from worker.sources.imap import Fetched, ImapConnection, MailboxBusy
from worker.sources.look import Look

FAR = ("From: a@b\r\nX-Filler: " + "z" * 9000 + f"\r\nTo: {tagged()}\r\nMessage-ID: <1>\r\n\r\n").encode()


class Server:
    """Gives what is in `mails`, at most as much as asked for; `size` is what it says of each."""

    def __init__(self, mails: dict[int, bytes], size: int = 0) -> None:
        self.mails = mails
        self.size = size
        self.error: Exception | None = None
        self.asked: list[int] = []

    async def fetch(self, uids: Iterable[int], octets: int) -> list[Fetched]:
        self.asked.append(octets)
        if self.error:
            raise self.error
        found = [(uid, self.mails[uid]) for uid in uids if uid in self.mails]
        return [Fetched(uid, raw[:octets], self.size or len(raw), None) for uid, raw in found]


def _taken(reader: Look, server: Server, *uids: int) -> set[int]:
    return set(asyncio.run(reader.messages(cast(ImapConnection, server), list(uids))))


def test_a_size_that_is_only_estimated_gets_its_second_look() -> None:
    server = Server({1: FAR}, size=FIRST_LOOK_BYTES - 100)
    reader = Look(KEYS, "imap:x")

    [inbound] = asyncio.run(reader.messages(cast(ImapConnection, server), [1])).values()

    assert len(server.asked) == 2
    assert [each.where for each in inbound.candidates] == ["to"]


def test_what_is_left_out_of_the_second_look_is_not_decided_by_the_first() -> None:
    class Forgetful(Server):
        async def fetch(self, uids: Iterable[int], octets: int) -> list[Fetched]:
            return await super().fetch(uids, octets) if octets == FIRST_LOOK_BYTES else []

    assert _taken(Look(KEYS, "imap:x"), Forgetful({1: FAR, 2: b"From: a@b\r\n\r\n"}), 1, 2) == {2}


def test_a_message_that_fails_three_times_alone_is_left_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    server, reader, now = Server({}), Look(KEYS, "imap:x"), [1000.0]
    monkeypatch.setattr(look.time, "monotonic", lambda: now[0])
    server.error = MailboxUnavailable("gone")

    for _ in range(3):
        with pytest.raises(MailboxUnavailable):
            _taken(reader, server, 7)

    assert (reader.gave_up(7), reader.given_up(), reader.in_order([7, 8, 9])) == (True, 1, [8, 9, 7])
    now[0] += 3601
    assert not reader.gave_up(7)


def test_a_busy_server_makes_nobody_suspect_and_another_folder_neither() -> None:
    server, reader = Server({}), Look(KEYS, "imap:x")
    server.error = MailboxBusy("NO [UNAVAILABLE] later")
    for _ in range(5):
        with pytest.raises(MailboxBusy):
            _taken(reader, server, 7)
    assert not reader.gave_up(7)

    server.error = MailboxUnavailable("gone")
    for _ in range(3):
        with pytest.raises(MailboxUnavailable):
            _taken(reader, server, 7)
    reader.forget()
    assert not reader.gave_up(7)
