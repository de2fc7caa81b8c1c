"""`unsubd forget`: an address goes from every place that held it; a keyed name keeps suppressing (semantics §8).

The store first: from then on every request of the pair is written under the name, whatever still spells the address in a
queue or a quarantine. The ledger and its files hold keyed pseudonyms alone and stay. What cannot be reached: the server's
append-only file until it is rewritten (asked for at the end), backups, and what people wrote with our commands.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import redis
from rq.serializers import JSONSerializer

from handlers import message
from handlers.address import one_address, split
from handlers.errors import QueueUnavailable, Rejected
from worker.batch import UnsubdJob
from worker.installation import Installation
from worker.quarantine.entry import FAILED, Entry
from worker.sender_sources import SenderSources
from worker.server import away_as
from worker.store.forgotten import ForgottenNames

_MAX_AGAIN = 3


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Where an address was. Shape: how many of each; rewriting: what the servers said to a rewrite of their files."""

    suppressions: int
    stored_tags: int
    imported: int
    quarantine: int
    jobs: int
    journal: int
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
    imported = SenderSources(installation.redis).forget(recipient, installation.names)
    progress("jobs")
    jobs = _forget_jobs(installation.redis, traces)
    progress("quarantine")
    kept = _forget_quarantine(installation, traces)
    journal = installation.journal.forget(recipient)
    installation.journal.service("forgotten", suppressions=suppressions, stored_tags=stored_tags)
    return Forgotten(suppressions, stored_tags, imported, kept, jobs, journal, _rewrite(installation))


class Traces:
    """One address in what mail and programs make of it."""

    def __init__(self, recipient: str, names: ForgottenNames) -> None:
        self.recipient = recipient
        self._names = names
        local_part, domain = split(recipient)
        unicode_domain = _unicode(domain)
        spelled = {recipient, f"{local_part}@{unicode_domain}"}
        # As a tag spells it (both forms), as a URL does, as plain VERP does, and encoded as bodies may be.
        spelled |= {f"{local_part}_{domain}", f"{local_part}={domain}", quote(recipient, safe=""), quote(recipient)}
        spelled |= {base64.b32encode(recipient.encode()).decode().rstrip("=").lower()}
        self._spelled = tuple(each.lower().encode("utf-8", "surrogateescape") for each in spelled)

    def are_in(self, text: str | bytes) -> bool:
        """Say whether *text* spells the address."""
        octets = (text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text).lower()
        return any(each in octets for each in self._spelled)

    def without(self, value: Any) -> Any:
        """Return a job's element (JSON values) with the name in the place of the address."""
        if isinstance(value, list):
            return [self.without(each) for each in value]
        if not isinstance(value, dict):
            return value
        mine = value.get("recipient") == self.recipient and isinstance(value.get("sender"), str)
        named = {"recipient": self._names(value["sender"], self.recipient)} if mine else {}
        return {name: self.without(each) for name, each in value.items()} | named


def _unicode(domain: str) -> str:
    import idna

    try:
        return idna.decode(domain)
    except idna.IDNAError:
        return domain


def _forget_jobs(client: redis.Redis, traces: Traces) -> int:
    count = 0
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        for key in client.scan_iter("rq:job:*", count=500):
            job_id = key.decode().removeprefix("rq:job:")
            [job] = UnsubdJob.fetch_many([job_id], connection=client, serializer=JSONSerializer)
            batch = job.batch() if isinstance(job, UnsubdJob) else None
            if isinstance(job, UnsubdJob) and batch and (rewritten := traces.without(batch)) != batch:
                job.rewrite(rewritten)
                count += 1
    return count


def _forget_quarantine(installation: Installation, traces: Traces) -> int:
    count = 0
    for entries, raws in installation.quarantine.every():
        for entry in entries:
            if _tells(entry, raws.get(entry.id, b""), traces):
                count += _shrunk(installation, entry, traces)
    return count


def _tells(entry: Entry, raw: bytes, traces: Traces) -> bool:
    if traces.are_in(entry.seen) or traces.are_in(raw):
        return True
    if entry.reason == FAILED or not raw:
        return False
    inbound = message.read(raw, source=entry.source)
    headers = (message.decoded(value) for name in ("from", "to", "cc", "reply-to") for value in inbound.values(name))
    return any(traces.are_in(each) for each in headers) or traces.are_in(message.read_text(inbound))


def _shrunk(installation: Installation, entry: Entry, traces: Traces) -> bool:
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
    if entry.reason == FAILED:
        raw = installation.quarantine.raw(entry.id) or b"{}"
        try:
            return replace(entry, failures=entry.failures + 1), json.dumps(traces.without(json.loads(raw))).encode()
        except (ValueError, Rejected):
            pass
    bare = replace(entry, shrunk=True, suggestion=None, envelope_to=None, envelope_from=None, author="", subject="")
    return bare, None


def _rewrite(installation: Installation) -> tuple[str, ...]:
    """Ask each server to rewrite its append-only file, where the address stays until then."""
    said = []
    for setting, client in {
        "UNSUBD_REDIS_URL": installation.redis,
        "UNSUBD_STORE_URL": installation.store_redis,
    }.items():
        if setting == "UNSUBD_STORE_URL" and client is installation.redis:
            continue
        try:
            with away_as(QueueUnavailable, setting):
                client.bgrewriteaof()
            said.append(f"{setting}: rewriting its append-only file")
        except (QueueUnavailable, redis.ResponseError) as error:
            said.append(f"{setting}: its append-only file was not rewritten ({error}), expected: BGREWRITEAOF")
    return tuple(said)
