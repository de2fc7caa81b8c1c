"""Reading a mailbox without leaving a trace in it: for a dry run and for an audit. It needs no lease: it has no effect."""

from collections.abc import AsyncIterator, Sequence

from handlers.errors import Unavailable
from handlers.message import InboundMessage
from handlers.tag import Keyring
from worker.settings import Settings
from worker.sources.imap import DONE, ImapConnection, MailboxAddress
from worker.sources.look import Look
from worker.sources.mailbox import connect, select

_LOST_IN_A_ROW = 4  # connections, before the survey gives up


class Survey:
    """One mailbox, opened by EXAMINE: no flag is set, nothing is moved, `\\Seen` and `\\Recent` stay as they are."""

    def __init__(self, settings: Settings, address: MailboxAddress, keys: Keyring) -> None:
        self._settings = settings
        self._address = address
        self._look = Look(keys, f"imap:{address.name}")
        self._connection: ImapConnection | None = None
        self._left_out = 0

    @property
    def unreadable(self) -> int:
        """How many messages the server did not give."""
        return self._left_out

    async def uids(self, *, waiting: bool) -> list[int]:
        """Return the messages there are, ascending; waiting: only those that are not marked as handled.

        Errors:  MailboxRefused, MailboxUnavailable  as `connect`.
        """
        return await self.search(*(("UNKEYWORD", DONE) if waiting else ("ALL",)))

    async def search(self, *criteria: str) -> list[int]:
        """Return the messages that match, ascending. Errors: as `uids`."""
        return await (await self._opened()).search(*criteria)

    async def junk(self) -> str | None:
        """Return the account's Junk folder, None when the server marks none. Errors: as `uids`."""
        return (await (await self._opened()).folders()).junk()

    async def messages(self, uids: Sequence[int]) -> AsyncIterator[dict[int, InboundMessage]]:
        """Yield the messages of *uids* in batches, coming back after a lost connection.

        Errors:  MailboxUnavailable  it was lost several times in a row, without a message in between.    temporary
        """
        start = lost = 0
        while start < len(uids):
            batch = uids[start : start + self._look.batch]
            try:
                found = await self._look.messages(await self._opened(), batch)
            except Unavailable:
                self._connection, lost = None, lost + 1
                if lost >= _LOST_IN_A_ROW:
                    raise
                if len(batch) > 1 or not self._look.gave_up(batch[0]):
                    continue
                found = {}
            start, lost = start + len(batch), 0
            self._left_out += len(batch) - len(found)
            yield found

    async def _opened(self) -> ImapConnection:
        if self._connection is None:
            connection = await connect(self._settings, self._address)
            try:
                folders = await connection.folders()
                await select(connection, folders.named(self._address.mailbox), folders, readonly=True)
            except BaseException:
                await connection.close()  # no such folder: nobody else knows of the login
                raise
            self._connection = connection
        return self._connection

    async def close(self) -> None:
        """Log out. Repeat: safe."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
