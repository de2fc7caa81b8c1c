"""How much of each message is fetched, how many make one job, and what is done about one that cannot be fetched.

The first look is 8 KB, in batches; where it does not suffice, the second takes up to 256 KB. A failed fetch is the
connection's fault or one message's: smaller batches find out, suspects come last, and after three times the others go on
without that one, for an hour. What a server says is temporary is no message's fault.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from handlers import decision, message
from handlers.errors import Unavailable
from handlers.message import FIRST_LOOK_BYTES, MAX_LOOK_BYTES, InboundMessage
from handlers.tag import Keyring
from worker import queue
from worker.sources.imap import ImapConnection, MailboxBusy

BATCH = 50  # times 8 KB: a slow link still answers within the bound of a call
TOGETHER = queue.BATCH
_SECOND_LOOK_BATCH = 4  # times 256 KB = 1 MB: at 100 KB/s a third of the time that a call may take
_GOOD_READS = 10  # in a row, before a batch that was made smaller grows again
_STRIKES = 3
_GIVEN_UP_S = 3600.0


class Look:
    """What one source knows about fetching its messages; it outlives connections.

    Shape:   batch: how many messages to ask for at once, at the moment. together: how many to accept at once, at most: a
             job costs what hundreds of messages do.
    """

    def __init__(self, keys: Keyring, source: str) -> None:
        self._keys = keys
        self._source = source
        self.batch = BATCH
        self.together = TOGETHER
        self._good_reads = 0
        self._strikes: Counter[int] = Counter()
        self._given_up_at: dict[int, float] = {}

    def gave_up(self, uid: int) -> bool:
        """Say whether this message is left alone for now."""
        if uid in self._given_up_at and time.monotonic() - self._given_up_at[uid] > _GIVEN_UP_S:
            del self._given_up_at[uid], self._strikes[uid]
        return uid in self._given_up_at

    def given_up(self) -> int:
        """Return how many messages those are."""
        return len(self._given_up_at)

    def forget(self) -> None:
        """Forget every suspicion: the UIDs are another folder's now."""
        self._strikes.clear()
        self._given_up_at.clear()

    def in_order(self, uids: Iterable[int]) -> list[int]:
        """Return *uids* with those under suspicion last: they must not hold up the others."""
        return sorted(uids, key=lambda uid: (self._strikes.get(uid, 0), uid))

    async def messages(self, connection: ImapConnection, uids: Sequence[int]) -> dict[int, InboundMessage]:
        """Return what the server gives of *uids*, read as far as deciding needs it.

        Errors:  MailboxUnavailable  the fetch failed; the batch is smaller now.    temporary
        """
        try:
            found = await self._fetch(connection, uids, FIRST_LOOK_BYTES)
            more = [uid for uid, each in found.items() if self._needs_more(each)]
            # Without its second look a message is not decided: what the server leaves out is asked for again.
            found = {uid: each for uid, each in found.items() if uid not in more}
            for batch in batches(more, _SECOND_LOOK_BATCH):
                found |= await self._fetch(connection, batch, MAX_LOOK_BYTES)
        except Unavailable as error:
            if not isinstance(error, MailboxBusy):
                self._suspect(uids)
            self.together, self._good_reads = self.batch, 0  # what was read must not be read again and again
            raise
        self._good_reads += 1
        if self._good_reads >= _GOOD_READS:
            self.batch, self.together = min(BATCH, self.batch * 2), min(TOGETHER, self.together * 2)
            self._good_reads = 0
        return found

    def _needs_more(self, inbound: InboundMessage) -> bool:
        try:
            return decision.needs_more(inbound, self._keys)
        except Exception:  # noqa: BLE001  a poison message must not stop its batch: `decide` tells of it
            return not len(inbound.raw) >= MAX_LOOK_BYTES and inbound.truncated

    def _suspect(self, uids: Sequence[int]) -> None:
        self.batch = max(1, self.batch // 7)
        if len(uids) == 1:
            self._strikes.update(uids)
            if self._strikes[uids[0]] >= _STRIKES:
                self._given_up_at[uids[0]] = time.monotonic()

    async def _fetch(self, connection: ImapConnection, uids: Sequence[int], octets: int) -> dict[int, InboundMessage]:
        fetched = await connection.fetch(uids, octets)
        return {
            each.uid: message.read(
                each.raw,
                source=self._source,
                received_ms=each.received_ms,
                # Some servers only estimate RFC822.SIZE: whatever fills the look may have been cut.
                size_bytes=max(each.size_bytes, len(each.raw) + (len(each.raw) >= octets)),
            )
            for each in fetched
            # Nothing of a message that has octets is no answer: deciding on it would hide a request for good.
            if each.raw or not each.size_bytes
        }


def batches(uids: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield *uids*, *size* at a time."""
    for start in range(0, len(uids), size):
        yield uids[start : start + size]
