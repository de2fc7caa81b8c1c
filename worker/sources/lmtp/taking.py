"""One mail for many recipients becomes messages, and each recipient gets the answer that its message earned.

Limits: mails that are being accepted, and messages of one mail that are accepted together, are bounded: a mail is read
once for each recipient, and a hostile header is big.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from handlers import message
from handlers.errors import Unavailable
from handlers.message import InboundMessage
from worker.gather import Gatherer
from worker.installation import Installation

SOURCE = "lmtp:default"
ACCEPTED = "250 2.0.0 accepted"
FAILED = "451 4.3.0 a bug of ours, see the journal: try again"
_TOGETHER_BYTES = 4 * 1024 * 1024
_TOGETHER = 200
_IN_HAND = 64


@dataclass(frozen=True, slots=True)
class Mail:
    """One DATA. Shape: raw: its exact octets, at most as many as are ever looked at; size_bytes: of all there were."""

    raw: bytes
    size_bytes: int
    sender: str
    recipients: Sequence[str]


class Taking:
    """The door for mails, for one event loop; and what is to be told of it."""

    def __init__(self, installation: Installation) -> None:
        self._journal = installation.journal
        self._gatherer = Gatherer(installation.intake)
        self._room = asyncio.Semaphore(_IN_HAND)
        self.taken = 0
        self.trouble = ""
        self.troubled_at = 0.0

    async def take(self, mail: Mail) -> list[str]:
        """Return one LMTP reply for each recipient, in order: 250 only for what is durable. Repeat: safe."""
        at_ms = time.time_ns() // 1_000_000
        replies: list[str] = []
        async with self._room:
            for recipients in _portions(mail):
                reply = await self._taken(mail, recipients, at_ms)
                if reply != ACCEPTED:
                    return replies + [reply] * (len(mail.recipients) - len(replies))
                replies += [reply] * len(recipients)
                self.taken += len(recipients)
        return replies

    async def _taken(self, mail: Mail, recipients: Sequence[str], at_ms: int) -> str:
        try:
            messages = await asyncio.to_thread(_messages, mail, recipients, at_ms)
            await self._gatherer.accept(messages)
        except Unavailable as error:
            self.trouble, self.troubled_at = str(error), asyncio.get_running_loop().time()
            return f"451 4.3.0 {' '.join(str(error).split())[:300]}"
        except Exception as error:  # noqa: BLE001  a bug of ours must not bounce: the mail server keeps the mail
            await self.failed(error)
            return FAILED
        self.trouble = ""
        return ACCEPTED

    async def failed(self, error: BaseException) -> None:
        """Tell of a bug, without its text: that may quote the mail."""
        await asyncio.to_thread(self._journal.failed, "lmtp", type(error).__name__)


def _portions(mail: Mail) -> Iterator[Sequence[str]]:
    size = max(1, min(_TOGETHER, _TOGETHER_BYTES // max(1, len(mail.raw))))
    for start in range(0, len(mail.recipients), size):
        yield mail.recipients[start : start + size]


def _messages(mail: Mail, recipients: Sequence[str], at_ms: int) -> list[InboundMessage]:
    return [
        message.read(
            mail.raw, source=SOURCE, envelope_to=recipient, envelope_from=mail.sender, received_ms=at_ms,
            size_bytes=mail.size_bytes,
        )
        for recipient in recipients
    ]  # fmt: skip
