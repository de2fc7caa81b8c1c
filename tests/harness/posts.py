"""Webhook posts as providers send them: bodies and proofs."""

import base64
import hmac
import json
import secrets
import time
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

RELAY_SECRET = "whsec_" + base64.b64encode(b"what the mail server's script signs with").decode()
SENDGRID_KEY = generate_private_key(SECP256R1())
MAILGUN_KEY = "the-account's-HTTP-webhook-signing-key"
POSTAL_KEY = generate_rsa_key(65537, 2048)
POSTAL_PEM = POSTAL_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
JSON = {"Content-Type": "application/json"}
RFC822 = {"Content-Type": "message/rfc822"}
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
FORM = {"Content-Type": "multipart/form-data; boundary=xYzZY"}


def basic(user_and_password: str, charset: str = "utf-8") -> dict[str, str]:
    """Return the header of basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(user_and_password.encode(charset)).decode()}


def relay(body: bytes, secret: str = RELAY_SECRET, *, message_id: str = "", age_s: int = 0) -> dict[str, str]:
    """Return the headers of a signed relay post; each a delivery of its own unless *message_id* says otherwise."""
    message_id = message_id or f"msg_{secrets.token_hex(8)}"
    timestamp = str(int(time.time()) - age_s)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, sha256)).decode()
    signed = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}
    return RFC822 | signed


def public(key: EllipticCurvePrivateKey) -> str:
    """Return the public key as SendGrid shows it and UNSUBD_IN_SENDGRID takes it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def sendgrid(body: bytes, key: EllipticCurvePrivateKey = SENDGRID_KEY, *, age_s: int = 0) -> dict[str, str]:
    """Return the headers of a signed SendGrid post."""
    timestamp = str(int(time.time()) - age_s)
    signature = base64.b64encode(key.sign(timestamp.encode() + body, ECDSA(SHA256()))).decode()
    name = "X-Twilio-Email-Event-Webhook"
    return FORM | {f"{name}-Signature": signature, f"{name}-Timestamp": timestamp}


def form(**fields: Any) -> bytes:
    """Return a multipart body; a value that is no bytes is sent as JSON."""
    parts = []
    for name, value in fields.items():
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        parts.append(b'--xYzZY\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), content))
    return b"".join([*parts, b"--xYzZY--\r\n"])


def envelope(*recipients: str, sender: str = "someone@example.net") -> dict[str, Any]:
    """Return SendGrid's envelope field."""
    return {"to": list(recipients), "from": sender}


def mailgun(*, age_s: int = 0, key: str = MAILGUN_KEY, **fields: Any) -> bytes:
    """Return the urlencoded body of a signed Mailgun post; an underscore in a name is a hyphen."""
    timestamp, token = str(int(time.time()) - age_s), secrets.token_hex(25)  # one token comes with one body
    signature = hmac.digest(key.encode(), (timestamp + token).encode(), sha256).hex()
    signed = {"timestamp": timestamp, "token": token, "signature": signature}
    return urlencode({name.replace("_", "-"): value for name, value in fields.items()} | signed).encode()


def postal(body: bytes) -> dict[str, str]:
    """Return the headers of a signed Postal post."""
    signature = base64.b64encode(POSTAL_KEY.sign(body, PKCS1v15(), SHA256())).decode()
    return JSON | {"X-Postal-Signature-256": signature}


def of(provider: str, raw: bytes, recipient: str) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a provider's post of the message *raw* for *recipient*."""
    match provider:
        case "mailgun":
            return mailgun(recipient=recipient, sender="x@example.net", body_mime=raw), URLENCODED
        case "postmark":
            post = {"OriginalRecipient": recipient, "RawEmail": raw.decode(), "MessageID": "1", "Headers": []}
            return json.dumps(post).encode(), JSON | basic("postmark:pass")
        case "postal":
            post = {"rcpt_to": recipient, "message": base64.encodebytes(raw).decode(), "base64": True}
            body = json.dumps(post).encode()
            return body, postal(body)
        case "cloudmailin":
            return form(**{"message": raw, "envelope[to]": recipient.encode()}), FORM | basic("cloudmailin:pass")
        case "sendgrid":
            body = form(email=raw, envelope=envelope(recipient))
            return body, sendgrid(body)
    return raw, relay(raw) | {"X-Envelope-To": recipient}
