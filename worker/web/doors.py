"""Two doors: with UNSUBD_OPS_HTTP the console, the metrics and the API page have a listener of their own, and only they."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.errors import ConfigError
from worker.listening import refused
from worker.settings import Settings

_OPS = ("/ops", "/metrics", "/docs", "/openapi.json")
_BOTH = ("/static", "/healthz", "/readyz")
_EVERY_HOST = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Doors:
    """Which paths are served where. Shape: ops: host and port of the operators' listener, None where there is one for all."""

    ops: tuple[str, int] | None = None

    def admit(self, scope: Mapping[str, Any]) -> bool:
        """Say whether a request, as ASGI describes it, came by the door of its path."""
        path = scope["path"]
        if self.ops is None or _is_below(path, _BOTH):
            return True
        return self._by_ops(scope.get("server")) == (path == "/" or _is_below(path, _OPS))

    def _by_ops(self, server: Any) -> bool:
        """Say whether the socket that took the connection is the operators'; what the request says of itself counts nothing."""
        if not server or self.ops is None:
            return False
        host, port = self.ops
        return bool(server[1] == port and (host in _EVERY_HOST or server[0] == host))


ONE_DOOR = Doors()


def _is_below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(place + "/") for place in places)


def listen(address: str, setting: str = "UNSUBD_HTTP") -> socket.socket:
    """Return a socket bound to *address* ("host:port"), which *setting* gave.

    Errors:  ConfigError  the port is taken, or the host is not ours.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, or asyncio leaves TCP_NODELAY off what it accepts: every answer then waits for a delayed ACK, 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise refused(address, setting, error, "port") from error
    return listener


def listeners(settings: Settings) -> list[socket.socket]:
    """Return the sockets to serve on: UNSUBD_HTTP's, and the operators' own where it is set.

    Errors:  ConfigError  a port is taken, or a host is not ours.
    """
    first = listen(settings.http)
    try:
        return [first, listen(settings.ops_http, "UNSUBD_OPS_HTTP")] if settings.ops_http else [first]
    except ConfigError:
        first.close()
        raise
