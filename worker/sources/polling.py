"""Every configured mailbox, polled side by side."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from handlers.errors import ConfigError
from worker.installation import Installation
from worker.settings import Settings
from worker.sources.imap import MailboxAddress
from worker.sources.mailbox import Mailbox


def mailbox_addresses(settings: Settings) -> list[MailboxAddress]:
    """Return the configured mailboxes.

    Errors:  ConfigError  a URL is wrong, or two mailboxes have one name.
    """
    addresses = [MailboxAddress.parse(url) for url in settings.imap_url.split()]
    for name, count in Counter(address.name for address in addresses).items():
        if count > 1:
            raise ConfigError(f"UNSUBD_IMAP_URL: {count} mailboxes are named {name!r}, expected #name after each URL")
    return addresses


async def poll(installation: Installation, *, once: bool = False, strict: bool = False) -> None:
    """Poll every configured mailbox and its Junk folder; one's trouble is not another's."""
    addresses = mailbox_addresses(installation.settings)
    if once:
        await _poll_once(installation, addresses)
        return
    async with asyncio.TaskGroup() as group:
        for address in addresses:
            mailbox = Mailbox(installation, address)
            alone = strict and len(addresses) == 1
            group.create_task(mailbox.run(strict=alone, aloud=not alone))
            group.create_task(_watch_junk(Mailbox(installation, address, junk=True), mailbox))


async def _watch_junk(junk: Mailbox, mailbox: Mailbox) -> None:
    """Watch a Junk folder when the mailbox itself could be opened: one wrong password is tried once, not twice."""
    async with junk.waiting_for(mailbox):
        await mailbox.opened.wait()
    await junk.run()


async def _poll_once(installation: Installation, addresses: Sequence[MailboxAddress]) -> None:
    """Look at each mailbox and its Junk folder to the end; then raise the first trouble there was."""

    async def look(address: MailboxAddress) -> None:
        await Mailbox(installation, address).run(once=True, aloud=len(addresses) > 1)
        await Mailbox(installation, address, junk=True).run(once=True)

    for trouble in await asyncio.gather(*map(look, addresses), return_exceptions=True):
        if trouble is not None:
            raise trouble
