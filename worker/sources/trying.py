"""What a source is reading, noted before it is read: a mail that kills our process must not kill it for ever.

The note is a file of the data folder, `trying-NAME.json`, so it costs no round trip, and survives the process, which is
all it must. A batch that was in hand at a death comes last, a seventh at a time; who stood alone at three deaths is set
aside unread, for a person. Sources that are handed their mail (LMTP, webhooks) need none: their senders come again.

Limits:  what hangs is not found, only what ends the process. Without room for the note, there is none.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

DEADLY = 3
_SMALLER = 7
_PLAIN = re.compile(r"[^A-Za-z0-9_-]")
Name = TypeVar("Name", str, int)


class Trying:
    """One source's note. A second process with the same folder keeps none."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"trying-{_PLAIN.sub('_', name)}.json"
        self._file = -1
        self._deaths: dict[str, int] = {}
        self._of = ""
        self._suspects: set[str] = set()
        self._size = 1

    def resume(self, of: str) -> None:
        """Read what was in hand when the last process died. Shape: of: whose names they are. Repeat: does nothing more."""
        if self._file >= 0 and self._of == of:
            return
        note = self._note()
        in_hand = [str(each) for each in note.get("in_hand", [])] if note.get("of") == of else []
        self._deaths = dict(note.get("deaths", {})) if note.get("of") == of else {}
        if len(in_hand) == 1:
            self._deaths[in_hand[0]] = self._deaths.get(in_hand[0], 0) + 1
        self._suspects, self._size, self._of = set(in_hand), max(1, len(in_hand) // _SMALLER), of
        self._write([])

    def _note(self) -> dict[str, Any]:
        try:
            if self._file < 0:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = json.loads(os.pread(self._file, 1 << 20, 0) or b"{}")
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, in_hand: Iterable[object]) -> None:
        note = {"of": self._of, "in_hand": list(in_hand), "deaths": self._deaths}
        if self._file < 0:
            return
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = json.dumps(note).encode()
            os.pwrite(self._file, content, 0)
            os.ftruncate(self._file, len(content))

    def is_deadly(self, name: object) -> bool:
        """Say whether reading this one alone has killed us too often."""
        return self._deaths.get(str(name), 0) >= DEADLY

    def in_order(self, names: Iterable[Name]) -> list[Name]:
        """Return *names* with those that a death left last: they must not hold up the others."""
        return sorted(names, key=lambda name: str(name) in self._suspects)

    def batch(self, names: Sequence[Name], size: int) -> Sequence[Name]:
        """Return the first of *names* to be read together: *size* at most, and suspects apart, few at a time."""
        suspected = str(names[0]) in self._suspects
        size = min(size, self._size) if suspected else size
        alike = next((at for at, each in enumerate(names) if (str(each) in self._suspects) != suspected), len(names))
        return names[: min(size, alike)]

    def begin(self, names: Iterable[object]) -> None:
        """Note what is read from now on."""
        self._write(names)

    def end(self, names: Iterable[object] = ()) -> None:
        """Nothing is read any more; *names* were, and killed nobody."""
        done = {str(each) for each in names}
        self._suspects -= done
        self._deaths = {name: count for name, count in self._deaths.items() if name not in done}
        self._write([])
