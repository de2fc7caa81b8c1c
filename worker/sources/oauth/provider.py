"""Where a mail host's people give their consent: the endpoints and scopes of the two large ones, and what flags override.

Google gives no mail scope by device code; Microsoft wants `localhost` as the host of a loopback redirect.
RFC: 8252 7.3 (loopback redirect), 8628 (device code).
"""

from dataclasses import dataclass, field, replace

from handlers.errors import ConfigError
from worker.sources.imap.address import MailboxAddress
from worker.sources.oauth.file import GOOGLE_SCOPE, MICROSOFT_TOKEN_URL, checked_url

_MICROSOFT = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0"
_MICROSOFT_SCOPE = "https://outlook.office365.com/IMAP.AccessAsUser.All offline_access"


@dataclass(frozen=True, slots=True)
class Provider:
    """One OAuth server. Shape: an empty URL: it has none, or we do not know it."""

    token_url: str = ""
    authorize_url: str = ""
    device_url: str = ""
    scope: str = ""
    redirect_host: str = "127.0.0.1"
    extra: dict[str, str] = field(default_factory=dict)

    def needed(self, flag: str) -> str:
        """Return the URL that --*flag* gives.

        Errors:  ConfigError  it is not known, or no URL that secrets may be sent to.
        """
        url = str(getattr(self, flag.replace("-", "_")))
        if not url:
            raise ConfigError(f"--{flag}: not known for this mail host, expected an https:// URL")
        try:
            return checked_url(url)
        except ValueError as error:
            raise ConfigError(f"--{flag}: {error}") from error


def provider_of(address: MailboxAddress, tenant: str, **given: str) -> Provider:
    """Return the OAuth server of a mail host; *given* are the fields that flags override, where not empty.

    Example:
        >>> provider_of(MailboxAddress.parse("imaps://u@imap.gmail.com/INBOX"), "").scope
        'https://mail.google.com/'
    """
    return replace(_known(address.host, tenant or "organizations"), **{k: v for k, v in given.items() if v})  # type: ignore[arg-type]


def _known(host: str, tenant: str) -> Provider:
    if host == "outlook.office365.com":
        base = _MICROSOFT.format(tenant=tenant)
        return Provider(
            MICROSOFT_TOKEN_URL.format(tenant=tenant),
            f"{base}/authorize",
            f"{base}/devicecode",
            _MICROSOFT_SCOPE,
            redirect_host="localhost",
        )
    if host in ("imap.gmail.com", "imap.googlemail.com"):
        return Provider(
            "https://oauth2.googleapis.com/token",
            "https://accounts.google.com/o/oauth2/v2/auth",
            scope=GOOGLE_SCOPE,
            extra={"access_type": "offline", "prompt": "consent"},  # else a second login gives no refresh token
        )
    return Provider()
