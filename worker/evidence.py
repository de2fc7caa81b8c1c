"""The whole story of one recipient and one sender: what counts now, and every message and entry that made it so.

Rows come from the store, records from the ledger and from its files; an import is known by the row that it changed last.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handlers.address import one_address
from handlers.errors import UnknownAccount
from worker import imports
from worker.installation import Installation
from worker.store.archive import Archive, Line
from worker.store.bundle import write_bundle
from worker.store.ledger import Record, names_any, one_of


@dataclass(frozen=True, slots=True)
class Story:
    """What is known of one recipient.

    Shape:   rows: one a group that has one: group, name, suppressed, held, complaint, first_seen, time, source, perhaps the
             import. events: {"at", "what", "message"}, oldest first, in words. records: as the ledger has them, by message
             key. archived: how many of them came from the files.
    """

    sender: str
    recipient: str
    pseudonym: str
    forgotten: bool
    made_at: str
    rows: list[dict[str, Any]]
    events: list[dict[str, str]]
    records: dict[str, Record]
    archived: int

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def told(installation: Installation, sender: str, address: str, *, archived: bool = True) -> Story:
    """Return the story of *address* with *sender*.

    Shape:   archived False: without what only the archive's files have: they are read from the first to the last.
    Errors:  UnknownAccount  no such sender, and no row of one.    permanent
             AddressError    not an address.    permanent
             Unavailable     a server is away.    temporary
    """
    recipient = one_address(address)
    groups = installation.store.groups(sender)
    if not groups:
        installation.accounts.sender(sender)
    names = pseudonyms(installation, sender, recipient)
    recent = installation.ledger.story(sender, names)
    filed = _archived(installation, sender, names) if archived else {}
    copies = {key: list(filed.get(key, ())) for key in filed | recent}
    for key, record in recent.items():
        copies[key].append(record)
    records = {key: one_of(each) for key, each in copies.items()}
    return Story(
        sender=sender,
        recipient=recipient,
        pseudonym=installation.pseudonyms.bare(recipient),
        forgotten=installation.store.is_forgotten(sender, recipient),
        made_at=_time(datetime.now(UTC).timestamp() * 1000),
        rows=_rows(installation, sender, recipient, groups),
        events=_events(records, names),
        records=records,
        archived=len(filed),
    )


def for_sender(installation: Installation, story: Story) -> Story:
    """Return the story as its sender's own programs may read it: of a message for several senders, what concerns this one."""
    names = pseudonyms(installation, story.sender, story.recipient)
    records = {key: _of_sender(record, story.sender) for key, record in story.records.items()}
    return replace(story, records=records, events=_events(records, names))


def _of_sender(record: Record, sender: str) -> Record:
    kept = {"requests": [each for each in record["requests"] if each["sender"] == sender]}
    made = [_of_sender(each, sender) for each in record.get("resolutions", [])]
    return {**record, **kept, **({"resolutions": made} if made else {})}


def bundle(installation: Installation, story: Story, path: Path) -> str:
    """Write the story and what proves it to a new file; return the hash to note elsewhere.

    Errors:  Rejected  the file exists or cannot be written; the archive is damaged.    permanent
    """
    names = pseudonyms(installation, story.sender, story.recipient)
    archived = _archived(installation, story.sender, names)
    recent = [
        Line(story.sender, key, record) for key, record in story.records.items() if record not in archived.get(key, ())
    ]
    archive = Archive(installation.settings.archive)
    told_facts = {name: value for name, value in story.as_json().items() if name != "records"}
    return write_bundle(path, told_facts, recent, archive, lambda line: names_any(line.record, story.sender, names))


def pseudonyms(installation: Installation, sender: str, recipient: str) -> tuple[str, str]:
    """Return the pseudonyms of a recipient in the ledger: of the address, and of the name it has once forgotten."""
    bare = installation.pseudonyms.bare
    return bare(recipient), bare(installation.names(sender, recipient))


def _archived(installation: Installation, sender: str, names: Sequence[str]) -> dict[str, list[Record]]:
    """Return by message key what the files have: mostly one record, and its later copies."""
    found: dict[str, list[Record]] = {}
    for line in Archive(installation.settings.archive).copies(lambda text: any(name in text for name in names)):
        if names_any(line.record, sender, names):
            found.setdefault(line.key, []).append(line.record)
    return found


def _rows(installation: Installation, sender: str, recipient: str, groups: Sequence[int]) -> list[dict[str, Any]]:
    known = imports.Imports(installation.redis).of(sender)
    found = installation.store.rows([(sender, group, recipient) for group in groups])
    rows = []
    for group, row in zip(groups, found, strict=True):
        if row is None:
            continue
        origin = imports.origin(known, row.evidence) if row.source == "import" else None
        rows.append(
            {
                "group": group,
                "name": _name(installation, sender, group),
                "suppressed": row.suppressed,
                "held": row.held,
                "complaint": row.complaint,
                "first_seen": _time(row.first_seen_s * 1000),
                "time": _time(row.time_ms),
                "source": row.source,
                **({"import": f"{origin.id} of {origin.file} by {origin.actor}"} if origin else {}),
            }
        )
    return rows


def _name(installation: Installation, sender: str, group: int) -> str:
    try:
        return installation.accounts.group(sender, group).name
    except UnknownAccount:
        return "not registered"


def _events(records: dict[str, Record], names: Sequence[str]) -> list[dict[str, str]]:
    events = [event for key, record in records.items() for event in _of_record(key, record, names)]
    return [{"at": _time(at_ms), "what": what, "message": key} for at_ms, key, what in sorted(events)]


def _of_record(key: str, record: Record, names: Sequence[str]) -> list[tuple[int, str, str]]:
    actor = f" by {record['evidence']['actor']}" if "actor" in record["evidence"] else ""
    head = f"{record['outcome']:<10} {record['source']}{actor}: {record['reason']}"
    found = [(record["received_ms"], key, f"{head} -> {_effects(record['requests'], names)} (message {key[:12]})")]
    for each in record.get("resolutions", []):
        what = f"{each['action']:<10} by {each['actor']}: {each['reason']} -> {_effects(each['requests'], names)}"
        found.append((each["at_ms"], key, f"{what} (message {key[:12]})"))
    return found


def _effects(results: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    return "; ".join(_effect(each) for each in results if each["recipient"] in names) or "nothing"


def _effect(result: dict[str, Any]) -> str:
    moved = f", asked for {result['redirected_from']}" if "redirected_from" in result else ""
    return f"group {result['group']} {result['effect']}{moved}"


def _time(at_ms: float) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
