"""A mail server that sends: Postfix asks the policy service and the milter, in threads of the test, and mails a sink."""

import asyncio
import email
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from handlers import tag
from handlers.request import Action, Request, request_id
from handlers.route import Route
from tests.harness.postfix import Postfix
from tests.harness.processes import PACKAGES, free_port, require, unavailable
from tests.harness.service import MASTERS, until
from worker.installation import Installation, open_installation
from worker.listening import listening
from worker.mta.map import Routes
from worker.mta.milter import Milter
from worker.mta.policy import Policy
from worker.mta.server import Converse, Server
from worker.settings import load_settings


@dataclass
class Sink:
    """The other end of the world: keeps every mail that leaves, with its recipients."""

    mails: list[tuple[list[str], Message]] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep one mail."""
        self.mails.append((envelope.rcpt_tos, email.message_from_bytes(envelope.content)))
        return "250 kept"

    def recipients(self) -> list[str]:
        """Return whom a mail reached, sorted."""
        return sorted(each for recipients, _ in self.mails for each in recipients)

    def tags(self, installation: Installation) -> dict[str, tag.Tag]:
        """Return what the tag in each recipient's `List-Unsubscribe` says; each mail has one recipient and one header."""
        found = {}
        for (recipient,), mail in self.mails:
            (header,) = mail.get_all("List-Unsubscribe", [])
            (post,) = mail.get_all("List-Unsubscribe-Post", [])
            assert post == "List-Unsubscribe=One-Click"
            mailto, link = (part.strip().strip("<>") for part in header.split(","))
            address = mailto.removeprefix("mailto:").partition("?")[0]
            rows = installation.tags.found(tag.stored_refs(address))
            found[recipient] = tag.read(address, installation.keys, rows).tag
            assert tag.read(link.rpartition("/")[2], installation.keys, rows).tag == found[recipient]
        return found


@contextmanager
def sink() -> Iterator[tuple[Sink, int]]:
    """Take mail on a port of loopback."""
    kept = Sink()
    controller = Controller(kept, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield kept, controller.port
    finally:
        controller.stop()


@dataclass(frozen=True)
class Sending:
    """The whole of it."""

    postfix: Postfix
    sink: Sink
    installation: Installation
    services: dict[str, "Policy | Milter"]

    def port(self, written: str) -> int:
        """Return the port in place of the one that deploy/postfix writes."""
        return self.postfix.ports[written]


def suppress(installation: Installation, *recipients: str) -> None:
    """Suppress them for group 12 of acme, as a mail of theirs would."""
    action = Action.UNSUBSCRIBE
    wishes = [
        Request(request_id("k", "acme", 12, each, action), action, "acme", 12, each, 1, "imap:INBOX", "k")
        for each in recipients
    ]
    installation.store.apply(wishes)


def settings_for(redis_url: str, folder: Path) -> dict[str, str]:
    """Return settings, as `Service` takes them, under which mail can be stamped."""
    return {
        "redis_url": redis_url, "data_dir": str(folder), "secret_keys": ",".join(MASTERS),
        "address": "u+{tag}@unsub.example.com", "public_url": "https://unsub.example.com",
    }  # fmt: skip


@contextmanager
def opened(redis_url: str, folder: Path) -> Iterator[Installation]:
    """Open an installation: acme with group 12, and 13, which is essential; and a map of its mail."""
    given = {f"UNSUBD_{name.upper()}": value for name, value in settings_for(redis_url, folder).items()}
    with open_installation(load_settings(given)) as installation:
        installation.accounts.add_sender("acme")
        installation.accounts.add_group("acme", "Weekly news", "", 12)
        installation.accounts.add_group("acme", "Receipts", "", 13, essential=True)
        routes = Routes(installation.redis)
        for key in ("from:news.example.com", "user:shop"):
            routes.add(key, Route("acme", 12))
        routes.add("from:quiet@example.com", Route("acme", 12, discard=True))
        routes.add("from:receipts@example.com", Route("acme", 13))
        yield installation


@contextmanager
def serving(name: str, service: "Policy | Milter", listener: socket.socket) -> Iterator[None]:
    """Run one service in a thread."""
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run(converse: Converse) -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await Server(name, service.asking, converse).run(listener, stop)

    thread = threading.Thread(target=lambda: asyncio.run(run(service.converse)))
    thread.start()
    try:
        until(lambda: loops or not thread.is_alive(), 10, f"the start of {name}")
        yield
    finally:
        for loop, stop in loops:
            loop.call_soon_threadsafe(stop.set)
        thread.join(20)


@contextmanager
def leaving(folder: Path) -> Iterator[tuple[Postfix, Sink]]:
    """A Postfix, not started yet, with deploy/postfix's lines for mail that leaves, and where its mail goes."""
    binary = require("postfix", PACKAGES["postfix"])
    if os.getuid():
        unavailable("Postfix runs as root only")
    (folder / "mx").mkdir()
    with sink() as (kept, port):
        lines = f"\nrelayhost = [127.0.0.1]:{port}\nsmtpd_authorized_xclient_hosts = 127.0.0.1\n"
        yield Postfix(binary, folder / "mx", "send-", lines), kept


@contextmanager
def sending(folder: Path, installation: Installation) -> Iterator[Sending]:
    """Run it with both services of *installation*."""
    with ExitStack() as stack:
        postfix, kept = stack.enter_context(leaving(folder))
        services: dict[str, Policy | Milter] = {"policy": Policy(installation), "milter": Milter(installation)}
        for name, service in services.items():
            address = f"unix:{postfix.socket_folder}/{name}"
            listener = stack.enter_context(listening(address, f"UNSUBD_{name.upper()}"))
            stack.enter_context(serving(name, service, listener))
        stack.enter_context(postfix)
        yield Sending(postfix, kept, installation, services)
