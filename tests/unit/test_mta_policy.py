"""The policy service over octets: what Postfix asks, what it hears, and that nothing odd lets mail through."""

import asyncio
from collections.abc import Iterator
from unittest.mock import patch

import fakeredis
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import postfix_policy as protocol
from handlers.errors import PayloadInvalid
from handlers.route import Route
from tests.harness.mta import suppress
from tests.unit import house
from worker.accounts import Accounts
from worker.installation import Installation
from worker.mta.map import Routes
from worker.mta.policy import Policy

GONE, JANE = "gone@example.org", "jane@example.org"


@pytest.fixture
def acme() -> Iterator[Installation]:
    """acme with group 12, and a route for news@, for quiet@ (discard) and one that leads nowhere."""
    with house.opened(fakeredis.FakeServer()) as installation:
        installation.accounts.add_sender("acme")
        installation.accounts.add_group("acme", "Weekly news", "", 12)
        routes = Routes(installation.redis)
        routes.add("from:news@example.com", Route("acme", 12))
        routes.add("from:quiet@example.com", Route("acme", 12, discard=True))
        routes.add("from:lost@example.com", Route("acme", 99))
        suppress(installation, GONE, '"o d d"@example.org')
        yield installation


def request(recipient: str, sender: str = "news@example.com", mail: str = "", **more: str) -> bytes:
    named = {"request": "smtpd_access_policy", "sender": sender, "recipient": recipient, "instance": mail} | more
    return "".join(f"{name}={value}\n" for name, value in named.items()).encode() + b"\n"


def asked(policy: Policy, *requests: bytes, fresh: bool = True) -> list[str]:
    """Return the answers of one connection that ends after *requests*, or is ended."""
    answers: list[bytes] = []

    class Writer:
        def write(self, data: bytes) -> None:
            answers.append(data)

        async def drain(self) -> None:
            pass

    async def connect() -> None:
        if fresh:
            await policy.asking.refresh()
        reader = asyncio.StreamReader(limit=16384)
        reader.feed_data(b"".join(requests))
        reader.feed_eof()
        with pytest.raises((asyncio.IncompleteReadError, asyncio.LimitOverrunError, PayloadInvalid)):
            await policy.converse(reader, Writer())  # type: ignore[arg-type]

    asyncio.run(connect())
    return [answer.decode().removeprefix("action=").removesuffix("\n\n") for answer in answers]


@pytest.mark.parametrize(
    ("question", "action"),
    [
        (request(GONE), protocol.REFUSE), (request("Gone@EXAMPLE.org"), protocol.REFUSE), (request(JANE), protocol.PERMIT),
        (request("o d d@example.org"), protocol.REFUSE),  # Postfix takes the quotes off
        (request(GONE, "quiet@example.com"), protocol.DISCARD), (request(JANE, "quiet@example.com"), protocol.PERMIT),
        (request(GONE, "me@example.com"), protocol.PERMIT), (request(GONE, ""), protocol.PERMIT),
        (request("postmaster"), protocol.NO_ADDRESS), (request("\udcff@x".encode("utf-8", "replace").decode()), protocol.PERMIT),
        (request(""), protocol.NOT_AT_RCPT), (request("", "me@example.com"), protocol.PERMIT),
        (request(JANE, "lost@example.com"), protocol.LATER),
    ],
)  # fmt: skip
def test_what_postfix_hears(acme: Installation, question: bytes, action: str) -> None:
    assert asked(Policy(acme), question) == [action]


def test_a_connection_asks_many_times_and_each_answer_is_counted(acme: Installation) -> None:
    policy = Policy(acme)

    assert asked(policy, *[request(GONE), request(JANE)] * 50) == [protocol.REFUSE, protocol.PERMIT] * 50
    assert policy.asking.told == {"refused": 50, "permitted": 50}
    assert policy.asking.asked == 100


def test_discarding_never_takes_another_recipients_mail_with_it(acme: Installation) -> None:
    quiet = "quiet@example.com"

    assert asked(Policy(acme), *(request(each, quiet, "m1") for each in (JANE, GONE, "jo@example.org"))) == [
        protocol.PERMIT, protocol.ALONE, protocol.PERMIT,
    ]  # fmt: skip
    assert asked(Policy(acme), *(request(each, quiet, "m1") for each in (GONE, JANE, GONE))) == [
        protocol.DISCARD, protocol.ALONE, protocol.DISCARD,
    ]  # fmt: skip
    assert asked(Policy(acme), request(GONE, quiet, "m1"), request(JANE, quiet, "m2")) == [
        protocol.DISCARD, protocol.PERMIT,
    ]  # fmt: skip


def test_while_the_store_is_away_mapped_mail_waits_and_other_mail_goes(acme: Installation) -> None:
    policy = Policy(acme)
    asked(policy)
    with (
        patch.object(acme.store, "_redis", autospec=True) as away,
        patch.object(Accounts, "group", autospec=True, side_effect=redis.ConnectionError),
    ):
        away.pipeline.side_effect = redis.ConnectionError
        answers = asked(policy, request(JANE), request(JANE, "me@example.com"), fresh=False)

    assert answers == [protocol.LATER, protocol.PERMIT]


def test_until_the_map_was_read_all_mail_waits(acme: Installation) -> None:
    assert asked(Policy(acme), request(JANE, "me@example.com"), fresh=False) == [protocol.LATER]


def test_a_bug_puts_mail_off_and_is_told_without_its_text(acme: Installation) -> None:
    with patch("worker.mta.asking.check", autospec=True, side_effect=KeyError(JANE)):
        assert asked(Policy(acme), request(JANE)) == [protocol.LATER]

    (line,) = [each for each in acme.journal.lines(acme.redis, 9) if each["event"] == "failed"]
    assert (line["kind"], line["detail"]) == ("policy", "KeyError")


@pytest.mark.parametrize(
    "octets",
    [b"\n\n", b"request=other\n\n", b"hello\n\n", b"GET / HTTP/1.1\n\n", b"request=smtpd_access_policy\nx\n\n"],
)
def test_what_is_not_the_protocol_ends_the_connection_without_an_answer(acme: Installation, octets: bytes) -> None:
    assert asked(Policy(acme), octets, request(JANE)) == []


def test_a_request_without_an_end_is_not_kept(acme: Installation) -> None:
    assert asked(Policy(acme), b"request=smtpd_access_policy\nx=" + b"x" * 100_000 + b"\n\n") == []


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40) | st.just(b"request=smtpd_access_policy"), max_size=6))
def test_any_octets_are_a_question_or_refused(lines: list[bytes]) -> None:
    try:
        question = protocol.read(lines)
    except PayloadInvalid:
        return
    assert isinstance(question.recipient, str)
