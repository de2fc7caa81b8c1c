"""What every webhook has: headers, answer codes, the proofs that need no scheme of a provider's own, JSON, and letters.

A letter is what a provider that took the mail apart still tells of it, as header and text.
"""

import base64
import binascii
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeGuard

from handlers import mime
from handlers.errors import PayloadInvalid, SignatureInvalid

Headers = Mapping[str, Sequence[str]]  # lower-case name -> every value, latin-1

_FIELD_NAME = re.compile(r"[!-9;-~]+")
_LINE_BREAKS = re.compile(r"[\r\n\0]+")
NO_KEYS = ("basic:", "basic-sha256:", "bearer:", "bearer-sha256:", "header:", "token:", "api:")
_DESCRIBE_PARTS = ("content-type", "content-transfer-encoding")
_MEANS_MORE = re.compile(r"multipart/report|text/calendar|message/.*")  # what decisions read out of a Content-Type


@dataclass(frozen=True, slots=True)
class Codes:
    """A provider's four answers: accepted, try again, give up, and authentication failed."""

    ack: int
    retry: int
    drop: int
    auth_fail: int


@dataclass(frozen=True, slots=True)
class ProviderMessage:
    """One message for one envelope recipient.

    Shape:   raw: the message's exact bytes, or the header block as the provider gives it. envelope_to: None = not told.
             envelope_from: "" = null sender, None = not told.
    """

    raw: bytes
    envelope_to: str | None
    envelope_from: str | None


def single(headers: Headers, name: str) -> str:
    """Return the one value of header *name*, "" when it is missing.

    Errors:  SignatureInvalid  it is repeated: which one was signed?    permanent
    """
    values = headers.get(name, [])
    if len(values) > 1:
        raise SignatureInvalid(f"header {name}: sent {len(values)} times, expected once")
    return values[0] if values else ""


def shared_secret_matches(headers: Headers, proofs: Sequence[str]) -> bool:
    """Say whether the Authorization header is one of the `basic:user:password` or `bearer:token` proofs, or of their
    digests, `basic-sha256:HEX` and `bearer-sha256:HEX`."""
    scheme, _, text = single(headers, "authorization").partition(" ")
    kind = scheme.lower()
    given = {"bearer": text.strip(), "basic": _basic(text)}.get(kind, "")
    digest = sha256(given.encode("utf-8", "surrogateescape")).hexdigest() if given else ""
    matches = False
    for proof in proofs:
        name, _, expected = proof.partition(":")
        matches |= (name == kind and same(given, expected)) or (name == f"{kind}-sha256" and same(digest, expected))
    return matches


def _basic(given: str) -> str:
    try:
        return base64.b64decode(given, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""


def same(given: str, expected: str) -> bool:
    """Compare in constant time, on bytes: text outside ASCII is refused by `compare_digest`, and JSON can spell half a letter."""
    left, right = (text.encode("utf-8", "surrogatepass") for text in (given, expected))
    return bool(expected) and hmac.compare_digest(left, right)


def fresh_ms(timestamp: str, now_s: float, window_s: float) -> int:
    """Return *timestamp* (Unix seconds, as signed) in ms.

    Errors:  SignatureInvalid  no number, or further than *window_s* from now.    permanent
    """
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12):
        raise SignatureInvalid(f"timestamp of {len(timestamp)} characters: expected Unix seconds")
    if abs(now_s - int(timestamp)) > window_s:
        raise SignatureInvalid(
            f"timestamp is {round(abs(now_s - int(timestamp)))} s away, expected at most {window_s:.0f}"
        )
    return int(timestamp) * 1000


def require_shared_secret(headers: Headers, proofs: Sequence[str]) -> None:
    """For a provider that signs nothing: basic authentication is its only proof.

    Errors:  SignatureInvalid  Authorization is none of *proofs*.    permanent
    """
    if not shared_secret_matches(headers, proofs):
        raise SignatureInvalid("no proof: expected Authorization, from user:password@ in the URL given to the provider")


