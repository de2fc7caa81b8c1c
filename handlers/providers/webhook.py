"""What every webhook has: headers, answer codes, and the proofs that need no scheme of a provider's own."""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from handlers.errors import SignatureInvalid

Headers = Mapping[str, Sequence[str]]  # lower-case name -> every value, latin-1


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
    """Compare in constant time, on bytes: `compare_digest` refuses text outside ASCII."""
    left, right = (text.encode("utf-8", "surrogateescape") for text in (given, expected))
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
