"""What a polled mailbox logs in with: its password, or an access token that is fetched, kept and renewed here.

A token is kept in this process until a minute before its end. A refresh token that the server replaces is written back
under a lock on its folder, for two that use one refresh token up would both lose it.

RFC: 6749 6 (refresh). Mailboxes with a password never load Authlib.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from handlers.errors import ConfigError, MailboxUnavailable
from worker.settings import Settings
from worker.sources.credential import Credential
from worker.sources.imap.address import MailboxAddress, MailboxRefused
from worker.sources.oauth import choice, endpoint, file
from worker.sources.oauth.endpoint import Refused, Token
from worker.sources.oauth.file import Login, RefreshToken, ServiceAccount

_RENEW_BEFORE_S = 60.0
_LOCK_S = 25.0  # one answer takes 10 s at most
_tokens: dict[tuple[MailboxAddress, Path], Token] = {}


async def credential(settings: Settings, address: MailboxAddress) -> Credential:
    """Return what to log in to *address* with.

    Errors:  MailboxRefused      nothing is set, the OAuth file is wrong, or the OAuth server refuses us.
             MailboxUnavailable  the OAuth server is away.    temporary
    Repeat:  cheap: a token is asked for when the last one ends.
    """
    if found := choice.password(settings, address):
        return Credential("password", found)
    try:
        if path := choice.oauth_file(settings, address):
            return Credential("token", await _token(address, path))
    except ConfigError as error:
        raise MailboxRefused(f"mailbox {address.name!r}: {error}") from None
    except MailboxUnavailable as error:
        raise MailboxUnavailable(f"mailbox {address.name!r}: {error}") from None
    raise MailboxRefused(
        f"UNSUBD_IMAP_PASSWORD: not set, expected the password of mailbox {address.name!r}"
        " (or its UNSUBD_IMAP_OAUTH, or the outcome of: unsubd mailbox login)"
    )


def forget(address: MailboxAddress) -> None:
    """Drop the kept token: the mailbox refused it. Repeat: safe."""
    for key in [key for key in _tokens if key[0] == address]:
        del _tokens[key]


def login_ends_ms(address: MailboxAddress) -> int:
    """Return when somebody must log in to *address* anew, ms UTC; 0 = the OAuth server did not say, or there is none."""
    ends = [token.login_ends_at for key, token in _tokens.items() if key[0] == address]
    return round(max(ends, default=0.0) * 1000)


async def _token(address: MailboxAddress, path: Path) -> str:
    kept = _tokens.get((address, path))
    if kept is None or kept.expires_at - _RENEW_BEFORE_S < time.time():
        kept = _tokens[address, path] = await _fetched(address, path)
    return kept.access


async def _fetched(address: MailboxAddress, path: Path) -> Token:
    if not isinstance(login := file.read(path), RefreshToken):
        return await _asked(login, path, address)
    async with _alone(path.resolve().parent):
        renewal = asyncio.ensure_future(_renewed(path, address))
        try:
            return await asyncio.shield(renewal)
        except asyncio.CancelledError:
            # The server may have replaced the refresh token by now: the end of this process waits for the new one.
            await asyncio.wait({renewal})
            renewal.exception()
            raise


async def _renewed(path: Path, address: MailboxAddress) -> Token:
    login = file.read(path)  # again: another process may have replaced it while we waited
    token = await _asked(login, path, address)
    if token.refresh and isinstance(login, RefreshToken) and token.refresh != login.refresh_token.get_secret_value():
        file.rotate(path, token.refresh)
    return token


async def _asked(login: Login, path: Path, address: MailboxAddress) -> Token:
    try:
        return await endpoint.fetch(login, address.user)
    except Refused as error:
        raise MailboxRefused(f"{error}: {_remedy(error.code, login, path)}") from None
    except MailboxRefused as error:
        raise MailboxRefused(f"{path}: {error}") from None


@asynccontextmanager
async def _alone(folder: Path) -> AsyncIterator[None]:
    """Hold the lock on *folder*, against other processes and other mailboxes of this one."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}, expected a folder that we may read") from error
    try:
        deadline = time.monotonic() + _LOCK_S
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise MailboxUnavailable(f"another process renews a token in {folder} and does not end")
            await asyncio.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remedy(code: str, login: Login, path: Path) -> str:
    """Say what to do, by who was refused and how."""
    if code == "invalid_client" or (code == "unauthorized_client" and not isinstance(login, ServiceAccount)):
        return f"check client_id and client_secret in {path}, and that the secret has not expired"
    if isinstance(login, ServiceAccount):
        return f"check {path}, the mailbox's user, and the account's domain-wide delegation for {login.scope}"
    if code == "invalid_scope":
        return f"check scope in {path}"
    if isinstance(login, RefreshToken):
        return "log in again: unsubd mailbox login"
    return f"check {path}, and what the application may do"
