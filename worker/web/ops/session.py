"""Who may see the console: a token once, then a session that knows who came and in which role. The console is never open.

| key                            | type   | holds                                                               | lives  |
|--------------------------------|--------|---------------------------------------------------------------------|--------|
| `unsubd:session:HASH`          | STRING | JSON {who, role, csrf}; HASH is SHA-256 of the cookie               | 12 h   |
| `unsubd:proxy-session:HASH`    | STRING | the same, of a user that a trusted proxy names; HASH is of the name | 12 h   |
| `unsubd:once:HASH`             | STRING | "1"; a one-time login link                                          | 15 min |
| `unsubd:said:HASH`             | STRING | what the next page of a session says, once; HASH as of the session  | 5 min  |
| `unsubd:login-failures:SOURCE` | STRING | wrong tokens from there, counted                                    | 15 min |
"""

import hmac
import json
import secrets
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Any, cast

import redis

from worker.settings import Settings

COOKIE = "unsubd_session"
SESSION_S = 12 * 3600
MAX_FAILURES = 10
_ONCE_S = 900
_SAID_S = 300
_FAILURES_S = 900
_MAX_NAME = 60


class Role(Enum):
    """What a session may do: look, or act as well."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Session:
    """One person at work. Shape: who: the name in the audit trail. csrf: what each of its forms must bring. key: in Redis."""

    who: str
    role: Role
    csrf: str
    key: str

    @property
    def may_act(self) -> bool:
        """Say whether it may change anything."""
        return self.role is Role.OPERATOR


def role_of(settings: Settings, token: str) -> Role | None:
    """Return the role that *token* opens, None for a wrong one: compared in constant time; an unset one opens nothing."""
    found = None
    for role, known in ((Role.VIEWER, settings.viewer_token), (Role.OPERATOR, settings.admin_token)):
        text = known.get_secret_value()
        if text and hmac.compare_digest(token.strip().encode("utf-8", "surrogatepass"), text.encode()):
            found = role
    return found


def open_session(client: redis.Redis, role: Role = Role.OPERATOR, who: str = "") -> str:
    """Return the cookie of a new session; nobody can choose it beforehand."""
    cookie = secrets.token_urlsafe(32)
    client.set(_key("session", cookie), _content(role, who), ex=SESSION_S)
    return cookie


def find(client: redis.Redis, cookie: str | None) -> Session | None:
    """Return the session of *cookie*, None when there is none or it has ended."""
    key = _key("session", cookie or "")
    return _read(key, cast(bytes | None, client.get(key))) if cookie else None


def of_proxy(client: redis.Redis, user: str) -> Session | None:
    """Return the session of a user that a trusted proxy let in, made at the first request."""
    key = _key("proxy-session", user)
    client.set(key, _content(Role.OPERATOR, user), ex=SESSION_S, nx=True)
    return _read(key, cast(bytes | None, client.get(key)))


def _content(role: Role, who: str) -> str:
    name = "".join(each for each in " ".join(who.split()) if each.isprintable())[:_MAX_NAME]
    return json.dumps({"who": name or role.value, "role": role.value, "csrf": secrets.token_urlsafe(24)})


def _read(key: str, content: bytes | None) -> Session | None:
    found: Any = json.loads(content) if content else None
    if not isinstance(found, dict):  # nothing, or a session of a release without roles
        return None
    return Session(found["who"], Role(found["role"]), found["csrf"], key)


def close_session(client: redis.Redis, cookie: str) -> None:
    """End a session. Repeat: safe."""
    client.delete(_key("session", cookie))


def new_login_link(client: redis.Redis) -> str:
    """Return the path of a link that opens one operator's session, once, within 15 minutes."""
    once = secrets.token_urlsafe(24)
    client.set(_key("once", once), "1", ex=_ONCE_S)
    return f"/ops/login?once={once}"


def use_login_link(client: redis.Redis, once: str) -> bool:
    """Say whether *once* was a fresh login link; from now on it is not."""
    return bool(client.delete(_key("once", once)))


def say(client: redis.Redis, session: Session, text: str) -> None:
    """Keep what the session's next page shall say."""
    client.set(_said(session), text, ex=_SAID_S)


def said(client: redis.Redis, session: Session) -> str:
    """Return what was to be said, once."""
    return (cast(bytes | None, client.getdel(_said(session))) or b"").decode()


def _said(session: Session) -> str:
    return "unsubd:said:" + session.key.rpartition(":")[2]


def is_locked(client: redis.Redis, source: str) -> bool:
    """Say whether too many wrong tokens came from *source* lately."""
    return int(cast(bytes | None, client.get(_failures(source))) or 0) >= MAX_FAILURES


def note_failure(client: redis.Redis, source: str) -> None:
    """Count a wrong token."""
    pipeline = client.pipeline(transaction=True)
    pipeline.incr(_failures(source))
    pipeline.expire(_failures(source), _FAILURES_S)
    pipeline.execute()


def _failures(source: str) -> str:
    return f"unsubd:login-failures:{source}"


def _key(kind: str, secret: str) -> str:
    return f"unsubd:{kind}:{sha256(secret.encode('utf-8', 'surrogateescape')).hexdigest()}"
