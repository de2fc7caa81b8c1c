"""Whose mail is this, and of which group? What a mail server knows of a mail decides: a route, kept under a key.

A key is `from:ADDRESS`, `from:DOMAIN` (MAIL FROM), `user:NAME` (who logged in to send) or `port:NUMBER` (where the mail
came in). The most telling one counts, in this order; mail without a route is none of our business.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from handlers.address import canonical
from handlers.errors import AddressError, Rejected

_MAX_KEY = 330
_EXPECTED = "expected from:ADDRESS, from:DOMAIN, user:NAME or port:NUMBER"


@dataclass(frozen=True, slots=True)
class Route:
    """What mail of one origin is. Shape: discard: drop it without a word where it is suppressed, instead of refusing it."""

    sender: str
    group: int
    discard: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """What a mail server knows of who sends a mail; "" where it does not."""

    mail_from: str
    user: str
    port: str


def read_key(text: str) -> str:
    """Return the one spelling of a key.

    Errors:  Rejected  not a key.    permanent
    Example:
        >>> read_key("from:News@Example.COM"), read_key("from:Example.com"), read_key("port:2525")
        ('from:news@example.com', 'from:example.com', 'port:2525')
    """
    kind, _, value = text.strip().partition(":")
    if not value or len(text) > _MAX_KEY or not value.isprintable():
        raise Rejected(f"key of {len(text)} characters: {_EXPECTED}")
    if kind == "user":
        return f"user:{value}"
    if kind == "port" and value.isascii() and value.isdigit() and 0 < int(value) < 65536:
        return f"port:{int(value)}"
    if kind == "from":
        return f"from:{canonical(value)}" if "@" in value else f"from:{_domain(value)}"
    raise Rejected(f"key of kind {kind[:20]!r}: {_EXPECTED}")


def _domain(text: str) -> str:
    return canonical(f"x@{text}").partition("@")[2]


def find(routes: Mapping[str, Route], origin: Origin) -> Route | None:
    """Return the route of a mail, None when it has none.

    Example:
        >>> find({"from:example.com": Route("acme", 12)}, Origin("news+jane=x.org@example.com", "", "25"))
        Route(sender='acme', group=12, discard=False)
    """
    return next((routes[key] for key in _keys(origin) if key in routes), None) if routes else None


def _keys(origin: Origin) -> Iterator[str]:
    try:
        mail_from = canonical(origin.mail_from)
    except AddressError:
        mail_from = ""  # the null sender; and what is no address has no route of its own
    if mail_from:
        local_part, _, domain = mail_from.rpartition("@")
        yield f"from:{mail_from}"
        # VERP: each recipient has a return path of its own, news+jane=example.org@…
        yield f"from:{local_part.partition('+')[0]}@{domain}"
        yield f"from:{domain}"
    yield f"user:{origin.user}"
    yield f"port:{origin.port}"
