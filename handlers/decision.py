"""What a message means. `decide` is the whole order in one place; it reads like the table it implements.

The tag decides who is suppressed: not From, not the Subject, not the body. Automatic marks alone never block a
request, because Apple Mail's own unsubscribe carries one. In doubt, with a valid tag: honour. From counts only where a
sender chose to trust it (`handlers.foreign`), and a complaint counts for what the tag in the returned mail names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handlers import automatic, canary, complaints, foreign, reports, suggestion, tag
from handlers.address import undamaged
from handlers.authentication import author, proves
from handlers.complaints import Complaint
from handlers.errors import Rejected
from handlers.foreign import ForeignLookup, ForeignReading
from handlers.message import MAX_LOOK_BYTES, Candidate, InboundMessage, key_is_final
from handlers.request import Action, DecidedMessage, Outcome, Request, Suggestion, request_id
from handlers.sender_source import SenderSource
from handlers.tag import AddressTemplate, Keyring, Reading, StoredTag, Tag

_AUTO_KEYWORDS = ("no", "auto-generated", "auto-replied", "auto-notified")  # the rest may name people
_NOT_ASKING = "automatic mark, and the subject does not ask"


@dataclass(frozen=True, slots=True)
class FirstReceipt:
    """Lookup: when a message of this key first came to our door, ms UTC (remembered, so that a retry keeps it)."""

    message_key: str


Lookup = StoredTag | FirstReceipt | ForeignLookup
Found = Mapping[Lookup, Tag | int]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the installation and its senders decided.

    Shape:   templates: whose addresses are ours even when their tag is garbage. sources: other systems' addresses.
             senders: registered ids, for suggestions. authserv_id: whose Authentication-Results are believed.
             reporters: domains, and feedback_loops: sources, whose complaints count globally.
    """

    templates: tuple[AddressTemplate, ...] = ()
    sources: tuple[SenderSource, ...] = ()
    senders: tuple[str, ...] = ()
    authserv_id: str = ""
    reporters: frozenset[str] = frozenset()
    feedback_loops: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Facts:
    """What was found in a message, before the order is applied.

    Shape:   tags: that verify, in its recipients. blamed: that verify, in the mail it complains about.
    """

    rows: Mapping[StoredTag, Tag]
    tags: Mapping[Tag, tuple[Candidate, Reading]]
    foreign: ForeignReading
    complaint: Complaint | None
    blamed: Mapping[Tag, tuple[Candidate, Reading]]


def lookups(message: InboundMessage, policy: Policy) -> list[Lookup]:
    """Return the typed keys that `decide` needs; the caller fetches them, one pipeline per server."""
    complaint = complaints.complaint(message)
    candidates = (*message.candidates, *(complaint.candidates if complaint else ()))
    stored = [ref for candidate in candidates for ref in tag.stored_refs(candidate.address)]
    if not any(tag.is_shaped(candidate.address) for candidate in candidates):
        stored += suggestion.quoted_refs(message)
    return [FirstReceipt(message.key), *dict.fromkeys(stored), *foreign.foreign_lookups(message, policy.sources)]


def needs_more(message: InboundMessage, keys: Keyring) -> bool:
    """Say whether more of a truncated message must be fetched before deciding.

    Why:     nothing may be `no-tag`, and no report may pass as a request, because of where the first look was cut.
    """
    if not message.truncated or len(message.raw) >= MAX_LOOK_BYTES:
        return False
    if not message.header_complete or not key_is_final(message) or reports.looks_like_report(message):
        return True
    found = _readings(message.candidates, keys, {})
    return not found and not any(tag.stored_refs(each.address) for each in message.candidates)


def decide(message: InboundMessage, keys: Keyring, policy: Policy, found: Found) -> DecidedMessage:
    """Return the outcome of *message* and the requests that follow from it.

    Shape:   found: what `lookups` asked for; a key that is absent is unknown.
    Errors:  none: a message is never refused, only quarantined.
    Repeat:  the same message, keys and findings give the same requests with the same ids.
    """
    facts = _facts(message, keys, policy, found)
    outcome, reason = _outcome(message, facts, policy)
    first_ms = found.get(FirstReceipt(message.key))
    times = [ms for ms in (message.received_ms, first_ms) if isinstance(ms, int)]
    # The earlier of the two: a mail server's clock that runs ahead must not make a repeat look newer than its first.
    received_ms = min(times, default=0)
    everywhere = outcome is Outcome.COMPLAINT and _counts_globally(message, policy)
    wanted = _wanted(outcome, facts, everywhere=everywhere)
    review = _review(message, outcome, reason, wanted, everywhere=everywhere) or _doubt(message, outcome, facts)
    return DecidedMessage(
        key=message.key,
        source=message.source,
        outcome=outcome,
        reason=reason,
        received_ms=received_ms,
        requests=_requests(message, wanted, received_ms),
        evidence=_evidence(message, facts, policy) | ({"review": review} if review else {}),
        suggestion=_suggestion(message, outcome, facts, keys, policy),
    )


