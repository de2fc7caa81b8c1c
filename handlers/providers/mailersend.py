"""MailerSend inbound routes: one JSON object with the raw message as text.

Proofs: the secret of the inbound route (HMAC-SHA256 of the body), which is not the webhooks' signing secret and changes
when the route's URL is edited; or `basic:USER:PASSWORD` in the URL.
Envelope: every `data.recipients.rcptTo[].email`; `data.sender.email`.
Limits:  MailerSend repeats nothing and waits 3 s, so an outage of ours loses mail: not recommended.
Unconfirmed: today's retry policy, and basic authentication in the URL.
"""

from typing import Any

from handlers.errors import PayloadInvalid
from handlers.providers import payload
from handlers.providers.webhook import Codes, Headers, ProviderMessage, shared_secret_matches

# https://developers.mailersend.com/
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=401)
_SIGNATURE = "signature"


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return None: neither proof signs a time.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if not shared_secret_matches(headers, proofs):
        payload.verify_body_hmac(headers, _SIGNATURE, body, proofs)
    return None


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return the message once per envelope recipient; once without one when none was told.

    Errors:  PayloadInvalid  no inbound.message, or no message in it.    permanent
    """
    event = payload.as_object(payload.read_json(body))
    if event.get("type") != "inbound.message":
        raise payload.other_event(event.get("type"), "inbound.message; this URL belongs in an inbound route")
    data = payload.as_object(event.get("data"))
    if not data:
        raise PayloadInvalid("inbound.message without data: expected a mail")
    envelope_to = _envelope_to(payload.as_object(data.get("recipients")).get("rcptTo"))
    return payload.messages(_raw(data), envelope_to, payload.sender(payload.as_object(data.get("sender")).get("email")))


def _envelope_to(told: Any) -> list[str]:
    if told is None or told == []:
        return []
    if not isinstance(told, list):
        raise PayloadInvalid(f"rcptTo of type {type(told).__name__}: expected an array of objects")
    return payload.recipients([payload.as_object(each).get("email") for each in told])


def _raw(data: dict[str, Any]) -> bytes:
    if raw := payload.octets(data.get("raw")):
        return raw
    told = {"From": payload.as_object(data.get("from")).get("email"), "Subject": data.get("subject"),
            "To": payload.as_object(payload.as_object(data.get("recipients")).get("to")).get("raw")}  # fmt: skip
    pairs = payload.with_missing(payload.header_pairs(data.get("headers")), told)
    return payload.parsed(pairs, data.get("text"), data.get("html"))
