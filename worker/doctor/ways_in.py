"""The ways in, looked at from outside: mailboxes, what mail servers speak to, webhook endpoints."""

import asyncio
import socket
from collections.abc import Iterator

from handlers import milter, postfix_policy
from handlers.errors import ConfigError, MailboxUnavailable, UnsubdError
from worker.doctor.finding import LIMIT_S, Finding, fail, ok, warn
from worker.installation import Installation
from worker.settings import Settings, setting_name, unix_path
from worker.sources import oauth
from worker.sources.imap import MailboxAddress
from worker.sources.polling import mailbox_addresses
from worker.sources.visit import Found, visit

# What a mail server says first to each part, and what the answer holds.
_FIRST = {
    "lmtp": (b"", b"220"),
    "policy": (b"request=smtpd_access_policy\n\n", b"action=" + postfix_policy.PERMIT.encode()),
    "milter": (milter.OPENING, milter.NEGOTIATE),
}
_VISIT_S = LIMIT_S - 2.0  # so that the line can say which mailbox
_NO_MAILBOX = "start that server again, or see why it hangs; it is tried again by itself, and no mail is lost"


def addresses(settings: Settings) -> list[MailboxAddress]:
    """The configured mailboxes; none where a URL is wrong, which `no_mailbox` says."""
    try:
        return mailbox_addresses(settings)
    except ConfigError:
        return []


def no_mailbox(settings: Settings) -> Iterator[Finding]:
    """Errors: ConfigError  a URL is wrong."""
    mailbox_addresses(settings)
    yield ok("mailbox", "none configured (UNSUBD_IMAP_URL is not set)")


def mailbox(settings: Settings, address: MailboxAddress) -> Iterator[Finding]:
    """Log in, look for the folders and Junk, wait for mail a moment."""
    try:
        found = asyncio.run(_visited(settings, address))
    except (UnsubdError, ConfigError) as error:
        yield fail("mailbox", f"{address.name} ({address.where}): {error.told}", error.remedy or _NO_MAILBOX)
        return
    told = f"{address.name}: {found.line()}"
    if not found.watches_junk:
        yield warn("mailbox", told, "give the account a Junk folder that its server marks so, and that we may read")
    elif "MOVE" not in found.capabilities or "IDLE" not in found.capabilities:
        yield warn("mailbox", told, "nothing: without IDLE mail waits for the next poll, without MOVE it is copied")
    else:
        yield ok("mailbox", told)


async def _visited(settings: Settings, address: MailboxAddress) -> Found:
    try:
        async with asyncio.timeout(_VISIT_S):
            return await visit(address, await oauth.credential(settings, address), settings.imap_ca_file)
    except TimeoutError:
        raise MailboxUnavailable(f"no answer within {_VISIT_S:g} s") from None


def asked(part: str, address: str) -> Iterator[Finding]:
    """Ask what the mail server asks first (though as another user: its rights are not looked at)."""
    name, (question, expected) = setting_name(part), _FIRST[part]
    try:
        with _connected(address) as link:
            link.sendall(question)
            answer = link.recv(256)
    except OSError as error:
        told = f"{name}: {address}: {error.strerror or 'no answer'}"
        yield fail(part, told, f"start unsubd run, or unsubd {part}: until then the mail server keeps its mail")
        return
    if expected in answer:
        yield ok(part, f"{address} answers")
    else:
        told = f"{name}: {address}: answers {answer[:3]!r}, expected {expected!r}"
        yield fail(part, told, f"see the journal of unsubd {part}")


def _connected(address: str) -> socket.socket:
    path = unix_path(address)
    if path is None:
        host, _, port = address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), 5)
    link = socket.socket(socket.AF_UNIX)
    try:
        link.settimeout(5)
        link.connect(str(path))
    except OSError:
        link.close()
        raise
    return link


def webhooks(installation: Installation) -> Iterator[Finding]:
    """Say which endpoints there are, and which nothing could prove itself to."""
    hooks = installation.hooks.every()
    bare = [each for each in hooks if not each.proofs]
    for each in bare:
        told = f"{each.path} has no secret: every post is refused"
        yield fail(
            "webhook", told, f"unsubd hook add {each.provider}, or its secret in UNSUBD_IN_{each.provider.upper()}"
        )
    public = installation.settings.public_url or ""
    if hooks and not public.startswith("https://"):
        yield warn("webhook", "UNSUBD_PUBLIC_URL is no https URL: providers post to one", "UNSUBD_PUBLIC_URL=https://…")
    if proved := [each.path for each in hooks if each.proofs]:
        yield ok("webhook", f"{', '.join(proved)}; try one: unsubd hook test")
    elif not hooks:
        yield ok("webhook", "none configured")
