"""Amazon SES: a place is a topic of the account's contact list, and `*` is that list's UnsubscribeAll. The account is the
list's name, the secret ACCESS_KEY_ID:SECRET_ACCESS_KEY.

A contact list stops only mail that is sent with ListManagementOptions naming list and topic. Who sends without may choose
the place `account-suppression-list` for group 0. That is over-broad: it stops every mail of the account and region,
essential mail as well, and mail of every other sender there. An entry that SES made itself, for a bounce or a complaint, is
never taken from it.

An update replaces a contact's topics, so each is read first. All calls together: one a second for an account.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

from handlers.errors import Rejected
from handlers.forwarding.call import Call

BASE = "https://email.us-east-1.amazonaws.com"
GLOBAL: str | None = "*"
AT_ONCE = 1
ACCOUNT_LIST = "account-suppression-list"
_REGION = "us-east-1"  # of a stand-in: it has none in its name
_SUPPRESSED = "/v2/email/suppression/addresses"


def headers(secret: str) -> dict[str, str]:
    """Return nothing: each call is signed by itself."""
    return {}


def key_pair(secret: str) -> tuple[str, str]:
    """Return the access key's id, and its secret.

    Errors:  Rejected  not two parts.    permanent
    """
    key_id, _, key = secret.partition(":")
    if not key_id or not key:
        raise Rejected("key file: expected ACCESS_KEY_ID:SECRET_ACCESS_KEY in one line")
    return key_id, key


def region(base: str) -> str:
    """Return the region that an API belongs to.

    Example:
        >>> region("https://email.eu-west-1.amazonaws.com"), region("http://127.0.0.1:8080")
        ('eu-west-1', 'us-east-1')
    """
    labels = (urlsplit(base).hostname or "").split(".")
    return labels[1] if len(labels) > 3 and "amazonaws" in labels else _REGION


def look(account: str, place: str) -> Call | None:
    """Return the call that finds the contact list: a contact of a list that is gone looks like one that is not there."""
    return None if place == ACCOUNT_LIST else Call("GET", f"/v2/email/contact-lists/{quote(account, safe='')}")


def calls(account: str, place: str, added: Sequence[str], lifted: Sequence[str]) -> list[Call]:
    """Return the calls that add and lift: each reads, and what it finds says whether something is to be written."""
    contacts = f"/v2/email/contact-lists/{quote(account, safe='')}/contacts"
    path, then = (_SUPPRESSED, _listed) if place == ACCOUNT_LIST else (contacts, partial(_contact, contacts, place))
    wanted = [(each, True) for each in added] + [(each, False) for each in lifted]
    return [
        Call("GET", f"{path}/{quote(each, safe='')}", also=(404,), then=partial(then, each, suppressed))
        for each, suppressed in wanted
    ]


def failed(answer: Any) -> str:
    """Return nothing: an answer is for the whole call."""
    return ""


def _contact(contacts: str, place: str, recipient: str, suppressed: bool, status: int, found: Any) -> list[Call]:
    if status == 404:
        new = {"EmailAddress": recipient, **_preferences({}, place, suppressed=suppressed)}
        return [Call("POST", contacts, new)] if suppressed else []
    before = found if isinstance(found, dict) else {}
    after = _preferences(before, place, suppressed=suppressed)
    if after == _preferences(before, "", suppressed=False):
        return []
    kept = {"AttributesData": before["AttributesData"]} if before.get("AttributesData") else {}
    return [Call("PUT", f"{contacts}/{quote(recipient, safe='')}", {**after, **kept})]


def _preferences(contact: dict[str, Any], place: str, *, suppressed: bool) -> dict[str, Any]:
    """The whole of what a contact wants, with one place changed; place "": as it is. A topic without a word is let be."""
    topics = {each["TopicName"]: each["SubscriptionStatus"] for each in contact.get("TopicPreferences") or []}
    if place not in ("", GLOBAL) and (suppressed or place in topics):
        topics[place] = "OPT_OUT" if suppressed else "OPT_IN"
    rows = [{"TopicName": topic, "SubscriptionStatus": status} for topic, status in topics.items()]
    everything = suppressed if place == GLOBAL else bool(contact.get("UnsubscribeAll"))
    return {"TopicPreferences": rows, "UnsubscribeAll": everything}


def _listed(recipient: str, suppressed: bool, status: int, found: Any) -> list[Call]:
    if suppressed:
        new = {"EmailAddress": recipient, "Reason": "COMPLAINT"}  # it knows no other but a bounce
        return [Call("PUT", _SUPPRESSED, new)] if status == 404 else []
    entry = found.get("SuppressedDestination") if isinstance(found, dict) else None
    by_a_mail = isinstance(entry, dict) and (entry.get("Attributes") or {}).get("MessageId")
    gone = status == 404 or by_a_mail
    return [] if gone else [Call("DELETE", f"{_SUPPRESSED}/{quote(recipient, safe='')}", also=(404,))]
