"""Amazon SNS's envelope: what a post says, whose topic it is, and whether Amazon signed it.

The signature proves only "some SNS topic": anybody's topic may post to any URL. So the topic must be one of ours before
the certificate is even asked for, and nothing of a post is ever used as a URL: the certificate's must equal, in host,
what the topic's region makes it; the one that confirms is built here, `SubscribeURL` is not read.

Limits: 2 MB (SNS sends 256 KB, JSON escapes lengthen it). Partitions aws, aws-cn and aws-us-gov.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from handlers.errors import PayloadInvalid, SignatureInvalid

Envelope = Mapping[str, str]  # the fields that are there, by SNS's names; Type and Message always are

NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION = "Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"
_CONFIRMED = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    SUBSCRIPTION: _CONFIRMED,
    UNSUBSCRIPTION: _CONFIRMED,
}
_FIELDS = {*_CONFIRMED, "Subject", "Signature", "SignatureVersion", "SigningCertURL"}
_DIGESTS: dict[str, SHA1 | SHA256] = {"1": SHA1(), "2": SHA256()}
_MAX_BYTES = 2 * 1024 * 1024
_LEAST_KEY_BITS = 2048

# Each is used with `fullmatch`: `$` would allow a trailing newline.
_TOPIC = re.compile(r"arn:(aws|aws-cn|aws-us-gov):sns:([a-z0-9-]{3,40}):[0-9]{12}:[A-Za-z0-9_-]{1,256}")
_CERTIFICATE = re.compile(r"https://(sns\.[a-z0-9-]{3,40}\.amazonaws\.com(?:\.cn)?)/[A-Za-z0-9_/-]{1,200}\.pem")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")
_TOKEN = re.compile(r"[!-~]{1,2048}")
_EPOCH, _MS = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)


def read_object(text: str | bytes, what: str) -> dict[str, Any]:
    """Return the JSON object that *text* is.

    Errors:  PayloadInvalid  anything else.    permanent
    """
    try:
        found = json.loads(text.decode() if isinstance(text, bytes) else text)
    except (ValueError, RecursionError):  # "from None": its message may quote what it read
        raise PayloadInvalid(f"{what} of {len(text)} characters: expected JSON") from None
    if not isinstance(found, dict):
        raise PayloadInvalid(f"{what} of {len(text)} characters: expected a JSON object")
    return found


def read_envelope(body: bytes) -> Envelope:
    """Return the fields that are there; null and an empty Subject count as absent. Nothing is proved yet.

    Errors:  SignatureInvalid  SES's notification without SNS's envelope: the subscription's setting is wrong.    permanent
             PayloadInvalid    anything else that is no SNS envelope.    permanent
    """
    if len(body) > _MAX_BYTES:
        raise PayloadInvalid(f"body of {len(body)} octets: expected at most {_MAX_BYTES}, SNS sends 256 KB")
    found = read_object(body, "body")
    if "Type" not in found and "notificationType" in found:
        raise RawDelivery()
    fields = {name: found[name] for name in _FIELDS if found.get(name) is not None}
    odd = sorted(name for name, value in fields.items() if not isinstance(value, str))
    if odd:
        raise PayloadInvalid(f"{', '.join(odd)}: expected strings")
    if not all(_is_unicode(value) for value in fields.values()):
        raise PayloadInvalid("half of a surrogate pair: expected text that has a UTF-8 form, as all that is signed has")
    if fields.get("Type") not in _SIGNED or "Message" not in fields:
        raise PayloadInvalid(f"no SNS envelope: expected Message, and as Type one of {', '.join(_SIGNED)}")
    return {name: value for name, value in fields.items() if value or name != "Subject"}


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)


class RawDelivery(SignatureInvalid):
    """SNS posts the bare message, unsigned."""

    def __init__(self) -> None:
        super().__init__(
            "no signature: raw message delivery is on for this subscription: switch it off, SNS does not sign it"
        )


def host_of(topic_arn: str) -> str:
    """Return the host of SNS in the region of *topic_arn*.

    Errors:  SignatureInvalid  no ARN of a topic, or one of an unknown partition.    permanent
    Example:
        >>> host_of("arn:aws-cn:sns:cn-north-1:111111111111:mail")
        'sns.cn-north-1.amazonaws.com.cn'
    """
    match = _TOPIC.fullmatch(topic_arn)
    if match is None:
        raise SignatureInvalid(
            f"TopicArn of {len(topic_arn)} characters: expected arn:aws:sns:REGION:ACCOUNT:TOPIC (or aws-cn, aws-us-gov)"
        )
    return f"sns.{match[2]}.amazonaws.com" + (".cn" if match[1] == "aws-cn" else "")


def certificate_url(envelope: Envelope) -> str:
    """Return where the certificate is: at SNS, in the topic's own region, and nothing but a host and a path.

    Errors:  SignatureInvalid  anywhere else.    permanent
    """
    url = envelope.get("SigningCertURL", "")
    match = _CERTIFICATE.fullmatch(url)
    host = host_of(envelope.get("TopicArn", ""))
    if match is None or match[1] != host:
        raise SignatureInvalid(f"SigningCertURL of {len(url)} characters: expected https://{host}/….pem")
    return url


def confirmation_url(envelope: Envelope) -> str:
    """Return the URL that confirms a subscription, of our own making.

    Errors:  PayloadInvalid  no usable Token.    permanent
    """
    token = envelope.get("Token", "")
    if not _TOKEN.fullmatch(token):
        raise PayloadInvalid(f"Token of {len(token)} characters: expected 1 to 2048 printable ones")
    topic = envelope.get("TopicArn", "")
    asked = f"Action=ConfirmSubscription&TopicArn={quote(topic, safe='')}&Token={quote(token, safe='')}"
    return f"https://{host_of(topic)}/?{asked}"


def signed_ms(envelope: Envelope, now_s: float, window_s: float) -> int:
    """Return when it was published, in ms; a retry says the same.

    Errors:  SignatureInvalid  no such time, or further than *window_s* from now.    permanent
    """
    text = envelope.get("Timestamp", "")
    try:
        at_ms = (datetime.fromisoformat(text) - _EPOCH) // _MS if _TIMESTAMP.fullmatch(text) else None
    except ValueError:
        at_ms = None
    if at_ms is None:
        raise SignatureInvalid(f"Timestamp of {len(text)} characters: expected e.g. 2026-11-01T08:00:01.000Z")
    away_s = abs(now_s - at_ms / 1000)
    if away_s > window_s:
        raise SignatureInvalid(f"Timestamp is {round(away_s)} s away, expected at most {window_s:.0f}")
    return at_ms


def public_key(certificate: bytes, now_s: float) -> RSAPublicKey:
    """Return the key of a PEM *certificate*. Its issuer is not looked at: it came by TLS from SNS's own host.

    Errors:  SignatureInvalid  no certificate, not in its dates, or its key is not RSA of 2048 bits or more.    permanent
    """
    try:
        read = x509.load_pem_x509_certificate(certificate)
        key = read.public_key()
        first, last = read.not_valid_before_utc.timestamp(), read.not_valid_after_utc.timestamp()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureInvalid(f"certificate of {len(certificate)} octets: expected PEM of an RSA key") from error
    if not first <= now_s <= last:
        raise SignatureInvalid("certificate: not valid today, look at this machine's clock")
    if not isinstance(key, RSAPublicKey) or key.key_size < _LEAST_KEY_BITS:
        raise SignatureInvalid(f"certificate: expected an RSA key of at least {_LEAST_KEY_BITS} bits")
    return key


def require_signature(envelope: Envelope, key: RSAPublicKey) -> None:
    """Return if *key* signed *envelope*.

    Errors:  SignatureInvalid  it did not, or by another scheme than versions 1 (SHA-1) and 2 (SHA-256).    permanent
    """
    digest = _DIGESTS.get(envelope.get("SignatureVersion", ""))
    if digest is None:
        raise SignatureInvalid("SignatureVersion: expected 1 or 2")
    try:
        signature = base64.b64decode("".join(envelope.get("Signature", "").split()), validate=True)
        key.verify(signature, _canonical(envelope), PKCS1v15(), digest)
    except (InvalidSignature, UnsupportedAlgorithm, binascii.Error, ValueError):
        raise SignatureInvalid("Signature: not made by the key of the certificate over this message") from None


def _canonical(envelope: Envelope) -> bytes:
    lines = (f"{name}\n{envelope[name]}\n" for name in _SIGNED[envelope["Type"]] if name in envelope)
    return "".join(lines).encode()
