"""Amazon SES receipt rules, posted by SNS: JSON in a string in JSON, one notification per received mail.

Proofs: `arn:aws:sns:REGION:ACCOUNT:TOPIC` (at least one): the topics that may post here. SNS's signature is always
required. `basic:USER:PASSWORD` is required besides it, never instead, as soon as one is configured; of several one is
enough (rotation). Anything else among the proofs refuses every post: it would look like protection and be none.

The message is in `content` (action SNS), or in S3 (`stored_object`). Without it the header block stands for it: the tag
is in the envelope recipient, so nothing is lost. `mail.destination` is To and Cc, never who the mail was delivered to.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from handlers.errors import CredentialsMissing, PayloadInvalid, SignatureInvalid
from handlers.providers import sns
from handlers.providers.webhook import Codes, Headers, ProviderMessage, shared_secret_matches, single

# SNS repeats on 5xx and 429 only; a 4xx is final and the mail is gone. The exception, 401, asks for the URL's credentials:
# https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=503)
_WINDOW_S = 86400  # Timestamp is the time of publishing and stays so over an hour of retries
_HEADERS = (
    ("x-amz-sns-message-type", "Type"),
    ("x-amz-sns-message-id", "MessageId"),
    ("x-amz-sns-topic-arn", "TopicArn"),
)
_VALIDATED = "Successfully validated SNS topic"  # SES says so, in plain text, to a topic it was given
_WORD = re.compile(r"[A-Za-z]{1,30}(?: [A-Za-z]{1,30})?")
_FIELD_NAME = re.compile(r"[!-9;-~]+")
_BREAKS = re.compile(r"[\r\n\0]+[ \t]*")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")  # no ARN of an access point: that is another account's


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Where SES put the message. Shape: bucket: a name. key: up to 1,024 octets."""

    bucket: str
    key: str


def certificate_url(headers: Headers, body: bytes, proofs: Sequence[str], now_s: float) -> str:
    """Return where the certificate is that `verify` needs, once everything holds that can be judged without it.

    Errors:  CredentialsMissing  basic authentication is configured and none was sent: ask for it.    permanent
             SignatureInvalid    not our topic, stale, or a certificate elsewhere than at SNS.    permanent
             PayloadInvalid      no SNS envelope.    permanent
    """
    return sns.certificate_url(_judged(headers, body, proofs, now_s)[0])


def verify(headers: Headers, body: bytes, proofs: Sequence[str], now_s: float, certificate: bytes = b"") -> int:
    """Return the time of publishing in ms.

    Shape:   certificate: PEM, what `certificate_url` names.
    Errors:  those of `certificate_url`, and SignatureInvalid when the certificate's key did not sign it.    permanent
    """
    envelope, at_ms = _judged(headers, body, proofs, now_s)
    sns.certificate_url(envelope)
    if not certificate:
        raise SignatureInvalid("not checked: that needs the certificate, which nobody fetched")
    sns.require_signature(envelope, sns.public_key(certificate, now_s))
    return at_ms


def _judged(headers: Headers, body: bytes, proofs: Sequence[str], now_s: float) -> tuple[sns.Envelope, int]:
    topics = [proof for proof in proofs if proof.startswith("arn:")]
    _require_credentials(headers, [proof for proof in proofs if not proof.startswith("arn:")])
    if not topics:
        raise SignatureInvalid("no topic is configured: expected a proof arn:aws:sns:REGION:ACCOUNT:TOPIC")
    if single(headers, "x-amz-sns-rawdelivery").lower() == "true":
        raise sns.RawDelivery()
    envelope = sns.read_envelope(body)
    for header, field in _HEADERS:
        if header in headers and single(headers, header) != envelope.get(field):
            raise SignatureInvalid(f"header {header}: not the {field} of the body")
    if envelope.get("TopicArn") not in topics:
        raise SignatureInvalid(f"TopicArn: none of the {len(topics)} configured topics")
    return envelope, sns.signed_ms(envelope, now_s, _WINDOW_S)


