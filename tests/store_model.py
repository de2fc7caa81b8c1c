"""The register once more, in plain Python, written from semantics.md §1-3 and not from register.lua; and random histories
that put both to the same questions. Where the page leaves something open, `Reading:` says what is taken.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from handlers.request import Action, Effect, Request, request_id
from tests.harness.growth import grow
from tests.harness.names import NAMES, answers
from worker.store import Store, script
from worker.store.row import Row

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
LEAN = 10 * MINUTE
NOW = 1_700_000_000_000

Target = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """lifted_ms: the time of the row that the last resubscribe lifted; only a resubscribed row has one."""

    suppressed: bool
    held: bool
    complaint: bool
    first_seen_s: int
    time_ms: int
    source: str
    evidence: bytes
    lifted_ms: int | None = None

    def read_at(self, now_ms: int) -> "ModelRow":
        """§2: a stored time later than now counts as now - 1 ms."""
        lifted_ms = None if self.lifted_ms is None else _counts(self.lifted_ms, now_ms)
        return replace(self, time_ms=_counts(self.time_ms, now_ms), lifted_ms=lifted_ms)


def _counts(stored_ms: int, now_ms: int) -> int:
    return now_ms - 1 if stored_ms > now_ms else stored_ms


class RegisterModel:
    """Every row, and what each version that somebody saw looked like."""

    def __init__(self) -> None:
        self.rows: dict[Target, ModelRow] = {}
        self.versions: dict[str, ModelRow] = {}

    def apply(self, request: Request, now_ms: int) -> Effect:
        target = (request.sender, request.group, request.recipient)
        answer = self._resubscribe if request.action is Action.RESUBSCRIBE else self._unsubscribe
        effect, row = answer(request, self.rows.get(target), now_ms)
        if row is not None:
            self.rows[target] = row
        return effect

    def scope(self, sender: str, group: int, recipient: str) -> str | None:
        """What a check answers: group 0 beats every group."""
        for name, each in (("global", 0), ("group", group)):
            row = self.rows.get((sender, each, recipient))
            if row is not None and row.suppressed:
                return name
        return None

    def _unsubscribe(self, request: Request, row: ModelRow | None, now_ms: int) -> tuple[Effect, ModelRow]:
        at_ms = max(0, min(request.at_ms, now_ms))  # §2: a later event time counts as now
        kind, complaint = request.source.partition(":")[0], request.action is Action.COMPLAINT
        holds = complaint or kind in ("import", "api", "provider", "operator")
        evidence = _evidence(request)
        if row is None:
            return Effect.ADDED, ModelRow(True, holds, complaint, at_ms // SECOND, at_ms, kind, evidence)

        row = row.read_at(
            now_ms
        )  # Reading: whatever an unsubscribe finds, it writes the time that the row counted with
        row = replace(row, held=row.held or holds)  # §3: held, whatever its time
        if row.suppressed:
            # Reading: a row is a complaint's while one of the requests that suppress it was a complaint.
            row = replace(row, complaint=row.complaint or complaint)
            if row.evidence == evidence:
                return Effect.ADDED, row  # §1: the same id hears its first effect
            return Effect.ALREADY_PRESENT, replace(row, time_ms=max(row.time_ms, at_ms))

        assert row.lifted_ms is not None
        if at_ms <= row.lifted_ms or at_ms < row.time_ms - LEAN:
            return Effect.STALE, row
        # Reading: the source goes with the evidence reference.
        taken = ModelRow(True, row.held, complaint, row.first_seen_s, max(at_ms, row.time_ms), kind, evidence)
        return Effect.ADDED, taken

    def _resubscribe(self, request: Request, row: ModelRow | None, now_ms: int) -> tuple[Effect, ModelRow | None]:
        if row is None:
            return Effect.NOT_LIFTED, None
        if row.evidence == _evidence(request):
            return Effect.LIFTED, row  # §1: the same id hears its first effect
        kind = request.source.partition(":")[0]
        unchanged = row == self.versions.get(request.seen_version)
        if not unchanged or not row.suppressed or (row.held and kind not in ("operator", "api")):
            return Effect.NOT_LIFTED, row
        counted, at_ms = row.read_at(now_ms), now_ms
        if kind == "provider":
            # Reading: §2 dates by now what somebody asks here; what a provider tells of happened there, and later wins (§3).
            at_ms = max(0, min(request.at_ms, now_ms))
            if at_ms <= counted.time_ms:
                return Effect.NOT_LIFTED, row
        time_ms = max(at_ms, counted.time_ms + 1)
        lifted = ModelRow(False, False, False, row.first_seen_s, time_ms, kind, _evidence(request), counted.time_ms)
        return Effect.LIFTED, lifted


def _evidence(request: Request) -> bytes:
    return bytes.fromhex(request.id)[:8]


def asked(action: Action, target: Target, at_ms: int, source: str, nonce: str, seen_version: str = "") -> Request:
    """Return the request of one message or form (*nonce*)."""
    sender, group, recipient = target
    return Request(
        id=request_id(nonce, sender, group, recipient, action), action=action, sender=sender, group=group,
        recipient=recipient, at_ms=at_ms, source=source, evidence=nonce, seen_version=seen_version,
    )  # fmt: skip


# --- random histories -------------------------------------------------------------------------------------------------

GROUPS = (0, 12, 13)
RECIPIENTS = ("jane@example.com", "jörg@example.org", "a-name-of-more-than-52-octets.jane.doe.of.acme@long.example.com")
BUSY = (0, 12, RECIPIENTS[0])
STOPPING = ("imap:INBOX", "sendgrid", "lmtp", *("one-click", "page") * 2, "api", "operator", "import", "provider")
LIFTING = ("page", "page", "api", "operator", "import", "provider", "provider")
_names = count()

clock_steps = st.one_of(
    st.sampled_from([0, 0, 1, 2, SECOND, MINUTE, LEAN - 1, LEAN, LEAN + 1, HOUR, 3 * DAY]), st.integers(0, HOUR)
)
clock_steps_back = st.sampled_from([1, 2, 5 * SECOND, LEAN + 1])
distances = st.one_of(
    st.sampled_from([0, 0, 0, -1, 1, -SECOND, -LEAN - 1, -LEAN - 1, -LEAN, -LEAN, -LEAN + 1, -3 * DAY, DAY]),
    st.integers(-30 * MINUTE, 30 * MINUTE),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """A request before it meets a history.

    Shape:   place: which of the two senders, group, recipient. beside, distance: the event time, counted from now or from
             a time of the row, so that ties and borders come up. age: which version of the row the actor of a
             resubscribe saw, 0 = the present one.
    """

    action: Action
    place: tuple[int, int, str]
    beside: str
    distance: int
    source: str
    age: int


# One place is busy, because rules meet only where much happens.
places = st.sampled_from([BUSY] * 12 + [(s, g, r) for s in (0, 1) for g in GROUPS for r in RECIPIENTS])
stopping_wishes = st.builds(
    Wish,
    action=st.sampled_from([Action.UNSUBSCRIBE] * 5 + [Action.COMPLAINT]),
    place=places, beside=st.sampled_from(["now", "now", "time", "lifted"]), distance=distances,
    source=st.sampled_from(STOPPING), age=st.just(0),
)  # fmt: skip
lifting_wishes = st.builds(
    Wish,
    action=st.just(Action.RESUBSCRIBE),
    place=places, beside=st.sampled_from(["now", "now", "time"]), distance=distances,
    source=st.sampled_from(LIFTING), age=st.sampled_from([0, 0, 0, 0, 1, 2]),
)  # fmt: skip
wishes = st.one_of(stopping_wishes, lifting_wishes)


class Killed(Exception):
    """What splits a bucket ends here."""


class History:
    """A store and the model, asked the same things at the same time.

    Why:     the senders' names are new in each history, so that one server serves many without being emptied.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.model, self.now_ms = store, RegisterModel(), NOW
        self.other = Store(store._redis, NAMES)  # another process, which does not hear when buckets split
        number = next(_names)
        self.senders = (f"acme{number}", f"bolt{number}")
        self.targets: list[Target] = [
            (sender, group, recipient) for sender in self.senders for group in GROUPS for recipient in RECIPIENTS
        ]
        self.requests: list[Request] = []
        self._versions: dict[Target, list[str]] = {target: [] for target in self.targets}

    def ask(self, batch: Sequence[Wish], *, never_future: bool = False) -> None:
        """Turn wishes into requests and apply them in one batch."""
        requests = [self._request(wish, never_future=never_future) for wish in batch]
        self.requests.extend(requests)
        self.apply(requests)

    def apply(self, requests: Sequence[Request]) -> None:
        effects = [self.model.apply(request, self.now_ms) for request in requests]

        assert effects == self.store.apply(requests, now_ms=self.now_ms)
        self.agree()

    def agree(self) -> None:
        """Compare every row, version and answer."""
        rows = self.store.rows(self.targets)
        assert rows == self.other.rows(self.targets)
        for target, row in zip(self.targets, rows, strict=True):
            expected = self.model.rows.get(target)
            assert shown(expected) == shown(row), target
            if row is not None and expected is not None:
                version = row.version.hex()
                assert expected == self.model.versions.setdefault(version, expected), "two rows with one version"
                if version not in self._versions[target][-1:]:
                    self._versions[target].append(version)
        for sender in self.senders:
            for group in GROUPS:
                expected_scopes = [self.model.scope(sender, group, recipient) for recipient in RECIPIENTS]
                found = answers(self.store, sender, group, RECIPIENTS)
                assert expected_scopes == [answer.scope for answer in found], (sender, group)

    def split(self, more: int, step: int | None, meanwhile: Callable[[], None]) -> None:
        """Split so many more buckets of each sender. Shape: step: before this one, *meanwhile* happens; it may raise `Killed`."""
        for sender in self.senders:
            steps = count()

            def send(commands: Any, steps: Iterator[int] = steps) -> list[Any]:
                if next(steps) == step:
                    meanwhile()
                return script.send(self.store._redis, commands)

            buckets = int(self.store._redis.hget(f"unsubd:buckets:{{{sender}}}", "buckets") or 1)
            with suppress(Killed):
                grow(send, NAMES, sender, buckets + more)
            self.store._redis.delete(f"unsubd:growing:{{{sender}}}")  # as if two seconds were over
        self.agree()
        self.lists_agree()

    def lists_agree(self) -> None:
        """Compare lists and counts."""
        for sender in self.senders:
            stopped = [
                sorted(name for (whose, each, name), row in self.model.rows.items()
                       if (whose, each) == (sender, group) and row.suppressed)
                for group in GROUPS
            ]  # fmt: skip
            assert stopped == [sorted(name for name, _ in self.other.stopped(sender, group)) for group in GROUPS]
            assert [len(each) for each in stopped] == self.other.counted(sender, GROUPS)

    def suppressed(self) -> dict[Target, bool]:
        rows = zip(self.targets, self.store.rows(self.targets), strict=True)
        return {target: row.suppressed for target, row in rows if row is not None}

    def _request(self, wish: Wish, *, never_future: bool) -> Request:
        sender, group, recipient = wish.place
        target = (self.senders[sender], group, recipient)
        row = self.model.rows.get(target)
        base = {"time": row and row.time_ms, "lifted": row and row.lifted_ms}.get(wish.beside) or self.now_ms
        at_ms = base + wish.distance
        seen = self._versions[target][-1 - wish.age :][:1] if wish.action is Action.RESUBSCRIBE else []
        return asked(
            wish.action, target, min(at_ms, self.now_ms) if never_future else at_ms, wish.source,
            f"nonce {len(self.requests)} {next(_names)}", "".join(seen),
        )  # fmt: skip


