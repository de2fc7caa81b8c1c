"""Standard Webhooks, and Svix from which it came: HMAC-SHA256 over id.timestamp.body.

Proof: `whsec_` and the key in base64; a key without the prefix is valid too.
"""

import base64
import binascii
import hmac
from collections.abc import Sequence
from hashlib import sha256

from handlers.errors import SignatureInvalid
from handlers.providers.webhook import Headers, fresh_ms, same, signing_keys, single


def verify_signed(
    headers: Headers, body: bytes, proofs: Sequence[str], now_s: float, *, prefix: str, window_s: float
) -> int:
    """Return the signed time in ms.

    Shape:   prefix: of the three headers, "webhook" or "svix". The signature is a list: any equal v1 entry is enough.
    Errors:  SignatureInvalid  none of *proofs* holds, or the time is further than *window_s* from now.    permanent
    """
    names = (f"{prefix}-id", f"{prefix}-timestamp", f"{prefix}-signature")
    message_id, timestamp, signatures = (single(headers, name) for name in names)
    if not (message_id and timestamp and signatures):
        raise SignatureInvalid(f"no proof: expected the headers {', '.join(names)}, or Authorization")
    signed = f"{message_id}.{timestamp}.".encode("latin-1", "replace") + body
    expected = [_signature(proof, signed) for proof in signing_keys(proofs)]
    if not any(same(given, good) for given in signatures.split(" ") for good in expected):
        raise SignatureInvalid("signature matches none of the configured secrets")
    return fresh_ms(timestamp, now_s, window_s)


def _signature(secret: str, signed: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        return ""  # `same` never matches an empty expectation; an empty key would be everybody's
    return "v1," + base64.b64encode(hmac.digest(key, signed, sha256)).decode()
