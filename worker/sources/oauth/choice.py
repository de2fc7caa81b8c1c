"""Which login a mailbox uses, of all that may be set.

Its own password, its own OAuth file, the password for all, the OAuth file for all, and last the file that
`unsubd mailbox login` stored, so that after it nothing else need be set.
"""

from pathlib import Path

from handlers.errors import ConfigError
from worker.settings import Settings
from worker.sources.imap.address import MailboxAddress
from worker.sources.oauth import file


def password(settings: Settings, address: MailboxAddress) -> str:
    """Return the password to use, "" when none is or an OAuth file of the mailbox's own comes first."""
    own = settings.imap_passwords.get(address.name)
    if own is None and address.name in settings.imap_oauths:
        return ""
    return (own or settings.imap_password).get_secret_value()


def oauth_file(settings: Settings, address: MailboxAddress) -> Path | None:
    """Return the OAuth file to use, None when there is none.

    Errors:  ConfigError  the data folder cannot be looked at.
    """
    if path := settings.imap_oauths.get(address.name, settings.imap_oauth):
        return path
    stored = stored_file(settings, address)
    try:
        return stored if stored.exists() else None
    except OSError as error:  # another user's folder
        raise ConfigError(f"UNSUBD_DATA_DIR: {stored}: {error.strerror}, expected a folder of ours") from error


def stored_file(settings: Settings, address: MailboxAddress) -> Path:
    """Return where `unsubd mailbox login` stores what nobody gave a place of its own."""
    return settings.data_dir / f"mailbox-{address.name}.oauth.json"


def described(settings: Settings, address: MailboxAddress) -> str:
    """Return how the mailbox logs in, without its secret; what is wrong with an OAuth file is said."""
    if password(settings, address):
        return "password"
    try:
        path = oauth_file(settings, address)
        return f"oauth {file.read(path).type}" if path else "none set"
    except ConfigError as error:
        return f"oauth, refused: {error}"