def _facts(message: InboundMessage, keys: Keyring, policy: Policy, found: Found) -> _Facts:
    rows = {key: row for key, row in found.items() if isinstance(key, StoredTag) and isinstance(row, Tag)}
    complaint = complaints.complaint(message)
    return _Facts(
        rows=rows,
        tags=_readings(message.candidates, keys, rows),
        foreign=foreign.read_foreign(message, policy.sources, found),
        complaint=complaint,
        blamed=_readings(complaint.candidates, keys, rows) if complaint else {},
    )


def _outcome(message: InboundMessage, facts: _Facts, policy: Policy) -> tuple[Outcome, str]:
    if facts.complaint and facts.complaint.kind == "opt-out" and facts.blamed:
        return Outcome.HONOUR, "a feedback loop's opt-out, a valid tag in the returned mail"
    report = reports.report(message)
    # A mail that was forwarded with a complaint of Hotmail's attached is its author's request all the same.
    attached = report is Outcome.COMPLAINT and facts.tags and not facts.blamed
    if report and not (attached and not complaints.is_from_a_feedback_loop(message)):
        return report, "its structure is that of a report"
    if reports.is_bounce(message):
        return Outcome.BOUNCE, "null sender, mail robot or failed recipients"
    if reports.is_calendar_reply(message):
        return Outcome.CALENDAR, "calendar reply"
    if canary.nonce_of(facts.tags):
        return Outcome.PING, "our own canary"
    if facts.tags:
        return _outcome_of_request(message, "valid tag")
    if facts.foreign.requests:
        return _outcome_of_foreign(message, facts.foreign.requests[0].reason)
    if any(_looks_like_ours(candidate, policy) for candidate in message.candidates):
        return Outcome.BAD_TAG, "an address has a tag's shape, but no active key of its sender signed it"
    if automatic.is_automatic(message):
        return Outcome.AUTO_REPLY, "automatic reply without a tag"
    if not message.headers or not (message.candidates or message.value("from")):
        return Outcome.MALFORMED, "no readable header names anybody"
    return Outcome.NO_TAG, "no address carries a tag"


def _outcome_of_request(message: InboundMessage, proof: str) -> tuple[Outcome, str]:
    if not automatic.is_automatic(message):
        return Outcome.HONOUR, proof
    if client := automatic.client_mark(message):
        return Outcome.HONOUR, f"{proof}, written by the unsubscribe function of {client}"
    if second := automatic.second_auto_sign(message):
        return Outcome.AUTO_REPLY, f"automatic reply, second sign: {second}"
    if automatic.says_unsubscribe(message):
        return Outcome.HONOUR, f"{proof}, automatic mark alone, and the subject asks"
    return Outcome.AUTO_REPLY, _NOT_ASKING


def _outcome_of_foreign(message: InboundMessage, proof: str) -> tuple[Outcome, str]:
    """An address that everybody has gets everything: lists and robots write to it, and mean nobody by it."""
    if suggestion.is_list_mail(message):
        return Outcome.NO_TAG, "list mail to an address that other mail named"
    if automatic.is_automatic(message) and not automatic.is_apple_unsubscribe(message):
        return Outcome.AUTO_REPLY, "automatic reply to an address that other mail named"
    return Outcome.HONOUR, proof


def _looks_like_ours(candidate: Candidate, policy: Policy) -> bool:
    if tag.is_shaped(candidate.address):
        return True
    spellings = [text for _, text in undamaged(candidate.address)] if policy.templates else []
    return any(template.holds(text) for template in policy.templates for text in spellings)


def _readings(
    candidates: Sequence[Candidate], keys: Keyring, rows: Mapping[StoredTag, Tag]
) -> dict[Tag, tuple[Candidate, Reading]]:
    """Every tag that verifies; an envelope recipient whose tag verifies stands alone."""
    readings: dict[Tag, tuple[Candidate, Reading]] = {}
    for candidate in candidates:
        try:
            reading = tag.read(candidate.address, keys, rows)
        except Rejected:
            continue  # most addresses carry no tag; `_outcome` names the ones that only look so
        readings.setdefault(reading.tag, (candidate, reading))
        if candidate.where == "envelope":
            break
    return readings


