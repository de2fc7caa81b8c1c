"""Forwarders: what to say to the provider that sends, so that its own lists hold what the register holds.

One module a provider. `BASE`: where its API is. `GLOBAL`: its place for what stops everything, None where it has none.
`AT_ONCE`: how many recipients one call may name. `headers(secret)`, `look(place)`: a call that must succeed before
anything is written to a place, `calls(account, place, added, lifted)`: what makes it equal, `failed(answer)`: whose part of an
answer says no. The other way: `verify_told` and `told` read what its event webhook tells.
"""

import re
from collections.abc import Sequence
from types import ModuleType

from handlers.errors import Rejected
from handlers.forwarding import mailgun, postmark, sendgrid, ses, sparkpost

FORWARDERS: dict[str, ModuleType] = {
    "sendgrid": sendgrid,
    "mailgun": mailgun,
    "postmark": postmark,
    "sparkpost": sparkpost,
    "ses": ses,
}
# What documentation leaves open, and nobody tried with a live account.
UNCONFIRMED = {
    "sendgrid": "",
    "mailgun": "that a delete may name one tag",
    "postmark": "that a recipient who complained there stays suppressed",
    "sparkpost": "",
    "ses": "what taking back everything leaves of each topic",
}
# Seconds before each call, and how many recipients are a job's, where a provider takes calls slowly: a job ends in 300 s.
PACE_S = {"ses": 1.1}
JOB_SIZE = {"ses": 20}


def forwarder(provider: str) -> ModuleType:
    """Return a provider's module.

    Errors:  Rejected  there is none.    permanent
    """
    if provider not in FORWARDERS:
        raise Rejected(f"provider {provider[:30]!r}: expected one of {', '.join(FORWARDERS)}")
    return FORWARDERS[provider]


def check_places(provider: str, account: str, places: dict[int, str]) -> None:
    """Errors: Rejected  no place at all, or one that needs more.    permanent"""
    if not places:
        raise Rejected(f"groups: none, expected e.g. 12=PLACE: {provider} has no list for everything")
    if provider == "mailgun" and not account:
        raise Rejected("account: expected the domain that Mailgun sends for")
    if provider == "ses" and not account and set(places.values()) != {ses.ACCOUNT_LIST}:
        raise Rejected(f"account: expected the name of the contact list, or --group 0={ses.ACCOUNT_LIST}")
    if provider == "ses" and any(group and place == ses.ACCOUNT_LIST for group, place in places.items()):
        raise Rejected(f"groups: {ses.ACCOUNT_LIST} stops every mail, expected it for group 0 alone")


def warnings_of(provider: str, places: dict[int, str]) -> list[str]:
    """Return what whoever adds a target must know of it."""
    found = [f"unconfirmed with a live account: {UNCONFIRMED[provider]}"] if UNCONFIRMED[provider] else []
    if provider == "ses" and ses.ACCOUNT_LIST in places.values():
        found.append(
            f"over-broad: {ses.ACCOUNT_LIST} stops all mail of this AWS account and region to a recipient: essential mail"
            " (receipts, passwords) and that of other senders as well"
        )
    return found


_REMEDIES = (
    (re.compile(r"answered 40[13]\b"), "its key is not taken: unsubd forward add it again, with one that holds"),
    (re.compile(r"answered 404\b"), "the place is gone there: compare unsubd forward list with the provider"),
    (re.compile(r"answered 429\b"), "nothing yet: it is asked again, later"),
    (re.compile(r"answered 4\d\d\b|refused"), "it refuses what we send: compare unsubd forward list with the provider"),
    (re.compile("not installed"), "install what it names, and start the workers again"),
)


def remedy(target: str, why: str) -> str:
    """Return what to do about a try that failed.

    Example:
        >>> remedy("acme-ses", "acme-ses: GET answered 403 for place news of group 12, expected 2xx")
        'its key is not taken: unsubd forward add it again, with one that holds'
    """
    known = (said for pattern, said in _REMEDIES if pattern.search(why))
    return next(known, f"nothing for 26 hours: it is tried again. Later: unsubd forward sync {target}")


# Who tells of changes on his own lists, by a webhook.
TELLERS = {"sendgrid": sendgrid, "mailgun": mailgun, "postmark": postmark}


def groups_told(places: dict[int, str], group: int, *, has_global: bool) -> Sequence[int]:
    """Return of which groups a provider must hear when *group* changed.

    Why:     where it has no list for everything, what stops everything stops each of its places.
    """
    if group in places:
        return [group]
    return list(places) if group == 0 and not has_global else []
