"""A mailbox over IMAP: the only folder that imports aioimaplib."""

from worker.sources.imap.address import MailboxAddress, MailboxBusy, MailboxRefused
from worker.sources.imap.answers import ASIDE, DONE, Fetched, Folder, Folders, Selected, within_a_line
from worker.sources.imap.connection import ImapConnection, passes

__all__ = [
    "ASIDE",
    "DONE",
    "Fetched",
    "Folder",
    "Folders",
    "ImapConnection",
    "MailboxAddress",
    "MailboxBusy",
    "MailboxRefused",
    "Selected",
    "passes",
    "within_a_line",
]
