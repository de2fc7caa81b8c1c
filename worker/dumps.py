"""Keep keys and addresses of a process out of a core file, and away from a debugger of the same user (Linux)."""

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def leave_no_dump() -> None:
    """Have the kernel write no memory of this process, and of its forks, to any file or crash collector.

    Shape:   the limit of size holds for what is executed from here as well (the embedded Valkey); the mark ends with exec.
    Repeat:  safe.
    Why:     the master keys lie in memory. A collector that is fed by a pipe is not bound by the limit, only by the mark.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
