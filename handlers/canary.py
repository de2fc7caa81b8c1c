"""The canary: a mail that we send ourselves to see that it arrives, and that means nobody.

Its tag is signed like every other, for a recipient under `canary.invalid`: a domain that can have no mail (RFC 6761), so
no customer's recipient is ever taken for it. It ends as `ignore:ping`: no suppression, no request, no age in a report.
"""

from collections.abc import Iterable

from handlers.tag import Tag

_SENDER, _DOMAIN = "canary", "@canary.invalid"


def canary(nonce: str) -> Tag:
    """Return the tag of one flight. Shape: nonce: a few of [a-z0-9]."""
    return Tag(_SENDER, 0, nonce + _DOMAIN)


def nonce_of(tags: Iterable[Tag]) -> str:
    """Return which flight these tags are of; "" where one of them is anybody's, or there is none.

    Example:
        >>> nonce_of([canary("k7")]), nonce_of([canary("k7"), Tag("acme", 12, "jane@example.com")])
        ('k7', '')
    """
    nonces = [each.recipient.removesuffix(_DOMAIN) if _is_canary(each) else "" for each in tags]
    return nonces[0] if nonces and all(nonces) else ""


def _is_canary(tag: Tag) -> bool:
    return tag.sender == _SENDER and tag.recipient.endswith(_DOMAIN)
