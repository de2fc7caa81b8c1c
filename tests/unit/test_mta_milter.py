"""The milter over packets: what a mail server shows, what it hears, and which mail is changed how."""

import asyncio
import contextlib
import struct
from collections.abc import Iterator, Sequence
from unittest.mock import patch

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import milter as protocol
from handlers import tag
from handlers.errors import PayloadInvalid
from handlers.milter import ABORT, END, HEADER, MACROS, MAIL, NEGOTIATE, NEW_CONNECTION, QUIT, RCPT, packet
from handlers.route import Route
from tests.harness.mta import suppress
from tests.unit import house
from worker.installation import Installation
from worker.mta.map import Routes
from worker.mta.milter import Milter

GONE, ANN, JANE, JO = "gone@example.org", "ann@example.org", "jane@example.org", "jo@example.org"
NEWS = packet(MAIL, b"<news@example.com>\0SIZE=1\0")
OTHER = packet(MAIL, b"<me@example.com>\0")


@pytest.fixture
def acme() -> Iterator[Installation]:
    """acme with group 12 and 13 (essential); routes for news@, receipts@, login shop and port 2525."""
    with house.opened(fakeredis.FakeServer(), public_url="https://unsub.example.com") as installation:
        installation.accounts.add_sender("acme")
        installation.accounts.add_group("acme", "Weekly news", "", 12)
        installation.accounts.add_group("acme", "Receipts", "", 13, essential=True)
        routes = Routes(installation.redis)
        for key in ("from:news@example.com", "user:shop", "port:2525"):
            routes.add(key, Route("acme", 12))
        routes.add("from:receipts@example.com", Route("acme", 13))
        suppress(installation, GONE, ANN)
        yield installation


def rcpt(address: str) -> bytes:
    return packet(RCPT, f"<{address}>\0".encode())


def macros(command: bytes, **named: str) -> bytes:
    return packet(MACROS, command + "".join(f"{{{name}}}\0{value}\0" for name, value in named.items()).encode())


def header(name: str) -> bytes:
    return packet(HEADER, f"{name}\0 <https://old.example>\0".encode())


def opening(actions: int = 0x1FF, steps: int = 0x1FFFFF, version: int = 6) -> bytes:
    return packet(NEGOTIATE, struct.pack("!III", version, actions, steps))


def shown(milter: Milter, *packets: bytes) -> list[tuple[bytes, bytes]]:
    """Return what is said on one connection that shows *packets* and quits, as (letter, data)."""
    said: list[bytes] = []

    class Writer:
        def write(self, data: bytes) -> None:
            said.append(data)

        async def drain(self) -> None:
            pass

    async def connect() -> None:
        await milter.asking.refresh()
        reader = asyncio.StreamReader()
        reader.feed_data(b"".join([*packets, packet(QUIT, b"")]))
        reader.feed_eof()
        await milter.converse(reader, Writer())  # type: ignore[arg-type]

    asyncio.run(connect())
    return _split(b"".join(said))


