"""The check: may this recipient be mailed? Asked before each send; it fails closed."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from handlers.address import canonical
from worker.installation import Installation
from worker.store import Answer


def check(installation: Installation, sender: str, group: int, recipients: Sequence[str]) -> list[Answer]:
    """Return one answer per recipient, in order, whatever the spelling of the address.

    Errors:  UnknownAccount  a sender or group that nobody registered: never "allowed".    permanent
             AddressError    not an address.    permanent
             Unavailable     the store or the accounts cannot be asked.    temporary
    """
    installation.accounts.group(sender, group)
    return installation.store.check(sender, group, [canonical(recipient) for recipient in recipients])


def as_json(answer: Answer) -> dict[str, Any]:
    """Return the shape that scripts and the API share."""
    row = answer.row
    return {
        "recipient": answer.recipient,
        "suppressed": answer.suppressed,
        "scope": answer.scope,
        "since": datetime.fromtimestamp(row.first_seen_s, UTC).isoformat().replace("+00:00", "Z") if row else None,
        "source": row.source if row else None,
    }
