"""Imports that programs post: the list is kept in the data folder until a thread of the web server has imported it.

Taken means: the list is on the disk, and the import is known, so a crash or an outage makes it late, not lost. Whoever starts
a web server over the same folder goes on with what is there. Rejected rows are kept for a week, beside.
"""

import fcntl
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from handlers.errors import Rejected, Unavailable
from worker import imports
from worker.imports import Import, Imports
from worker.installation import Installation
from worker.points import point
from worker.store.volume import private, sync

_KEEP_REJECTED_S = 7 * 86400
_KEEP_DRAFT_S = 86400  # of a list whose server was killed while it arrived: nobody was told that we have it
_LONGEST_WAIT_S = 60.0


class PostedLists:
    """The posted lists of one web server, and the thread that imports them, one after the other."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._known = Imports(installation.redis, min_replicas=installation.settings.min_replicas)
        self._folder = installation.settings.data_dir / "imports"
        self._waiting: SimpleQueue[str] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        if self._folder.is_dir():
            for path in sorted(self._folder.glob("*.list")):
                self._hand_over(path.stem)

    def draft(self) -> Path:
        """Return where to write a list that arrives; `take` it, or delete it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{secrets.token_hex(8)}.draft"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return path

    def take(self, draft: Path, sender: str, group: int, *, name: str, form: str, actor: str) -> Import:
        """Take a list that has arrived, durably, and return its import; the same list, not yet done, is the same import.

        Errors:  UnknownAccount, Rejected  an unknown or archived group, or no list.    permanent
                 Unavailable               Redis is away.    temporary
        """
        one = imports.begin(self._installation, sender, group, draft, name=name, form=form, actor=actor)
        with point("import.take"):
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.rename(self._folder / f"{one.id}.list")
            sync(self._folder)
        self._hand_over(one.id)
        return one

    def rejected(self, import_id: str) -> Path | None:
        """Return the file of an import's rejected rows, if there are any and they are still kept here."""
        path = self._rejected(import_id)
        return path if path.is_file() else None

    def _rejected(self, import_id: str) -> Path:
        return self._folder / f"{import_id}.rejected.csv"

    def _hand_over(self, import_id: str) -> None:
        self._waiting.put(import_id)
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="posted-lists", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            import_id = self._waiting.get()
            try:
                with open(self._folder / "imports.lock", "wb", opener=private) as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)  # another server over this folder has the same lists
                    self._import(import_id)
                    self._sweep()
            except OSError as error:  # no file left to open, say: the list is still there
                self._installation.journal.failed("import", f"{import_id}: {error.strerror}")
                time.sleep(_LONGEST_WAIT_S)
                self._waiting.put(import_id)

    def _import(self, import_id: str) -> None:
        wait_s = 0.5
        while (path := self._folder / f"{import_id}.list").exists():
            try:
                self._run(import_id, path)
            except (Unavailable, OSError):  # the disk may be full: a list that was taken is late, never lost
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _run(self, import_id: str, path: Path) -> None:
        one = self._known.find(import_id)
        try:
            if one and not one.done:
                imports.run(self._installation, one.sender, one.group, path, actor=one.actor, form=one.form,
                            rejects=self._rejected(import_id))  # fmt: skip
        except (Unavailable, OSError):
            raise
        except Exception as error:  # noqa: BLE001  one list must not stop the others: who posted it hears why
            why = str(error) if isinstance(error, Rejected) else "a bug of ours: see the journal's failed"
            self._installation.journal.failed("import", f"{import_id}: {type(error).__name__}")
            if found := self._known.find(import_id):
                self._known.keep(replace(found, done=True, failed=why))
        with point("import.end"):
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        for pattern, life_s in (("*.rejected.csv", _KEEP_REJECTED_S), ("*.draft", _KEEP_DRAFT_S)):
            for path in self._folder.glob(pattern):
                with suppress(FileNotFoundError):  # a draft that the server took, or refused, just now
                    if time.time() - path.stat().st_mtime > life_s:
                        path.unlink()
