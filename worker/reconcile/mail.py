"""What the sources keep of acknowledged mail: marked mail of a mailbox, its folder of handled mail, a Maildir's `cur/`.

IMAP does not tell when a message was marked. So looked at is what arrived since the scope begins, all that is marked and
not moved yet, and the newest of the folder of handled mail: they lie there in the order in which they were handled.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from handlers.message import InboundMessage
from worker.installation import Installation
from worker.reconcile.books import Books
from worker.sources.imap import ASIDE, DONE, MailboxAddress, MailboxRefused
from worker.sources.mailbox import imap_date
from worker.sources.maildir import Maildir
from worker.sources.polling import mailbox_addresses
from worker.sources.progress import ProgressStore
from worker.sources.survey import Survey

NEWEST = 2000  # twice what is handled in a second


@dataclass(frozen=True, slots=True)
class Scope:
    """What to compare. Units: since_ms: event time, or when a Maildir's file was moved."""

    since_ms: int

    @property
    def day(self) -> str:
        """The first day, as IMAP spells it; the day before: a server's own zone decides what a day is."""
        return imap_date((datetime.fromtimestamp(self.since_ms / 1000, UTC) - timedelta(days=1)).date())


Progress = Callable[[int, str], None]
Seen = tuple[Sequence[InboundMessage], bool]


async def compare(installation: Installation, scope: Scope, books: Books, progress: Progress) -> None:
    """Compare the mail of every configured source.

    Errors:  MailboxRefused, MailboxUnavailable  as `connect`.
             Unavailable                         Redis is away.    temporary
    """
    count = 0
    for address in mailbox_addresses(installation.settings):
        async for messages, marked in _of_mailbox(installation, address, scope):
            await asyncio.to_thread(books.compare, messages, marked=marked)
            progress(count := count + len(messages), address.name)
    if (path := installation.settings.maildir or installation.settings.drop_folder) is not None:
        for found in Maildir(installation, path).accepted(scope.since_ms / 1000):
            await asyncio.to_thread(books.compare, found)
            progress(count := count + len(found), "maildir")


async def _of_mailbox(installation: Installation, address: MailboxAddress, scope: Scope) -> AsyncIterator[Seen]:
    """Yield (messages, whether they are marked or remembered as done) of the mailbox, its Junk and its handled mail."""
    survey = Survey(installation.settings, address, installation.keys)
    remembered = await asyncio.to_thread(ProgressStore(installation.redis, address.name).load)
    try:
        arrived = await survey.search("SINCE", scope.day)
        settled = {uid for uid in arrived if uid in remembered.done or uid in remembered.left}
        uids = {*await survey.search("KEYWORD", DONE), *settled} - {*await survey.search("KEYWORD", ASIDE)}
        async for found in survey.messages(sorted(uid for uid in uids if uid not in remembered.aside)):
            yield list(found.values()), True
        junk = await survey.junk()
    finally:
        await survey.close()
    if junk:
        async for each in _of_folder(installation, replace(address, mailbox=junk), scope, only_marked=True):
            yield each
    handled = replace(address, mailbox=installation.settings.imap_processed)
    async for each in _of_folder(installation, handled, scope, only_marked=False):
        yield each


async def _of_folder(
    installation: Installation, folder: MailboxAddress, scope: Scope, *, only_marked: bool
) -> AsyncIterator[Seen]:
    survey = Survey(installation.settings, folder, installation.keys)
    try:
        try:
            marked = set(await survey.search("KEYWORD", DONE))
        except MailboxRefused:  # the mailbox itself was opened: nothing was moved yet
            return
        everything = marked if only_marked else await survey.search("ALL")
        uids = {*await survey.search("SINCE", scope.day), *sorted(everything)[-NEWEST:]} & set(everything)
        uids -= {*await survey.search("KEYWORD", ASIDE)}
        for part, is_marked in ((uids & marked, True), (uids - marked, False)):
            async for found in survey.messages(sorted(part)):
                yield list(found.values()), is_marked
    finally:
        await survey.close()
