"""What RQ runs. The function's dotted name and its argument are wire format."""

import time
from typing import Any

from handlers.errors import Unavailable
from handlers.request import DecidedMessage
from worker.installation import Installation, open_installation
from worker.settings import Settings, load_settings

_MAX_WAIT_S = 60.0
_settings: Settings | None = None


def configure(settings: Settings) -> None:
    """Give the settings to the jobs of this process and of those it forks."""
    global _settings
    _settings = settings


def record(batch: list[dict[str, Any]]) -> list[list[str]]:
    """Record a batch of decided messages and return the effects of each, in order.

    Errors:  none for an outage: the job waits (back-off to 60 s) as long as it lasts, which uses up no try. What breaks
             one message quarantines that one alone.
    Repeat:  safe: every request takes effect once.
    """
    waited_s = 0.5
    while True:
        try:
            with open_installation(_settings or load_settings(), forked=True) as installation:
                return _record_each(installation, batch)
        except Unavailable:
            time.sleep(waited_s)
            waited_s = min(waited_s * 2, _MAX_WAIT_S)


def _record_each(installation: Installation, batch: list[dict[str, Any]]) -> list[list[str]]:
    messages = []
    for number, wire in enumerate(batch):
        try:
            messages.append(DecidedMessage.from_wire(wire))
        except (KeyError, TypeError, ValueError) as error:
            installation.quarantine_failed(wire, f"message {number} of the job: {type(error).__name__}")
    return [[result["effect"] for result in results] for results in installation.intake.record(messages)]
