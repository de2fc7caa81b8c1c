"""What a message means. `decide` is the whole order in one place; it reads like the table it implements.

The tag decides who is suppressed: not From, not the Subject, not the body. Automatic marks alone never block a
request, because Apple Mail's own unsubscribe carries one. In doubt, with a valid tag: honour.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from handlers import reports, tag
from handlers.address import undamaged
from handlers.errors import Rejected
from handlers.message import MAX_LOOK_BYTES, Candidate, InboundMessage, key_is_final
from handlers.request import Action, DecidedMessage, Outcome, Request, request_id
from handlers.tag import AddressTemplate, Keyring, Reading, StoredTag, Tag


@dataclass(frozen=True, slots=True)
class FirstReceipt:
    """Lookup: when a message of this key first came to our door, ms UTC (remembered, so that a retry keeps it)."""

    message_key: str


Lookup = StoredTag | FirstReceipt
Found = Mapping[Lookup, Tag | int]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the installation decided: the template whose addresses are ours even when their tag is garbage."""

    template: AddressTemplate | None = None


def lookups(message: InboundMessage) -> list[Lookup]:
    """Return the typed keys that `decide` needs; the caller fetches them, one pipeline per server."""
    stored = [ref for candidate in message.candidates for ref in tag.stored_refs(candidate.address)]
    return [FirstReceipt(message.key), *dict.fromkeys(stored)]


def needs_more(message: InboundMessage, keys: Keyring) -> bool:
    """Say whether more of a truncated message must be fetched before deciding.

    Why:     nothing may be `no-tag`, and no report may pass as a request, because of where the first look was cut.
    """
    if not message.truncated or len(message.raw) >= MAX_LOOK_BYTES:
        return False
    if not message.header_complete or not key_is_final(message) or reports.looks_like_report(message):
        return True
    return not _readings(message, keys, {}) and not any(tag.stored_refs(each.address) for each in message.candidates)


def decide(message: InboundMessage, keys: Keyring, policy: Policy, found: Found) -> DecidedMessage:
    """Return the outcome of *message* and the requests that follow from it.

    Shape:   found: what `lookups` asked for; a key that is absent is unknown.
    Errors:  none: a message is never refused, only quarantined.
    Repeat:  the same message, keys and findings give the same requests with the same ids.
    """
    readings = _readings(message, keys, {key: row for key, row in found.items() if isinstance(row, Tag)})  # type: ignore[misc]
    outcome, reason = _outcome(message, bool(readings), policy)
    first_ms = found.get(FirstReceipt(message.key))
    times = [ms for ms in (message.received_ms, first_ms) if isinstance(ms, int)]
    # The earlier of the two: a mail server's clock that runs ahead must not make a repeat look newer than its first.
    received_ms = min(times, default=0)
    return DecidedMessage(
        key=message.key,
        source=message.source,
        outcome=outcome,
        reason=reason,
        received_ms=received_ms,
        requests=_requests(message, readings, received_ms) if outcome is Outcome.HONOUR else (),
        evidence=_evidence(message, readings),
    )


def _outcome(message: InboundMessage, tagged: bool, policy: Policy) -> tuple[Outcome, str]:
    if report := reports.report(message):
        return report, "its structure is that of a report"
    if reports.is_bounce(message):
        return Outcome.BOUNCE, "null sender, mail robot or failed recipients"
    if reports.is_calendar_reply(message):
        return Outcome.CALENDAR, "calendar reply"
    if tagged:
        return _outcome_of_tagged(message)
    if any(_looks_like_ours(candidate, policy) for candidate in message.candidates):
        return Outcome.BAD_TAG, "an address has a tag's shape, but no active key of its sender signed it"
    if reports.is_automatic(message):
        return Outcome.AUTO_REPLY, "automatic reply without a tag"
    if not message.headers or not (message.candidates or message.value("from")):
        return Outcome.MALFORMED, "no readable header names anybody"
    return Outcome.NO_TAG, "no address carries a tag"


def _outcome_of_tagged(message: InboundMessage) -> tuple[Outcome, str]:
    if not reports.is_automatic(message):
        return Outcome.HONOUR, "valid tag"
    if client := reports.client_mark(message):
        return Outcome.HONOUR, f"valid tag, written by the unsubscribe function of {client}"
    if second := reports.second_auto_sign(message):
        return Outcome.AUTO_REPLY, f"automatic reply, second sign: {second}"
    if reports.says_unsubscribe(message):
        return Outcome.HONOUR, "valid tag, automatic mark alone, and the subject asks"
    return Outcome.AUTO_REPLY, "automatic mark, and the subject does not ask"


def _looks_like_ours(candidate: Candidate, policy: Policy) -> bool:
    if tag.is_shaped(candidate.address):
        return True
    return policy.template is not None and any(policy.template.holds(text) for _, text in undamaged(candidate.address))


def _readings(
    message: InboundMessage, keys: Keyring, rows: Mapping[StoredTag, Tag]
) -> dict[Tag, tuple[Candidate, Reading]]:
    """Every tag that verifies; an envelope recipient whose tag verifies stands alone."""
    readings: dict[Tag, tuple[Candidate, Reading]] = {}
    for candidate in message.candidates:
        try:
            reading = tag.read(candidate.address, keys, rows)
        except Rejected:
            continue  # most addresses carry no tag; `_outcome` names the ones that only look so
        readings.setdefault(reading.tag, (candidate, reading))
        if candidate.where == "envelope":
            break
    return readings


def _requests(
    message: InboundMessage, readings: Mapping[Tag, tuple[Candidate, Reading]], at_ms: int
) -> tuple[Request, ...]:
    action = Action.UNSUBSCRIBE
    return tuple(
        Request(
            id=request_id(message.key, found.sender, found.group, found.recipient, action),
            action=action,
            sender=found.sender,
            group=found.group,
            recipient=found.recipient,
            at_ms=at_ms,
            source=message.source,
            evidence=message.key,
        )
        for found in readings
    )


def _evidence(message: InboundMessage, readings: Mapping[Tag, tuple[Candidate, Reading]]) -> dict[str, str]:
    facts = {"size_bytes": str(message.size_bytes)}
    for candidate, reading in list(readings.values())[:1]:
        facts |= {"tag_in": candidate.where, "repair": reading.repair, "key_index": str(reading.key_index)}
    if word := reports.auto_keyword(message):
        facts["auto_submitted"] = word[:40]
    if message.value("x-apple-unsubscribe"):
        facts["client"] = "apple-mail"
    return facts
