"""`unsubd forget`: an address goes from every place that held it; a keyed name keeps suppressing (semantics §8).

The store first: from then on every request of the pair is written under the name, whatever still spells the address in a
queue or a quarantine. The ledger and its files hold keyed pseudonyms alone and stay. What cannot be reached: the server's
append-only file until it is rewritten (asked for at the end) and its dump until the next one, backups, mailboxes, what people
wrote with our commands, and a request that is in hand at this very moment: it may keep the address in quarantine, if it fails.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import redis
from rq.results import Result

from handlers.address import one_address
from handlers.errors import QueueUnavailable
from worker.installation import Installation
from worker.points import point
from worker.quarantine.catalogue import word_of
from worker.quarantine.entry import FAILED, Entry
from worker.server import away_as, servers
from worker.traces import GONE, Traces

_MAX_AGAIN = 3
_SLOW_LOG = 100_000  # all of it, however long an operator made it


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Where an address was.

    Shape:   how many of each. newer_jobs: that only a newer program reads, and that may hold it still. rewriting: what the
             servers said to a rewrite of their files.
    """

    suppressions: int
    stored_tags: int
    imported: int
    quarantine: int
    jobs: int
    journal: int
    mails: int
    newer_jobs: int
    rewriting: tuple[str, ...]


def forget(installation: Installation, address: str, progress: Callable[[str], None] = lambda _: None) -> Forgotten:
    """Forget *address* for every sender; return where it was.

    Errors:  AddressError  not an address.    permanent
             Unavailable   a server is away: say it again.    temporary
    Repeat:  safe; what a crash left is found the next time.
    """
    recipient = one_address(address)
    traces = Traces(recipient, installation.names)
    senders = {each.id for each in installation.accounts.senders()} | set(installation.store.senders())
    progress("suppressions")
    suppressions = installation.store.forget(recipient, sorted(senders))
    progress("stored tags")
    stored_tags = installation.tags.forget(recipient, installation.names)
    imported = installation.intake.sender_sources.forget(recipient, installation.names)
    progress("jobs")
    jobs, newer_jobs = _forget_jobs(installation, traces)
    progress("quarantine")
    kept = _forget_quarantine(installation, traces)
    mails = _forget_dropped(installation.settings.drop_folder, traces)
    _forget_rejected(installation.settings.data_dir, traces)
    journal = installation.journal.forget(recipient)
    installation.journal.service("forgotten", suppressions=suppressions, stored_tags=stored_tags)
    rewriting = _forget_on_servers(installation, traces)
    return Forgotten(suppressions, stored_tags, imported, kept, jobs, journal, mails, newer_jobs, rewriting)


def _forget_jobs(installation: Installation, traces: Traces) -> tuple[int, int]:
    """Return how many jobs held the address, and how many could not be looked at."""
    while installation.parked.move(installation.queue, installation.quarantine_failed):
        pass  # into jobs, as the reaper does
    newer, count = 0, installation.intake.begun.rewrite(traces.without)  # before the jobs: the reaper makes some of it
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        for key in installation.redis.scan_iter("rq:job:*", count=500):
            job = installation.queue.reaper.readable(key.decode().removeprefix("rq:job:"))
            if job is None:
                continue
            batch, newer = job.carried(), newer + job.is_newer()
            if batch and (rewritten := traces.without(batch)) != batch:
                job.rewrite(rewritten)
                count += 1
            if any(traces.are_in(result.exc_string) for result in job.results()):
                with point("forget.job"):
                    Result.delete_all(job)  # what an exception said of it
    return count, newer


def _forget_quarantine(installation: Installation, traces: Traces) -> int:
    count = 0
    for entries, raws in installation.quarantine.every():
        for entry in entries:
            if _tells(entry, raws.get(entry.id, b""), traces):
                count += _put_bare(installation, entry, traces)
    return count


def _tells(entry: Entry, raw: bytes, traces: Traces) -> bool:
    if traces.are_in(json.loads(entry.seen)):
        return True
    if entry.reason == FAILED and (element := _element(raw)) is not None:
        return traces.are_in(element)
    return traces.are_in_mail(raw)


