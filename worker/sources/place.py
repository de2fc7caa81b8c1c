"""A place that only one living process can hold: the lock of a file in the data folder.

The kernel gives the lock up when its holder has ended, and not before: one that is frozen keeps it. So whoever holds a
place knows that all who held it before are dead, which a name or a process id cannot tell.

Limits:  Linux: the kernel is told apart by its boot id. Elsewhere, and in a folder that cannot be written, there is no place.
"""

import fcntl
import os
from hashlib import sha256
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Place:
    """One lock file, as one holder sees it. A second holder in the same process is another one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def held(self) -> str:
        """Return the name of the place once it is held, alone among all living processes; "" when it is not.

        Shape:   the name tells this file of this kernel apart from a copy of the folder, here or on another machine.
        Repeat:  safe; kept for the life of the process.
        """
        try:
            if self._file < 0:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            facts = os.fstat(self._file)
            where = f"{_BOOT.read_text().strip()} {facts.st_dev} {facts.st_ino}"
        except OSError:
            return ""
        return sha256(where.encode()).hexdigest()[:16]
