"""The two doors. `accept` takes responsibility for messages; `record` is the only writer of suppressions and ledger.

After `accept` returns, losing the message is our fault: its requests are in a durable queue, and what a person must see
is in quarantine. Sources acknowledge only then.

| key               | type   | holds                                               | lives  |
|-------------------|--------|-----------------------------------------------------|--------|
| `unsubd:seen:KEY` | STRING | when a message first came to our door, ms UTC       | 7 days |
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain
from typing import Any

import redis

from handlers import decision
from handlers.decision import FirstReceipt, Lookup, Policy
from handlers.errors import QueueUnavailable, Unavailable
from handlers.foreign import ForeignToken, KnownRecipient
from handlers.message import InboundMessage
from handlers.request import Action, DecidedMessage, Effect, Outcome, Request
from handlers.tag import Keyring, StoredTag, Tag
from worker import canary
from worker.accounts import Accounts, Standing
from worker.anomalies import Anomalies
from worker.anomaly_late import renewed
from worker.begun import Begun
from worker.clock import Clock
from worker.counted import LEFT
from worker.events import Events
from worker.fence import Fence
from worker.forwarding import Forwards
from worker.journal import Journal
from worker.points import point
from worker.policy import Policies
from worker.quarantine import Quarantine
from worker.quarantine.entry import needs_a_person
from worker.queue import RequestQueue
from worker.sender_sources import SenderSources
from worker.server import away_as
from worker.store import Store
from worker.store.ledger import Ledger, result_of
from worker.store.row import names_group
from worker.store.tags import StoredTags

_FIRST_RECEIPT_S = 7 * 86400  # longer than any provider retries (three days)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What `accept` took: the decisions in the order of the messages, and the jobs that carry them."""

    decided: list[DecidedMessage]
    job_ids: list[str]


