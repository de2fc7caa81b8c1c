"""The pulse of a running installation, and the comparison that follows an unclean start or a loss: a thread of the reaper.

One comparison at a time; what it owes stays in the pulse's file until it is done, so that a kill in its middle only
begins it anew.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from handlers.errors import ConfigError, Unavailable
from worker.installation import Installation
from worker.reconcile import reconcile
from worker.reconcile.mail import Scope
from worker.reconcile.pulse import Pulse

_BEAT_S = 1.0
_MARGIN_MS = 10 * 60_000  # clocks err, and mail is accepted some time after its beat
_AGAIN_S = 60.0
_STOP_S = 2.0


@contextmanager
def watching(installation: Installation, part: str = "work") -> Iterator[None]:
    """Beat while the block runs, and compare when something may be lost. Shape: part: see `Pulse`."""
    stopped = threading.Event()
    thread = threading.Thread(target=_Watch(installation, part, stopped).run, name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(_STOP_S)


class _Watch:
    def __init__(self, installation: Installation, part: str, stopped: threading.Event) -> None:
        self._installation = installation
        self._stopped = stopped
        self._pulse = Pulse(installation, part)
        self._begun = self._is_ours = False
        self._comparing: threading.Thread | None = None
        self._again_at = 0.0
        self._said = ""

    def run(self) -> None:
        """Beat until stopped; trouble is said once."""
        while not self._begun and not self._stopped.is_set():
            self._begin()
        while self._is_ours and not self._stopped.is_set():
            self._beat()
            self._stopped.wait(_BEAT_S)
        self._pulse.close()

    def _begin(self) -> None:
        try:
            self._is_ours = self._pulse.begin()
            self._begun = True
        except OSError as error:
            self._say(error)
            self._stopped.wait(_BEAT_S)

    def _beat(self) -> None:
        try:
            self._pulse.beat()
            self._said = ""
        except Unavailable:
            return  # the reaper excuses its jobs, and each source tells of it
        except OSError as error:
            self._say(error)
        self._compare_if_owed()

    def _say(self, error: OSError) -> None:
        folder = self._installation.settings.data_dir
        what = f"UNSUBD_DATA_DIR: {folder}: {error.strerror}: no pulse is kept, expected a folder with room"
        if what != self._said:
            self._said = what
            self._installation.journal.failed("pulse", what)

    def _compare_if_owed(self) -> None:
        busy = self._comparing is not None and self._comparing.is_alive()
        if self._pulse.last.owed_ms and not busy and time.monotonic() >= self._again_at:
            owed = (self._pulse.last.owed_ms, self._pulse.losses)
            self._comparing = threading.Thread(target=self._compare, args=owed, daemon=True)
            self._comparing.start()

    def _compare(self, owed_ms: int, losses: int) -> None:
        journal = self._installation.journal
        self._again_at = time.monotonic() + _AGAIN_S
        scope = scope_of(owed_ms, time.time_ns() // 1_000_000, self._installation.settings.ledger_days)
        try:
            report = reconcile(self._installation, scope, every_record=False)
        except (Unavailable, ConfigError) as error:
            journal.failed("reconcile", f"{error}: tried again in a minute")
            return
        except Exception as error:  # noqa: BLE001  a bug here must not stop the reaper; it stays owed
            journal.failed("reconcile", f"{type(error).__name__}: tried again in a minute")
            return
        journal.service(
            "reconciled", messages=report.messages, gaps=report.found.total(), repaired=report.repaired.total(),
            since_s=round((time.time_ns() // 1_000_000 - scope.since_ms) / 1000),
        )  # fmt: skip
        self._pulse.settle(losses)


def scope_of(owed_ms: int, now_ms: int, ledger_days: int) -> Scope:
    """Return what to compare when something may be lost since *owed_ms*: a little more, at most all that the ledger has.

    Example:
        >>> day_ms = 86_400_000
        >>> scope_of(100 * day_ms, 103 * day_ms, 90).since_ms == 100 * day_ms - 600_000
        True
        >>> scope_of(1, 100 * day_ms, 90).since_ms == 10 * day_ms
        True
    """
    return Scope(max(0, owed_ms - _MARGIN_MS, now_ms - ledger_days * 86_400_000))
