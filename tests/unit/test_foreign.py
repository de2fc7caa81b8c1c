"""Addresses and subjects that other systems mailed: what matches, what counts, and what is a suggestion at most."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import Rejected
from handlers.foreign import (
    ForeignReading,
    ForeignRequest,
    ForeignToken,
    KnownRecipient,
    foreign_lookups,
    read_foreign,
    token_digest,
)
from handlers.pattern import Pattern
from handlers.sender_source import Kind, SenderSource, Trust, source_kind
from handlers.tag import Tag
from tests.unit.letters import read

MX = "mx.acme.example"
PASS = f"Authentication-Results: {MX}; dmarc=pass header.from=example.com\n"
FAIL = PASS.replace("pass", "fail")
FROM_JANE = "From: Jane <jane@example.com>\n"
JANE = "jane@example.com"
HASH = "0123456789abcdef"

FIXED = SenderSource("acme", Kind.ADDRESS, "unsubscribe@acme.example", 0, Trust.DMARC, MX)
CHOOSY = SenderSource("acme", Kind.ADDRESS, "unsubscribe@acme.example", 0, Trust.DMARC, MX, known_only=True)
VERP = SenderSource("acme", Kind.VERP, "list-unsubscribe-{user}={host}@acme.example", 4, Trust.DMARC, MX)
CIVI = SenderSource("civi", Kind.CIVICRM, "u.{job}.{queue}.{token}@civi.example", 5)
MAUTIC = SenderSource("mau", Kind.MAUTIC, "bounce+unsubscribe_{token}@m.example", 6)
SUBJECT = SenderSource("acme", Kind.SUBJECT, "unsubscribe:{token}", 7)
SOURCES = [FIXED, VERP, CIVI, MAUTIC, SUBJECT]


# --- patterns

MATCHES = {
    "u.{job}.{queue}.{token}@x.example": {
        f"u.1.22.{HASH}@x.example": {"job": "1", "queue": "22", "token": HASH},
        f"U.1.22.{HASH.upper()}@X.Example": {"job": "1", "queue": "22", "token": HASH.upper()},
        f"u.1.2.3.{HASH}@x.example": {"job": "1.2", "queue": "3", "token": HASH},
        f"u.1.{HASH}@x.example": None,
        f"u..1.{HASH}@x.example": None,
        f"u.1.2.@x.example{HASH}@x.example": None,
        f"xu.1.2.{HASH}@x.example": None,
        f"u.1.2.{HASH}@x.example.org": None,
    },
    "l-{user}={host}@x.example": {
        "l-jane=example.com@x.example": {"user": "jane", "host": "example.com"},
        "l-a=b=c.example@x.example": {"user": "a=b", "host": "c.example"},
        "l-=c.example@x.example": None,
        "l-jane=@x.example": None,
        "l-jane doe=c.example@x.example": None,
    },
    "unsubscribe:{token}": {
        "UNSUBSCRIBE:aBc": {"token": "aBc"},
        "unsubscribe: abc": None,
        "unsubscribe:": None,
        "unsubscribe:İstanbul": {"token": "İstanbul"},
    },
    "{token}@x.example": {"abc@x.example": {"token": "abc"}, "@x.example": None, "x.example": None},
}


@pytest.mark.parametrize(
    ("pattern", "text", "fields"), [(name, *case) for name, cases in MATCHES.items() for case in cases.items()]
)
def test_match(pattern: str, text: str, fields: dict[str, str] | None) -> None:
    assert Pattern.parse(pattern).match(text) == fields


@pytest.mark.parametrize(
    "text",
    ["", "x", "{}", "{token", "token}", "{a}{b}@x", "{a}.{a}@x", "{Token}@x", "{a}{{b}", "{a1}@x",
     ".".join(f"{{{c}}}" for c in "abcdefghi"),
     "{token}@" + "x" * 400, "(a+)+@x"],
)  # fmt: skip
def test_a_pattern_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match=r"^pattern .*expected"):
        Pattern.parse(text)


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_pattern_never_raises_anything_else(pattern: str, text: str) -> None:
    try:
        compiled = Pattern.parse(pattern)
    except Rejected:
        compiled = Pattern.parse("u.{a}.{b}-{token}@x")
    compiled.match(text)
    compiled.match("u." + text + "@x")


@given(st.lists(st.text("ab.-=", min_size=1, max_size=8), min_size=3, max_size=3))
def test_what_a_pattern_built_it_matches(values: list[str]) -> None:
    text = f"u.{values[0]}.{values[1]}/{values[2]}@x"

    fields = Pattern.parse("u.{a}.{b}/{c}@x").match(text) or {}

    assert f"u.{fields['a']}.{fields['b']}/{fields['c']}@x" == text


@pytest.mark.parametrize("unit", ["a=", "=", ".", "u.", "{"])
def test_a_match_takes_linear_time(unit: str) -> None:
    pattern = Pattern.parse("u.{a}={b}.{c}={d}.{e}={f}.{g}={token}@x")
    started = time.process_time()
    pattern.match("u." + unit * 500_000 + "@x")

    assert time.process_time() - started < 2


# --- sources


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("unsubscribe@x.example", Kind.ADDRESS), ("l-{user}={host}@x.example", Kind.VERP),
        ("u.{job}.{queue}.{token}@x.example", Kind.CIVICRM), ("b+unsubscribe_{token}@x.example", Kind.MAUTIC),
        ("u-{token}@x.example", Kind.LOOKUP), ("unsubscribe:{token}", Kind.SUBJECT),
    ],
)  # fmt: skip
def test_the_fields_suggest_the_kind(pattern: str, kind: Kind) -> None:
    assert source_kind(pattern) is kind
    assert SenderSource("acme", kind, pattern).checked()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (SenderSource("a", Kind.VERP, "u-{token}@x.example"), "expects an address with {host} and {user}"),
        (SenderSource("a", Kind.LOOKUP, "u-{user}@x.example"), "expects an address with {token}"),
        (SenderSource("a", Kind.LOOKUP, "u-{token}"), "expects an address with {token}"),
        (SenderSource("a", Kind.SUBJECT, "u-{token}@x.example"), "expects a subject with {token}"),
        (SenderSource("a", Kind.ADDRESS, "unsubscribe"), "expected local-part@domain"),
        (SenderSource("a", Kind.ADDRESS, "u@x.example", trust=Trust.DMARC), "authserv-id '': expected with trust dmarc"),
        (SenderSource("a", Kind.ADDRESS, "u@x.example", authserv_id="mx"), "authserv-id 'mx': expected with trust dmarc"),
        (SenderSource("a", Kind.LOOKUP, "{token}@x.example", 0, Trust.DMARC, "mx"), "its table proves a token"),
        (SenderSource("a", Kind.LOOKUP, "{token}@x.example", known_only=True), "its table proves a token"),
    ],
)  # fmt: skip
def test_a_source_is_refused(source: SenderSource, why: str) -> None:
    with pytest.raises(Rejected) as refused:
        source.checked()

    assert why in str(refused.value)


def test_a_source_survives_the_wire_and_keeps_its_id() -> None:
    for source in (*SOURCES, CHOOSY):
        assert SenderSource.from_wire(source.as_wire()) == source
    assert FIXED.id == CHOOSY.id != SenderSource("beta", Kind.ADDRESS, "unsubscribe@acme.example").id
    assert SenderSource("a", Kind.ADDRESS, "U@X.Example.").checked().pattern == "u@x.example"


# --- what an address that proves nothing by itself is worth


def reading(
    text: str, sources: list[SenderSource] = SOURCES, *present: KnownRecipient, **facts: object
) -> ForeignReading:
    return read_foreign(read(text, **facts), sources, dict.fromkeys(present, 1))


@pytest.mark.parametrize(
    ("to", "tag", "words"),
    [
        ("unsubscribe@acme.example", Tag("acme", 0, JANE), "fixed address"),
        ("<UNSUBSCRIBE@Acme.example.>", Tag("acme", 0, JANE), "fixed address"),
        ("mailto:unsubscribe@acme.example?subject=x", Tag("acme", 0, JANE), "fixed address"),
        ("list-unsubscribe-jane=example.com@acme.example", Tag("acme", 4, JANE), "plain VERP"),
        ("List-Unsubscribe-Jane%3Dexample.com@acme.example", Tag("acme", 4, JANE), "plain VERP"),
    ],
)
def test_a_proved_author_is_believed(to: str, tag: Tag, words: str) -> None:
    (request,) = reading(f"{PASS}{FROM_JANE}To: {to}\n\n").requests

    assert (request.tag, request.reason) == (tag, f"{words}, DMARC pass for its author")


UNPROVED = {
    "no result": (FROM_JANE, FIXED, JANE, "no trusted result proves its author"),
    "DMARC fail": (FAIL + FROM_JANE, FIXED, JANE, "no trusted result proves its author"),
    "forged below": (
        FAIL + "Received: from x\n" + PASS + FROM_JANE,
        FIXED,
        JANE,
        "no trusted result proves its author",
    ),
    "other server": (
        PASS.replace(MX, "mx.evil.example") + FROM_JANE,
        FIXED,
        JANE,
        "no trusted result proves its author",
    ),
    "other domain": (PASS + "From: a@evil.example\n", FIXED, "a@evil.example", "no trusted result proves its author"),
    "two From": (PASS + FROM_JANE * 2, FIXED, None, ""),
    "two authors": (PASS + "From: jane@example.com, a@example.com\n", FIXED, None, ""),
    "VERP of another": (PASS + "From: john@example.com\n", VERP, JANE, "its author is somebody else"),
    "VERP, two From": (PASS + FROM_JANE * 2, VERP, JANE, "From does not name exactly one author"),
    "VERP, unproved": (FROM_JANE, VERP, JANE, "no trusted result proves its author"),
    "unknown": (PASS + FROM_JANE, CHOOSY, JANE, "its author is not among the known recipients"),
    "no trust": (
        PASS + FROM_JANE,
        SenderSource("acme", Kind.ADDRESS, FIXED.pattern),
        JANE,
        "nothing proves who wrote it",
    ),
}


@pytest.mark.parametrize("case", UNPROVED)
def test_who_is_not_proved_is_suggested(case: str) -> None:
    headers, source, recipient, why = UNPROVED[case]
    to = "list-unsubscribe-jane=example.com@acme.example" if source is VERP else "unsubscribe@acme.example"

    found = reading(f"{headers}To: {to}\n\n", [source])

    assert found.requests == ()
    if recipient is None:
        assert found.suggestion is None
    else:
        assert found.suggestion
        assert found.suggestion.recipient == recipient
        assert found.suggestion.why == f"{source.kind.words}: {why}"
        assert "@" not in found.suggestion.why


def test_a_known_recipient_is_believed() -> None:
    text = f"{PASS}{FROM_JANE}To: unsubscribe@acme.example\n\n"
    key = KnownRecipient("acme", JANE)

    assert foreign_lookups(read(text), [CHOOSY]) == [key]
    assert reading(text, [CHOOSY], key).requests
    assert foreign_lookups(read(text), [FIXED]) == []
    assert foreign_lookups(read(text.replace("From: ", "From: x@y.example, ")), [CHOOSY]) == []


# --- opaque tokens


@pytest.mark.parametrize(
    ("source", "headers", "words"),
    [
        (CIVI, f"To: u.1.22.{HASH}@civi.example\n", "CiviCRM token"),
        (CIVI, f"To: U.1.22.{HASH.upper()}@civi.example\n", "CiviCRM token"),
        (CIVI, f"To: x@y.example\nDelivered-To: u.1.22.{HASH}@civi.example\n", "CiviCRM token"),
        (MAUTIC, f"To: bounce+unsubscribe_{HASH}@m.example\n", "Mautic token"),
        (MAUTIC, f"To: bounce unsubscribe_{HASH}@m.example\n", "Mautic token"),
        (MAUTIC, f"To: bounce%2Bunsubscribe_{HASH}@m.example\n", "Mautic token"),
        (SUBJECT, f"Subject: unsubscribe:{HASH}\n", "subject token"),
        (SUBJECT, "Subject: =?utf-8?b?dW5zdWJzY3JpYmU6MDEyMzQ1Njc4OWFiY2RlZg==?=\n", "subject token"),
    ],
)
def test_a_token_of_the_table_is_as_good_as_signed(source: SenderSource, headers: str, words: str) -> None:
    message = read(f"From: anybody@else.example\n{headers}\n")
    key = ForeignToken(source.sender, token_digest(HASH))

    assert key in foreign_lookups(message, SOURCES)
    found = read_foreign(message, SOURCES, {key: Tag(source.sender, 9, JANE)})
    assert [(each.tag, each.reason) for each in found.requests] == [
        (Tag(source.sender, 9, JANE), f"{words} of the imported table")
    ]
    unknown = read_foreign(message, SOURCES, {})
    assert unknown.requests == ()
    assert unknown.suggestion
    assert (unknown.suggestion.sender, unknown.suggestion.group) == (source.sender, source.group)


def test_a_token_of_another_senders_table_is_none() -> None:
    message = read(f"{FROM_JANE}To: u.1.22.{HASH}@civi.example\n\n")

    assert not read_foreign(message, SOURCES, {ForeignToken("mau", token_digest(HASH)): Tag("mau", 9, JANE)}).requests


# --- several at once


def test_every_identification_counts_but_the_envelope_stands_alone() -> None:
    other = SenderSource("beta", Kind.ADDRESS, "leave@beta.example", 0, Trust.DMARC, MX)
    text = f"{PASS}{FROM_JANE}To: leave@beta.example, unsubscribe@acme.example\n\n"
    sources = [*SOURCES, other]

    assert [each.tag.sender for each in reading(text, sources).requests] == ["beta", "acme"]
    assert [each.tag.sender for each in reading(text, sources, envelope_to="unsubscribe@acme.example").requests] == [
        "acme"
    ]
    assert reading(text, sources, envelope_to="unsubscribe@acme.example").requests[0] == ForeignRequest(
        Tag("acme", 0, JANE), "fixed address, DMARC pass for its author", "envelope", "", FIXED.id
    )


@pytest.mark.parametrize(
    "text", ["", FROM_JANE + "\n", f"{PASS}{FROM_JANE}To: news@acme.example\nSubject: unsubscribe\n\n"]
)
def test_what_is_not_configured_is_nothing(text: str) -> None:
    assert reading(text) == ForeignReading()
    assert foreign_lookups(read(text), SOURCES) == []
    assert reading(f"{PASS}{FROM_JANE}To: unsubscribe@acme.example\n\n", []) == ForeignReading()


# --- hostile input


@given(st.text(alphabet="ab=.@<>u:{}%2B+_ \té,", max_size=200))
def test_no_address_raises(text: str) -> None:
    message = read(f"{PASS}From: {text}\nTo: {text}\nSubject: unsubscribe:{text}\n\n", envelope_to=text)
    foreign_lookups(message, [*SOURCES, CHOOSY])
    read_foreign(message, [*SOURCES, CHOOSY], {})


@pytest.mark.parametrize(
    "address",
    ["list-unsubscribe-{}=example.com@acme.example", "list-unsubscribe-é{}=bücher.example@acme.example",
     "unsubscribe@acme.example",
     "u.1.2.{}@civi.example", "é{}@é.example", "<mailto:unsubscribe@acme.example?{}>"],
)  # fmt: skip
def test_hostile_recipients_take_bounded_time(address: str) -> None:
    many = "".join(f"To: {address.format(number)}\n" for number in range(4000))
    message = read(f"{PASS}From: {'(x)' * 5000} jane@example.com\n{many}\n".encode())
    started = time.process_time()
    foreign_lookups(message, [*SOURCES, CHOOSY])
    read_foreign(message, [*SOURCES, CHOOSY], {})

    assert time.process_time() - started < 3
