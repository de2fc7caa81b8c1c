"""The signed relay: a mail server's script posts the message itself, byte for byte.

Proofs: `whsec_…` (Standard Webhooks over id.timestamp.body), `bearer:TOKEN`, `basic:USER:PASSWORD`.
Envelope: request headers `X-Envelope-To` (repeatable) and `X-Envelope-From`, or lines prepended to the message above its
first Received: X-Original-To or Delivered-To, and Return-Path. The request headers are not part of what Standard
Webhooks signs; that is harmless, because the tag in the envelope recipient is itself signed.
"""

from handlers import message
from handlers.errors import ContentTypeInvalid, PayloadInvalid
from handlers.providers.standard_webhook import verify_signed
from handlers.providers.webhook import Codes, Headers, ProviderMessage, shared_secret_matches

# A 4xx is repeated by the MTA until its queue life ends and then bounces to the subscriber: give up with 200.
CODES = Codes(ack=204, retry=503, drop=200, auth_fail=401)
_WINDOW_S = 3600  # the relay signs anew at each attempt; an hour forgives bad clocks


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return the signed time in ms, None for a proof without one.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if shared_secret_matches(headers, proofs):
        return None
    return verify_signed(headers, body, proofs, now_s, prefix="webhook", window_s=_WINDOW_S)


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
