"""Where a mailbox is, and how its name is written on the wire."""

import base64
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from handlers.errors import ConfigError, MailboxUnavailable

_EXAMPLE = "e.g. imaps://user@host/INBOX#name"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class MailboxRefused(ConfigError):
    """The server understood us and said no: wrong password, unknown mailbox, untrusted certificate."""


class MailboxBusy(MailboxUnavailable):
    """The server said itself that this passes: throttled, in use, a fault of its own."""


@dataclass(frozen=True, slots=True)
class MailboxAddress:
    """Where a mailbox is: `imaps://user@host:993/INBOX#name`. Shape: mailbox as people write it, decoded."""

    tls: bool
    host: str
    port: int
    user: str
    mailbox: str
    name: str

    @property
    def where(self) -> str:
        """Say where it is, for people: not for the journal, the user is an address as a rule."""
        return f"{self.user} at {self.host}:{self.port}, {self.mailbox}"

    def identity(self, folder: str = "") -> tuple[str, ...]:
        """Return what tells this mailbox, or *folder* of its account, from all others, whatever its name here.

        Why:     the port counts: behind two of one host there may be two servers.
        """
        named = folder or ("INBOX" if self.mailbox.upper() == "INBOX" else self.mailbox)
        return self.host.lower(), str(self.port), self.user, named

    @classmethod
    def parse(cls, url: str) -> "MailboxAddress":
        """Errors: ConfigError  not such a URL, a password in it, or plain imap:// to another host."""
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ConfigError(
                f"UNSUBD_IMAP_URL: a [ or ] that belongs to no IPv6 address, expected {_EXAMPLE}"
            ) from None
        if parts.scheme not in ("imaps", "imap"):
            raise ConfigError(f"UNSUBD_IMAP_URL: scheme {parts.scheme[:20]!r}, expected {_EXAMPLE}")
        if not parts.hostname or not parts.username:
            what = "host" if parts.username else "user before the host"
            raise ConfigError(f"UNSUBD_IMAP_URL: no {what}, expected {_EXAMPLE}")
        if parts.password:
            raise ConfigError("UNSUBD_IMAP_URL: holds a password, expected it in UNSUBD_IMAP_PASSWORD or a file")
        if parts.scheme == "imap" and parts.hostname not in _LOOPBACK:
            raise ConfigError(
                f"UNSUBD_IMAP_URL: plain imap:// to {parts.hostname!r}, expected imaps:// (loopback excepted)"
            )
        try:
            port = parts.port or (993 if parts.scheme == "imaps" else 143)
        except ValueError as error:
            raise ConfigError("UNSUBD_IMAP_URL: the port is no number up to 65535") from error
        mailbox = unquote(parts.path.lstrip("/")) or "INBOX"
        name = parts.fragment or "default"
        if not re.fullmatch(r"[A-Za-z0-9_]{1,40}", name):
            raise ConfigError(f"UNSUBD_IMAP_URL: name {name[:40]!r} after #, expected letters, digits and _")
        return cls(parts.scheme == "imaps", parts.hostname, port, unquote(parts.username), mailbox, name.lower())


def wire_name(name: str) -> str:
    """Return a mailbox name in modified UTF-7, not yet quoted.

    RFC:     3501 5.1.3.
    Example:
        >>> wire_name("Désabo & Co")
        'D&AOk-sabo &- Co'
    """
    return "".join(
        piece.replace("&", "&-") if piece.isascii() and piece.isprintable() else f"&{_utf7(piece)}-"
        for piece in re.findall(r"[ -~]+|[^ -~]+", name)
    )


def shown_name(name: bytes) -> str:
    """Return a mailbox name as people write it; what is no modified UTF-7 is shown as it is.

    Example:
        >>> shown_name(b"D&AOk-sabo &- Co")
        'Désabo & Co'
    """
    text = name.decode("utf-8", "replace")
    return re.sub(r"&([A-Za-z0-9+,]*)-", lambda match: _from_utf7(match[1]) if match[1] else "&", text)


def _utf7(text: str) -> str:
    return base64.b64encode(text.encode("utf-16-be")).decode().rstrip("=").replace("/", ",")


def _from_utf7(text: str) -> str:
    padded = text.replace(",", "/") + "=" * (-len(text) % 4)
    try:
        return base64.b64decode(padded).decode("utf-16-be")
    except ValueError:
        return f"&{text}-"
