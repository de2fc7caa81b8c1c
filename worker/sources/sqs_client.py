"""One SQS queue through boto3 (the extra `unsubd[ses]`), whose many errors become three: refused, away, ours.

boto3 costs 0.2 s to import, so only who has a queue does. Credentials and proxies are boto3's own business.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from handlers.errors import ConfigError, Unavailable
from handlers.providers.sqs import QueueAddress

LONGEST_WAIT_S = 20
_TOGETHER = 10  # as many as SQS gives and deletes at once
_CONNECT_S, _ANSWER_S = 5, 5
_PASSES = ("Throttl", "TooManyRequests", "RequestLimitExceeded", "KmsThrottled", "OverLimit")


class SqsRefused(ConfigError):
    """AWS understood us and said no: credentials, permissions, or no such queue."""


class SqsUnavailable(Unavailable):
    """SQS cannot be reached, or asks to come later."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message, ours alone until the queue's visibility time-out. Shape: sent_ms: when SQS took it, by its own clock."""

    receipt: str
    body: bytes
    sent_ms: int


class SqsClient:
    """The queue at *address*. Its methods wait, so call them in a thread.

    Errors:  ConfigError  boto3 is not installed.
    """

    def __init__(self, address: QueueAddress) -> None:
        if find_spec("boto3") is None:
            raise ConfigError("UNSUBD_SES_QUEUE_URL: needs boto3, which is not installed: pip install 'unsubd[ses]'")
        self._address = address
        self._made: Any = None

    def receive(self, wait_s: int) -> list[Received]:
        """Return up to ten messages; none when there are none for *wait_s* seconds (0 to 20).

        Errors:  SqsRefused      AWS said no; a person must act.
                 SqsUnavailable  come again.    temporary
        """
        with self._asking("sqs:ReceiveMessage"):
            answer = self._client().receive_message(
                QueueUrl=self._address.url, MaxNumberOfMessages=_TOGETHER, WaitTimeSeconds=wait_s,
                MessageSystemAttributeNames=["SentTimestamp"],
            )  # fmt: skip
        return [
            Received(
                each["ReceiptHandle"],
                each["Body"].encode("utf-8", "replace"),
                int(each["Attributes"]["SentTimestamp"]),
            )
            for each in answer.get("Messages", ())
        ]

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete up to ten messages that were received.

        Errors:  as `receive`; SqsUnavailable also when some stay: they come again.    temporary
        Repeat:  safe.
        """
        entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(receipts)]
        with self._asking("sqs:DeleteMessage"):
            answer = self._client().delete_message_batch(QueueUrl=self._address.url, Entries=entries)
        if failed := answer.get("Failed"):
            raise SqsUnavailable(
                f"SQS: {len(failed)} of {len(receipts)} accepted messages not deleted: they come again"
            )

    @contextmanager
    def _asking(self, action: str) -> Iterator[None]:
        try:
            with _named(action):
                yield
        except SqsRefused:
            self._made = None  # it would keep its credentials, or their absence, whatever is mended
            raise

    def _client(self) -> Any:
        if self._made is None:
            import boto3
            from botocore.config import Config

            bounds = Config(
                connect_timeout=_CONNECT_S,
                read_timeout=LONGEST_WAIT_S + _ANSWER_S,
                retries={"total_max_attempts": 1},  # our source backs off, and says so
            )
            self._made = boto3.session.Session().client(
                "sqs", region_name=self._address.region, endpoint_url=self._address.endpoint, config=bounds
            )
        return self._made


@contextmanager
def _named(action: str) -> Iterator[None]:
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        raise _answered(error.response, action) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound) as error:
        raise SqsRefused(
            f"UNSUBD_SES_QUEUE_URL: {type(error).__name__}: expected AWS credentials where boto3 looks for them"
            f" (a role, AWS_PROFILE, AWS_ACCESS_KEY_ID) that allow {action}"
        ) from error
    except boto.BotoCoreError as error:  # its text quotes URLs and what was read
        raise SqsUnavailable(f"SQS does not answer ({type(error).__name__})") from error


def _answered(answer: Any, action: str) -> Exception:
    code, status = str(answer["Error"].get("Code", "?"))[:80], answer["ResponseMetadata"].get("HTTPStatusCode", 0)
    if status >= 500 or status == 429 or any(word in code for word in _PASSES):
        return SqsUnavailable(f"SQS cannot serve us now ({status} {code})")
    if "NonExistentQueue" in code or "QueueDoesNotExist" in code:
        return SqsRefused("UNSUBD_SES_QUEUE_URL: no such queue, expected the URL that SQS's console shows")
    return SqsRefused(
        f"UNSUBD_SES_QUEUE_URL: AWS refused ({code}): expected valid credentials that allow {action} on this queue"
    )
