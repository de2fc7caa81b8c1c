"""What senders import: `import unsubd`. Ask before each send, and give each mail its headers.

    from unsubd import Client
    client = Client("https://unsub.example.com", api_key="SG.…")
    suppressed = [each.recipient for each in client.check(12, ["jane@example.com"]) if each.suppressed]
    for each in client.headers(12, ["jane@example.com"]):
        each.put_into(message)  # an email.message.EmailMessage; or take each.headers, a dict

`AsyncClient` is the same with `await`. Beside the store, with the installation's own UNSUBD_ settings, `RedisClient("acme")`
and `AsyncRedisClient("acme")` ask it directly. Fail-closed: who cannot answer raises, nobody says "allowed".
"""

from dataclasses import dataclass
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .over_http import AsyncClient, Client
    from .over_redis import AsyncRedisClient, RedisClient

__all__ = [
    "AsyncClient", "AsyncRedisClient", "CheckFailed", "Checked", "Client", "Headers", "HeadersFailed", "RedisClient",
]  # fmt: skip
_MODULES = {
    "Client": "over_http", "AsyncClient": "over_http", "RedisClient": "over_redis", "AsyncRedisClient": "over_redis",
}  # fmt: skip


class CheckFailed(Exception):
    """The installation did not answer, or refused the question: nobody was declared "allowed"."""


class Checked(NamedTuple):
    """May this recipient be mailed?

    Shape:   scope: "group" or "global"; since: ISO 8601 UTC; None when allowed. version: compare it with that of a later
             answer: the same as long as the answer is. essential: only an entry for this very group stops its mail.
    """

    recipient: str
    suppressed: bool
    scope: str | None
    since: str | None
    source: str | None
    version: str
    essential: bool = False


class HeadersFailed(Exception):
    """The installation did not answer, or refused the question: no headers, and nothing must be sent without."""


@dataclass(frozen=True, slots=True)
class Headers:
    """What one recipient's mail carries: List-Unsubscribe and List-Unsubscribe-Post, for nobody else's mail."""

    recipient: str
    headers: dict[str, str]

    def put_into(self, message: EmailMessage) -> None:
        """Give *message* these headers, so that the standard library writes them plain. Repeat: safe."""
        from handlers.header_policy import put_into

        put_into(message, tuple(self.headers.items()))


def __getattr__(name: str) -> Any:
    """Import a client when it is asked for: whoever asks over HTTP needs no Redis, and the other way round."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