def _split(octets: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while octets:
        size = int.from_bytes(octets[:4])
        found.append((octets[4:5], octets[5 : 4 + size]))
        octets = octets[4 + size :]
    return found


def letters(said: Sequence[tuple[bytes, bytes]]) -> str:
    return b"".join(letter for letter, _ in said).decode()


def test_we_ask_for_what_we_need_and_no_more() -> None:
    (letter, data), *_ = _split(protocol.terms(_split(protocol.OPENING)[0][1]).reply)
    version, actions, steps = struct.unpack("!III", data[:12])

    assert (letter, version, actions) == (b"O", 6, 0x119)
    assert steps == 0x3D3  # headers are seen, and answered by nothing
    assert data[12:] == struct.pack("!I", 2) + b"{auth_authen} {daemon_port}\0"


def test_an_older_mail_server_names_its_macros_itself_and_hears_an_answer_to_each_header(acme: Installation) -> None:
    said = shown(Milter(acme), opening(0x3F, 0x7F, 2), NEWS, rcpt(JANE), header("Subject"), packet(END, b""))

    assert said[0] == (b"O", struct.pack("!III", 2, 0x19, 0x53))
    assert letters(said) == "Occc" + "hh" + "c"


def test_a_mail_gets_both_headers_in_place_of_those_it_brought(acme: Installation) -> None:
    brought = [
        header("List-Unsubscribe"),
        header("Subject"),
        header("LIST-UNSUBSCRIBE"),
        header("List-Unsubscribe-Post"),
    ]
    said = shown(Milter(acme), opening(), NEWS, rcpt(JANE), *brought, packet(END, b""))

    assert letters(said) == "Occ" + "mmm" + "hh" + "c"
    deleted = [(struct.unpack("!I", data[:4])[0], data[4:]) for letter, data in said if letter == b"m"]
    assert deleted == [
        (2, b"List-Unsubscribe\0\0"), (1, b"List-Unsubscribe\0\0"), (1, b"List-Unsubscribe-Post\0\0"),
    ]  # fmt: skip
    (name, value), post = [protocol.texts(data) for letter, data in said if letter == b"h"]
    assert (name, post) == ("List-Unsubscribe", ["List-Unsubscribe-Post", "List-Unsubscribe=One-Click"])
    for part in value.split(", "):
        address = part.strip("<>").removeprefix("mailto:").rpartition("/")[2].partition("?")[0]
        assert tag.read(address, acme.keys).tag == tag.Tag("acme", 12, JANE)


@pytest.mark.parametrize(
    ("recipients", "answers", "dropped"),
    [
        ([JANE], "c hhc", []), ([GONE], "c d", []), ([GONE, ANN], "cc d", []), ([JANE, JO], "cy hhc", []),
        ([GONE, JANE, ANN], "ccc --hhc", [b"<gone@example.org>\0", b"<ann@example.org>\0"]), (["no address"], "y t", []),
    ],
)  # fmt: skip
def test_a_mail_has_one_recipient_and_no_suppressed_one(
    acme: Installation, recipients: list[str], answers: str, dropped: list[bytes]
) -> None:
    said = shown(Milter(acme), opening(), NEWS, *map(rcpt, recipients), packet(END, b""))

    assert letters(said) == "Oc" + answers.replace(" ", "")
    assert [data for letter, data in said if letter == b"-"] == dropped


@pytest.mark.parametrize(("recipients", "reply"), [([JANE, JO], b"452 4.5.3"), (["no address"], b"550 5.1.3")])
def test_a_recipient_that_cannot_be_taken_hears_why(acme: Installation, recipients: list[str], reply: bytes) -> None:
    said = shown(Milter(acme), opening(), NEWS, *map(rcpt, recipients))

    assert said[-1][0] == b"y"
    assert said[-1][1].startswith(reply)


def test_mail_without_a_route_is_accepted_unseen(acme: Installation) -> None:
    assert letters(shown(Milter(acme), opening(), OTHER, NEWS)) == "Oac"


def test_mail_of_an_essential_group_is_left_as_it_is(acme: Installation) -> None:
    receipts = packet(MAIL, b"<receipts@example.com>\0")
    said = shown(Milter(acme), opening(), receipts, rcpt(GONE), header("List-Unsubscribe"), packet(END, b""))

    assert letters(said) == "Occc"


@pytest.mark.parametrize(
    "before",
    [
        [macros(MAIL, auth_authen="shop")], [macros(MAIL, daemon_port="2525")],
        [macros(b"C", daemon_port="2525"), macros(MAIL, auth_authen="else")],
    ],
)  # fmt: skip
def test_login_and_port_come_as_macros(acme: Installation, before: list[bytes]) -> None:
    assert letters(shown(Milter(acme), opening(), *before, OTHER)) == "Oc"


def test_what_one_mail_showed_does_not_count_for_the_next(acme: Installation) -> None:
    login = macros(MAIL, auth_authen="shop")
    said = shown(
        Milter(acme), opening(),
        NEWS, rcpt(JANE), packet(ABORT, b""), NEWS, rcpt(JO), packet(END, b""),
        login, OTHER, packet(ABORT, b""), OTHER,
        macros(b"C", daemon_port="2525"), packet(NEW_CONNECTION, b""), OTHER,
    )  # fmt: skip

    assert letters(said) == "O" + "cc" + "cc" + "hhc" + "c" + "a" + "a"


def test_while_nobody_can_say_mail_waits(acme: Installation) -> None:
    milter = Milter(acme)
    with patch("worker.mta.asking.check", autospec=True, side_effect=KeyError(JANE)):
        said = shown(milter, opening(), NEWS, rcpt(JANE))
    with patch.object(milter.stamping, "headers", autospec=True, side_effect=KeyError(JANE)):
        said += shown(milter, opening(), NEWS, rcpt(JANE), packet(END, b""))

    assert letters(said) == "Ocy" + "Occy"
    assert [data[:9] for letter, data in said if letter == b"y"] == [b"451 4.3.0"] * 2
    assert milter.asking.told == {"deferred": 2}
    assert JANE not in str(acme.journal.lines(acme.redis, 9))


def test_the_end_of_a_mail_for_nobody_discards_nothing(acme: Installation) -> None:
    assert letters(shown(Milter(acme), opening(), NEWS, packet(END, b""))) == "Oct"


@pytest.mark.parametrize(
    "octets",
    [
        opening(actions=0x01), opening(version=1), packet(NEGOTIATE, b"\0"), packet(MAIL, b""), b"\0\0\0\0",
        struct.pack("!I", protocol.MAX_PACKET_BYTES + 1), b"GET / HTTP/1.1\r\n",
    ],
)  # fmt: skip
def test_what_is_not_the_protocol_ends_the_connection(acme: Installation, octets: bytes) -> None:
    with pytest.raises(PayloadInvalid):
        shown(Milter(acme), octets)


_NAMES = st.sampled_from([NEGOTIATE, MACROS, MAIL, RCPT, HEADER, END, ABORT, NEW_CONNECTION, b"B", b"?"])


def test_any_packets_are_answered_or_refused(acme: Installation) -> None:
    milter = Milter(acme)

    @settings(deadline=None)
    @given(st.lists(st.tuples(_NAMES, st.binary(max_size=30) | st.just(b"<news@example.com>\0")), max_size=8))
    def holds(packets: list[tuple[bytes, bytes]]) -> None:
        with contextlib.suppress(PayloadInvalid):
            assert all(letter in b"Ocadtyhm-" for letter, _ in shown(milter, *(packet(*each) for each in packets)))

    holds()
