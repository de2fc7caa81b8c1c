"""A message that SES put into S3, where `unsubd[ses]` (boto3) is installed and may read it. It is a luxury.

The notification holds the envelope recipient, so the tag, and the headers: without the object, only the text of the mail
is missing. So nothing here fails a post; what went wrong is a line in the journal. Credentials are boto3's own business.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from handlers import message
from handlers.message import InboundMessage
from handlers.providers import ses
from worker.journal import Journal

MAX_BYTES = message.MAX_LOOK_BYTES  # more of it is never looked at
_ANSWER_S = 3  # SNS waits 15 s for our answer


def completed(messages: Sequence[InboundMessage], body: bytes, journal: Journal) -> list[InboundMessage]:
    """Return *messages*, read anew from the stored object if *body* names one and it can be had."""
    stored = ses.stored_object(body) if messages else None
    if stored is None or find_spec("boto3") is None:
        return list(messages)
    try:
        raw, size_bytes = fetch(stored, client())
    except Exception as error:  # noqa: BLE001  boto's errors have no common parent, and the tag is here already
        said = f"S3: {type(error).__name__}: the headers in the notification stand for the message"
        journal.source(messages[0].source, "incomplete", said)
        return list(messages)
    return [
        message.read(
            raw,
            source=each.source,
            envelope_to=each.envelope_to,
            envelope_from=each.envelope_from,
            received_ms=each.received_ms,
            size_bytes=size_bytes,
        )
        for each in messages
    ]


def fetch(stored: ses.StoredObject, s3: Any) -> tuple[bytes, int]:
    """Return the beginning of *stored*, as much as is ever looked at, and how many octets the whole has."""
    answer = s3.get_object(Bucket=stored.bucket, Key=stored.key)
    return answer["Body"].read(MAX_BYTES), answer["ContentLength"]


def client() -> Any:
    """Return boto3's client, impatient: region and credentials from its own environment or files."""
    import boto3
    from botocore.config import Config

    bounds = Config(connect_timeout=_ANSWER_S, read_timeout=_ANSWER_S, retries={"total_max_attempts": 1})
    return boto3.session.Session().client("s3", config=bounds)
