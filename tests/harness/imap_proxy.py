"""A mailbox behind a bad line: between a poller and a real Dovecot, plain IMAP on loopback, troubled on demand."""

import socket
import threading
from contextlib import suppress
from typing import Self

from tests.harness.processes import free_port

_PIECE = 4096


class ImapProxy:
    """Forwards octets. Each trouble counts down: `cut_literals = 2` cuts two connections in the middle of a FETCH.

    Shape:   refusals: command -> what is answered instead of asking the server, as "NO [CODE] words".
    """

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._sockets: list[socket.socket] = []
        self.cut_literals = self.hangs = self.byes = 0
        self.refusals: dict[bytes, bytes] = {}
        self.troubles = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets += [client, server]
                threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        """Client to server, line by line."""
        with suppress(OSError), client.makefile("rb") as lines:
            for line in lines:
                if b"FETCH" in line and self.hangs:
                    self.hangs, self.troubles = self.hangs - 1, self.troubles + 1
                    continue  # never answered, and no FIN
                if b"FETCH" in line and self.byes:
                    self.byes, self.troubles = self.byes - 1, self.troubles + 1
                    client.sendall(b"* BYE the server goes down for maintenance\r\n")
                    break
                if refusal := next((text for word, text in self.refusals.items() if word in line), b""):
                    self.troubles += 1
                    client.sendall(line.split(b" ")[0] + b" " + refusal + b"\r\n")
                    continue
                server.sendall(line)
        self._end(client, server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        """Server to client, as it comes."""
        with suppress(OSError):
            while piece := server.recv(_PIECE):
                if self.cut_literals and (at := piece.find(b"BODY[]")) >= 0:
                    self.cut_literals, self.troubles = self.cut_literals - 1, self.troubles + 1
                    client.sendall(piece[: at + 60])
                    break
                client.sendall(piece)
        self._end(client, server)

    @staticmethod
    def _end(*sockets: socket.socket) -> None:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
