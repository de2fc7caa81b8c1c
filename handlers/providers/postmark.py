"""Postmark inbound: a JSON object, with the message itself in `RawEmail` when "Include raw email content" is on.

Proof: `basic:USER:PASSWORD` in the URL; Postmark signs nothing. `RawEmail` is JSON text, so octets outside UTF-8 are lost
before they reach us; the tag is not among them. Without it, Headers and TextBody are read, and the fields that Postmark
takes out of Headers (From, To, Cc, Subject, Date, ReplyTo) are put back.
"""

from collections.abc import Iterator
from typing import Any

from handlers.errors import PayloadInvalid
from handlers.providers.webhook import (
    Codes,
    Headers,
    ProviderMessage,
    address_of,
    bare,
    encoded,
    is_text,
    letter,
    read_object,
    require_shared_secret,
    text_of,
)

# Every code but 200 and 403 is retried, ten times over ten hours.
# https://postmarkapp.com/developer/user-guide/inbound/parse-an-email
CODES = Codes(ack=200, retry=503, drop=403, auth_fail=401)
_CHECK = "00000000-0000-0000-0000-000000000000"  # MessageID of what the dashboard's Check button sends
_MOVED = (
    ("From", "From"),
    ("To", "To"),
    ("Cc", "Cc"),
    ("Subject", "Subject"),
    ("Date", "Date"),
    ("Reply-To", "ReplyTo"),
)


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return None: basic authentication has no time.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    require_shared_secret(headers, proofs)
    return None


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return the message for its envelope recipient; none for the dashboard's Check.

    Errors:  PayloadInvalid  no inbound mail, no recipient, or fields of another type.    permanent
    """
    post = read_object(body)
    kind = text_of(post, "RecordType")
    if kind not in ("", "Inbound"):
        raise PayloadInvalid(f"RecordType {kind[:20]!r}: an event webhook, expected the inbound stream's webhook")
    if text_of(post, "MessageID") == _CHECK:
        return []
    recipient = address_of(post, "OriginalRecipient")
    listed = {name: _people(post, name) for name in ("To", "Cc", "Bcc")}
    if not recipient and not any(listed.values()):
        raise PayloadInvalid("OriginalRecipient: missing, and nobody in ToFull, expected one of them")
    fields = _headers(post)
    raw = text_of(post, "RawEmail")
    sender = bare(fields[0][1]) if fields and fields[0][0].lower() == "return-path" else None
    whole = encoded(raw) if raw else _letter(post, fields, listed)
    return [ProviderMessage(whole, recipient or None, sender)]


def _headers(post: dict[str, Any]) -> list[tuple[str, str]]:
    """The fields of Headers, without a Return-Path further down: the first is Postmark's, a later one the author's."""
    listed = post.get("Headers")
    if not isinstance(listed, list | None):
        raise PayloadInvalid("Headers: expected an array of Name and Value")
    pairs = [(each.get("Name"), each.get("Value")) for each in listed or [] if isinstance(each, dict)]
    good = [(name, value) for name, value in pairs if is_text(name) and is_text(value)]
    return [pair for number, pair in enumerate(good) if number == 0 or pair[0].lower() != "return-path"]


def _people(post: dict[str, Any], name: str) -> str:
    """The addresses of ToFull, CcFull or BccFull, "" when there are none; what is not an address is left out."""
    listed = post.get(f"{name}Full")
    people = [each.get("Email") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return ", ".join(email for email in people if is_text(email) and email)


def _letter(post: dict[str, Any], fields: list[tuple[str, str]], listed: dict[str, str]) -> bytes:
    return letter([*fields, *_moved(post, fields, listed)], text_of(post, "TextBody"), text_of(post, "HtmlBody"))


def _moved(post: dict[str, Any], fields: list[tuple[str, str]], listed: dict[str, str]) -> Iterator[tuple[str, str]]:
    present = {name.lower() for name, _ in fields}
    author = post.get("FromFull")
    full = listed | {"From": text_of(author, "Email") if isinstance(author, dict) else ""}
    for header, name in _MOVED:
        value = text_of(post, name) or full.get(name, "")
        if value and header.lower() not in present:
            yield header, value
    if listed["Bcc"]:
        yield "Apparently-To", listed["Bcc"]  # recipients that no header names: a candidate like To, nothing more
