"""Stamping: links where tags stand, in the part's own charset and encoding, and every other octet as it was."""

import base64
import quopri
import re
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import stamping
from handlers.errors import Rejected
from handlers.stamping import Link, Stamped
from handlers.stamping.coding import quoted

LINES = (
    ("List-Unsubscribe", "<mailto:u+x@unsub.example.com>, <https://unsub.example.com/u/x>"),
    ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
)
LINKS = {Link.OWN: "https://d/u/x?a&b", Link.EVERYTHING: "https://d/u/0", Link.PREFERENCES: "https://d/p/x"}
HEAD = b"From: a@example.com\r\nTo: Jane <jane@example.com>\r\nSubject: =?utf-8?q?Gr=C3=BC?=\r\n\tfolded\r\n"
ADDED = (
    b"List-Unsubscribe: <mailto:u+x@unsub.example.com>,\r\n <https://unsub.example.com/u/x>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
)


def stamped(raw: bytes, **facts: str) -> Stamped:
    return stamping.draft(raw, **facts).stamped(LINES, LINKS)


def letter(body: bytes, kind: str = "text/plain; charset=utf-8", encoding: str = "8bit") -> bytes:
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return HEAD + head.encode() + body


def body_of(raw: bytes) -> str:
    """What the standard library reads of a mail of one part."""
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return str(message.get_content())


# --- headers alone


@given(st.binary(max_size=200))
def test_without_a_tag_only_the_headers_are_added(body: bytes) -> None:
    raw = HEAD + b"\r\n" + body
    done = stamped(raw)

    if not re.search(rb"<%\s+%>", body):
        assert done.raw == HEAD + ADDED + b"\r\n" + body


@given(st.lists(st.binary(max_size=60), max_size=4), st.sampled_from([b"\r\n", b"\n"]))
def test_in_multiparts_too(bodies: list[bytes], line_end: bytes) -> None:
    parts = b"".join(b"--b" + line_end + b"Content-Type: text/html" + line_end * 2 + each + line_end for each in bodies)
    head = HEAD.replace(b"\r\n", line_end) + b"Content-Type: multipart/mixed; boundary=b" + line_end
    raw = head + line_end + parts + b"--b--" + line_end

    assert stamped(raw).raw == head + ADDED.replace(b"\r\n", line_end) + line_end + parts + b"--b--" + line_end


@pytest.mark.parametrize("raw", [HEAD, HEAD[:-2], HEAD + b"\r\n"])
def test_a_mail_without_a_body_gets_headers(raw: bytes) -> None:
    assert stamped(raw).raw == HEAD + ADDED + raw[len(HEAD) :]


def test_headers_of_the_mails_own_are_replaced_and_said_so() -> None:
    own = b"list-unsubscribe:\r\n <mailto:x@y.example>,\r\n\t<https://y.example>\r\nLIST-UNSUBSCRIBE-POST: no\r\n"
    done = stamped(b"X: 1\r\n" + own + HEAD + b"\r\nHi\r\n")

    assert done.raw == b"X: 1\r\n" + HEAD + ADDED + b"\r\nHi\r\n"
    assert done.warnings == ("List-Unsubscribe: the mail had its own already: replaced, there may be one",)
    assert stamped(done.raw).raw == done.raw


@pytest.mark.parametrize("raw", [b"", b"no header at all", b"\r\nbody", b"To: a@b.c\rSubject: x\r\rbody"])
def test_what_is_no_mail_is_refused(raw: bytes) -> None:
    with pytest.raises(Rejected, match="the mail: has no header"):
        stamping.draft(raw)


# --- the tags


