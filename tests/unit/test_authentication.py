"""Who wrote it: the author of From, and which Authentication-Results are believed about that author."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.authentication import MICROSOFT_365, Proof, author, proves
from tests.unit.letters import read

JANE = "jane@example.com"
MX = "mx.acme.example"

AUTHORS = {
    "bare": (b"jane@example.com", JANE),
    "with a name": (b"Jane Doe <Jane@Example.COM>", JANE),
    "quoted name": (b'"Doe, Jane" <jane@example.com>', JANE),
    "an address as a name": (b'"boss@example.org" <jane@example.com>', JANE),
    "a quote in the name": (b'"a \\" b@c.example" <jane@example.com>', JANE),
    "comment": (b"jane@example.com (Jane, at work)", JANE),
    "comment with an address": (b"(boss@example.org) jane@example.com", JANE),
    "nested comment": (b"jane@example.com (a (b) \\) c)", JANE),
    "encoded name": (b"=?utf-8?q?Doe,_J=C3=A4ne?= <jane@example.com>", JANE),
    "UTF-8 name": ("Jäne <jane@example.com>".encode(), JANE),
    "latin-1 name": ("Jäne <jane@example.com>".encode("latin-1"), JANE),
    "folded": (b"Jane Doe\n <jane@example.com>", JANE),
    "UTF-8 local part": ("jäne@example.com".encode(), "jäne@example.com"),
    "IDN": ("jane@bücher.example".encode(), "jane@xn--bcher-kva.example"),
    "quoted local part": (b'<"jane"@example.com>', '"jane"@example.com'),
    # whom other software may read differently
    "empty": (b"", None),
    "no address": (b"Jane", None),
    "null": (b"<>", None),
    "two mailboxes": (b"jane@example.com, john@example.com", None),
    "the same twice": (b"jane@example.com, jane@example.com", None),
    "two in brackets": (b"<jane@example.com> <john@example.com>", None),
    "an unquoted address as a name": (b"boss@example.org <jane@example.com>", None),
    "behind the brackets": (b"<jane@example.com> boss@example.org", None),
    "group": (b"Friends: jane@example.com;", None),
    "empty group": (b"Undisclosed:;", None),
    "route": (b"<@relay.example:jane@example.com>", None),
    "unclosed comment": (b"jane@example.com (Jane", None),
    "unclosed quote": (b'"Jane <jane@example.com>', None),
    "unclosed bracket": (b"<jane@example.com", None),
    "spaces": (b"jane @example.com", None),
    "two at signs": (b"jane@x@example.com", None),
    "encoded address": (b"=?utf-8?q?jane=40example.com?=", None),
    "latin-1 local part": ("jäne@example.com".encode("latin-1"), None),
    "impossible domain": (b"jane@exa!mple", None),
    "very long": (b"a" * 5000 + b"@example.com", None),
}


@pytest.mark.parametrize("form", AUTHORS)
def test_author(form: str) -> None:
    value, expected = AUTHORS[form]

    assert author(read(b"From: " + value + b"\nTo: x@y.example\n\n")) == expected


@pytest.mark.parametrize(
    "header", ["", "From: jane@example.com\nFrom: jane@example.com\n", "Sender: jane@example.com\n"]
)
def test_there_is_exactly_one_from(header: str) -> None:
    assert author(read(f"{header}To: x@y.example\n\n")) is None


def test_a_second_from_may_lie_beyond_the_look() -> None:
    assert author(read("From: jane@example.com\n", size_bytes=100_000)) is None


# --- forms of Authentication-Results: all lines our own, in the shape of the software named

OPENDMARC = f"""\
Received: from localhost by {MX} (Postfix) with LMTP id 1
DMARC-Filter: OpenDMARC Filter v1.4.2 {MX} 4bX
Authentication-Results: {MX}; dmarc=pass (p=none dis=none) header.from=example.com
Authentication-Results: {MX}; spf=pass smtp.mailfrom=example.com
DKIM-Filter: OpenDKIM Filter v2.11.0 {MX} 4bX
Authentication-Results: {MX};
\tdkim=pass (2048-bit key; unprotected) header.d=example.com header.i=@example.com header.b="ab/c+d=="; dkim-atps=neutral
Received: from out.example.com by {MX}
"""
GMAIL = f"""\
Delivered-To: unsub@acme.example
Received: by 2002:a05:6a10 with SMTP id x1
ARC-Authentication-Results: i=1; {MX}; dmarc=fail header.from=example.com
Authentication-Results: {MX};
       dkim=pass header.i=@example.com header.s=s1 header.b=AbC12345;
       spf=pass (google.com: domain of jane@example.com designates 192.0.2.1 as permitted sender) smtp.mailfrom=jane@example.com;
       dmarc=pass (p=NONE sp=QUARANTINE dis=NONE) header.from=example.com;
       dara=pass header.i=@acme.example
"""
MICROSOFT = """\
Authentication-Results: spf=pass (sender IP is 192.0.2.1)
 smtp.mailfrom=example.com; dkim=pass (signature was verified)
 header.d=example.com;dmarc=pass action=none
 header.from=example.com;compauth=pass reason=100
