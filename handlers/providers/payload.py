"""What posted JSON and forms need before anybody reads their meaning: odd values made harmless, headers made a block.

A wrong type is `PayloadInvalid`, never another exception. What only looks odd costs nobody a mail: octets outside UTF-8
come out as they went in, half an emoji becomes U+FFFD, and a number too long for Python is just no text.
"""

import binascii
import hmac
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from handlers.errors import PayloadInvalid, SignatureInvalid
from handlers.providers.webhook import Headers, ProviderMessage, same, signing_keys, single

_MAX_FIELDS = 500
_MAX_DIGITS = 19  # int() refuses 4,300, and no id has more
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # the others are octets that were no UTF-8
_FIELD_NAME = re.compile(r"[!-9;-~]+")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_LINE_END = re.compile(r"[\r\n]+")
_TAKEN_APART = re.compile(r"\s*(?:text|multipart/(?:alternative|mixed|related|signed))\b", re.I)


class OtherEvent(PayloadInvalid):
    """An event webhook that was pointed here: no mail, and a set-up to put right."""


# -- octets into values


def read_json(body: bytes) -> Any:
    """Return the JSON of *body*.

    Errors:  PayloadInvalid  no JSON, or nested too deep.    permanent
    Example:
        >>> read_json(b'{"to": ["a@b"], "n": ' + b"9" * 5000 + b"}")
        {'to': ['a@b'], 'n': inf}
    """
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    try:
        return json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise PayloadInvalid(f"body of {len(body)} octets: expected JSON") from error


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def read_urlencoded(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the fields of a urlencoded form in order, exact bytes.

    Errors:  PayloadInvalid  more than 500 fields, or a % without its two digits.    permanent
    Example:
        >>> read_urlencoded(b"a=%ff+b&c")
        [(b'a', b'\\xff b'), (b'c', b'')]
    """
    if body.count(b"&") >= _MAX_FIELDS:
        raise PayloadInvalid(f"form: expected at most {_MAX_FIELDS} fields")
    if _BROKEN_ESCAPE.search(body):
        raise PayloadInvalid(f"form of {len(body)} octets: expected two hex digits behind every %")
    pairs = (pair.partition(b"=") for pair in body.split(b"&") if pair)
    return [(_unquoted(name), _unquoted(value)) for name, _, value in pairs]


def _unquoted(given: bytes) -> bytes:
    # Quoted-printable with another sign. urllib makes an object of every escape: 60 MB of them, from anybody, before
    # any signature is checked, took 15 s and 5 GB (measured).
    return binascii.a2b_qp(given.replace(b"=", b"=3D").replace(b"+", b" ").replace(b"%", b"="))


# -- values into what they should be


def as_object(value: Any) -> dict[str, Any]:
    """Return *value* if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_text(value: Any) -> str:
    """Return *value* if it is text, else ""."""
    return value if isinstance(value, str) else ""


def octets(value: Any) -> bytes:
    """Return a payload's text in UTF-8, b"" if it is none; what was no UTF-8 when it came goes out unchanged."""
    return _LONE_SURROGATE.sub("\ufffd", as_text(value)).encode("utf-8", "surrogateescape")


def address(value: str) -> str:
    """Return an envelope address without its angle brackets; "" is the null sender."""
    return _SURROGATE.sub("\ufffd", value).strip("<> \t\r\n")


def sender(value: Any) -> str | None:
    """Return an envelope sender: "" = null sender, None = not told."""
    return address(value) if isinstance(value, str) else None


def recipients(value: Any) -> list[str]:
    """Return the addresses of an envelope field, each once: a text or a list of texts. [] = not told.

    Errors:  PayloadInvalid  there is something, and nothing of it is text.    permanent
    Example:
        >>> recipients(["<a@b>", 42, "c@d", "a@b"]), recipients(None), recipients("")
        (['a@b', 'c@d'], [], [])
    """
    values = value if isinstance(value, list) else [] if value is None else [value]
    texts = [each for each in values if isinstance(each, str)]
    if values and not texts:
        raise PayloadInvalid(f"envelope recipient of type {type(values[0]).__name__}: expected an address")
    return [each for each in dict.fromkeys(map(address, texts)) if each]


# -- values into messages


def messages(raw: bytes, envelope_to: Sequence[str], envelope_from: str | None) -> list[ProviderMessage]:
    """Return *raw* once per envelope recipient; once without one when none was told, then its header names candidates."""
    told: Sequence[str | None] = envelope_to or [None]
    return [ProviderMessage(raw, each, envelope_from) for each in told]


def read_each(elements: Iterable[Any], read_one: Callable[[Any], list[ProviderMessage]]) -> list[ProviderMessage]:
    """Return the messages of a batch, each element judged alone.

    Errors:  PayloadInvalid  nothing in it is usable: the first reason.    permanent
    Why:     the provider hears one answer for all. An unreadable element beside good ones is handed on as it came, so
             that a person finds it in the quarantine; other events are no mail and are left out.
    """
    found: list[ProviderMessage] = []
    unreadable: list[ProviderMessage] = []
    reasons: list[PayloadInvalid] = []
    usable = False
    for element in elements:
        try:
            found += read_one(element)
            usable = True
        except OtherEvent as error:
            reasons.append(error)
        except PayloadInvalid as error:
            reasons.append(error)
            unreadable.append(ProviderMessage(_as_it_came(element), None, None))
    if reasons and not usable:
        raise reasons[0]
    return found + unreadable


def _as_it_came(element: Any) -> bytes:
    try:
        return json.dumps(element).encode()
    except RecursionError:
        return b"an element that is nested too deep to be shown"


def other_event(kind: Any, expected: str) -> PayloadInvalid:
    """Return the error for an event that is no mail; something without a name is not even an event."""
    if isinstance(kind, str):
        return OtherEvent(f"event {kind[:30]!r}: expected {expected}")
    return PayloadInvalid(f"event of type {type(kind).__name__}: expected {expected}")


def header_pairs(headers: Any) -> list[tuple[str, str]]:
    """Return the lines of parsed headers: {name: text or list of texts}, or a list of such objects."""
    pairs: list[tuple[str, str]] = []
    for each in headers if isinstance(headers, list) else [headers]:
        for name, value in as_object(each).items():
            pairs += [(name, one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return pairs


def with_missing(pairs: list[tuple[str, str]], told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return *pairs* and, of what the provider tells beside the headers, what is not among them."""
    present = {name.lower() for name, _ in pairs}
    texts = [(name, as_text(value)) for name, value in told.items() if name.lower() not in present]
    return pairs + [(name, text) for name, text in texts if text]


def parsed(pairs: Iterable[tuple[str, str]], text: Any, html: Any = None) -> bytes:
    """Return a header block and its text, for a provider that gives no raw message.

    Errors:  PayloadInvalid  neither a header nor text.    permanent
    Why:     no MIME is rebuilt. The type and encoding of a body that the provider took apart would misname the text that
             is left; the type of a report stays, because it says what the mail is.
    """
    kept = [(name, value) for name, value in pairs if _FIELD_NAME.fullmatch(name) and not _of_the_body(name, value)]
    body, kind = (as_text(text), "plain") if as_text(text) or not as_text(html) else (html, "html")
    if not (kept or body):
        raise PayloadInvalid("message without raw, headers and text: expected one of them")
    if not any(name.lower() == "content-type" for name, _ in kept):
        kept.append(("Content-Type", f"text/{kind}; charset=utf-8"))
    lines = [f"{name}: {_LINE_END.sub(' ', value)}" for name, value in kept]
    return octets("\r\n".join([*lines, "", body]))


def _of_the_body(name: str, value: str) -> bool:
    lower = name.lower()
    return lower == "content-transfer-encoding" or (lower == "content-type" and bool(_TAKEN_APART.match(value)))


# -- proofs


def verify_body_hmac(headers: Headers, name: str, body: bytes, proofs: Iterable[str]) -> None:
    """Check that header *name* is the hex HMAC-SHA256 of *body* under one of *proofs*; either letter case.

    Errors:  SignatureInvalid  missing, repeated, or of no configured key.    permanent
    """
    given = single(headers, name)
    if not given:
        raise SignatureInvalid(f"no proof: expected the header {name}, or Authorization")
    keys = [proof.encode("utf-8", "surrogateescape") for proof in signing_keys(proofs)]
    if not any(same(given.lower(), hmac.digest(key, body, sha256).hex()) for key in keys):
        raise SignatureInvalid(f"{name}: matches none of {len(keys)} configured keys")


def secret_header_matches(headers: Headers, proofs: Iterable[str]) -> bool:
    """Say whether a request header is what one of the `header:NAME:VALUE` proofs says."""
    matches = False
    for proof in proofs:
        kind, _, rest = proof.partition(":")
        name, _, expected = rest.partition(":")
        if kind == "header":
            matches |= same(single(headers, name.lower()), expected)
    return matches
