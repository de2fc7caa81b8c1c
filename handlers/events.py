"""What a sender's own program is told of a change: SendGrid's Event Webhook, so that its readers read ours.

A recipient who stops or takes back a group is an event of that group; one who stops everything is `unsubscribe`, and
taking that back has no published event. What is not known (a mail has no user agent) is left out, never invented.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from handlers.request import Action, DecidedMessage, Effect

SIGNATURE_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"
_BY_OTHERS = ("api", "operator", "import", "provider")
_CHANGED = (Effect.ADDED.value, Effect.LIFTED.value)


def changes(message: DecidedMessage, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what *message* changed, as jobs carry it: its results that had an effect, with time and source."""
    more = {"at_ms": message.received_ms, "source": message.source}
    return [{**result, **more} for result in results if result["effect"] in _CHANGED]


def is_by_recipient(change: dict[str, Any]) -> bool:
    """Say whether the recipient did it: by mail, one-click or page."""
    return change["source"].partition(":")[0] not in _BY_OTHERS


def event(change: dict[str, Any]) -> dict[str, Any] | None:
    """Return the event of one change; None where SendGrid has none.

    Shape:   sg_event_id: the request's id, the same on every repeat: who hears twice knows by it.
    """
    lifted, group = change["action"] == Action.RESUBSCRIBE.value, change["group"]
    if lifted and not group:
        return None
    kind = "unsubscribe" if not group else "group_resubscribe" if lifted else "group_unsubscribe"
    found = {
        "email": change["recipient"],
        "timestamp": change["at_ms"] // 1000,
        "event": kind,
        "sg_event_id": change["id"],
    }
    ours = {"unsubd_source": change["source"].partition(":")[0], "unsubd_action": change["action"]}
    return {**found, **({"asm_group_id": group} if group else {}), **ours}


def body(events: Sequence[dict[str, Any]]) -> bytes:
    """Return the octets to post, which are ASCII: what is signed is what is sent."""
    return json.dumps(events, separators=(",", ":")).encode("ascii")


def signature(key: ec.EllipticCurvePrivateKey, timestamp: str, posted: bytes) -> str:
    """Return the signature header's value. Shape: base64 of ECDSA's DER, P-256 and SHA-256 over timestamp and body."""
    return base64.b64encode(key.sign(timestamp.encode("ascii") + posted, ec.ECDSA(hashes.SHA256()))).decode()
