"""An SQS queue as a way in: SES tells SNS, SNS fills the queue, and we ask; no endpoint of ours is open.

A message is deleted only after it was accepted. Whatever goes wrong before (Redis away, a crash) lets the queue show it
again after its visibility time-out, to one effect. Nothing is received while nothing could be accepted: each receipt
counts towards the dead-letter queue.

What can never be read is told, kept for a person if it is about a mail, and deleted. What is not from a topic of
UNSUBD_IN_SES stays in the queue, for the setting may be what is wrong: the queue's own retention ends it.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

from handlers import message
from handlers.errors import PayloadInvalid, SignatureInvalid, Unavailable
from handlers.message import InboundMessage
from handlers.providers import ses, sqs
from handlers.providers.sqs import QueueAddress
from worker import s3
from worker.installation import Installation
from worker.points import point
from worker.sources import SourceReport
from worker.sources.sqs_client import LONGEST_WAIT_S, Received, SqsClient, SqsRefused

SOURCE = "sqs:default"
_LOOK_S = 1  # with 0, SQS asks only some of its servers
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 1.0, 60.0
_T = TypeVar("_T")


class TopicRefused(SqsRefused):
    """Messages of none of our topics are in the queue. Shape: taken: how many mails came beside them, and are accepted."""

    def __init__(self, count: int, why: SignatureInvalid, taken: int) -> None:
        super().__init__(f"UNSUBD_IN_SES: {count} messages stay in the queue: {why}")
        self.taken = taken


@dataclass(frozen=True, slots=True)
class _Post:
    """One message of the queue, read. Shape: messages: none for what says nothing of a mail."""

    receipt: str
    messages: Sequence[InboundMessage]


class SqsQueue:
    """The queue of this process.

    Errors:  ConfigError       boto3 is not installed.
             QueueUnavailable  Redis is away.    temporary
    """

    def __init__(self, installation: Installation, url: str) -> None:
        self._client = SqsClient(QueueAddress.parse(url))
        self._installation = installation
        self._journal = installation.journal
        self._report = SourceReport(installation.redis, installation.journal, SOURCE)

    async def run(self, *, once: bool = False) -> None:
        """Take what comes until cancelled; *once*: what is there now.

        Errors:  SqsRefused, Unavailable  only with once.
        """
        async with nullcontext() if once else self._report.beating():
            await self._run(once=once)

    async def _run(self, *, once: bool) -> None:
        backoff_s = _FIRST_BACKOFF_S
        await asyncio.to_thread(self._report.say, "connecting")
        while True:
            try:
                received = await _in_daemon(lambda: self._receive(_LOOK_S if once else LONGEST_WAIT_S))
                taken = await asyncio.to_thread(self._take, received)
            except Exception as error:
                await asyncio.to_thread(self._tell, error)
                if once:
                    raise
                if not (isinstance(error, TopicRefused) and error.taken):  # a stranger's messages delay none of ours
                    await asyncio.sleep(_MAX_BACKOFF_S if isinstance(error, SqsRefused) else backoff_s)
                    backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
                continue
            await asyncio.to_thread(self._report.say, "idle", taken=taken)
            backoff_s = _FIRST_BACKOFF_S
            if once and not received:
                return

    def take(self) -> int:
        """Accept the messages that are there, ten at most, and delete them; return of how many mails.

        Errors:  SqsRefused   AWS said no; TopicRefused: some are from none of our topics, the others are accepted.
                 Unavailable  not all was deleted; the rest comes again.    temporary
        Repeat:  safe.
        """
        return self._take(self._receive(_LOOK_S))

    def _receive(self, wait_s: int) -> list[Received]:
        self._installation.require_ready()
        with point("sqs.receive"):
            return self._client.receive(wait_s)

    def _take(self, received: Sequence[Received]) -> int:
        topics = self._topics() if received else []
        posts, refused = [], None
        for each in received:
            try:
                posts.append(self._read(each, topics))
            except SignatureInvalid as error:
                refused = error
        mails = [mail for post in posts for mail in post.messages]
        if mails:
            self._installation.intake.accept(mails)
        if posts:
            with point("sqs.delete"):
                self._client.delete([post.receipt for post in posts])
        if refused:
            raise TopicRefused(len(received) - len(posts), refused, len(mails))
        return len(mails)

    def _topics(self) -> list[str]:
        hook = self._installation.hooks.find("ses", "default")
        return [proof for proof in hook.proofs if proof.startswith("arn:")] if hook else []

    def _read(self, received: Received, topics: Sequence[str]) -> _Post:
        """Read one message. Errors: SignatureInvalid  of none of *topics*.    permanent"""
        body = received.body
        try:
            body = sqs.posted(received.body, topics)
            return _Post(received.receipt, self._messages(body, received.sent_ms))
        except SignatureInvalid:
            raise
        except PayloadInvalid as error:
            self._journal.failed("sqs", f"unreadable, deleted from the queue: {error}", source=SOURCE)
            kept = sqs.holds_mail(body)
        except Exception as error:  # noqa: BLE001  a bug of ours must neither cost a mail nor repeat for ever
            self._journal.failed("sqs", f"{type(error).__name__}: quarantined", source=SOURCE)
            kept = True
        whole = message.read(received.body, source=SOURCE, received_ms=received.sent_ms)
        return _Post(received.receipt, [whole] if kept else [])

    def _messages(self, body: bytes, sent_ms: int) -> list[InboundMessage]:
        if sqs.is_subscription(body):
            self._journal.failed("sqs", "a subscription waits to be confirmed: subscribe from the queue's own account")
            return []
        at_ms = sqs.published_ms(body, sent_ms)
        found = [
            message.read(
                each.raw,
                source=SOURCE,
                envelope_to=each.envelope_to,
                envelope_from=each.envelope_from,
                received_ms=at_ms,
            )
            for each in ses.read({}, body)
        ]
        return s3.completed(found, body, self._journal)

    def _tell(self, error: Exception) -> None:
        if isinstance(error, SqsRefused):
            self._report.say("refused", str(error), taken=error.taken if isinstance(error, TopicRefused) else 0)
        elif isinstance(error, Unavailable):
            self._report.say("waiting", str(error))
        else:
            self._journal.failed("sqs", type(error).__name__, source=SOURCE)
            self._report.say("waiting", f"a bug of ours: {type(error).__name__}")


async def _in_daemon(call: Callable[[], _T]) -> _T:
    """Return what *call* returns, from a thread that the end of the process does not wait for.

    Why:     a stop must not last as long as a long poll; what the queue hands to a dead poll is shown again.
    """
    future: Future[_T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  handed on to who waits
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="sqs", daemon=True).start()
    return await asyncio.wrap_future(future)
