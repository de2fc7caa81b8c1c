"""The signed relay: a mail server's script posts the message itself, byte for byte.

Proofs: `whsec_…` (Standard Webhooks over id.timestamp.body), `bearer:TOKEN`, `basic:USER:PASSWORD`.
Envelope: request headers `X-Envelope-To` (repeatable) and `X-Envelope-From`, or lines prepended to the message above its
first Received: X-Original-To or Delivered-To, and Return-Path. The request headers are not part of what Standard
Webhooks signs; that is harmless, because the tag in the envelope recipient is itself signed.
"""

import base64
import binascii
import hmac
from hashlib import sha256

from handlers import message
from handlers.errors import ContentTypeInvalid, PayloadInvalid, SignatureInvalid
from handlers.providers.webhook import Codes, Headers, ProviderMessage, fresh_ms, same, shared_secret_matches, single

# A 4xx is repeated by the MTA until its queue life ends and then bounces to the subscriber: give up with 200.
CODES = Codes(ack=204, retry=503, drop=200, auth_fail=401)
_WINDOW_S = 3600  # the relay signs anew at each attempt; an hour forgives bad clocks


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return the signed time in ms, None for a proof without one.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if shared_secret_matches(headers, proofs):
        return None
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    message_id, timestamp, signatures = (single(headers, name) for name in names)
    if not (message_id and timestamp and signatures):
        raise SignatureInvalid(f"no proof: expected the headers {', '.join(names)}, or Authorization")
    signed = f"{message_id}.{timestamp}.".encode("latin-1", "replace") + body
    expected = [_signature(proof, signed) for proof in proofs if _is_signing_secret(proof)]
    if not any(same(given, good) for given in signatures.split(" ") for good in expected):
        raise SignatureInvalid("signature matches none of the configured secrets")
    return fresh_ms(timestamp, now_s, _WINDOW_S)


def _is_signing_secret(proof: str) -> bool:
    return not proof.startswith(("basic:", "bearer:"))


def _signature(secret: str, signed: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        return ""  # `same` never matches an empty expectation; an empty key would be everybody's
    return "v1," + base64.b64encode(hmac.digest(key, signed, sha256)).decode()


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return the message once per envelope recipient; once without one when the relay told none.

    Errors:  ContentTypeInvalid  not message/rfc822.    permanent
             PayloadInvalid      an empty body.    permanent
    """
    kind = ",".join(headers.get("content-type", [])).partition(";")[0].strip().lower()
    if kind != "message/rfc822":
        raise ContentTypeInvalid(f"content type {kind[:40]!r}: expected message/rfc822")
    if not body.strip():
        raise PayloadInvalid("body of 0 octets: expected a message")
    recipients: list[str | None] = [*headers.get("x-envelope-to", [])] or [*_prepended(body)]
    sender = next(iter(headers.get("x-envelope-from", [])), None)
    return [ProviderMessage(body, recipient, sender) for recipient in recipients or [None]]


def _prepended(body: bytes) -> list[str]:
    """The recipients in the lines above the first Received; X-Original-To, which is before aliasing, goes first."""
    found: dict[str, list[str]] = {"x-original-to": [], "delivered-to": []}
    parsed = message.read(body, source="relay")
    names = [name for name, _ in parsed.headers]
    above = parsed.headers[: names.index("received")] if "received" in names else ()
    for name, value in above:
        if name in found:
            found[name].append(value.strip("<> "))
    return list(dict.fromkeys(found["x-original-to"] or found["delivered-to"]))
