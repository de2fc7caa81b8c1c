"""What systemd hears of a service: ready, and alive. Hides the protocol; says nothing where nobody listens.

systemd names a datagram socket in NOTIFY_SOCKET ("@" first: an abstract one) and, where the unit has a WatchdogSec, how many
microseconds of silence it puts up with in WATCHDOG_USEC, meant for the process WATCHDOG_PID alone. Both are taken out of the
environment: the parts that a supervisor starts are not what systemd watches. See sd_notify(3) and sd_watchdog_enabled(3).

No library: the last release of `sdnotify` is of 2017, and the others bring a thread, which beats on while the work hangs.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress

_BEATS = 3  # in the time that systemd waits for one


class Systemd:
    """The service manager of this process, if one listens."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take what systemd left in *environ*."""
        address = environ.pop("NOTIFY_SOCKET", "")
        patience_us, for_pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        ours = patience_us.isdecimal() and for_pid in ("", str(os.getpid()))
        self._every_s = int(patience_us) / 1_000_000 / _BEATS if ours else 0.0
        self._is_ready = False
        self._beat_at = 0.0

    def beat(self) -> None:
        """Say that the service does its work. Repeat: as often as you like, it says so three times in WatchdogSec."""
        if not self._is_ready:
            self._is_ready = True
            self._say("READY=1")
        now = time.monotonic()
        if self._every_s and now - self._beat_at >= self._every_s:
            self._beat_at = now
            self._say("WATCHDOG=1")

    async def tick(self) -> None:
        """Say that the event loop turns."""
        self.beat()

    async def keep_ticking(self) -> None:
        """Say so until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(min(self._every_s / 2, 1.0) or 60.0)

    def _say(self, what: str) -> None:
        if self._address:
            # One that is gone, or whose buffer is full, must not end the service.
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
                link.setblocking(False)
                link.sendto(what.encode(), self._address)


@asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """Tell systemd that a service of one event loop is ready, and that the loop turns."""
    systemd = Systemd(os.environ)
    ticking = asyncio.create_task(systemd.keep_ticking())
    try:
        yield
    finally:
        ticking.cancel()
