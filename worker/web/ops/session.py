"""Who may see the console: the admin token once, then a session. The console is never open.

| key                   | type   | holds                              | lives  |
|-----------------------|--------|------------------------------------|--------|
| `unsubd:session:HASH` | STRING | "1"; HASH is SHA-256 of the cookie | 12 h   |
| `unsubd:once:HASH`    | STRING | "1"; a one-time login link         | 15 min |
"""

import hmac
import secrets
from hashlib import sha256

import redis

from worker.installation import Installation

COOKIE = "unsubd_session"
SESSION_S = 12 * 3600
_ONCE_S = 900


def token_matches(installation: Installation, given: str) -> bool:
    """Compare with UNSUBD_ADMIN_TOKEN in constant time; without one nobody gets in."""
    token = installation.settings.admin_token.get_secret_value()
    return bool(token) and hmac.compare_digest(given.strip().encode(), token.encode())


def open_session(client: redis.Redis) -> str:
    """Return the cookie of a new session."""
    cookie = secrets.token_urlsafe(32)
    client.set(_key("session", cookie), "1", ex=SESSION_S)
    return cookie


def is_open(client: redis.Redis, cookie: str | None) -> bool:
    """Say whether *cookie* is a session's."""
    return bool(cookie) and bool(client.exists(_key("session", cookie or "")))


def close_session(client: redis.Redis, cookie: str) -> None:
    """End a session. Repeat: safe."""
    client.delete(_key("session", cookie))


def new_login_link(client: redis.Redis) -> str:
    """Return the path of a link that opens one session, once, within 15 minutes."""
    once = secrets.token_urlsafe(24)
    client.set(_key("once", once), "1", ex=_ONCE_S)
    return f"/ops/login?once={once}"


def use_login_link(client: redis.Redis, once: str) -> bool:
    """Say whether *once* was a fresh login link; from now on it is not."""
    return bool(client.delete(_key("once", once)))


def _key(kind: str, secret: str) -> str:
    return f"unsubd:{kind}:{sha256(secret.encode()).hexdigest()}"