def shown(row: Row | ModelRow | None) -> dict[str, Any] | None:
    """Return what both kinds of row say."""
    names = ("suppressed", "held", "complaint", "first_seen_s", "time_ms", "source", "evidence")
    return None if row is None else {name: getattr(row, name) for name in names}


class StoreMachine(RuleBasedStateMachine):
    """Random histories: batches, late arrivals, repeats in any order, a clock that sometimes goes back."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.history = History(store)

    @rule(step=clock_steps)
    def clock_advances(self, step: int) -> None:
        self.history.now_ms += step

    @rule(step=clock_steps_back)
    def clock_is_set_back(self, step: int) -> None:
        self.history.now_ms -= step

    @rule(batch=st.lists(wishes, min_size=1, max_size=4))
    def people_ask(self, batch: list[Wish]) -> None:
        self.history.ask(batch)

    @rule(picks=st.lists(st.integers(0, 999), min_size=1, max_size=6), retimed=st.sampled_from([0, 0, 0, -HOUR, HOUR]))
    def requests_come_again(self, picks: list[int], retimed: int) -> None:
        earlier = self.history.requests
        if (
            not earlier
        ):  # no precondition: whether a split was reached depends on the senders' names, which a replay changes
            return
        self.history.apply([_retimed(earlier[pick % len(earlier)], retimed) for pick in picks])

    @rule(more=st.integers(1, 5), step=st.integers(0, 8))
    def a_split_is_killed(self, more: int, step: int) -> None:
        self.history.split(more, step, _killed)

    @rule(more=st.integers(1, 5), step=st.integers(2, 8), batch=st.lists(wishes, min_size=1, max_size=4))
    def people_ask_while_buckets_split(self, more: int, step: int, batch: list[Wish]) -> None:
        self.history.split(more, step, lambda: self.history.ask(batch))


def _killed() -> None:
    raise Killed


def _retimed(request: Request, by_ms: int) -> Request:
    return replace(request, at_ms=request.at_ms + by_ms)


def _bounded(examples: int, **more: Any) -> settings:
    """The same examples in every run: a failure in CI is a failure here."""
    return settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], **more,
    )  # fmt: skip


def run_histories(store: Store, *, examples: int, steps: int) -> None:
    """Compare *store* with the model over random histories."""
    run_state_machine_as_test(lambda: StoreMachine(store), settings=_bounded(examples, stateful_step_count=steps))


def run_repeats(store: Store, *, examples: int) -> None:
    """§1-3: after any history, repeating everything in any order flips no state.

    Shape:   no event time is later than now when it is first applied, and the clock never goes back.
    """

    @_bounded(examples)
    @given(
        steps=st.lists(st.tuples(clock_steps, st.lists(wishes, min_size=1, max_size=3)), min_size=1, max_size=20),
        later=clock_steps, seed=st.integers(0, 2**32),
    )  # fmt: skip
    def repeating_flips_nothing(steps: list[tuple[int, list[Wish]]], later: int, seed: int) -> None:
        history = History(store)
        for step, batch in steps:
            history.now_ms += step
            history.ask(batch, never_future=True)
        before = history.suppressed()
        history.now_ms += later
        for shuffled in _shuffles(history.requests, Random(seed), times=2):
            history.apply(shuffled)

            assert before == history.suppressed()

    repeating_flips_nothing()


def _shuffles(requests: Sequence[Request], random: Random, *, times: int) -> Iterator[list[Request]]:
    for _ in range(times):
        yield random.sample(requests, len(requests))