TEXT = [
    ("[unsubscribe]", "https://d/u/x?a&b"),
    ("<% %>", "https://d/u/x?a&b"),
    ("{{{unsubscribe}}}", "https://d/u/x?a&b"),
    ("{{{unsubscribe_preferences}}}", "https://d/p/x"),
    ("<%asm_group_unsubscribe_raw_url%>", "https://d/u/x?a&b"),
    ("<%asm_group_unsubscribe_url%>", "Unsubscribe From This List: https://d/u/x?a&b"),
    ("<%asm_global_unsubscribe_raw_url%>", "https://d/u/0"),
    ("<%asm_global_unsubscribe_url%>", "Unsubscribe From All Emails: https://d/u/0"),
    ("<%asm_preferences_raw_url%>", "https://d/p/x"),
    ("<%asm_preferences_url%>", "Manage Email Preferences: https://d/p/x"),
    ("||bye||", "https://d/u/x?a&b"),
]
HTML = [
    ('<a href="[unsubscribe]">', '<a href="https://d/u/x?a&amp;b">'),
    ("<% Stop <b> %>", "<% Stop <b> %>"),
    ("<%  Stop it  %>", '<a href="https://d/u/x?a&amp;b">Stop it</a>'),
    ("<%asm_preferences_url%>", '<a href="https://d/p/x">Manage Email Preferences</a>'),
    ("<%asm_group_unsubscribe_raw_url%>", "https://d/u/x?a&amp;b"),
]
NO_TAGS = [
    "<%asm_group_unsubscribe_url %>",
    "<% asm",
    "[Unsubscribe]",
    "{{unsubscribe}}",
    "<%%>",
    "<%=x%>",
    "<%asm_x%>",
]


@pytest.mark.parametrize(("tag", "expected"), TEXT)
def test_a_tag_becomes_a_link_in_plain_text(tag: str, expected: str) -> None:
    done = stamped(letter(f"Stop: {tag}\r\nä\r\n".encode()), custom="||bye||")

    assert done.raw == letter(f"Stop: {expected}\r\nä\r\n".encode()).replace(
        b"\tfolded\r\n", b"\tfolded\r\n", 1
    ).replace(b"8bit\r\n", b"8bit\r\n" + ADDED)
    assert done.replaced == 1


@pytest.mark.parametrize(("tag", "expected"), HTML)
def test_a_tag_becomes_a_link_in_html(tag: str, expected: str) -> None:
    assert body_of(stamped(letter(f"<p>{tag}</p>".encode(), "text/html; charset=utf-8")).raw) == f"<p>{expected}</p>"


@pytest.mark.parametrize("text", [*NO_TAGS, "<% words %>"])
def test_what_is_nearly_a_tag_stays(text: str) -> None:
    assert stamped(letter(text.encode())).replaced == 0


def test_a_custom_tag_of_two_letters_is_refused() -> None:
    with pytest.raises(Rejected, match="at least 3 characters"):
        stamping.draft(letter(b"x"), custom="ab")


def test_only_links_that_are_wanted_are_asked_for() -> None:
    assert stamping.draft(letter(b"nothing")).wanted == frozenset()
    assert stamping.draft(letter(b"nothing"), footer_text="<%asm_preferences_url%>").wanted == {Link.PREFERENCES}
    assert stamping.draft(letter(b"<%asm_global_unsubscribe_url%>")).wanted == {Link.EVERYTHING}


# --- charsets and transfer encodings


@pytest.mark.parametrize(
    "charset", ["utf-8", "iso-8859-1", "windows-1252", "iso-2022-jp", "us-ascii", "nonsense", "utf-8x"]
)
@pytest.mark.parametrize("encoding", ["7bit", "8bit", "quoted-printable", "base64"])
@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_the_text_around_a_tag_stays_in_its_charset_and_encoding(charset: str, encoding: str, line_end: str) -> None:
    words = {"us-ascii": "gro", "iso-2022-jp": "日本語"}.get(charset, "größe äöü é")
    known = "utf-8" if charset in ("nonsense", "utf-8x") else charset
    text = f"{words} = . {line_end}From {'x' * 90} {line_end}{words}: [unsubscribe] {words}{line_end}"
    octets = text.encode(known)
    body = {"quoted-printable": quopri.encodestring, "base64": base64.encodebytes}.get(encoding, bytes)(octets)
    raw = letter(body, f'text/plain; charset="{charset}"', encoding).replace(b"\r\n", line_end.encode())

    done = stamped(raw.replace(b"\n", b"\n"))

    _, _, after = done.raw.partition(line_end.encode() * 2)
    decoded = {"quoted-printable": quopri.decodestring, "base64": base64.b64decode}.get(encoding, bytes)(after)
    assert decoded.decode(known) == text.replace("[unsubscribe]", LINKS[Link.OWN])
    assert done.replaced == 1
    assert max(map(len, after.split(b"\n"))) <= 150


