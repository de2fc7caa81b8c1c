"""An OAuth server of our own on loopback: every grant we use, and what Dovecot's passdb asks. Refusals are set by the test.

It checks what a real one checks: client secret, PKCE, the signature, audience and scope of an assertion, and that a refresh
token is used once. Tokens are random; `given` holds every secret it handed out, to grep for.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.harness.processes import free_port

CLIENT, SECRET, SCOPE = "app-1", "app-s3cret-Value", "imap offline"
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class _Refusal(Exception):
    """What the server answers instead of a token."""


class OAuthServer:
    """The server. `refusal` = (code, description), `status` an HTTP status for every token request, until unset."""

    def __init__(self, user: str = "user") -> None:
        self.port = free_port()
        self.user = user  # who consents, and whose mailbox an application's token opens
        self.refusal: tuple[str, str] | None = None
        self.status = 0
        self.life_s: Any = 3600
        self.rotates = True
        self.delay_s = 0.0  # between using a refresh token up and the answer
        self.pending = 0  # device polls answered authorization_pending, after one slow_down
        self.active: dict[str, tuple[str, float]] = {}  # access token -> user, end
        self.refresh: dict[str, str] = {}  # refresh token -> user; used once when `rotates`
        self.given: set[str] = {SECRET}
        self.asked: list[dict[str, str]] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._key = rsa.generate_private_key(65537, 2048)
        self._http: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def service_account(self) -> dict[str, str]:
        """Return a service-account file as Google gives it."""
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": key.decode(),
            "client_email": "robot@p.iam.example.com", "client_id": "1", "token_uri": f"{self.url}/token",
        }  # fmt: skip

    def client_credentials(self) -> dict[str, str]:
        """Return the login of an application."""
        return {
            "type": "client_credentials", "token_url": f"{self.url}/token", "client_id": CLIENT, "client_secret": SECRET,
            "scope": SCOPE,
        }  # fmt: skip

    def refresh_login(self) -> dict[str, str]:
        """Return the login of a person who consented."""
        return self.client_credentials() | {"type": "refresh_token", "refresh_token": self._new_refresh()}

    def _new_refresh(self) -> str:
        token = f"refresh-{secrets.token_urlsafe(16)}"
        self.refresh[token] = self.user
        self.given.add(token)
        return token

    # --- endpoints

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        """Answer the token endpoint."""
        self.asked.append(form)
        if self.refusal:
            raise _Refusal(*self.refusal)
        grants = {
            "client_credentials": self._by_secret, "refresh_token": self._by_refresh, "authorization_code": self._by_code,
            _JWT_GRANT: self._by_assertion, _DEVICE_GRANT: self._by_device,
        }  # fmt: skip
        return self._issued(grants[form["grant_type"]](form))

    def _issued(self, refresh: str) -> dict[str, Any]:
        access = f"access-{secrets.token_urlsafe(16)}"
        self.given.add(access)
        self.active[access] = (self.user, time.time() + float(self.life_s))
        answer = {"access_token": access, "token_type": "Bearer", "expires_in": self.life_s}
        return answer | ({"refresh_token": refresh} if refresh else {})

    def _by_secret(self, form: dict[str, str]) -> str:
        self._require_secret(form)
        if form.get("scope") != SCOPE:
            raise _Refusal("invalid_scope", "AADSTS70011: The provided value for 'scope' is not valid.")
        return ""

    def _require_secret(self, form: dict[str, str]) -> None:
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, SECRET):
            said = form.get("client_secret", "")  # as careless servers do, it repeats what it was given
            raise _Refusal("invalid_client", f"AADSTS7000215: Invalid client secret {said!r}.\r\nTrace ID: 1\r\nx")

    def _by_refresh(self, form: dict[str, str]) -> str:
        self._require_secret(form)
        if form["refresh_token"] not in self.refresh:
            raise _Refusal("invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity.")
        if not self.rotates:
            return ""
        del self.refresh[form["refresh_token"]]
        return self._new_refresh()

    def _by_code(self, form: dict[str, str]) -> str:
        self._require_secret(form)
        asked = self._codes.pop(form["code"], {})
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked.get("code_challenge") != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            raise _Refusal("invalid_grant", "code, verifier or redirect does not fit")
        return self._new_refresh()

    def _by_device(self, form: dict[str, str]) -> str:
        self._require_secret(form)
        if form["device_code"] not in self._codes:
            raise _Refusal("expired_token", "")
        if self.pending:
            self.pending -= 1
            raise _Refusal("authorization_pending", "not yet")
        return self._new_refresh()

    def _by_assertion(self, form: dict[str, str]) -> str:
        self.given.add(form["assertion"])
        key = RSAKey.import_key(self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ))  # fmt: skip
        try:
            claims = jwt.decode(form["assertion"], key, algorithms=["RS256"]).claims
        except ValueError as error:
            raise _Refusal("invalid_grant", "Invalid JWT Signature.") from error
        expected = {"iss": "robot@p.iam.example.com", "sub": self.user, "aud": f"{self.url}/token"}
        if not expected.items() <= claims.items() or claims["scope"] != "https://mail.google.com/":
            raise _Refusal("unauthorized_client", "Client is unauthorized to retrieve access tokens using this method.")
        return ""

    def device(self, form: dict[str, str]) -> dict[str, Any]:
        """Answer the device endpoint."""
        code = secrets.token_urlsafe(8)
        self.given.add(code)
        self._codes[code] = form
        page = {"verification_uri": f"{self.url}/activate", "user_code": "WDJB-MJHT"}
        return page | {"device_code": code, "expires_in": 60, "interval": 1}

    def authorize(self, asked: dict[str, str]) -> str:
        """Return where the browser is sent: the person has consented, or `refusal` is told."""
        told = {"state": asked["state"]}
        if self.refusal:
            told |= {"error": self.refusal[0], "error_description": self.refusal[1]}
        else:
            told["code"] = secrets.token_urlsafe(8)
            self.given.add(told["code"])
            self._codes[told["code"]] = asked
        return f"{asked['redirect_uri']}?{urlencode(told)}"

    def introspect(self, access: str) -> dict[str, Any]:
        """Answer Dovecot: is this token good, and whose is it?"""
        user, end = self.active.get(access, ("", 0.0))
        return {"active": True, "username": user} if time.time() < end else {"active": False}

    # --- the thread

    def start(self) -> None:
        """Listen. Repeat: safe."""
        if self._http is None:
            self._http = _Http(("127.0.0.1", self.port), self)
            threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be away. Repeat: safe."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Http(ThreadingHTTPServer):
    def __init__(self, where: tuple[str, int], oauth: OAuthServer) -> None:
        super().__init__(where, _Asked)
        self.oauth = oauth


class _Asked(BaseHTTPRequestHandler):
    server: _Http

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/authorize":
            self.send_response(302)
            self.send_header("Location", self.server.oauth.authorize(_flat(parts.query)))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:  # /introspect, asked by Dovecot with the token in a header
            access = self.headers.get("Authorization", "").removeprefix("Bearer ")
            self._answer(200, self.server.oauth.introspect(access))

    def do_POST(self) -> None:
        form = _flat(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if status := self.server.oauth.status:
            self._answer(status, {"oops": "<html>"})
            return
        try:
            found = self.server.oauth.device(form) if self.path == "/device" else self.server.oauth.token(form)
            time.sleep(self.server.oauth.delay_s)
            self._answer(200, found)
        except _Refusal as refusal:
            self._answer(400, {"error": refusal.args[0], "error_description": refusal.args[1]})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", f"{self.server.oauth.url}/token")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _flat(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
