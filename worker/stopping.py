"""The first SIGTERM or Ctrl-C stops a process; further ones change nothing, to its end."""

import asyncio
import signal
from collections.abc import Callable

_STOPS = (signal.SIGTERM, signal.SIGINT)


def on_stop(stop: Callable[[], object]) -> None:
    """Call *stop* when the process is told to stop.

    Repeat:  the signals that follow are ignored, by the kernel: Python's own handlers end before Python does.
    """

    def stopped(*_: object) -> None:
        for number in _STOPS:
            signal.signal(number, signal.SIG_IGN)
        stop()

    for number in _STOPS:
        signal.signal(number, stopped)


def on_stop_of_loop(stop: Callable[[], object]) -> None:
    """Call *stop* in the running event loop when the process is told to stop.

    Why:     asyncio's own handlers end with its loop. Who says it twice, an operator, a supervisor, would then kill the
             process while it closes, and what it holds, a lease or the last note of a run, would stay as it was.
    """
    loop = asyncio.get_running_loop()
    on_stop(lambda: loop.is_closed() or loop.call_soon_threadsafe(stop))
