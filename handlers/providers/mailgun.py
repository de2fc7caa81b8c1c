"""Mailgun routes: a form, raw (`body-mime`; the URL must end in /mime) or parsed (`message-headers`, `body-plain`).

Proofs: the account's HTTP webhook signing key (HMAC-SHA256 over timestamp and token), or `basic:USER:PASSWORD` in the URL.
The signature does not cover the body: whoever sees one post could sign any body for half a day. So a token is good for
one body (`handlers.providers.delivery`); and only the signed tag in an address asks for anything.

Every header of the mail is also a field of the form (`From` beside `from`), so a sender can add `Recipient` or `Token`:
names are matched exactly, of a repeated one the last counts, and two recipients are refused.
"""

import hmac
from hashlib import sha256
from typing import Any

from handlers.errors import PayloadInvalid, SignatureInvalid
from handlers.providers.form import read_form
from handlers.providers.webhook import (
    Codes,
    Headers,
    ProviderMessage,
    bare,
    fresh_ms,
    is_json,
    letter,
    read_json,
    same,
    shared_secret_matches,
    signing_keys,
)

# Every code but 200 and 406 is retried, for eight hours.
# https://documentation.mailgun.com/docs/mailgun/user-manual/receive-forward-store/receive-http
CODES = Codes(ack=200, retry=503, drop=406, auth_fail=401)
_WINDOW_S = 12 * 3600  # whether a retry is dated anew is not documented
_CONTENT = ("body-mime", "message-headers", "body-plain", "body-html", "message-url")
_MISROUTED = "JSON, as event webhooks are: expected what forward() of a route posts; remove this URL from the webhooks"


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return the signed time in ms, None for basic authentication.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
             PayloadInvalid    a broken form, or JSON: no mail, whoever signed it.    permanent
    """
    if shared_secret_matches(headers, proofs):
        return None
    fields = _fields(headers, body)
    timestamp, token, signature = (fields.get(name, b"") for name in ("timestamp", "token", "signature"))
    if not (timestamp and token and signature):
        raise SignatureInvalid("no proof: expected the fields timestamp, token and signature, or Authorization")
    keys = [key.encode("utf-8", "surrogateescape") for key in signing_keys(proofs)]
    expected = [hmac.digest(key, timestamp + token, sha256).hex() for key in keys]
    given = signature.decode("latin-1")
    if not any(same(given, good) for good in expected):
        raise SignatureInvalid("signature matches none of the configured signing keys")
    return fresh_ms(timestamp.decode("latin-1"), now_s, _WINDOW_S)


def token(headers: Headers, body: bytes) -> str:
    """Return the token that the signature of a verified post covers: one body may come with it, however often."""
    return _fields(headers, body).get("token", b"").decode("latin-1")


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return one message per envelope recipient.

    Errors:  PayloadInvalid  no form, no message in it, no recipient, or two fields of that name.    permanent
    """
    fields = _fields(headers, body)
    recipients = [bare(each) for each in fields.get("recipient", b"").decode("utf-8", "replace").split(",")]
    if not any(recipients):
        raise PayloadInvalid(f"form of {len(fields)} fields: expected the field recipient")
    if not any(name in fields for name in _CONTENT):
        raise PayloadInvalid(f"form of {len(fields)} fields: expected body-mime (raw mode) or message-headers")
    raw = fields["body-mime"] if "body-mime" in fields else _parsed(fields)
    sender = bare(fields["sender"].decode("utf-8", "replace")) if "sender" in fields else None
    return [ProviderMessage(raw, recipient, sender) for recipient in recipients if recipient]


def _fields(headers: Headers, body: bytes) -> dict[str, bytes]:
    if is_json(headers, body):
        raise PayloadInvalid(_MISROUTED)
    pairs = read_form(headers, body)
    if sum(name == "recipient" for name, _ in pairs) > 1:
        raise PayloadInvalid("form with two fields recipient: expected one, the other may be a header of the mail")
    return dict(pairs)


def _parsed(fields: dict[str, bytes]) -> bytes:
    text, html = (fields.get(name, b"").decode("utf-8", "replace") for name in ("body-plain", "body-html"))
    if "message-headers" not in fields:  # store(notify=…) of a message too large to post
        named = ((name, fields.get(name, b"").decode("utf-8", "replace")) for name in ("from", "subject"))
        return letter([pair for pair in named if pair[1]], text, html)
    listed: Any = read_json(fields["message-headers"])
    if not isinstance(listed, list):
        raise PayloadInvalid("message-headers: expected an array of name and value")
    return letter([tuple(pair) for pair in listed if isinstance(pair, list) and len(pair) == 2], text, html)
