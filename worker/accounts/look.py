"""How a sender's pages look: its colour, its logo, its texts, and where it can be written to.

Apart from the account, which every check and every mint reads: a logo weighs more than all senders together.

| key                   | type | holds                                                              | lives    |
|-----------------------|------|--------------------------------------------------------------------|----------|
| `unsubd:look:SENDER`  | HASH | colour, contact, texts (JSON), logo (octets), logo_type of a sender | for good |
| `unsubd:reasons:SENDER` | HASH | reason of a closed list -> how many people gave it               | for good |
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from handlers import colour, texts
from handlers.address import one_address
from handlers.errors import QueueUnavailable, Rejected
from handlers.texts import Texts
from worker.server import Writer, away_as

MAX_LOGO_BYTES = 64 * 1024
REASONS = ("too_many", "not_interested", "never_asked", "other")
_PNG = b"\x89PNG\r\n\x1a\n"
_SVG = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*<svg[\s>]", re.DOTALL)
# Our own page shows it as a picture, where none of this runs; whoever opens its address alone must be safe as well.
_ACTIVE = re.compile(
    rb"<!doctype|<!entity|<\s*(?:[\w.-]+:)?(?:script|foreignobject|iframe|a)\b|\son\w+\s*=|javascript:", re.I
)


@dataclass(frozen=True, slots=True)
class Look:
    """How one sender's pages look. Shape: "" = not chosen. contact: an address. logo_type: "" = no logo."""

    colour: str = ""
    contact: str = ""
    logo_type: str = ""
    texts: Mapping[str, Texts] = field(default_factory=dict)


class Looks:
    """The looks of one installation.

    Errors:  QueueUnavailable  every method, when Redis is away.    temporary
    """

    def __init__(self, client: redis.Redis, *, min_replicas: int = 0) -> None:
        self._redis = client
        self._confirmed = Writer(client, min_replicas)

    def of(self, sender: str) -> Look:
        """Return how a sender's pages look; ours, where it chose nothing or nobody knows it."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            found = cast(Any, self._redis.hmget(_key(sender), ["colour", "contact", "logo_type", "texts"]))
        chosen, contact, logo_type, replaced = ((each or b"").decode() for each in found)
        return Look(chosen, contact, logo_type, json.loads(replaced) if replaced else {})

    def logo(self, sender: str) -> tuple[str, bytes] | None:
        """Return a sender's logo, with its media type; None where it has none."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            kind, content = cast(Any, self._redis.hmget(_key(sender), ["logo_type", "logo"]))
        return (kind.decode(), content) if kind and content else None

    def change(self, sender: str, **given: Any) -> None:
        """Change what is given: colour, contact, texts (JSON values), logo (octets); an empty value takes it away.

        Errors:  Rejected  a colour, address, text or picture that cannot be used.    permanent
        """
        fields = {name: value for each in given for name, value in _fields(each, given[each]).items()}
        if fields:
            self._confirmed(lambda to: [_put(to, _key(sender), *each) for each in fields.items()])

    def count_reason(self, sender: str, reason: str) -> None:
        """Count why somebody left. Errors: Rejected  a reason that nobody is offered.    permanent"""
        if reason not in REASONS:
            raise Rejected(f"reason of {len(reason)} characters: expected one of {', '.join(REASONS)}")
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            self._redis.hincrby(_reasons_key(sender), reason, 1)

    def reasons(self, sender: str) -> dict[str, int]:
        """Return how many people gave each reason."""
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            found = cast(Any, self._redis.hgetall(_reasons_key(sender)))
        return {reason: int(found.get(reason.encode(), 0)) for reason in REASONS}


def _key(sender: str) -> str:
    return f"unsubd:look:{sender}"


def _put(to: Any, key: str, name: str, value: Any) -> object:
    return to.hset(key, name, value) if value else to.hdel(key, name)


def _reasons_key(sender: str) -> str:
    return f"unsubd:reasons:{sender}"


def _fields(name: str, value: Any) -> dict[str, Any]:
    """What Redis holds of one part of a look."""
    if name == "logo":
        return {"logo": value, "logo_type": _picture_type(value) if value else ""}
    if not value:
        return {name: ""}
    if name == "texts":
        return {"texts": json.dumps(texts.checked(value))}
    return {name: colour.checked(value) if name == "colour" else one_address(value)}


def _picture_type(picture: bytes) -> str:
    """Errors: Rejected  over 64 KB, neither PNG nor SVG, or an SVG that does more than show.    permanent"""
    if len(picture) > MAX_LOGO_BYTES:
        raise Rejected(f"logo: {len(picture)} octets, expected at most {MAX_LOGO_BYTES}")
    if picture.startswith(_PNG):
        return "image/png"
    if not _SVG.match(picture):
        raise Rejected("logo: expected a PNG or SVG picture")
    if _ACTIVE.search(picture):
        raise Rejected("logo: an SVG with scripts, links or entities, expected shapes alone")
    return "image/svg+xml"
