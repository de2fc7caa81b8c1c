"""A person's consent becomes a first refresh token: by a browser on this machine, or by a code typed on another device.

The browser's way is the authorization code with PKCE and a redirect to loopback, where one request is awaited; `state`
says that it answers ours. RFC: 7636, 8252, 8628.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from handlers.errors import MailboxUnavailable
from worker.sources.imap.address import MailboxRefused
from worker.sources.oauth import endpoint
from worker.sources.oauth.endpoint import Refused, Token
from worker.sources.oauth.provider import Provider

_WAIT_S = 300.0
_CODE_S = 1200.0
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_PAGE = b"<!doctype html><title>unsubd</title><p>unsubd has the answer. You may close this window."


class _Answer(BaseHTTPRequestHandler):
    """One request to the loopback redirect."""

    timeout = 5  # a connection that says nothing must not hold the port
    server: "_Redirect"

    def do_GET(self) -> None:
        """Take the answer when its state is ours; whatever else comes is told to go away."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        ours = hmac.compare_digest(asked.get("state", "").encode(), self.server.state.encode())
        if ours:
            self.server.answer = asked
        self.send_response(200 if ours else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(_PAGE if ours else b"not found")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the request line holds the code."""


class _Redirect(TCPServer):
    timeout = 1
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Answer)
        self.state = secrets.token_urlsafe(24)
        self.answer: dict[str, str] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that hangs up is not our trouble."""

    def wait(self, seconds: float) -> dict[str, str]:
        """Serve until the answer is here."""
        deadline = time.monotonic() + seconds
        while not self.answer:
            if time.monotonic() > deadline:
                raise MailboxUnavailable(f"nobody answered in the browser within {seconds:.0f} s: start again")
            self.handle_request()
        return self.answer


def by_browser(provider: Provider, client: tuple[str, str], user: str, port: int, say: Callable[[str], None]) -> Token:
    """Return the tokens of a consent given in a browser; *say* tells the URL to open.

    Shape:   client: id and secret, "" for none. port: of the redirect, 0 for any.
    Errors:  MailboxRefused      refused, by the person or the server; or the port is taken.
             MailboxUnavailable  nobody answered within 5 minutes, or the server is away.    temporary
    """
    from authlib.integrations.httpx_client import AsyncOAuth2Client

    token_url, authorize_url = provider.needed("token-url"), provider.needed("authorize-url")
    verifier = secrets.token_urlsafe(48)
    asked = {"scope": provider.scope, "code_verifier": verifier, "login_hint": user, **provider.extra}
    with _listening(port) as server:
        redirect = f"http://{provider.redirect_host}:{server.server_address[1]}/"
        link = AsyncOAuth2Client(client[0], redirect_uri=redirect, code_challenge_method="S256")
        say(link.create_authorization_url(authorize_url, state=server.state, **asked)[0])
        answer = server.wait(_WAIT_S)
    host = urlsplit(authorize_url).hostname
    if not (code := answer.get("code")):
        why = answer.get("error", "no code"), answer.get("error_description", "no reason given")
        raise MailboxRefused(f"{host} refused ({endpoint.shown(': '.join(why), ())}): start again and consent")
    grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
    return asyncio.run(endpoint.ask(token_url, *client, **grant))


def _listening(port: int) -> _Redirect:
    try:
        return _Redirect(port)
    except OSError as error:
        raise MailboxRefused(f"--port {port}: {error.strerror}, expected a free port") from error


async def by_device(
    provider: Provider,
    client: tuple[str, str],
    say: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Token:
    """Return the tokens of a consent given on another device; *say* tells the page and the code to type there.

    Errors:  as `by_browser`.
    RFC:     8628 3.5: `slow_down` adds 5 s; a server that is away is asked half as often.
    """
    token_url = provider.needed("token-url")
    answer = await endpoint.device_code(provider.needed("device-url"), client[0], provider.scope)
    page = answer.get("verification_uri") or answer.get("verification_url")
    if not (page and answer.get("user_code") and answer.get("device_code")):
        raise MailboxRefused("--device-url: answered without a code, expected device_code, user_code, verification_uri")
    say(f"{endpoint.shown(str(page), ())}   code: {endpoint.shown(str(answer['user_code']), ())}")
    interval_s = endpoint.seconds(answer.get("interval"), 5)
    deadline = time.monotonic() + min(endpoint.seconds(answer.get("expires_in"), _WAIT_S), _CODE_S)
    while time.monotonic() < deadline:
        await sleep(interval_s)
        try:
            return await endpoint.ask(
                token_url, *client, grant_type=_DEVICE_GRANT, device_code=str(answer["device_code"])
            )
        except (Refused, MailboxUnavailable) as error:
            interval_s = _next_interval(error, interval_s)
    raise MailboxUnavailable("nobody typed the code in time: start again")


def _next_interval(error: Refused | MailboxUnavailable, interval_s: float) -> float:
    """Return when to ask again; raises *error* when that is no use."""
    if isinstance(error, MailboxUnavailable):
        return min(interval_s * 2, 60.0)
    if error.code == "slow_down":
        return interval_s + 5
    if error.code == "authorization_pending":
        return interval_s
    if error.code == "expired_token":
        raise MailboxUnavailable("nobody typed the code in time: start again") from None
    if error.code == "access_denied":
        raise MailboxRefused(f"{error}: start again and consent") from None
    raise error