"""
RSPAMD = f"""\
Authentication-Results: {MX};
\tdkim=pass header.d=example.com header.s=s1 header.b="X/y=";
\tdmarc=pass (policy=reject) header.from=example.com;
\tspf=pass ({MX}: domain of jane@example.com designates 192.0.2.1 as permitted sender) smtp.mailfrom=jane@example.com;
\tarc=none ("no (signatures)")
"""
EXIM = f"""\
Authentication-Results: {MX};
\tiprev=pass (out.example.com) smtp.remote-ip=192.0.2.1;
\tspf=pass smtp.mailfrom=example.com;
\tdkim=pass header.d=example.com header.s=s1 header.a=rsa-sha256;
\tdmarc=pass header.from=example.com
"""
FASTMAIL = f"""\
Authentication-Results: {MX};
    arc=none (no signatures found);
    dkim=pass (2048-bit rsa key sha256) header.d=example.com header.i=@example.com header.b=AbC= x-bits=2048;
    dmarc=pass policy.published-domain-policy=none policy.evaluated-disposition=none (p=none,d=none) header.from=example.com;
    iprev=pass smtp.remote-ip=192.0.2.1 (out.example.com);
    spf=pass smtp.mailfrom=jane@example.com smtp.helo=out.example.com
"""
FORMS = {
    "OpenDMARC and OpenDKIM": OPENDMARC, "Gmail": GMAIL, "rspamd": RSPAMD, "Exim": EXIM, "Fastmail": FASTMAIL,
}  # fmt: skip


def proof(headers: str, authserv_id: str = MX, of: str = JANE) -> Proof | None:
    """What these headers above a mail of Jane prove."""
    return proves(read(f"{headers}From: {JANE}\n\n"), authserv_id, of)


@pytest.mark.parametrize("form", FORMS)
def test_real_forms_are_read(form: str) -> None:
    assert proof(FORMS[form]) is Proof.DMARC
    assert proof(FORMS[form].replace("dmarc=pass", "dmarc=fail")) is None
    assert proof(FORMS[form].replace("dmarc=pass", "dmarc=none")) is Proof.DKIM
    assert proof(FORMS[form].replace("dmarc=pass", "dmarc=none").replace("dkim=pass", "dkim=fail")) is None
    assert proof(FORMS[form], of="jane@example.org") is None
    assert proof(FORMS[form], "mx.other.example") is None
    assert proof(FORMS[form], MX.upper()) is Proof.DMARC


def test_microsoft_365_counts_only_where_it_is_configured() -> None:
    assert proof(MICROSOFT, MICROSOFT_365) is Proof.DMARC
    assert proof(MICROSOFT) is proof(MICROSOFT, "") is proof(MICROSOFT, "spf=pass") is None
    assert proof(RSPAMD, MICROSOFT_365) is None
    assert (
        proof(f"Authentication-Results: {MICROSOFT_365}; dmarc=pass header.from=example.com\n", MICROSOFT_365) is None
    )


def results(*fields: str) -> str:
    """Header fields of our server."""
    return "".join(f"Authentication-Results: {MX}{field}\n" for field in fields)


PASS = "; dmarc=pass header.from=example.com"
DKIM = "; dkim=pass header.d=example.com"

BELIEVED = {
    "nothing": ("", None),
    "bare": (results(PASS), Proof.DMARC),
    "version": (results(" 1" + PASS), Proof.DMARC),
    "unknown version": (results(" 2" + PASS), None),
    "method version": (results("; dmarc/1 = pass header.from = example.com"), Proof.DMARC),
    "quoted id": (f'Authentication-Results: "{MX}"{PASS}\n', Proof.DMARC),
    "comments everywhere": (
        results(" (a (b)) ; (c) dmarc=pass (p=none; x=y) header.from=example.com (d)"),
        Proof.DMARC,
    ),
    "glued comment of the verdict": (results("; dmarc=pass(p=none) header.from=example.com"), Proof.DMARC),
    "semicolon at the end": (results(PASS + ";"), Proof.DMARC),
    "no results": (results("; none"), None),
    "other case": (results("; DMARC=Pass Header.From=EXAMPLE.com"), Proof.DMARC),
    "an address as header.from": (results("; dmarc=pass header.from=jane@example.com"), Proof.DMARC),
    "reason with a semicolon": (results('; dkim=fail reason="x; dmarc=fail"' + PASS), Proof.DMARC),
    # alignment
    "parent domain": (results("; dmarc=pass header.from=com"), None),
    "subdomain": (results("; dmarc=pass header.from=a.example.com"), None),
    "no header.from": (results("; dmarc=pass"), None),
    "DKIM alone": (results(DKIM), Proof.DKIM),
    "DKIM of a third party": (results("; dkim=pass header.d=mailer.example"), None),
    "one of two signatures": (results("; dkim=pass header.d=mailer.example" + DKIM), Proof.DKIM),
    "DKIM of a public suffix": (results("; dkim=pass header.d=com"), None),
    "DKIM by header.i": (results("; dkim=pass header.i=@example.com"), Proof.DKIM),
    "header.i does not outweigh header.d": (results("; dkim=pass header.i=@example.com header.d=mailer.example"), None),
    "DKIM in spite of DMARC": (results("; dmarc=fail header.from=example.com" + DKIM), None),
    "DKIM with a DMARC error": (results("; dmarc=temperror header.from=example.com" + DKIM), None),
    "no policy": (results("; dmarc=bestguesspass action=none header.from=example.com" + DKIM), Proof.DKIM),
    "SPF alone": (results("; spf=pass smtp.mailfrom=jane@example.com"), None),
    # several fields
    "two fields": (results(DKIM.replace("pass", "fail"), PASS), Proof.DMARC),
    "a verdict counts where it stands first": (results("; dmarc=fail header.from=example.com", PASS), None),
    "DKIM too": (results("; dkim=fail header.d=example.com", DKIM), None),
    "below a Received": (results("; spf=pass") + "Received: from x\n" + results(PASS), None),
    "below another server's": (
        results("; spf=pass") + f"Authentication-Results: x.example{PASS}\n" + results(PASS),
        None,
    ),
    "below an unreadable one": (results("; spf=pass") + "Authentication-Results: (\n" + results(PASS), None),
    "another server's on top": ("Authentication-Results: x.example; none\n" + results(PASS), None),
    "Microsoft's on top": (MICROSOFT + results(PASS), None),
    "two verdicts in one field": (results(PASS + PASS), None),
    # what a careless server passes on from the author
    "comment glued to a domain": (results("; dmarc=pass header.from=example.com(.evil.example)"), None),
    "quote glued to a domain": (results('; dkim=pass header.d=example.com".evil.example"'), None),
    "semicolon in a domain": (results("; dkim=pass header.d=example.com;.evil.example"), None),
    "space in a domain": (results("; dkim=pass header.d=example.com .evil.example"), None),
    "property twice": (results("; dmarc=pass header.from=evil.example header.from=example.com"), None),
    "unclosed comment": (results("; spf=pass (x" + PASS), None),
    "unclosed quote": (results('; spf=pass smtp.mailfrom="x' + PASS), None),
    "verdict in a quoted mailbox": (results(f'; spf=pass smtp.mailfrom="x{PASS}"@evil.example'), None),
    "verdict in a comment": (results(f"; spf=pass (x{PASS})"), None),
    "longer id": (f"Authentication-Results: {MX}.evil.example{PASS}\n", None),
    "id as a comment": (f"Authentication-Results: ({MX}) evil.example{PASS}\n", None),
    "no id": ("Authentication-Results: dmarc=pass header.from=example.com\n", None),
    "huge": (results("; x=y" * 5000 + PASS), None),
    "old header": (f"X-Authentication-Results: {MX}{PASS}\nARC-Authentication-Results: i=1; {MX}{PASS}\n", None),
}


@pytest.mark.parametrize("case", BELIEVED)
def test_what_is_believed(case: str) -> None:
    headers, expected = BELIEVED[case]

    assert proof(headers) is expected


def test_an_international_domain_is_compared_in_its_canonical_form() -> None:
    raw = results("; dmarc=pass header.from=BÜCHER.example") + "From: jane@bücher.example\n\n"

    assert proves(read(raw), MX, "jane@xn--bcher-kva.example") is None  # what is not ASCII in a header proves nothing
    ascii_raw = raw.replace("BÜCHER", "XN--BCHER-KVA")
    assert proves(read(ascii_raw), MX, author(read(ascii_raw)) or "") is Proof.DMARC


# --- hostile input

_TEXT = st.text(alphabet='ab=;()"\\ \t,<>@:.' + "1\x00é", max_size=200)


@given(_TEXT)
def test_no_field_raises(text: str) -> None:
    raw = f"Authentication-Results: {text}\nAuthentication-Results: {MX};{text}\nFrom: {text}\n\n".encode()

    assert proves(read(raw), MX, JANE) is None
    assert proves(read(raw), MICROSOFT_365, JANE) is None
    author(read(raw))


@given(st.binary(max_size=300))
def test_no_octets_raise(octets: bytes) -> None:
    author(read(b"From: " + octets))
    proves(read(b"Authentication-Results: " + MX.encode() + octets + b"\n"), MX, JANE)


@pytest.mark.parametrize(
    "unit", ["(", ")", '"', '\\"', '"\\', "a=", "=", "; a=b", "(a)", " ", "<", "a@", "=?", "?=", "\u00e9"]
)
def test_hostile_fields_take_linear_time(unit: str) -> None:
    long, many = unit * (16_000 // len(unit)), f"Authentication-Results: {MX}; {unit * 20}=x\n"
    raw = f"From: {long}\nAuthentication-Results: {MX}; {long}\n" + many * (200_000 // len(many))
    started = time.process_time()
    author(read(f"From: {long}\n\n"))
    proves(read(raw), MX, JANE)
    proves(read(many * (200_000 // len(many))), MX, JANE)

    assert time.process_time() - started < 3
