"""Did the last run end well, and does Redis still know what it knew then?

Each second a number goes up: in Redis first, then in `UNSUBD_DATA_DIR/pulse-PART.json`, synced. A Redis whose number is behind
the file's has lost what came after it, whatever it was told to sync: an append-only file was cut, an older copy
restored, a replica promoted. A file that does not say "ended" is of a run that was killed. Both tell since when.

| key               | type   | holds                                                          | lives   |
|-------------------|--------|----------------------------------------------------------------|---------|
| `unsubd:pulse:ID` | STRING | number and time, ms UTC, of the last beat of one data folder's run | 90 days |

Limits:  the folder must be the same at the next start: a container's own disk is a first run each time.
"""

import fcntl
import json
import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import redis

from handlers.errors import QueueUnavailable
from worker.installation import Installation
from worker.server import away_as, check_confirmed, confirm

EVERYTHING_MS = 1  # since when, where it is not known
_LIFE_S = 90 * 86400
_END_S = 0.5
_SHORT_MS = 10 * 60_000  # who forgot more than that is an older copy, whose time says little


@dataclass(frozen=True, slots=True)
class Beat:
    """What the file says. Shape: owed_ms: what happened since then is still to be compared, 0 = nothing is."""

    id: str
    number: int = 0
    at_ms: int = 0
    ended: bool = True
    owed_ms: int = 0


class Pulse:
    """The pulse of one part with a data folder of its own, beaten by one process.

    Shape:   part: "work" (of `run` and `work`) or "poll", when that runs apart.
    Errors:  Unavailable  Redis is away, or has not confirmed.    temporary
             OSError      the folder cannot be written: nothing is known at the next start.
    """

    def __init__(self, installation: Installation, part: str = "work") -> None:
        self._servers = list(dict.fromkeys((installation.redis, installation.store_redis)))
        self._min_replicas = installation.settings.min_replicas
        self._path = installation.settings.data_dir / f"pulse-{part}.json"
        self._runs: list[str] = []
        self._lock = -1
        self._owing = threading.Lock()  # one thread beats, another compares
        self.last = Beat(secrets.token_hex(8))
        self.losses = 0

    def begin(self, *, judged: bool = True) -> bool:
        """Read what the last beat left; False: another process beats already. Shape: judged False: it was our own run."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        self.last = _read(self._path) or self.last
        if judged and not self.last.ended:
            self._owe(self.last.at_ms)
        return True

    def beat(self, *, ended: bool = False) -> None:
        """Beat once; `last.owed_ms` says afterwards since when something may be lost."""
        now_ms = time.time_ns() // 1_000_000
        following = replace(self.last, number=self.last.number + 1, at_ms=now_ms, ended=ended)
        before, runs = zip(*[self._told(client, following) for client in self._servers], strict=True)
        if self.last.number:
            for number, at_ms in before:
                if number < self.last.number:
                    self._owe(at_ms if self.last.at_ms - at_ms <= _SHORT_MS else EVERYTHING_MS)
        if self._runs and list(runs) != self._runs:
            self._owe(self.last.at_ms)  # it came back, perhaps without its last second
        self._runs = list(runs)
        with self._owing:
            self.last = replace(following, owed_ms=self.last.owed_ms)
        _write(self._path, self.last)

    def _told(self, client: redis.Redis, beat: Beat) -> tuple[tuple[int, int], str]:
        """Tell one server; return what it had been told before, and which run of it this is."""
        key = f"unsubd:pulse:{beat.id}"
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            pipeline = client.pipeline(transaction=False)
            pipeline.set(key, f"{beat.number} {beat.at_ms}", ex=_LIFE_S, get=True)
            confirm(pipeline, self._min_replicas)
            (before,) = check_confirmed(pipeline.execute(), self._min_replicas, QueueUnavailable)
            return _numbers(before), _run_of(client)

    def _owe(self, since_ms: int) -> None:
        with self._owing:
            self.losses += 1
            self.last = replace(self.last, owed_ms=min(since_ms, self.last.owed_ms or since_ms))

    def settle(self, losses: int) -> None:
        """What was owed is compared, unless there were more than so many losses by now."""
        with self._owing:
            if self.losses == losses:
                self.last = replace(self.last, owed_ms=0)

    def close(self) -> None:
        """Let another process beat. Repeat: safe."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def ended_well(installation: Installation, since_s: float, part: str = "work") -> None:
    """Note, when all processes of a run have stopped, that nothing was left in the middle. Best effort: else it is compared.

    Units:   since_s: when the run began: a beat of before it is not its own.
    """
    # A server that hangs must not hold up the stop; a run that is not noted is compared.
    ending = threading.Thread(target=_end, args=(Pulse(installation, part), since_s), daemon=True)
    ending.start()
    ending.join(_END_S)


def _end(pulse: Pulse, since_s: float) -> None:
    try:
        if pulse.begin(judged=False) and pulse.last.at_ms >= since_s * 1000:
            pulse.beat(ended=True)
    except (QueueUnavailable, OSError):
        return
    finally:
        pulse.close()


def _numbers(text: bytes | None) -> tuple[int, int]:
    number, _, at_ms = (text or b"0 0").partition(b" ")
    return int(number), int(at_ms)


def _run_of(client: redis.Redis) -> str:
    try:
        return str(cast(dict[str, str], client.info("server")).get("run_id", ""))
    except redis.ResponseError:
        return ""  # not permitted to us


def _read(path: Path) -> Beat | None:
    try:
        return Beat(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(path: Path, beat: Beat) -> None:
    new = path.with_suffix(".new")
    with open(new, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(json.dumps(asdict(beat)))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
