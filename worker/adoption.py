"""Registering a sender whose tags are out already: its rows keep counting, and the ids they carry become its groups."""

from typing import Any

from handlers.request import Action, Request
from worker.accounts import Sender
from worker.installation import Installation
from worker.store.row import Row, holds

_CHUNK = 500


def register(installation: Installation, sender: str, name: str = "", **more: Any) -> Sender:
    """Register a sender, and adopt as groups the ids that its rows name.

    Shape:   as `Accounts.add_sender`. Rows whose id belongs to another sender also go to group 0 (semantics §4).
    Errors:  as `Accounts.add_sender`; Unavailable.
    Repeat:  after a crash, again: what is adopted stays so.
    """
    installation.accounts.new_sender(sender, name, **more)
    _adopt(installation, sender)
    added = installation.accounts.add_sender(sender, name, **more)
    _adopt(installation, sender)  # what came meanwhile: from now on an id that is no group's goes to group 0
    return added


def _adopt(installation: Installation, sender: str) -> None:
    accounts = installation.accounts
    carried = [group for group in installation.store.groups(sender) if group]
    owners = accounts.owners(carried)
    for group in carried:
        if owners.get(group, sender) == sender:
            accounts.adopt_group(sender, group)
        else:
            _also_everything(installation, sender, group)


def _also_everything(installation: Installation, sender: str, group: int) -> None:
    found: list[Request] = []
    for recipient, row in installation.store.stopped(sender, group):
        found.append(_everything(sender, recipient, row))
        if len(found) >= _CHUNK:
            installation.store.apply(found)
            found = []
    if found:
        installation.store.apply(found)


def _everything(sender: str, recipient: str, row: Row) -> Request:
    action = Action.COMPLAINT if row.complaint else Action.UNSUBSCRIBE
    # A row that a later entry held keeps that: registering a sender is an operator's act.
    source = row.source if holds(row.source) or row.complaint or not row.held else "operator"
    wish_id = row.evidence.hex() + "0" * 16  # a row keeps these 8 bytes: a repeat hears its first effect
    return Request(wish_id, action, sender, 0, recipient, row.time_ms, source, "adopted")
