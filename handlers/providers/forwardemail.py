"""Forward Email: one JSON object in mailparser's shape, with the raw message unless the alias says `?raw=false`.

Proofs: the domain's Webhook Signature Payload Verification Key (HMAC-SHA256 of the body), or `basic:USER:PASSWORD` in
the URL.
Envelope: `recipients`, several per post, else `session.recipient`; `session.sender`, else `session.mailFrom.address`.
Unconfirmed: which answers it repeats and for how long, so a wrong key, which may be ours, answers 503.
"""

from typing import Any

from handlers import mime
from handlers.errors import PayloadInvalid
from handlers.providers import payload
from handlers.providers.webhook import Codes, Headers, ProviderMessage, shared_secret_matches

# https://forwardemail.net/en/faq#do-you-support-webhooks
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=503)
_SIGNATURE = "x-webhook-signature"


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return None: neither proof signs a time.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if not shared_secret_matches(headers, proofs):
        payload.verify_body_hmac(headers, _SIGNATURE, body, proofs)
    return None


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return the message once per envelope recipient; once without one when none was told.

    Errors:  PayloadInvalid  no object, or no message in it.    permanent
    """
    mail = payload.as_object(payload.read_json(body))
    if not mail:
        raise PayloadInvalid(f"body of {len(body)} octets: expected an object")
    if not {"raw", "from", "recipients"} & set(mail):
        raise payload.OtherEvent(
            "object without raw, from and recipients: expected a mail; bounces belong in another URL"
        )
    session = payload.as_object(mail.get("session"))
    envelope_to = payload.recipients(mail.get("recipients")) or payload.recipients(session.get("recipient"))
    return payload.messages(_raw(mail), envelope_to, _sender(session))


def _raw(mail: dict[str, Any]) -> bytes:
    if raw := payload.octets(mail.get("raw")):
        return raw
    told = mail.get("headers")  # a string or an object
    pairs = list(mime.read_fields(payload.octets(told))) if isinstance(told, str) else payload.header_pairs(told)
    return payload.parsed(pairs, mail.get("text"), mail.get("html"))


def _sender(session: dict[str, Any]) -> str | None:
    """`mailFrom: null` may be the null sender or not told: None is the one that blocks no request."""
    told = [
        payload.sender(session.get("sender")),
        payload.sender(payload.as_object(session.get("mailFrom")).get("address")),
    ]
    return next((each for each in told if each), next((each for each in told if each is not None), None))