@given(st.binary(max_size=300), st.sampled_from([b"\r\n", b"\n"]))
def test_quoted_printable_gives_back_every_octet(octets: bytes, mark: bytes) -> None:
    written = quoted(octets, mark)

    assert quopri.decodestring(written) == octets
    assert all(len(line) <= 76 and not line.endswith((b" ", b"\t")) for line in written.split(mark))
    assert written.isascii()


@pytest.mark.parametrize("encoding", ["base64", "x-uuencode"])
def test_what_cannot_be_decoded_is_left_alone_and_said_so(encoding: str) -> None:
    done = stamped(letter(b"[unsubscribe]!", encoding=encoding))

    assert done.raw.endswith(b"[unsubscribe]!")
    assert done.warnings == ("text/plain: left alone: its transfer encoding cannot be undone",)


# --- several parts


def mixed(*parts: bytes, kind: str = "multipart/mixed") -> bytes:
    joined = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    return HEAD + f'Content-Type: {kind}; boundary="b"\r\n\r\npreamble\r\n'.encode() + joined + b"--b--\r\nepilogue"


PLAIN = b"Content-Type: text/plain\r\n\r\nStop: [unsubscribe]"
MARKUP = b"Content-Type: text/html\r\n\r\n<p>[unsubscribe]</p>"


def test_each_part_gets_its_own_kind_of_link_and_all_else_stays() -> None:
    attached = b"Content-Type: text/plain\r\nContent-Disposition: attachment; filename=x\r\n\r\n[unsubscribe]"
    inner = b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\n[unsubscribe]"
    picture = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0K\r\n"
    raw = mixed(PLAIN, MARKUP, attached, inner, picture)

    done = stamped(raw)

    expected = raw.replace(PLAIN, PLAIN.replace(b"[unsubscribe]", b"https://d/u/x?a&b"), 1)
    expected = expected.replace(MARKUP, MARKUP.replace(b"[unsubscribe]", b"https://d/u/x?a&amp;b"))
    assert done.raw.replace(ADDED, b"") == expected
    assert (done.replaced, done.warnings) == (2, ())


@pytest.mark.parametrize(("kind", "word"), [("multipart/signed", "signed"), ("multipart/encrypted", "encrypted")])
def test_signed_and_encrypted_parts_stay_and_what_is_beside_them_does_not(kind: str, word: str) -> None:
    sealed = f"Content-Type: {kind}; boundary=s\r\n\r\n--s\r\n".encode() + PLAIN + b"\r\n--s--"
    done = stamped(mixed(PLAIN, sealed, MARKUP))

    assert sealed in done.raw
    assert (done.replaced, done.warnings) == (2, (f"{kind}: left alone: {word}",))
    whole = mixed(PLAIN, kind=kind)
    assert stamped(whole).raw.replace(ADDED, b"") == whole


@pytest.mark.parametrize("kind", ["application/pkcs7-mime", "application/x-pkcs7-mime"])
def test_smime_stays(kind: str) -> None:
    done = stamped(letter(b"[unsubscribe]", kind))

    assert done.raw.endswith(b"\r\n\r\n[unsubscribe]")
    assert done.warnings == (f"{kind}: left alone: signed or encrypted",)


def test_pgp_in_the_text_stays() -> None:
    done = stamped(letter(b"-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA256\r\n\r\n[unsubscribe]\r\n"))

    assert done.replaced == 0
    assert done.warnings == ("text/plain: left alone: signed or encrypted text (PGP)",)


def test_a_dkim_signature_is_warned_of() -> None:
    done = stamped(b"DKIM-Signature: v=1; h=from\r\n" + letter(b"[unsubscribe]"))

    assert [each.partition(":")[0] for each in done.warnings] == ["DKIM-Signature"]


def test_a_line_that_became_too_long_is_warned_of() -> None:
    [warning] = stamped(letter(b"x" * 990 + b"[unsubscribe]")).warnings

    assert warning.startswith("a line of 1007 octets")


