"""Talk to an OAuth server through Authlib: one question, bounded; a refusal becomes one line without any secret.

RFC: 6749 (OAuth 2.0), 7523 (JWT bearer), 7636 (PKCE), 8628 (device code). Microsoft: `client_secret` goes in the body.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from handlers.errors import ConfigError, MailboxUnavailable
from worker.sources.imap.address import MailboxRefused
from worker.sources.oauth.file import ClientCredentials, Login, ServiceAccount, is_loopback

_ANSWER_S = 10.0
_SHORT_LIFE_S = 300  # when the server does not say how long a token lives
_SHOWN = 200
_JWT = re.compile(r"eyJ[\w.-]{20,}")
_OPEN = ("redirect_uri",)  # of a grant's parameters: may be said
_TEMPORARY = ("temporarily_unavailable", "server_error")


@dataclass(frozen=True, slots=True)
class Token:
    """What the server gave.

    Units:   seconds since 1970.
    Shape:   refresh: "" when it gave none. login_ends_at: the end of the consent, 0.0 when it did not say.
    """

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    expires_at: float
    login_ends_at: float = 0.0


class Refused(MailboxRefused):
    """The OAuth server said no. Shape: code: its word, e.g. invalid_grant; the message: host, code and description."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


async def fetch(login: Login, user: str) -> Token:
    """Ask for an access token for the mailbox of *user*.

    Errors:  Refused             the server said no.
             MailboxUnavailable  it is away, slow or in trouble.    temporary
    """
    if isinstance(login, ServiceAccount):
        return await _asserted(login, user)
    secret = login.client_secret.get_secret_value() if login.client_secret else ""
    if isinstance(login, ClientCredentials):
        return await ask(login.token_url, login.client_id, secret, grant_type=login.type, scope=login.scope)
    asked = {"refresh_token": login.refresh_token.get_secret_value()}
    return await ask(login.token_url, login.client_id, secret, grant_type=login.type, scope=login.scope, **asked)


async def ask(url: str, client_id: str, client_secret: str, *, grant_type: str, scope: str = "", **asked: str) -> Token:
    """Ask the token endpoint *url* for a token by any grant; *asked* are the grant's own parameters. Errors as `fetch`."""
    from authlib.integrations.httpx_client import AsyncOAuth2Client

    method = "client_secret_post" if client_secret else "none"
    made = AsyncOAuth2Client(
        client_id, client_secret, token_endpoint_auth_method=method, scope=scope or None, **_bounds(url)
    )
    sent = (client_secret, *(value for name, value in asked.items() if name not in _OPEN))
    async with _explained(url, sent), made as client:
        return _token(url, await client.fetch_token(url, grant_type=grant_type, **asked))


async def _asserted(login: ServiceAccount, user: str) -> Token:
    from authlib.integrations.httpx_client import AsyncAssertionClient

    key, url = login.private_key.get_secret_value(), login.token_url
    made = AsyncAssertionClient(
        url, login.client_email, user, claims={"scope": login.scope}, key=_signing(key), alg="RS256", **_bounds(url)
    )
    async with _explained(url, (key,)), made as client:
        return _token(url, await client.refresh_token())


def _signing(pem: str) -> Any:
    from joserfc.errors import JoseError
    from joserfc.jwk import RSAKey

    try:
        if (key := RSAKey.import_key(pem)).is_private:
            return key
    except (ValueError, JoseError):
        pass  # its text may quote the key
    raise MailboxRefused("private_key: no private RSA key, expected the PEM text that Google gave")


async def device_code(url: str, client_id: str, scope: str) -> dict[str, Any]:
    """Ask for a device code; return the answer's fields. Errors as `fetch`. RFC: 8628 3.2."""
    from authlib.integrations.httpx_client import AsyncOAuth2Client

    async with _explained(url, ()), AsyncOAuth2Client(client_id, **_bounds(url)) as client:
        data = {"client_id": client_id, "scope": scope}
        answer = await client.request("POST", url, withhold_token=True, auth=None, data=data)
        return dict(client.parse_response_token(answer))


def _bounds(url: str) -> dict[str, Any]:
    """No redirects (they would carry secrets elsewhere), no proxy to loopback, and answers judged before they are read."""
    for name in ("httpx2", "httpcore2", "authlib"):  # at DEBUG they log requests
        logging.getLogger(name).setLevel(logging.WARNING)
    hooks = {"response": [_judge]}
    return {
        "timeout": _ANSWER_S,
        "follow_redirects": False,
        "trust_env": not is_loopback(url),
        "event_hooks": hooks,
    }


async def _judge(response: Any) -> None:
    status, host = response.status_code, response.url.host
    if status >= 500 or status == 429:
        raise MailboxUnavailable(f"{host} answers HTTP {status}: tried again later")
    if 300 <= status < 400:
        raise MailboxRefused(f"{host} answers HTTP {status}, a redirect, expected a token: check token_url")


@asynccontextmanager
async def _explained(url: str, secrets: tuple[str, ...]) -> AsyncIterator[None]:
    """Turn every way to fail into our two errors. None keeps its cause: request and secrets would be in it."""
    import httpx2
    from authlib.integrations.base_client import OAuthError

    host = urlsplit(url).hostname
    try:
        async with asyncio.timeout(_ANSWER_S):
            yield
    except ConfigError:
        raise  # what `_judge` said; it is a ValueError too
    except OAuthError as error:
        code = shown(str(error.error), secrets)
        said = f"{host} refused ({code}: {shown(str(error.description or ''), secrets) or 'no reason given'})"
        if code in _TEMPORARY:
            raise MailboxUnavailable(said) from None
        raise Refused(said, code) from None
    except (httpx2.TransportError, TimeoutError) as error:
        reason = shown(str(error), secrets)
        raise MailboxUnavailable(
            f"{host} does not answer ({type(error).__name__}{': ' if reason else ''}{reason})"
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        raise MailboxRefused(f"{host} answered with no token, expected JSON with access_token: check its URL") from None


def shown(text: str, secrets: tuple[str, ...]) -> str:
    """Return the first line of the server's words, cut short, without *secrets*, nor any JWT (an assertion is one).

    Example:
        >>> shown("AADSTS7000215: Invalid secret 's3cret'.\\r\\nTrace ID: 1", ("s3cret", ""))
        "AADSTS7000215: Invalid secret '***'."
    """
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    text = _JWT.sub("***", text)
    first = next(iter(text.strip().splitlines()), "")
    return "".join(each for each in first if each.isprintable())[:_SHOWN].strip()


def _token(url: str, answer: dict[str, Any]) -> Token:
    access, refresh = answer.get("access_token"), answer.get("refresh_token", "")
    if not isinstance(access, str) or not access or not isinstance(refresh, str):
        raise ValueError("no access_token")
    # Google says so of a consent that was given for some time, and of every one while its application is in test.
    left_s = seconds(answer.get("refresh_token_expires_in"), 0.0)
    now = time.time()
    return Token(
        access, refresh, now + seconds(answer.get("expires_in"), _SHORT_LIFE_S), now + left_s if left_s else 0.0
    )


def seconds(value: Any, default: float) -> float:
    """Return a number of seconds as servers write it, which may be a string or nothing.

    Example:
        >>> seconds("3599", 300), seconds(None, 300), seconds("soon", 300), seconds(float("nan"), 300)
        (3599.0, 300, 300, 300)
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if 0 < number < 1e9 else default
