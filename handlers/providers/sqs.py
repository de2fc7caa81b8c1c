"""SES by way of SNS and an SQS queue: what a message of the queue says, as SNS would have posted it.

Whoever may write to the queue is AWS's decision (the queue's policy), so no signature is asked for. Topics, where they are
configured (`arn:aws:sns:…` among the proofs of UNSUBD_IN_SES), are demanded besides: then a raw delivery, which does not
name its topic, is not believed either.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from handlers.errors import PayloadInvalid, Rejected, SignatureInvalid
from handlers.providers import ses, sns

# Used with `fullmatch`. No `.fifo`: SES does not publish to such topics.
_AT_AWS = re.compile(r"https://sqs\.([a-z0-9-]{3,40})\.amazonaws\.com(?:\.cn)?/[0-9]{12}/[A-Za-z0-9_-]{1,80}")
_ON_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|localhost):[0-9]{1,5})/[0-9]{12}/[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, slots=True)
class QueueAddress:
    """Where a queue is. Shape: endpoint: base of a stand-in on loopback, None = AWS itself."""

    url: str
    region: str
    endpoint: str | None = None

    @classmethod
    def parse(cls, url: str) -> "QueueAddress":
        """Return the queue at *url*.

        Errors:  ValueError  no queue of AWS, nor one on loopback: credentials are shown to nobody else.
        Example:
            >>> QueueAddress.parse("https://sqs.eu-west-1.amazonaws.com/111111111111/mail").region
            'eu-west-1'
        """
        if match := _AT_AWS.fullmatch(url):
            return cls(url, match[1])
        if match := _ON_LOOPBACK.fullmatch(url):
            return cls(url, "us-east-1", match[1])
        raise ValueError("expected https://sqs.<region>.amazonaws.com/<account>/<name>")


def posted(body: bytes, topics: Sequence[str]) -> bytes:
    """Return *body* as `ses.read` takes it: a raw delivery gets an envelope.

    Shape:   topics: ARNs, any of them is right; none = the queue's policy is proof enough.
    Errors:  SignatureInvalid  of none of the topics: the setting may be what is wrong.    permanent
             PayloadInvalid    neither SNS's envelope nor SES's notification.    permanent
    """
    try:
        topic = sns.read_envelope(body).get("TopicArn")
    except sns.RawDelivery:
        if topics:
            raise SignatureInvalid(
                "raw message delivery names no topic: switch it off for this subscription, or configure no topic"
            ) from None
        return json.dumps({"Type": sns.NOTIFICATION, "Message": body.decode()}).encode()
    if topics and topic not in topics:
        raise SignatureInvalid(f"TopicArn: none of the {len(topics)} configured topics")
    return body


def published_ms(body: bytes, sent_ms: int) -> int:
    """Return when SNS published *body*; *sent_ms*, when SQS took it, if it does not say so, or says later.

    Why:     what was moved back from a dead-letter queue was sent anew, and the request in it is as old as it was.
    """
    try:
        return min(sent_ms, sns.signed_ms(sns.read_envelope(body), 0.0, math.inf))
    except Rejected:
        return sent_ms


def is_subscription(body: bytes) -> bool:
    """Say whether SNS asks for a confirmation. Shape: body: what `posted` returned."""
    return sns.read_envelope(body)["Type"] == sns.SUBSCRIPTION


def holds_mail(body: bytes) -> bool:
    """Say whether *body* is SES's notification of a mail, readable or not. Shape: body: what `posted` returned."""
    try:
        ses.received(sns.read_envelope(body))
    except PayloadInvalid:
        return False
    return True