def test_a_tag_that_a_soft_break_cuts_is_found() -> None:
    done = stamped(letter(b"gr=C3=B6=\r\n [unsub=\r\nscribe]\r\nEnd=20\r\n", encoding="quoted-printable"))

    assert body_of(done.raw) == "grö https://d/u/x?a&b\r\nEnd \r\n"


_PARTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["text/plain", "text/html; charset=utf-8", "text/calendar", "image/png", "application/pkcs7-mime"]
        ),
        st.binary(max_size=40).filter(lambda octets: b"--" not in octets),
        st.booleans(),
    ),
    max_size=5,
)


@given(_PARTS)
def test_outside_the_replaced_tags_every_octet_stays(parts: list[tuple[str, bytes, bool]]) -> None:
    def written(kind: str, octets: bytes, link: bytes) -> bytes:
        return f"Content-Type: {kind}\r\n\r\n".encode() + octets + link + octets

    def link_for(kind: str, tagged: bool) -> bytes:
        url = {"text/plain": b"https://d/u/x?a&b", "text/html; charset=utf-8": b"https://d/u/x?a&amp;b"}.get(kind)
        return (url or b"[unsubscribe]") if tagged else b""

    raw = mixed(*(written(kind, octets, b"[unsubscribe]" * tagged) for kind, octets, tagged in parts))

    done = stamped(raw)

    expected = mixed(*(written(kind, octets, link_for(kind, tagged)) for kind, octets, tagged in parts))
    assert done.raw.replace(ADDED, b"", 1) == expected


# --- the footer

FOOTERS = {"footer_text": "--\nStop: <% %>", "footer_html": "<p><% Stop ü %></p>"}


def test_the_footer_ends_each_kind_of_text_without_a_tag() -> None:
    html = b"Content-Type: text/html; charset=utf-8\r\n\r\n<html><body>Hi</body></html>"
    plain = b"Content-Type: text/plain\r\n\r\nHi"
    done = stamped(mixed(plain, html, plain), **FOOTERS)

    expected_html = html.replace(b"Hi", b'Hi<p><a href="https://d/u/x?a&amp;b">Stop &#252;</a></p>')
    expected = mixed(plain + b"\r\n--\r\nStop: https://d/u/x?a&b", expected_html, plain)
    assert done.raw.replace(ADDED, b"") == expected
    assert (done.footers, done.replaced) == (2, 0)


def test_where_a_tag_stands_there_is_no_footer() -> None:
    done = stamped(mixed(PLAIN, b"Content-Type: text/html\r\n\r\nHi"), **FOOTERS)

    assert done.footers == 1
    assert done.raw.count(b"https://d/u/x?a&b") == 1


def test_a_footer_that_the_charset_cannot_spell_is_said_so() -> None:
    done = stamped(letter(b"Hi\r\n", "text/plain; charset=iso-8859-1"), footer_text="日本 ü <% %>")

    assert done.raw.endswith("Hi\r\n?? ü https://d/u/x?a&b\r\n".encode("latin-1"))
    assert done.warnings == ("footer: 2 characters do not fit the charset of its part",)


def test_a_footer_in_base64_is_encoded() -> None:
    raw = letter(base64.encodebytes("größe".encode()), encoding="base64")

    assert body_of(stamped(raw, footer_text="ü <% %>").raw) == "größe\r\nü https://d/u/x?a&b"


# --- whom it goes to


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("jane@example.com", "jane@example.com"), ('"Doe, Jane" <jane@example.com>', "jane@example.com"),
        ("jane@example.com, Jane <jane@example.com>", "jane@example.com"), ("josé@example.com", "josé@example.com"),
    ],
)  # fmt: skip
def test_the_one_recipient_is_found(to: str, expected: str) -> None:
    assert stamping.draft(f"To: {to}\r\n\r\n".encode()).recipient() == expected


@pytest.mark.parametrize("head", ["X: y", "To: a@b.c, d@e.f", "To: a@b.c\r\nCc: d@e.f", "To: undisclosed-recipients:;"])
def test_several_recipients_are_refused(head: str) -> None:
    with pytest.raises(Rejected, match="addresses in To, Cc and Bcc, expected one"):
        stamping.draft(f"{head}\r\n\r\n".encode()).recipient()