def _element(raw: bytes | None) -> Any:
    """What a failed entry's bytes say; None when they are no JSON."""
    try:
        return json.loads(raw or b"")
    except ValueError:
        return None


def _put_bare(installation: Installation, entry: Entry, traces: Traces) -> bool:
    """Put what no longer names the person in the place of an entry: its requests rewritten, or a bare record."""
    for _ in range(_MAX_AGAIN):
        if installation.quarantine.change(entry, *_bare(installation, entry, traces)):
            return True
        found = installation.quarantine.entries([entry.id]).get(entry.id)
        if found is None:
            return False
        entry = found
    raise QueueUnavailable(f"quarantine id {entry.id}: changes again and again, expected a moment of rest: repeat it")


def _bare(installation: Installation, entry: Entry, traces: Traces) -> tuple[Entry, bytes | None]:
    bare = replace(
        entry, suggestion=None, envelope_to=None, envelope_from=None, author="", subject="",
        detail=GONE if traces.are_in(entry.detail) else entry.detail,
        evidence={name: each for name, each in entry.evidence.items() if not traces.are_in(each)},
        message_id="" if entry.message_id == word_of(traces.recipient) else entry.message_id,
    )  # fmt: skip
    if entry.reason == FAILED and (element := _element(installation.quarantine.raw(entry.id))) is not None:
        return replace(bare, failures=entry.failures + 1), json.dumps(traces.without(element)).encode()
    return replace(bare, shrunk=True), None


def _forget_dropped(folder: Path | None, traces: Traces) -> int:
    """Delete the mails of our own drop folder that spell the address and were accepted already."""
    mine = _spelling(folder / "cur", traces) if folder else []
    for path in mine:
        with point("forget.file"):
            path.unlink(missing_ok=True)
    return len(mine)


def _spelling(folder: Path, traces: Traces) -> list[Path]:
    for _ in range(_MAX_AGAIN):
        try:
            return [path for path in folder.glob("*") if traces.are_in_mail(path.read_bytes())]
        except FileNotFoundError:
            pass  # a mail reader set a flag, which renames: the mail is still there
    raise QueueUnavailable(f"{folder}: changes again and again, expected a moment of rest: repeat it")


def _forget_rejected(data_dir: Path, traces: Traces) -> None:
    """Delete what posted lists left of rejected rows, where it spells the address; a list that waits is gone soon."""
    for path in (data_dir / "imports").glob("*.rejected.csv"):
        with suppress(FileNotFoundError):  # swept since it was listed
            if traces.are_in(path.read_bytes()):
                with point("forget.file"):
                    path.unlink()


def _forget_on_servers(installation: Installation, traces: Traces) -> tuple[str, ...]:
    """Take it out of what each server remembers besides its keys: the log of slow commands, and the append-only file."""
    clients = {"UNSUBD_REDIS_URL": installation.redis}
    if installation.store_redis is not installation.redis:
        clients["UNSUBD_STORE_URL"] = installation.store_redis
    return tuple(_forget_on(client, setting, traces) for setting, client in clients.items())


def _forget_on(client: redis.Redis, setting: str, traces: Traces) -> str:
    try:
        with away_as(QueueUnavailable, setting):
            for server in servers(client):
                _forget_slow_log(server, traces)
                with point("forget.server"):
                    server.bgrewriteaof()
    except (QueueUnavailable, redis.ResponseError) as error:
        return f"{setting}: its append-only file was not rewritten ({error}), expected: BGREWRITEAOF"
    return f"{setting}: rewriting its append-only file"


def _forget_slow_log(client: redis.Redis, traces: Traces) -> None:
    try:
        slow: Any = client.slowlog_get(_SLOW_LOG)
        if any(traces.are_in(each["command"]) for each in slow):
            with point("forget.server"):
                client.slowlog_reset()
    except redis.ResponseError:
        pass  # not permitted to us: it holds its last 128 commands, in memory only
