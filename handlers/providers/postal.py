"""Postal (self-hosted), an HTTP endpoint: format RawMessage (`message` in base64) or Hash, as JSON or as a form.

Proofs: the installation's public key (RSA over the body), as PEM or as base64 of its DER (what stands behind `p=` in the
output of `postal default-dkim-record`), or `basic:USER:PASSWORD` in the URL. It is never fetched from anywhere.

A 4xx bounces to the subscriber and a 5xx is tried again for a day (the manual says the opposite of the source), so a
wrong key, which may be ours, answers 503.
"""

import base64
import binascii
import re
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from handlers.errors import PayloadInvalid, SignatureInvalid
from handlers.providers.form import read_form
from handlers.providers.webhook import (
    Codes,
    Headers,
    ProviderMessage,
    address_of,
    encoded,
    is_json,
    letter,
    read_object,
    sender_of,
    shared_secret_matches,
    signing_keys,
    single,
    text_of,
)

# https://github.com/postalserver/postal/blob/main/app/senders/http_sender.rb
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=503)
_SHA256 = "x-postal-signature-256"
_SHA1 = "x-postal-signature"
_PEM_LINE = re.compile(r"-----[A-Z ]+-----|\\n|\s")
_FIELDS = (
    ("Message-ID", "message_id"), ("From", "from"), ("To", "to"), ("Cc", "cc"), ("Reply-To", "reply_to"), ("Date", "date"),
    ("Subject", "subject"), ("In-Reply-To", "in_reply_to"), ("References", "references"),
    ("Auto-Submitted", "auto_submitted"),
)  # fmt: skip


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return None: neither Postal's signature nor basic authentication has a time.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    if shared_secret_matches(headers, proofs):
        return None
    # A server that sends -256 is judged by it alone: a good SHA-1 must not save a bad one.
    name, algorithm = (_SHA256, SHA256()) if headers.get(_SHA256) else (_SHA1, SHA1())
    signature = single(headers, name)
    if not signature:
        raise SignatureInvalid(f"no proof: expected the header {_SHA256}, or Authorization")
    if not any(_verifies(key, signature, body, algorithm) for key in signing_keys(proofs)):
        raise SignatureInvalid(f"{name} matches none of the configured public keys")
    return None


def _verifies(public_key: str, signature: str, body: bytes, algorithm: HashAlgorithm) -> bool:
    letters = _PEM_LINE.sub("", public_key).removeprefix("p=").rstrip(";")
    try:
        key = load_der_public_key(base64.b64decode(letters, validate=True))
        if not isinstance(key, RSAPublicKey):
            return False
        key.verify(base64.b64decode(signature, validate=True), body, PKCS1v15(), algorithm)
    except (InvalidSignature, UnsupportedAlgorithm, binascii.Error, ValueError):
        return False
    return True


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return the message for its envelope recipient.

    Errors:  PayloadInvalid  an event webhook, no recipient, no message, or fields of another type.    permanent
    """
    post = read_object(body) if is_json(headers, body) else _form(headers, body)
    if "event" in post and "payload" in post:
        raise PayloadInvalid("an event webhook of Postal: expected an HTTP endpoint that a route leads to")
    recipient = address_of(post, "rcpt_to")
    if not recipient:
        raise PayloadInvalid(f"post of {len(post)} fields: expected rcpt_to")
    return [ProviderMessage(_raw(post), recipient, sender_of(post, "mail_from"))]


def _form(headers: Headers, body: bytes) -> dict[str, Any]:
    return {name: value.decode("utf-8", "replace") for name, value in reversed(read_form(headers, body))}


def _raw(post: dict[str, Any]) -> bytes:
    if "message" in post:
        return _message(text_of(post, "message"), base64_encoded=post.get("base64", True))
    if not any(name in post for name in ("subject", "message_id", "plain_body", "html_body")):
        raise PayloadInvalid(f"post of {len(post)} fields: expected message (RawMessage) or plain_body (Hash)")
    fields = [(header, _joined(post.get(name))) for header, name in _FIELDS]
    return letter([pair for pair in fields if pair[1]], text_of(post, "plain_body"), text_of(post, "html_body"))


def _message(text: str, *, base64_encoded: Any) -> bytes:
    if base64_encoded in (False, "false", "0"):
        raw = encoded(text)
    else:
        try:
            raw = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise PayloadInvalid(f"message of {len(text)} characters: expected base64") from error
    if not raw.strip():
        raise PayloadInvalid("message of 0 octets: expected a mail")
    return raw


def _joined(value: Any) -> str:
    """A field of Hash: text, or several (reply_to); of what is neither, nothing."""
    values = value if isinstance(value, list) else [value]
    return ", ".join(each for each in values if isinstance(each, str))