def signing_keys(proofs: Iterable[str]) -> list[str]:
    """Return those of *proofs* that are keys of the provider's own scheme: an empty key would be everybody's."""
    return [proof for proof in proofs if proof and not proof.startswith(NO_KEYS)]


def content_type(headers: Headers) -> str:
    """Return Content-Type as sent; repeated ones joined, so that they name no type."""
    return ",".join(headers.get("content-type", []))


def is_json(headers: Headers, body: bytes) -> bool:
    """Say whether *body* is JSON: by Content-Type, and where that is missing or wrong by its first octet."""
    return "json" in content_type(headers).lower() or body[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")


def read_json(body: bytes) -> Any:
    """Return what the JSON text *body* says. Octets that are no UTF-8 become U+FFFD: they are seldom in the address.

    Errors:  PayloadInvalid  no JSON, nested too deep, or a number of thousands of digits.    permanent
    """
    try:
        return json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError) as error:
        raise PayloadInvalid(f"body of {len(body)} octets: expected JSON") from error


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object *body*.

    Errors:  PayloadInvalid  any other JSON, or none.    permanent
    """
    value = read_json(body)
    if not isinstance(value, dict):
        raise PayloadInvalid(f"body of {len(body)} octets: expected a JSON object, found {_kind(value)}")
    return value


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return the text field *name*, "" when it is missing or null.

    Errors:  PayloadInvalid  it is of another type.    permanent
    """
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PayloadInvalid(f"{name}: expected text, found {_kind(value)}")
    return value


def address_of(fields: Mapping[str, Any], name: str) -> str:
    """Return the address in field *name* without brackets, "" when it is missing, null or `<>`.

    Errors:  PayloadInvalid  another type, or half a surrogate pair, which no address has.    permanent
    """
    value = bare(text_of(fields, name))
    if not is_text(value):
        raise PayloadInvalid(f"{name}: expected an address, found half a surrogate pair in it")
    return value


def sender_of(fields: Mapping[str, Any], name: str) -> str | None:
    """Return the envelope sender in field *name*: "" for `<>`, None where it is missing or no text."""
    value = fields.get(name)
    return bare(value) if isinstance(value, str) and is_text(value) else None


def is_text(value: Any) -> TypeGuard[str]:
    """Say whether *value* is text that can be encoded; JSON can also write half a surrogate pair."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def bare(address: str) -> str:
    """Return *address* without the brackets and spaces around it."""
    return address.strip("<> \t\r\n")


def encoded(text: str) -> bytes:
    """Return *text* as UTF-8. Half a surrogate pair (a text cut inside an emoji) becomes "?": it must not cost the mail."""
    return text.encode("utf-8", "replace")


def letter(fields: Iterable[tuple[Any, Any]], text: str, html: str = "") -> bytes:
    """Return header and text of a message that its provider took apart.

    Shape:   fields: name and value in order; what is not a field (another type, a name with a colon) is left out.
             text: decoded; html: taken where there is no text.
    Why:     a line break in a value would begin a field of the author's choice. Content-Type and transfer encoding
             described octets that are gone: they now say what stands below, except where the type itself says that
             a machine wrote this.
    """
    lines, described = [], ""
    for name, value in fields:
        if not (isinstance(name, str) and isinstance(value, str) and _FIELD_NAME.fullmatch(name)):
            continue
        if name.lower() not in _DESCRIBE_PARTS:
            lines.append(f"{name}: {_LINE_BREAKS.sub(' ', value)}\r\n")
        elif name.lower() == "content-type":
            described = described or _LINE_BREAKS.sub(" ", value)  # the topmost counts
    kind = "plain" if text.strip() or not html else "html"
    means_more = _MEANS_MORE.fullmatch(mime.content_type((("content-type", described),)).name)
    lines.append(f"Content-Type: {described if means_more else f'text/{kind}; charset=utf-8'}\r\n")
    return encoded("".join(lines) + "\r\n" + (text if kind == "plain" else html))


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
