"""Where a mail server finds us: a unix socket that its group may use, or a port on loopback.

The folder of a unix socket is the operator's: its group (and its setgid bit) says who may connect. A socket that a killed
process left is replaced; one that somebody listens on is not. A lock on the folder, which leaves no file in it, keeps two
starters apart.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from handlers.errors import ConfigError
from worker.settings import unix_path

BACKLOG = 512
_MODE = 0o660


@contextmanager
def listening(address: str, setting: str) -> Iterator[socket.socket]:
    """Listen on *address*, which *setting* gave; on leaving, close it and remove a unix socket that is still ours.

    Errors:  ConfigError  somebody listens there, the folder is missing or closed to us.
    """
    path = unix_path(address)
    listener = _on_path(path, setting) if path else _on_port(address, setting)
    ours = os.lstat(path).st_ino if path else 0
    try:
        yield listener
    finally:
        listener.close()
        if path:
            with suppress(OSError):
                if os.lstat(path).st_ino == ours:
                    path.unlink()


def _on_port(address: str, setting: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named: see worker.web.doors.listen
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise refused(address, setting, error) from error
    return listener


def _on_path(path: Path, setting: str) -> socket.socket:
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(
            f"{setting}: folder {path.parent}: {error.strerror}: make it, writable for us and open to the mail server"
        ) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        _remove_stale(path, setting)
        return _bound(path)
    except OSError as error:
        raise refused(f"unix:{path}", setting, error) from error
    finally:
        os.close(folder)


def _remove_stale(path: Path, setting: str) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket() or path.is_symlink():
        raise ConfigError(
            f"{setting}: unix:{path}: not a socket, expected a path of its own: remove it or choose another"
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT):  # those: its backlog is full, so it lives
                raise
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~_MODE)  # from its first moment: a chmod would come later
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def refused(address: str, setting: str, error: OSError, other: str = "address") -> ConfigError:
    """Return what is wrong with *address*, which *setting* gave, and what to do. Shape: other: what else may be chosen."""
    remedy = f"stop what listens there, or choose another {other}"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        remedy = (
            "expected a name or address of this machine, e.g. 127.0.0.1: set another host, or give the machine that one"
        )
    elif error.errno == errno.EACCES and unix_path(address) is None:
        remedy = "expected a port that we may use: choose one from 1024 on"
    return ConfigError(f"{setting}: {address}: {error.strerror}: {remedy}")
