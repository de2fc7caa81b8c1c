"""What RQ runs of the events queue: one post. The function's dotted name and its arguments are wire format."""

import time
from typing import Any

import httpx2

from handlers.errors import Unavailable
from handlers.events import SIGNATURE_HEADER, TIMESTAMP_HEADER, body, event, signature
from handlers.tag import is_forgotten
from worker import jobs
from worker.batch import require_known
from worker.calls import called
from worker.events import EventHook
from worker.installation import open_installation
from worker.points import point

_WAIT_S = 20.0


def post(sender: str, batch: list[dict[str, Any]], version: int = 1) -> int:
    """Post changes to where their sender wants events; return how many events those were.

    Shape:   changes whose recipient was forgotten meanwhile, and those without an event of SendGrid's, are left out.
    Errors:  Unavailable  anything but 2xx: RQ tries again, at intervals that grow to an hour.    temporary
             ConfigError  only a newer program reads this version: tried again as long.
    Repeat:  posts again, with the same `sg_event_id`s and a new signature.
    """
    require_known(version)
    events = [found for each in batch if not is_forgotten(each["recipient"]) and (found := event(each))]
    with open_installation(jobs.settings_of_process(), forked=True) as installation:
        hook = installation.events.find(sender)
        if hook and events:
            _post(hook, body(events))
            installation.journal.service("events", sender=sender, posted=len(events))
    return len(events) if hook else 0


def _post(hook: EventHook, posted: bytes) -> None:
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json", "User-Agent": "unsubd",
        TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: signature(hook.key, timestamp, posted),
    }  # fmt: skip
    with httpx2.Client(timeout=_WAIT_S, follow_redirects=False, trust_env=False) as client:
        request = client.build_request("POST", hook.url, content=posted, headers=headers)
        with point("events.post"):
            status, _ = called(client, request, f"events of {hook.sender}", within_s=_WAIT_S)
    if not 200 <= status < 300:
        raise Unavailable(f"events of {hook.sender}: answered {status}, expected 2xx")
