"""Look at a mailbox once, as its poller would: log in, select, wait for mail for a moment; nothing is changed."""

from dataclasses import dataclass
from pathlib import Path

from worker.sources.credential import Credential
from worker.sources.imap import DONE, Folders, ImapConnection, MailboxAddress, MailboxRefused
from worker.sources.mailbox import select

_IDLE_S = 0.2
_TOLD = ("IDLE", "MOVE", "UIDPLUS")


@dataclass(frozen=True, slots=True)
class Found:
    """What a visit found. Shape: capabilities: those of IDLE, MOVE and UIDPLUS that the server has; junk: in words."""

    messages: int
    unmarked: int
    keywords: bool
    capabilities: tuple[str, ...]
    junk: str
    watches_junk: bool

    def line(self) -> str:
        """Say it in one line."""
        can = ", ".join(self.capabilities) or f"none of {', '.join(_TOLD)}"
        marks = (
            f"{self.unmarked} not marked" if self.keywords else "takes no keywords: handled UIDs are remembered instead"
        )
        return f"{self.messages} messages, {marks}, {can}, {self.junk}"


async def visit(address: MailboxAddress, credential: Credential, ca_file: Path | None) -> Found:
    """Visit the mailbox. Errors as `ImapConnection`."""
    connection = await ImapConnection.open(address, credential, ca_file)
    try:
        folders = await connection.folders()
        junk, watches_junk = await _junk(connection, folders)
        # EXAMINE would change even less, but does not tell whether keywords are allowed.
        selected = await select(connection, folders.named(address.mailbox), folders)
        unmarked = len(await connection.search("UNKEYWORD", DONE))
        await connection.wait_for_mail(_IDLE_S)
        told = tuple(name for name in _TOLD if connection.can(name))
        return Found(selected.exists, unmarked, selected.keywords, told, junk, watches_junk)
    finally:
        await connection.close()


async def _junk(connection: ImapConnection, folders: Folders) -> tuple[str, bool]:
    if (junk := folders.junk()) is None:
        return "no folder is marked \\Junk: requests that land in spam are not seen", False
    try:
        selected = await connection.select(junk, readonly=True)
    except MailboxRefused as error:
        return f"Junk is not watched: {error}", False
    return f"Junk {junk!r}: {selected.exists} messages", True
