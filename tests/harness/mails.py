"""Mails as clients send them, for any address."""

from handlers.tag import AddressTemplate, Keyring, Tag, mint
from tests.harness.service import MASTERS

TEMPLATE = AddressTemplate("u+", "unsub.example.com")
OLD, NEW = Keyring((bytes.fromhex(MASTERS[1]),)), Keyring((bytes.fromhex(MASTERS[0]),))


def address(number: int, keys: Keyring = NEW, group: int = 1, sender: str = "acme") -> str:
    """Return the signed unsubscribe address of person *number*."""
    return mint(keys, Tag(sender, group, recipient(number)), TEMPLATE).address


def recipient(number: int) -> str:
    """Return the address of person *number*."""
    return f"person.{number}@example.com"


def mail(to: str, message_id: str, extra: str = "", body: str = "") -> bytes:
    """Return a mail to *to*; *extra*: header lines, each with its CRLF."""
    head = (
        f"From: <someone@example.net>\r\nTo: {to}\r\nSubject: unsubscribe\r\nMessage-ID: <{message_id}@example.net>\r\n"
    )
    return (head + extra + "\r\n" + body).encode()


APPLE = "X-Apple-Unsubscribe: true\r\nAuto-Submitted: auto-replied\r\n"
