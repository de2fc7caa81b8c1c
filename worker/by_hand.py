"""What an operator enters in his own name: a suppression nobody's mail asked for, or the end of one."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from handlers.address import one_address
from handlers.errors import UnknownAccount
from handlers.request import Action, DecidedMessage, Outcome, Request, request_id
from worker.installation import Installation
from worker.quarantine.shown import without_addresses

SOURCE = "operator"


def enter(
    installation: Installation,
    action: Action,
    sender: str,
    group: int,
    recipients: Sequence[str],
    *,
    actor: str,
    reason: str,
) -> list[dict[str, Any]]:
    """Suppress, or resubscribe, each recipient in this very group; return one result each, as the ledger has them.

    Errors:  UnknownAccount  no such sender or group, or to suppress an archived one.    permanent
             AddressError    not an address.    permanent
             Unavailable     the store is away.    temporary
    Repeat:  safe: an operator's entry holds the row, and lifts a held one.
    """
    if installation.accounts.group(sender, group).archived and action is not Action.RESUBSCRIBE:
        raise UnknownAccount(f"group {group}: archived, expected one that is not, or 0 for everything")
    exact = [one_address(each) for each in recipients]
    seen = installation.store.rows([(sender, group, each) for each in exact])
    nonce, at_ms = secrets.token_hex(16), time.time_ns() // 1_000_000
    wishes = tuple(
        Request(
            request_id(nonce, sender, group, each, action), action, sender, group, each, at_ms, SOURCE, nonce, actor,
            row.version.hex() if row and action is Action.RESUBSCRIBE else "",
        )
        for each, row in zip(exact, seen, strict=True)
    )  # fmt: skip
    why = without_addresses(reason) or action.value
    entry = DecidedMessage(nonce, SOURCE, Outcome.HONOUR, why, at_ms, wishes, {"actor": actor})
    return installation.intake.record([entry])[0]
