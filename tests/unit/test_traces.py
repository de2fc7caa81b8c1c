"""Where an address is spelled, and where only somebody else's is."""

import base64
import quopri

import pytest

from handlers.errors import Rejected
from handlers.tag import AddressTemplate, Tag, mint
from tests.harness.names import NAMES
from tests.unit.letters import KEYS, TEMPLATE
from worker.traces import GONE, Traces

JANE = "jane.doe@example.com"
JANES = Traces(JANE, NAMES)
UMLAUT = Traces("jörg@xn--bcher-kva.example", NAMES)


@pytest.mark.parametrize(
    "text",
    [
        JANE, "Jane.Doe@Example.COM", f"<{JANE}>", f"mailto:{JANE}?subject=x", f"write to {JANE}.", f"({JANE})", f'"{JANE}",',
        "https://x.example/?who=jane.doe%40example.com&b=1", "jane.doe%2540example.com".replace("%25", "%"),
        "u+aaaaaaaaaaaaaa-acme-12-jane.doe_example.com@unsub.example.com", "U+AAAA-ACME-0-JANE.DOE_EXAMPLE.COM@x.example",
        "bounce+jane.doe=example.com@x.example", "bounce-jane.doe=example.com@x.example", "jane.doe&#64;example.com",
        "%3Cjane.doe@example.com%3E", "=3Cjane.doe@example.com=3E", f"x=?y&u={base64.urlsafe_b64encode(JANE.encode()).decode()}",
        f"_{JANE}_", f"- {JANE}", f"-- {JANE} --",
    ],
)  # fmt: skip
def test_it_is_spelled(text: str) -> None:
    assert JANES.are_in(text)
    assert JANES.are_in(text.encode())
    assert JANES.are_in_mail(b"Subject: x\r\n\r\n" + text.encode())
    assert JANES.are_in({"a": [{"b": text}]})


@pytest.mark.parametrize(
    "text",
    [
        "mary.jane.doe@example.com", "mary-jane.doe@example.com", "mary_jane.doe@example.com", "xjane.doe@example.com",
        "jane.doe@example.com.au", "jane.doe@example.company", "jane.doe@example.com-shop.example", "jane.doe@mail.example.com",
        "u+aaaaaaaaaaaaaa-acme-12-mary.jane.doe_example.com@x.example", "acme-12-mary-jane.doe_example.com",
        "bounce+mary.jane.doe=example.com@x.example", "jane.doe", "example.com", "",
    ],
)  # fmt: skip
def test_somebody_elses_is_not_hers(text: str) -> None:
    assert not JANES.are_in(text)
    assert not JANES.are_in_mail(b"Subject: x\r\n\r\n" + text.encode())


@pytest.mark.parametrize("recipient", [JANE, "o'brien+news@example.com", "jö@xn--bcher-kva.example"])
def test_every_readable_tag_spells_it_and_no_stored_one(recipient: str) -> None:
    traces, tag = Traces(recipient, NAMES), Tag("acme", 1, recipient)
    readable, opaque = mint(KEYS, tag, AddressTemplate("", "x.example")), mint(KEYS, tag, TEMPLATE, opaque=True)
    assert (readable.stored, opaque.stored) == (False, True)

    assert traces.are_in(readable.address)
    assert not traces.are_in(opaque.address)


@pytest.mark.parametrize(
    "text",
    [
        "Jörg@Bücher.example",
        "JÖRG@BÜCHER.EXAMPLE",
        "jo\u0308rg@xn--bcher-kva.example",
        "j%C3%B6rg%40b%C3%BCcher.example",
    ],
)
def test_letters_outside_ascii_are_compared_as_people_see_them(text: str) -> None:
    assert UMLAUT.are_in(text)
    assert UMLAUT.are_in_mail(f"Subject: x\r\n\r\n{text}".encode())


def part(kind: str, encoding: str, content: bytes) -> bytes:
    return b"Content-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n%s" % (kind.encode(), encoding.encode(), content)


TEXT = f"please take me, that is {JANE}, off your list for good".encode()
BASE64 = part("text/plain", "base64", base64.encodebytes(TEXT))
QP = part("text/html", "quoted-printable", quopri.encodestring(b"<p>" + b"x" * 36 + TEXT))


@pytest.mark.parametrize(
    "raw",
    [
        BASE64, QP, b"Subject: =?utf-8?q?jane=2Edoe=40example=2Ecom?=\r\n\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + BASE64 + b"\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + part("message/rfc822", "7bit", BASE64) + b"\r\n--b--\r\n",
        b"Subject: x\r\n\r\n" + QP.partition(b"\r\n\r\n")[2],
    ],
)  # fmt: skip
def test_a_mails_own_encodings_hide_nothing(raw: bytes) -> None:
    assert JANE.encode() not in raw

    assert JANES.are_in_mail(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe\0", b"=?utf-8?b?!!!?=", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b"]
)
def test_a_broken_mail_spells_nobody_and_raises_nothing(raw: bytes) -> None:
    assert not JANES.are_in_mail(raw)


def test_a_jobs_requests_keep_their_shape_under_the_name() -> None:
    wish = {"sender": "acme", "recipient": JANE, "group": 12, "actor": "recipient"}
    other = wish | {"recipient": "mary.jane.doe@example.com"}

    told = JANES.without([{"key": "k", "requests": [wish, other], "evidence": {"said": f"from {JANE}"}}])

    name = NAMES("acme", JANE)
    assert told == [{"key": "k", "requests": [wish | {"recipient": name}, other], "evidence": {"said": GONE}}]


def test_a_request_that_nobody_can_read_loses_the_address_all_the_same() -> None:
    shouted = {"sender": "acme", "recipient": "Jane.Doe@EXAMPLE.com"}
    odd = [{"sender": 7, "recipient": JANE}, shouted, {"value": f"{{'to': '{JANE}'}}"}]

    assert not JANES.are_in(JANES.without(odd))
    assert JANES.without(odd)[1]["recipient"] == NAMES("acme", JANE)


def test_no_address_no_traces() -> None:
    with pytest.raises(Rejected):
        Traces("jane", NAMES)
