"""Forwarders: what to say to the provider that sends, so that its own lists hold what the register holds.

One module a provider. `BASE`: where its API is. `GLOBAL`: its place for what stops everything, None where it has none.
`AT_ONCE`: how many recipients one call may name. `headers(secret)`, `look(place)`: a call that must succeed before
anything is written to a place, `calls(account, place, added, lifted)`: what makes it equal, `failed(answer)`: whose part of an
answer says no. The other way: `verify_told` and `told` read what its event webhook tells.
"""

from collections.abc import Sequence
from types import ModuleType

from handlers.errors import Rejected
from handlers.forwarding import mailgun, postmark, sendgrid, sparkpost

FORWARDERS: dict[str, ModuleType] = {
    "sendgrid": sendgrid,
    "mailgun": mailgun,
    "postmark": postmark,
    "sparkpost": sparkpost,
}
# What documentation leaves open, and nobody tried with a live account.
UNCONFIRMED = {
    "sendgrid": "",
    "mailgun": "that a delete may name one tag",
    "postmark": "that a recipient who complained there stays suppressed",
    "sparkpost": "",
}


def forwarder(provider: str) -> ModuleType:
    """Return a provider's module.

    Errors:  Rejected  there is none.    permanent
    """
    if provider not in FORWARDERS:
        raise Rejected(f"provider {provider[:30]!r}: expected one of {', '.join(FORWARDERS)}")
    return FORWARDERS[provider]


# Who tells of changes on his own lists, by a webhook.
TELLERS = {"sendgrid": sendgrid, "mailgun": mailgun, "postmark": postmark}


def groups_told(places: dict[int, str], group: int, *, has_global: bool) -> Sequence[int]:
    """Return of which groups a provider must hear when *group* changed.

    Why:     where it has no list for everything, what stops everything stops each of its places.
    """
    if group in places:
        return [group]
    return list(places) if group == 0 and not has_global else []