@dataclass(frozen=True, slots=True)
class Intake:
    """What both doors need. One per process."""

    redis: redis.Redis
    store: Store
    tags: StoredTags
    ledger: Ledger
    accounts: Accounts
    quarantine: Quarantine
    queue: RequestQueue
    events: Events
    forwards: Forwards
    journal: Journal
    clock: Clock
    keys: Keyring
    policies: Policies
    sender_sources: SenderSources
    anomalies: Anomalies
    begun: Begun

    def decide(self, messages: Sequence[InboundMessage], *, remember: bool = True) -> list[DecidedMessage]:
        """Return what each message means; `remember` False leaves no trace (for explain).

        Errors:  Unavailable  a lookup cannot be answered.    temporary
        """
        policy = self.policies.now()
        found = self._found(messages, policy, remember=remember)
        with point("intake.decide"):
            return [self._decide_one(message, policy, each) for message, each in zip(messages, found, strict=True)]

    def accept(
        self,
        messages: Sequence[InboundMessage],
        *,
        keep_untagged: bool = True,
        decided_all: Callable[[], None] = lambda: None,
        fence: Fence | None = None,
    ) -> Accepted:
        """Take responsibility for *messages*: decide, keep what a person must see, enqueue. Durable when it returns.

        Shape:   keep_untagged False: mail that is not ours stays where it is, so no copy is kept (a shared mailbox).
                 decided_all: called when nothing of a message is read any more: from then on, none can kill its reader.
                 fence: the lease under which they were read.
        Errors:  Unavailable  nothing may be acknowledged; come again.    temporary
                 LeaseLost    the lease is another's: nothing was enqueued.    temporary
        Repeat:  safe: same keys, same requests, one effect, one ledger record.
        """
        decided = self.decide(messages)
        decided_all()
        if not keep_untagged:
            decided = [_left(each) if is_foreign(each) else each for each in decided]
        self.quarantine.keep([pair for pair in zip(messages, decided, strict=True) if needs_a_person(pair[1])])
        job_ids = self.queue.enqueue(decided, fence=fence)
        if decided:
            self.journal.accepted(decided[0].source, len(decided), job_ids)
            canary.note(self.redis, decided, canary.ACCEPTED)
            self.anomalies.accepted(zip(messages, decided, strict=True))
        return Accepted(decided, job_ids)

    def set_aside(
        self, raw: bytes, name: str, source: str, received_ms: int | None, fence: Fence | None = None
    ) -> Accepted:
        """Take responsibility for a message that nobody may read: its octets go to quarantine, with one ledger record.

        Shape:   name: of the message at its source, told apart from every other.
        Errors:  Unavailable  as `accept`.    temporary
        Repeat:  safe.
        """
        at_ms = time.time_ns() // 1_000_000 if received_ms is None else received_ms
        key = sha256(f"unread\0{source}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()
        message = InboundMessage(
            key, source, raw, len(raw), (), None, None, (), received_ms, header_complete=False, body=b""
        )
        reason = "reading it killed our process again and again: set aside unread"
        decided = DecidedMessage(key, source, Outcome.MALFORMED, reason, at_ms, evidence={"failed": "killed"})
        self.quarantine.keep([(message, decided)])
        self.journal.failed("poison", reason, message=key[:12], source=source)
        return Accepted([decided], self.queue.enqueue([decided], fence=fence))

    def _found(
        self, messages: Sequence[InboundMessage], policy: Policy, *, remember: bool
    ) -> list[dict[Lookup, Tag | int]]:
        """Return what each message asks for: not what all do, or the work grows with their square."""
        asked = [self._wanted(message, policy) for message in messages]
        wanted = list(dict.fromkeys(chain.from_iterable(asked)))
        receipts = [key for key in wanted if isinstance(key, FirstReceipt)]
        found = self._first_receipts(receipts, remember=remember) | look_up(wanted, self.tags, self.sender_sources)
        return [{key: found[key] for key in keys if key in found} for keys in asked]

    def _wanted(self, message: InboundMessage, policy: Policy) -> list[Lookup]:
        try:
            return decision.lookups(message, policy)
        except Exception as error:  # noqa: BLE001  a poison message must not stop its neighbours: `_decide_one` keeps it
            self.journal.failed("decide", f"{type(error).__name__}: looked up nothing", message=message.key[:12])
            return [FirstReceipt(message.key)]

    def _first_receipts(self, wanted: list[FirstReceipt], *, remember: bool) -> dict[Lookup, Tag | int]:
        now_ms = time.time_ns() // 1_000_000
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            pipeline = self.redis.pipeline(transaction=False)
            for key in wanted:
                name = f"unsubd:seen:{key.message_key[:32]}"
                if remember:
                    pipeline.set(name, now_ms, nx=True, ex=_FIRST_RECEIPT_S, get=True)
                else:
                    pipeline.get(name)
            with point("intake.receipt"):
                replies: list[bytes | None] = pipeline.execute()
        return {key: int(reply or now_ms) for key, reply in zip(wanted, replies, strict=True)}

    def _decide_one(self, message: InboundMessage, policy: Policy, found: dict[Lookup, Tag | int]) -> DecidedMessage:
        try:
            return decision.decide(message, self.keys, policy, found)
        except Exception as error:  # noqa: BLE001  a poison message must not stop its neighbours: a person gets it
            self.journal.failed("decide", f"{type(error).__name__}: quarantined", message=message.key[:12])
            received_ms = found.get(FirstReceipt(message.key), 0)
            return DecidedMessage(
                key=message.key, source=message.source, outcome=Outcome.MALFORMED,
                reason=f"deciding it failed: {type(error).__name__}",
                received_ms=received_ms if isinstance(received_ms, int) else 0,
                evidence={"failed": type(error).__name__},
            )  # fmt: skip

    def record(self, messages: Sequence[DecidedMessage], *, queued_ms: int | None = None) -> list[list[dict[str, Any]]]:
        """Apply the requests of *messages*, write ledger and journal, and return each message's results.

        Shape:   a result: {"id", "sender", "group", "recipient", "effect"}, "redirected_from" where a group is gone.
                 A request that breaks has none: it is in quarantine, alone. queued_ms: when they came into the queue,
                 for the clock.
        Errors:  Unavailable  the store is away.    temporary
        Repeat:  safe: effects and records of a crash are made good, none is doubled; journal lines and counters may be
                 (semantics §1: a crash repeats them rather than losing them).
        """
        try:
            return self._recorded(messages, queued_ms)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  one message must not stop its neighbours: each gets its own try
            self.journal.failed("batch", f"{type(error).__name__}: repeated one by one", messages=len(messages))
        return [self._recorded_alone(message, queued_ms) for message in messages]

    def record_now(self, messages: Sequence[DecidedMessage]) -> list[list[dict[str, Any]]]:
        """`record` messages of a page, the API or a command; should this process die, the reaper goes on with them.

        Shape:   messages: one at least.
        Errors:  Unavailable  as `record`, or the queue is away; what was begun may take effect later.    temporary
        Repeat:  as `record`.
        """
        with self.begun.kept(messages):
            return self.record(messages)

    def _recorded(self, messages: Sequence[DecidedMessage], queued_ms: int | None) -> list[list[dict[str, Any]]]:
        results = iter(self._applied([request for message in messages for request in message.requests]))
        entries = [(message, [next(results) for _ in message.requests]) for message in messages]
        self._write(entries, queued_ms)
        return [results for _, results in entries]

    def apply(self, requests: Sequence[Request]) -> list[tuple[int, Effect]]:
        """Apply requests that come with no message (an import's): the group that each went to, and its effect.

        Errors:  Unavailable  the store or the accounts are away.    temporary
        Repeat:  safe, as `record`; the caller keeps what the ledger would.
        """
        targets = self._targets(requests)
        wanted = [targets[request] for request in requests]
        effects = self.store.apply(wanted)
        late = renewed(self.store, self.anomalies, wanted, effects)
        effects = [late.get(number, effect) for number, effect in enumerate(effects)]
        return [(target.group, effect) for target, effect in zip(wanted, effects, strict=True)]

    def _applied(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        done = zip(requests, self.apply(requests), strict=True)
        return [self._result(each, group, effect) for each, (group, effect) in done]

    def _write(self, entries: list[tuple[DecidedMessage, list[dict[str, Any]]]], queued_ms: int | None) -> None:
        # Counted before what may fail and be repeated: then the records are no longer new.
        self.ledger.write(entries, lambda fresh: self._count(entries, fresh, queued_ms))
        self.events.tell(entries)
        self.forwards.tell(entries)
        self.journal.recorded(entries)
        canary.note(self.redis, (message for message, _ in entries), canary.RECORDED)

    def _count(
        self, entries: list[tuple[DecidedMessage, list[dict[str, Any]]]], fresh: list[bool], queued_ms: int | None
    ) -> None:
        self.clock.recorded(entries, fresh, queued_ms=queued_ms)
        self.anomalies.recorded([message for message, _ in entries], fresh)

    def _recorded_alone(self, message: DecidedMessage, queued_ms: int | None) -> list[dict[str, Any]]:
        try:
            return self._recorded([message], queued_ms)[0]
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  whatever one message breaks is that message's, kept for a person
            return self._recorded_in_part(message, type(error).__name__, queued_ms)

    def _recorded_in_part(self, message: DecidedMessage, broken: str, queued_ms: int | None) -> list[dict[str, Any]]:
        """Try each request alone; the message's one record has the effects there were, and why there are not more."""
        found = [self._applied_alone(message, request) for request in message.requests]
        results = [result for each in found for result in each]
        if failed := found.count([]):
            which = "it" if len(found) == 1 else f"{failed} of {len(found)} requests"
            message = replace(message, reason=f"applying {which} failed: {broken}")
        try:
            self._write([(message, results)], queued_ms)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  a message that cannot be told must not stop its neighbours either
            self._keep(message, f"recording it failed: {type(error).__name__}", message.key)
        return results

    def _applied_alone(self, message: DecidedMessage, request: Request) -> list[dict[str, Any]]:
        try:
            return self._applied([request])
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  one request must not stop its neighbours
            detail = f"applying it failed: {type(error).__name__}"
        alone = replace(message, requests=(request,))
        self._keep(alone, detail, message.key if len(message.requests) == 1 else _part_id(message, request))
        return []

    def _keep(self, message: DecidedMessage, detail: str, entry_id: str) -> None:
        self.quarantine.keep_failed(entry_id, detail, message.as_wire(), message.received_ms)
        self.journal.failed("apply", detail, message=message.key[:12])

    def _targets(self, requests: Sequence[Request]) -> dict[Request, Request]:
        """Where each request goes: to its group, or to group 0 when that group cannot take it."""
        names = {(request.sender, request.group) for request in requests}
        standings = self.accounts.standings(names) if names else {}
        stray = [each for each in requests if _strays(each, standings[each.sender, each.group])]
        gone = [each for each in stray if standings[each.sender, each.group] is Standing.GONE]
        rows = self.store.rows([(each.sender, each.group, each.recipient) for each in gone]) if gone else []
        # A recipient who has a row in that group already keeps it: old mail read again must not widen an old request.
        kept = {each for each, row in zip(gone, rows, strict=True) if row is not None}
        widened = set(stray) - kept
        return {request: replace(request, group=0) if request in widened else request for request in requests}

    def _result(self, request: Request, group: int, effect: Effect) -> dict[str, Any]:
        moved = {} if request.group == group else {"redirected_from": request.group}
        action = request.action.value
        return result_of(effect, request.sender, group, request.recipient, request.id, action=action, **moved)


def _strays(request: Request, standing: Standing) -> bool:
    """Say whether a group cannot take a request: it is gone, or essential and the request was not made for it by name."""
    if request.action is Action.RESUBSCRIBE or standing is Standing.LIVE:
        return False  # whoever comes back lifts what he names, and nothing wider
    named = request.action is Action.UNSUBSCRIBE and names_group(request.source)
    return standing is Standing.GONE or not named


def _part_id(message: DecidedMessage, request: Request) -> str:
    """The quarantine's id for one request of several: another one may fail at the next repeat, and needs its own."""
    return sha256(f"{message.key}\0{request.id}".encode("utf-8", "surrogateescape")).hexdigest()


def look_up(wanted: Sequence[Lookup], tags: StoredTags, sources: SenderSources) -> dict[Lookup, Tag | int]:
    """Return what is known of stored tags, foreign tokens and known recipients; receipts are `Intake`'s own.

    Errors:  Unavailable  a server is away.    temporary
    """
    found: dict[Lookup, Tag | int] = {}
    found.update(tags.found([key for key in wanted if isinstance(key, StoredTag)]).items())
    found.update(sources.lookup([key for key in wanted if isinstance(key, ForeignToken | KnownRecipient)]).items())
    return found


def has_valid_tag(decided: DecidedMessage) -> bool:
    """Say whether a tag in the message verified, whatever became of it."""
    return "tag_in" in decided.evidence


def _left(decided: DecidedMessage) -> DecidedMessage:
    """The message with the fact that it stays where it is, uncopied; one that quarantine keeps is not such."""
    if not decided.outcome.quarantined or decided.suggestion:
        return decided
    return replace(decided, evidence={**decided.evidence, LEFT: "not ours"})


def is_foreign(decided: DecidedMessage) -> bool:
    """Say whether a message has nothing of ours: no verifying tag, none of a sender's, nothing shaped like one, no complaint.

    Why:     such mail of a shared mailbox stays as it is; only one with a suggestion is copied into quarantine.
    """
    ours = decided.outcome in (Outcome.BAD_TAG, Outcome.COMPLAINT) or bool(decided.requests)
    return not ours and not {"tag_in", "foreign", "failed"} & decided.evidence.keys()
