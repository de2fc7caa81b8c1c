"""SendGrid Inbound Parse: a multipart form, raw (`email`) or parsed (`headers`, `text`).

Proofs: the public key of a security policy (base64 DER, ECDSA P-256 over timestamp and body), or `basic:USER:PASSWORD`
in the URL. Only 5xx is retried, for three days, then the mail is gone in silence; so a wrong secret, which may be
ours, answers 503.
"""

import base64
import binascii
import json
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from handlers.errors import PayloadInvalid, SignatureInvalid
from handlers.providers.form import read_multipart
from handlers.providers.webhook import Codes, Headers, ProviderMessage, fresh_ms, shared_secret_matches, single

CODES = Codes(ack=200, retry=503, drop=200, auth_fail=503)
_WINDOW_S = 3 * 86400  # whether a retry is signed anew is not documented
_SIGNATURE = "x-twilio-email-event-webhook-signature"
_TIMESTAMP = "x-twilio-email-event-webhook-timestamp"


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return the signed time in ms, None for basic authentication.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if shared_secret_matches(headers, proofs):
        return None
    signature, timestamp = single(headers, _SIGNATURE), single(headers, _TIMESTAMP)
    if not (signature and timestamp):
        raise SignatureInvalid(f"no proof: expected the headers {_SIGNATURE} and {_TIMESTAMP}, or Authorization")
    signed = timestamp.encode("latin-1", "replace") + body
    keys = [proof for proof in proofs if not proof.startswith(("basic:", "bearer:"))]
    if not any(_verifies(key, signature, signed) for key in keys):
        raise SignatureInvalid("signature matches none of the configured public keys")
    return fresh_ms(timestamp, now_s, _WINDOW_S)


def _verifies(public_key: str, signature: str, signed: bytes) -> bool:
    try:
        key = load_der_public_key(base64.b64decode(public_key, validate=True))
        if not isinstance(key, EllipticCurvePublicKey):
            return False
        key.verify(base64.b64decode(signature, validate=True), signed, ECDSA(SHA256()))
    except (InvalidSignature, UnsupportedAlgorithm, binascii.Error, ValueError):
        return False
    return True


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return one message per envelope recipient; one without when a trimming relay dropped the envelope.

    Errors:  PayloadInvalid  not a form, no message in it, or an envelope of another shape.    permanent
    """
    fields = read_multipart(",".join(headers.get("content-type", [])), body)
    if "email" in fields:
        raw = fields["email"]
    elif "headers" in fields:
        raw = fields["headers"].rstrip(b"\r\n") + b"\r\n\r\n" + fields.get("text", b"")
    else:
        raise PayloadInvalid(f"form of {len(fields)} fields: expected email (raw mode) or headers (parsed mode)")
    if "envelope" not in fields:
        if not (fields.get("email") or fields.get("headers", b"").strip()):
            raise PayloadInvalid("form without envelope and without headers: expected a recipient somewhere")
        return [ProviderMessage(raw, None, None)]
    recipients, sender = _envelope(fields["envelope"])
    return [ProviderMessage(raw, recipient, sender) for recipient in recipients]


def _envelope(field: bytes) -> tuple[list[str], str | None]:
    try:
        envelope: Any = json.loads(field.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise PayloadInvalid(f"envelope of {len(field)} octets: expected JSON") from error
    recipients = envelope.get("to") if isinstance(envelope, dict) else None
    if not isinstance(recipients, list) or not recipients or not all(isinstance(each, str) for each in recipients):
        raise PayloadInvalid(f"envelope of {len(field)} octets: expected an object with an array of addresses in to")
    sender = envelope.get("from")
    return recipients, sender if isinstance(sender, str) else None
