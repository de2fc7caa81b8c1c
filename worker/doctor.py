"""`unsubd doctor`: one line per layer, with the remedy where one fails. It calls what production calls."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from handlers import milter, postfix_policy
from handlers.errors import ConfigError, UnsubdError
from handlers.tag import AddressTemplate, Tag, mint, read
from worker.crew import REQUESTS
from worker.installation import KEY_FILE, Installation, open_installation
from worker.settings import Settings, setting_name, too_open, unix_path, unknown_names
from worker.sources import oauth, source_states
from worker.sources.polling import mailbox_addresses
from worker.sources.visit import visit
from worker.store.archive import Archive

# What a mail server says first to each part, and what the answer holds.
_FIRST = {
    "lmtp": (b"", b"220"),
    "policy": (b"request=smtpd_access_policy\n\n", b"action=" + postfix_policy.PERMIT.encode()),
    "milter": (milter.OPENING, milter.NEGOTIATE),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One layer's health. Shape: detail is what was found, or what is wrong and the remedy."""

    layer: str
    ok: bool
    detail: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield one finding per layer; a layer that rests on a broken one says so."""
    yield _looked("settings", lambda: _settings(settings))
    try:
        with open_installation(settings) as installation:
            yield _looked("redis", lambda: _redis(installation))
            yield _looked("keys", lambda: _keys(installation))
            yield _looked("archive", lambda: _archive(settings.archive))
            yield _looked("mailbox", lambda: asyncio.run(_mailboxes(installation)))
            yield _looked("worker", lambda: _worker(installation))
            for part, address in settings.listens.items():
                yield _looked(part, partial(_asked, part, address))
    except (UnsubdError, ConfigError) as error:
        yield Finding("redis", False, str(error))
        for layer in ("keys", "archive", "mailbox", "worker"):
            yield Finding(layer, False, "not looked at: it needs the layer above")


def _looked(layer: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(layer, True, look())
    except (UnsubdError, ConfigError) as error:
        return Finding(layer, False, str(error))


def _settings(settings: Settings) -> str:
    if unknown := unknown_names(os.environ):
        raise ConfigError(f"{', '.join(unknown)}: no such setting, expected one of: unsubd config")
    files: list[Path] = [settings.data_dir / KEY_FILE] if settings.embedded else []
    for path in files:
        if too_open(path):
            raise ConfigError(f"{path}: others may read it, expected mode 0600: chmod 600 {path}")
    count = sum(name.startswith("UNSUBD_") for name in os.environ)
    return f"{count} set, all known" + (
        "" if settings.address else "; UNSUBD_ADDRESS is not set: no header can be made"
    )


def _redis(installation: Installation) -> str:
    info = installation.redis.info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info.get("redis_version"))
    where = f"embedded in {installation.settings.data_dir}" if installation.settings.embedded else "UNSUBD_REDIS_URL"
    weak = f"WEAK: {installation.weakness}, allowed by UNSUBD_ALLOW_WEAK_DURABILITY" if installation.weakness else ""
    return f"{name} {version}, {where}, {weak or 'appendonly yes, appendfsync always'}"


def _keys(installation: Installation) -> str:
    template = AddressTemplate("u+", "unsub.example.com")
    tag = Tag("doctor", 0, "doctor@example.com")
    if read(mint(installation.keys, tag, template).address, installation.keys).tag != tag:
        raise ConfigError("UNSUBD_SECRET_KEYS: a tag signed with the first key does not read back")
    names = installation.keys.fingerprints()
    return f"{len(names)} active (newest {names[0]}), a tag signed and read back"


async def _mailboxes(installation: Installation) -> str:
    """Look at every mailbox, also when one is refused: its neighbours may be why nobody noticed."""
    settings, found, refused = installation.settings, [], []
    held = {each["name"]: each["held"] for each in source_states(installation.redis)}
    for address in mailbox_addresses(settings):
        try:
            visited = await visit(address, await oauth.credential(settings, address), settings.imap_ca_file)
            waits = held.get(f"imap:{address.name}", 0)
            told = f", {waits} held: release them with UNSUBD_IMAP_BACKLOG=all" if waits else ""
            found.append(f"{address.name}: {visited.line()}{told}")
        except (UnsubdError, ConfigError) as error:
            refused.append(str(error))
    if refused:
        raise ConfigError("; ".join([*refused, *found]))
    return "; ".join(found) or "none configured (UNSUBD_IMAP_URL is not set)"


def _asked(part: str, address: str) -> str:
    """Ask what the mail server asks first (though as another user: its rights are not looked at)."""
    question, expected = _FIRST[part]
    name, path = setting_name(part), unix_path(address)
    host, _, port = address.rpartition(":")
    try:
        with (
            socket.socket(socket.AF_UNIX)
            if path
            else socket.create_connection((host.strip("[]"), int(port)), 5) as link
        ):
            link.settimeout(5)
            if path:
                link.connect(str(path))
            link.sendall(question)
            answer = link.recv(256)
    except OSError as error:
        raise ConfigError(
            f"{name}: {address}: {error.strerror or 'no answer'}: start unsubd run, or unsubd {part}"
        ) from error
    if expected not in answer:
        raise ConfigError(
            f"{name}: {address}: answers {answer[:3]!r}, expected {expected!r}: see the journal of unsubd {part}"
        )
    return f"{address} answers"


def _worker(installation: Installation) -> str:
    workers = installation.queue.workers()
    if faulty := [worker for worker in workers if worker["faults"]]:
        found = "; ".join(f"{each['name'][:40]!r} {', and '.join(each['faults'])}" for each in faulty)
        raise ConfigError(f"worker {found}: stop it, and start unsubd run or unsubd work instead")
    ours = [worker for worker in workers if REQUESTS in worker["queues"]]
    if not ours:
        raise ConfigError("no worker is alive, expected at least one: start unsubd run, or unsubd work")
    return f"{len(ours)} alive, last heartbeat {min(worker['heartbeat_s'] for worker in ours)} s ago"


def _archive(folder: Path) -> str:
    """Where old months of the ledger go; unused, it is made when the first one does."""
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(nearest, os.W_OK | os.X_OK) or not nearest.is_dir():
        raise ConfigError(f"UNSUBD_ARCHIVE_DIR: {nearest}: not a folder that we may write, expected one for the ledger")
    return f"{len(Archive(folder).files())} files in {folder}"
