"""What an operator, or a program with a key, enters in his own name: a suppression nobody's mail asked for, or the end of one."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from handlers.address import one_address
from handlers.errors import UnknownAccount
from handlers.request import Action, DecidedMessage, Outcome, Request, request_id
from worker.installation import Installation
from worker.quarantine.shown import without_addresses
from worker.store.row import Row

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
    source: str = SOURCE,
    at_ms: int | None = None,
    seen_version: str | None = None,
    **evidence: str,
) -> list[dict[str, Any]]:
    """Suppress, or resubscribe, each recipient in this very group; return one result each, as the ledger has them.

    Shape:   source: "operator", or "api" for a program. evidence: further short facts for the ledger.
    Shape:   seen_version: of the one row that the actor saw, hex; a row that changed since is not lifted. None: as it is now.
    Units:   at_ms: event time, ms UTC; None = this machine's clock.
    Errors:  UnknownAccount  no such sender or group, or to suppress an archived one.    permanent
             AddressError    not an address.    permanent
             Unavailable     the store is away.    temporary
    Repeat:  safe: an operator's entry holds the row, and lifts a held one.
    """
    if installation.accounts.group(sender, group).archived and action is not Action.RESUBSCRIBE:
        raise UnknownAccount(f"group {group}: archived, expected one that is not, or 0 for everything")
    exact = [one_address(each) for each in recipients]
    seen = installation.store.rows([(sender, group, each) for each in exact])
    nonce = secrets.token_hex(16)
    at_ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    wishes = tuple(
        Request(
            request_id(nonce, sender, group, each, action), action, sender, group, each, at_ms, source, nonce, actor,
            _seen(row, seen_version) if action is Action.RESUBSCRIBE else "",
        )
        for each, row in zip(exact, seen, strict=True)
    )  # fmt: skip
    why = without_addresses(reason) or action.value
    entry = DecidedMessage(nonce, source, Outcome.HONOUR, why, at_ms, wishes, {"actor": actor, **evidence})
    return installation.intake.record_now([entry])[0]


def _seen(row: Row | None, version: str | None) -> str:
    return version if version is not None else row.version.hex() if row else ""
