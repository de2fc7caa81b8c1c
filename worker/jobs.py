"""What RQ runs. The function's dotted name and its argument are wire format."""

import time
from typing import Any

from rq import get_current_job

from handlers.errors import ConfigError, QueueUnavailable, Unavailable
from handlers.request import DecidedMessage, Request
from worker import unread
from worker.batch import UnsubdJob, require_known
from worker.installation import Installation, open_installation
from worker.journal import Journal
from worker.points import point
from worker.server import away_as
from worker.settings import Settings, load_settings

_MAX_WAIT_S = 60.0
_UNREADABLE = (KeyError, TypeError, ValueError)
_settings: Settings | None = None


def configure(settings: Settings) -> None:
    """Give the settings to the jobs of this process and of those it forks."""
    global _settings
    _settings = settings


def settings_of_process() -> Settings:
    """Return what `configure` gave, else the environment's."""
    return _settings or load_settings()


def record(batch: list[dict[str, Any]], version: int = 1) -> list[list[str]]:
    """Record a batch of decided messages and return the effects of each, in order.

    Errors:  none for an outage, a key that is missing, or a version that only a newer program reads: the job waits
             (back-off to 60 s) as long as that lasts, or until this process is stopped, which uses up no try, whatever
             becomes of its process meanwhile. What breaks one request quarantines that alone.
    Repeat:  safe: every request takes effect once.
    """
    wait = _Wait()
    while True:
        try:
            require_known(version)
            with open_installation(settings_of_process(), forked=True) as installation:
                wait.end()
                installation.journal.follow(wait.job_id)
                with point("job.record"):
                    return _record_each(installation, batch)
        except (Unavailable, ConfigError) as error:
            wait.go_on(error)


class _Wait:
    """The waiting of one job: as long as it lasts, the job is excused."""

    def __init__(self) -> None:
        job = get_current_job()
        self._job = job if isinstance(job, UnsubdJob) else None
        self._seconds = 0.0

    @property
    def job_id(self) -> str:
        """The job in hand, "" outside of one."""
        return self._job.id if self._job else ""

    def go_on(self, why: Exception) -> None:
        if not self._seconds:
            Journal(None).service("waiting", job=self.job_id, why=str(why))
        if self._job:
            self._job.excuse("outage")  # again each time: the queue's Redis may have been away, too
        self._seconds = min(self._seconds * 2 or 0.5, _MAX_WAIT_S)
        time.sleep(self._seconds)

    def end(self) -> None:
        if self._seconds and self._job:
            with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
                self._job.end_excuse()


def _record_each(installation: Installation, batch: list[dict[str, Any]]) -> list[list[str]]:
    messages = []
    for number, wire in enumerate(batch):
        try:
            messages.append(unread.read(installation, DecidedMessage.from_wire(wire)))
        except _UNREADABLE as error:
            detail = f"message {number} of the job: {type(error).__name__}"
            messages += _readable_part(installation, wire, detail)
    recorded = installation.intake.record(messages, queued_ms=_queued_ms())
    return [[result["effect"] for result in results] for results in recorded]


def _queued_ms() -> int | None:
    """When the job in hand was made; None outside of one."""
    job = get_current_job()
    return int(job.created_at.timestamp() * 1000) if job else None


def _readable_part(installation: Installation, wire: Any, detail: str) -> list[DecidedMessage]:
    """Return the message with those of its requests that can be read; the others, or all of it, go to quarantine."""
    good = [each for each in _requests(wire) if _is_readable(each)]
    bad = [each for each in _requests(wire) if each not in good]
    if good and bad:
        try:
            message = DecidedMessage.from_wire({**wire, "requests": good, "reason": detail})
        except _UNREADABLE:
            pass
        else:
            installation.quarantine_failed({**wire, "key": f"{message.key[:16]}-unread", "requests": bad}, detail)
            return [message]
    installation.quarantine_failed(wire, detail)
    return []


def _requests(wire: Any) -> list[Any]:
    requests = wire.get("requests") if isinstance(wire, dict) else None
    return requests if isinstance(requests, list) else []


def _is_readable(request: Any) -> bool:
    try:
        Request.from_wire(request)
    except (*_UNREADABLE, AttributeError):
        return False
    return True