def _require_credentials(headers: Headers, wanted: Sequence[str]) -> None:
    if not all(each.startswith(("basic:", "basic-sha256:")) for each in wanted):
        raise SignatureInvalid("a proof that is neither arn:aws:sns:REGION:ACCOUNT:TOPIC nor basic:USER:PASSWORD")
    if wanted and not headers.get("authorization"):
        raise CredentialsMissing(
            "no Authorization: expected https://USER:PASSWORD@HOST/… as the subscription's endpoint"
        )
    if wanted and not shared_secret_matches(headers, wanted):
        raise SignatureInvalid("Authorization: none of the configured users and passwords")


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return one message per envelope recipient; none for what SNS and SES say about the subscription itself.

    Errors:  PayloadInvalid  no notification of a received mail.    permanent
    """
    envelope = sns.read_envelope(body)
    if envelope["Type"] != sns.NOTIFICATION or envelope["Message"].startswith(_VALIDATED):
        return []
    notification = received(envelope)
    mail, receipt = (_object(notification, name) for name in ("mail", "receipt"))
    recipients = receipt.get("recipients")
    named = [each for each in recipients if isinstance(each, str)] if isinstance(recipients, list) else []
    if not named:
        raise PayloadInvalid("receipt.recipients: expected an array of addresses")
    content = notification.get("content")
    raw = _content(content, receipt) if isinstance(content, str) else _header_block(mail)
    sender = mail.get("source")
    return [ProviderMessage(raw, each, sender if isinstance(sender, str) else None) for each in dict.fromkeys(named)]


def stored_object(body: bytes) -> StoredObject | None:
    """Return where the message is in S3; None when it came with the notification, or nobody says where it is.

    Errors:  those of `read`.    permanent
    """
    envelope = sns.read_envelope(body)
    if envelope["Type"] != sns.NOTIFICATION or envelope["Message"].startswith(_VALIDATED):
        return None
    notification = received(envelope)
    action = _object(notification, "receipt").get("action")
    if not isinstance(action, dict) or isinstance(notification.get("content"), str):
        return None
    bucket, key = action.get("bucketName"), action.get("objectKey")
    if not (isinstance(bucket, str) and isinstance(key, str) and _BUCKET.fullmatch(bucket)):
        return None
    return StoredObject(bucket, key) if 0 < len(key.encode("utf-8", "replace")) <= 1024 else None


def received(envelope: sns.Envelope) -> dict[str, Any]:
    """Return what SES says of a mail it received, unread but for its kind.

    Errors:  PayloadInvalid  it says something else.    permanent
    """
    notification = sns.read_object(envelope["Message"], "Message")
    kind = notification.get("notificationType", notification.get("eventType"))
    if kind != "Received":
        shown = repr(kind) if isinstance(kind, str) and _WORD.fullmatch(kind) else "of another kind"
        raise PayloadInvalid(
            f"notification {shown}: expected 'Received': subscribe this URL to the topic of a receipt rule's action,"
            " not to one for bounces, complaints or other events"
        )
    return notification


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    found = holder.get(name)
    if not isinstance(found, dict):
        raise PayloadInvalid(f"{name}: expected an object")
    return found


def _content(content: str, receipt: dict[str, Any]) -> bytes:
    action = receipt.get("action")
    encoding = action.get("encoding") if isinstance(action, dict) else None
    if not isinstance(encoding, str) or encoding.upper() != "BASE64":
        return content.encode("utf-8", "replace")
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError):
        raise PayloadInvalid(f"content of {len(content)} characters: expected base64") from None


def _header_block(mail: dict[str, Any]) -> bytes:
    """The headers as SES tells them, in their order. Beyond 10 KB it cuts them: `headersTruncated`."""
    told = mail.get("headers")
    lines = []
    for each in told if isinstance(told, list) else []:
        name, value = (each.get("name"), each.get("value")) if isinstance(each, dict) else (None, None)
        if isinstance(name, str) and isinstance(value, str) and _FIELD_NAME.fullmatch(name):
            lines.append(f"{name}: {_BREAKS.sub(' ', value)}\r\n")
    return "".join([*lines, "\r\n"]).encode("utf-8", "replace")
