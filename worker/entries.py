"""What a program enters with its key: suppressions of a group or of everything, and the end of one.

One way for /v3 and /v1: source "api", actor the key's name, dated by the store's clock, through the same door as the rest.
A group that is deleted, unknown or another sender's takes nobody in: its people go to the global list, as with SendGrid.
"""

from collections.abc import Sequence
from typing import Any

from handlers.errors import StoreUnavailable, UnknownAccount
from handlers.request import Action, Effect
from worker import by_hand
from worker.accounts import Group
from worker.installation import Installation

SOURCE = "api"
_TRIES = 5


def live_group(installation: Installation, sender: str, group: int) -> Group:
    """Return a group of *sender* that is not archived.

    Errors:  UnknownAccount  none of that id; 0 is not one either.    permanent
    """
    found = installation.accounts.group(sender, group)
    if found.archived or found.id == 0:
        raise UnknownAccount(f"group {group}: expected one that is not archived, see: unsubd group list {sender}")
    return found


def live_groups(installation: Installation, sender: str) -> list[Group]:
    """Return the groups of *sender* that are not archived, defaults first."""
    return [each for each in installation.accounts.groups(sender) if not each.archived]


def suppress(
    installation: Installation, sender: str, group: int, recipients: Sequence[str], *, actor: str, reason: str
) -> list[dict[str, Any]]:
    """Suppress each canonical recipient; return what each request did, in order. Durable, and seen by all, when it returns.

    Errors:  Unavailable  the store is away, or some were not written: say it again.    temporary
    Repeat:  safe.
    """
    target = 0 if _is_missing(installation, sender, group) else group
    moved = {} if target == group else {"redirected_from": str(group)}
    results = by_hand.enter(
        installation, Action.UNSUBSCRIBE, sender, target, recipients, actor=actor, reason=reason, source=SOURCE,
        at_ms=installation.store.now_ms(), **moved,
    )  # fmt: skip
    stopped = [each for each in results if each["effect"] in (Effect.ADDED.value, Effect.ALREADY_PRESENT.value)]
    if len(stopped) != len(recipients):
        raise StoreUnavailable(f"{len(recipients) - len(stopped)} of {len(recipients)} were not written: say it again")
    return results


def _is_missing(installation: Installation, sender: str, group: int) -> bool:
    try:
        return bool(group) and not live_group(installation, sender, group)
    except UnknownAccount:
        return True


def lift(
    installation: Installation, sender: str, group: int, recipients: Sequence[str], *, actor: str, reason: str
) -> list[bool]:
    """End the suppression of each canonical recipient in this very group, held or not; say for each whether there was one.

    Errors:  UnknownAccount  no such group of this sender.    permanent
             Unavailable     the store is away, or a row changes again and again.    temporary
    Repeat:  safe.
    """
    lifted: set[str] = set()
    for _ in range(_TRIES):  # a row that changes between the look and the entry is looked at again
        rows = installation.store.rows([(sender, group, each) for each in recipients])
        stopped = [each for each, row in zip(recipients, rows, strict=True) if row and row.suppressed]
        if not stopped:
            return [each in lifted for each in recipients]
        results = by_hand.enter(
            installation, Action.RESUBSCRIBE, sender, group, stopped, actor=actor, reason=reason, source=SOURCE,
            at_ms=installation.store.now_ms(),
        )  # fmt: skip
        lifted |= {each["recipient"] for each in results if each["effect"] == Effect.LIFTED.value}
        if len(lifted & set(stopped)) == len(stopped):
            return [each in lifted for each in recipients]
    raise StoreUnavailable("a suppression changed again and again while it was lifted: say it again")