def _counts_globally(message: InboundMessage, policy: Policy) -> bool:
    """Say whether a complaint is believed for all of a sender's mail: anyone who holds a newsletter can write one."""
    if message.source in policy.feedback_loops:
        return True
    reporter = author(message) if policy.reporters and policy.authserv_id else None
    if reporter is None or reporter.rpartition("@")[2] not in policy.reporters:
        return False
    return proves(message, policy.authserv_id, reporter) is not None


def _wanted(outcome: Outcome, facts: _Facts, *, everywhere: bool) -> list[tuple[Action, Tag]]:
    """What is to be done for whom. A complaint stops its group at once, and everything where it counts globally."""
    if outcome is Outcome.COMPLAINT:
        named = list(facts.blamed)
        globally = [Tag(each.sender, 0, each.recipient) for each in named if everywhere]
        return [(Action.COMPLAINT, each) for each in dict.fromkeys(named + globally)]
    if outcome is Outcome.HONOUR:
        tags = facts.blamed if facts.complaint else facts.tags
        return [(Action.UNSUBSCRIBE, each) for each in tags or [each.tag for each in facts.foreign.requests]]
    return []


def _requests(message: InboundMessage, wanted: Sequence[tuple[Action, Tag]], at_ms: int) -> tuple[Request, ...]:
    return tuple(
        Request(
            id=request_id(message.key, named.sender, named.group, named.recipient, action),
            action=action,
            sender=named.sender,
            group=named.group,
            recipient=named.recipient,
            at_ms=at_ms,
            source=message.source,
            evidence=message.key,
        )
        for action, named in wanted
    )


def _review(
    message: InboundMessage, outcome: Outcome, reason: str, wanted: Sequence[tuple[Action, Tag]], *, everywhere: bool
) -> str:
    """Why a person should look although the outcome is no quarantine, "" when nobody need."""
    if outcome is Outcome.COMPLAINT and not wanted:
        return "a complaint without a verifying tag"
    if outcome is Outcome.COMPLAINT and not everywhere:
        return "a complaint that no trusted reporter sent: its group is stopped, not everything"
    if reason == _NOT_ASKING:
        return reason
    if outcome is Outcome.HONOUR and message.value("in-reply-to") and not _asks(message):
        return "a reply whose own text does not ask"
    return ""


def _doubt(message: InboundMessage, outcome: Outcome, facts: _Facts) -> str:
    if outcome is Outcome.HONOUR and not facts.tags and not facts.blamed and not _asks(message):
        return "proved by its address and author alone, and its own text does not ask"
    if outcome is Outcome.BOUNCE and facts.tags and automatic.is_apple_unsubscribe(message):
        return "a robot's address, a valid tag, and a mail client's own unsubscribe"
    return ""


def _asks(message: InboundMessage) -> bool:
    return automatic.says_unsubscribe(message) or bool(suggestion.asks(message))


def _suggestion(
    message: InboundMessage, outcome: Outcome, facts: _Facts, keys: Keyring, policy: Policy
) -> Suggestion | None:
    if not outcome.quarantined:
        return None
    asked = suggestion.suggest(message, keys, policy.sources, policy.senders, facts.rows)
    return asked or facts.foreign.suggestion


def _evidence(message: InboundMessage, facts: _Facts, policy: Policy) -> dict[str, str]:
    evidence = {"size_bytes": str(message.size_bytes)}
    for candidate, reading in list((facts.tags or facts.blamed).values())[:1]:
        evidence |= {"tag_in": candidate.where, "repair": reading.repair, "key_index": str(reading.key_index)}
    if nonce := canary.nonce_of(facts.tags):
        evidence["canary"] = nonce
    for request in facts.foreign.requests[:1] if not facts.tags else ():
        evidence |= {"foreign": request.source, "foreign_in": request.where, "repair": request.repair}
    if facts.foreign.refusal and not facts.tags:
        evidence["foreign"] = f"not proved: {facts.foreign.refusal}"
    if facts.complaint:
        evidence["complaint"] = facts.complaint.kind
    if word := automatic.auto_keyword(message):
        evidence["auto_submitted"] = word if word in _AUTO_KEYWORDS else "other"
    if client := automatic.client(message):
        evidence["client"] = client
    if policy.authserv_id and (writer := author(message)):
        proof = proves(message, policy.authserv_id, writer)
        evidence["authentication"] = proof.value if proof else "no pass for the author"
    return evidence
