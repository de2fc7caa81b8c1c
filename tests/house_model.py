"""A whole house once more in plain Python: registration, groups, redirects, imports, forgetting and the check, written from
semantics.md §2-4 and §8 and DESIGN §4; the register inside is that of `store_model`. Random histories put both to the same
questions, on a fake and on real servers.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from handlers.errors import Rejected, UnknownAccount
from handlers.request import Action, DecidedMessage, Effect, Outcome, Request
from handlers.tag import FORGOTTEN
from tests.store_model import (
    DAY,
    HOUR,
    LEAN,
    MINUTE,
    NOW,
    SECOND,
    ModelRow,
    RegisterModel,
    Target,
    _bounded,
    asked,
    clock_steps,
    clock_steps_back,
    distances,
    shown,
)  # fmt: skip
from worker import adoption, by_hand
from worker.check import BYPASSES, EVERY_LIST, GLOBAL_LIST, check
from worker.forget import forget
from worker.installation import Installation

JANE, JOE = "jane@example.com", "joe@example.org"
PEOPLE = (JANE, JOE)
NAMES = ("acme", "bolt", "nobody")  # the last is never registered at first
BYPASS_SETS = ((), (), (), (GLOBAL_LIST,), (EVERY_LIST,), BYPASSES[1:])
_numbers = count()
Opened = Callable[[], AbstractContextManager[Installation]]

# Rules meet only where much happens: few places are busy.
_busy = [(0, 1, 0)] * 40 + [(0, 2, 0)] * 8 + [(0, 0, 0)] * 8
places = st.sampled_from(
    _busy + [(number, group, person) for number in range(3) for group in range(5) for person in (0, 1)]
)
Place = tuple[int, int, int]


@dataclass
class ModelGroup:
    """What the model knows of a group."""

    owner: str
    archived: bool = False
    essential: bool = False


@dataclass
class HouseModel:
    """Accounts and the register, as the pages say; addresses stay in the open here, because a forgetting changes no answer."""

    register: RegisterModel = field(default_factory=RegisterModel)
    registered: set[str] = field(default_factory=set)
    groups: dict[int, ModelGroup] = field(default_factory=dict)
    forgotten: set[tuple[str, str]] = field(default_factory=set)

    def goes_to(self, request: Request) -> int:
        """§4: an archived, unknown or another sender's group is group 0, unless the recipient has a row in it."""
        group = self.groups.get(request.group)
        if request.group == 0 or request.action is Action.RESUBSCRIBE:
            return request.group
        unknown = group is None and request.sender in self.registered
        if unknown or (group and (group.owner != request.sender or group.archived)):
            return request.group if (request.sender, request.group, request.recipient) in self.register.rows else 0
        if group and group.essential:
            named = request.action is Action.UNSUBSCRIBE and request.source in ("operator", "api", "import")
            return request.group if named else 0
        return request.group

    def apply(self, request: Request, now_ms: int) -> tuple[int, Effect]:
        """Apply a request where it goes."""
        group = self.goes_to(request)
        target = (request.sender, group, request.recipient)
        row = self.register.rows.get(target)
        stopped_by_person = row is not None and not row.suppressed
        # §2: an import without a date counts as 0 where a resubscribe is stored.
        at_ms = 0 if request.undated and stopped_by_person else request.at_ms
        return group, self.register.apply(replace(request, group=group, at_ms=at_ms), now_ms)

    def answer(self, sender: str, group: int, recipient: str, bypass: Collection[str]) -> str | None:
        """§4, DESIGN §4: None = allowed. Errors: KeyError for what nobody registered."""
        if sender not in self.registered or (group and self.groups[group].owner != sender):
            raise KeyError(group)
        if EVERY_LIST in bypass:
            return None
        essential = bool(group) and self.groups[group].essential
        looked_at = [("group", group)] if group else []
        if not essential and GLOBAL_LIST not in bypass:
            looked_at.insert(0, ("global", 0))
        for scope, each in looked_at:
            row = self.register.rows.get((sender, each, recipient))
            if row and row.suppressed:
                return scope
        return None

    def adopt(self, sender: str) -> None:
        """§4: the ids that the rows of a new sender carry become its groups; another's also go to group 0."""
        for owner, group, recipient in sorted(self.register.rows):
            if owner != sender or group == 0:
                continue
            if self.groups.setdefault(group, ModelGroup(sender)).owner != sender:
                self._also_everything(sender, self.register.rows[sender, group, recipient], recipient)
        self.registered.add(sender)

    def _also_everything(self, sender: str, row: ModelRow, recipient: str) -> None:
        if row.suppressed:
            action = Action.COMPLAINT if row.complaint else Action.UNSUBSCRIBE
            by_itself = row.complaint or row.source in ("api", "import", "operator", "provider")
            source = "operator" if row.held and not by_itself else row.source
            moved = asked(action, (sender, 0, recipient), row.time_ms, source, "moved")
            self.register.apply(replace(moved, id=row.evidence.hex() + "0" * 16), 1 << 47)


class HouseMachine(RuleBasedStateMachine):
    """Random histories of a house: what people, operators and lists ask for, between changes of the accounts."""

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self.patched = ExitStack()
        self.house, self.model, self.now_ms = self.patched.enter_context(opened()), HouseModel(), NOW
        self.mark = next(_numbers)
        self.requests: list[Request] = []
        self.base = 10_000 + 100 * self.mark

    # --- names

    def sender(self, number: int) -> str:
        return f"{NAMES[number]}{self.mark}"

    def person(self, number: int) -> str:
        return f"h{self.mark}.{PEOPLE[number]}"

    def group(self, number: int) -> int:
        return self.base + number if number else 0

    def target(self, place: Place) -> Target:
        number, group, person = place
        return self.sender(number), self.group(group), self.person(person)

    @initialize()
    def begin(self) -> None:
        real = type(self.house.store).apply
        machine = self

        def apply(store: Any, requests: Sequence[Request], *, now_ms: int | None = None) -> list[Effect]:
            return real(store, requests, now_ms=machine.now_ms)

        self.patched.enter_context(patch.object(type(self.house.store), "apply", apply))
        for number in (0, 1):
            self.register_sender(number)
        self.add_group(0, 1, essential=False)
        self.add_group(0, 2, essential=True)

    def teardown(self) -> None:
        try:
            self.everybody_checks()
        finally:
            self.patched.close()

    # --- accounts

    @rule(number=st.sampled_from([2, 2, 0]))
    def register_sender(self, number: int) -> None:
        sender = self.sender(number)
        if sender in self.model.registered:
            with pytest.raises(Rejected, match="exists already"):
                adoption.register(self.house, sender)
            return
        adoption.register(self.house, sender)
        self.model.adopt(sender)
        self.agree()

    @rule(
        number=st.integers(0, 1),
        group=st.sampled_from([1, 1, 2, 3, 4]),
        essential=st.sampled_from([False, False, True]),
    )
    def add_group(self, number: int, group: int, essential: bool) -> None:
        sender, group_id = self.sender(number), self.group(group)
        if group_id in self.model.groups:
            return
        self.house.accounts.add_group(sender, f"Kind {group}", "", group_id, essential=essential)
        self.model.groups[group_id] = ModelGroup(sender, essential=essential)

    @rule(group=st.sampled_from([1, 1, 1, 2, 3, 4]), archived=st.sampled_from([True, True, False]))
    def archive(self, group: int, archived: bool) -> None:
        known = self.model.groups.get(self.group(group))
        if known:
            self.house.accounts.edit_group(known.owner, self.group(group), archived=archived)
            known.archived = archived

    @rule(
        source=st.sampled_from(["imap:INBOX", "page", "provider"]), complaint=st.booleans(), then=st.booleans(),
        back=st.booleans(), taken=st.booleans(),
    )  # fmt: skip
    def a_sender_registers_late(self, source: str, complaint: bool, then: bool, back: bool, taken: bool) -> None:
        """Its tags are out, its rows are there; perhaps its id was taken by another sender meanwhile."""
        number = next(_numbers)
        target = (f"late{number}", 100_000_000 + number, self.person(0))
        action = Action.COMPLAINT if complaint else Action.UNSUBSCRIBE
        self._apply(asked(action, target, self.now_ms - HOUR, source, f"late {number}"))
        if then:
            self._apply(asked(Action.UNSUBSCRIBE, target, self.now_ms, "api", f"held {number}"))
        if back:
            self.now_ms += 1
            self._comes_back(target, "operator")
        if taken:
            self.house.accounts.add_group(self.sender(1), f"Taken {number}", "", target[1])
            self.model.groups[target[1]] = ModelGroup(self.sender(1))
        adoption.register(self.house, target[0])
        self.model.adopt(target[0])
        both = [(target[0], group, target[2]) for group in (0, target[1])]
        for each, row in zip(both, self.house.store.rows(both), strict=True):
            assert shown(self.model.register.rows.get(each)) == shown(row), each

    # --- time

    @rule(step=clock_steps)
    def clock_advances(self, step: int) -> None:
        self.now_ms += step

    @rule(step=clock_steps_back)
    def clock_is_set_back(self, step: int) -> None:
        self.now_ms -= step

    # --- requests

    @rule(
        place=places, distance=distances,
        action=st.sampled_from([Action.UNSUBSCRIBE] * 4 + [Action.COMPLAINT]),
        source=st.sampled_from(["imap:INBOX", "one-click", "page", "api", "operator", "provider"]),
    )  # fmt: skip
    def somebody_asks(self, place: Place, distance: int, action: Action, source: str) -> None:
        target = self.target(place)
        self._ask(asked(action, target, self.now_ms + distance, source, f"nonce {next(_numbers)}"))

    @rule(
        place=places,
        at=st.sampled_from([None, None, None, None, -DAY, -HOUR, -MINUTE, 0, LEAN, DAY]), complaint=st.booleans(),
    )  # fmt: skip
    def a_list_is_imported(self, place: Place, at: int | None, complaint: bool) -> None:
        target = self.target(place)
        action = Action.COMPLAINT if complaint else Action.UNSUBSCRIBE
        row = asked(action, target, self.now_ms + (at or 0), "import", f"list {next(_numbers)}")
        row = replace(row, undated=at is None)
        self.requests.append(row)
        expected = [self.model.apply(row, self.now_ms)]

        assert self.house.intake.apply([row]) == expected
        self.agree()

    @rule(place=places, source=st.sampled_from(["page", "page", "api", "operator"]))
    def somebody_comes_back(self, place: Place, source: str) -> None:
        self._comes_back(self.target(place), source)
        self.agree()

    @rule(place=places)
    def a_list_without_dates_names_who_came_back(self, place: Place) -> None:
        """§2: such a row never wins over a resubscribe, however long ago that was."""
        target = self.target(place)
        self._apply(asked(Action.UNSUBSCRIBE, target, self.now_ms, "page", f"nonce {next(_numbers)}"))
        self.now_ms += SECOND
        self._comes_back(target, "operator")
        self.now_ms += HOUR
        self.a_list_is_imported(place, None, False)

    def _comes_back(self, target: Target, source: str) -> None:
        row = self.house.store.row(*target)
        wish = asked(Action.RESUBSCRIBE, target, self.now_ms, source, f"nonce {next(_numbers)}")
        if row:
            wish = replace(wish, seen_version=row.version.hex())
            self.model.register.versions[row.version.hex()] = self.model.register.rows[target]
        self.requests.append(wish)
        self._apply(wish)

    @rule(number=st.integers(0, 1), group=st.integers(0, 4), person=st.integers(0, 1))
    def an_operator_suppresses(self, number: int, group: int, person: int) -> None:
        sender, group_id, recipient = self.sender(number), self.group(group), self.person(person)
        known = self.model.groups.get(group_id)
        if group_id and (known is None or known.owner != sender or known.archived):
            with pytest.raises(UnknownAccount):
                by_hand.enter(self.house, Action.UNSUBSCRIBE, sender, group_id, [recipient], actor="ops", reason="x")
            return
        with patch("worker.by_hand.time.time_ns", return_value=self.now_ms * 1_000_000):
            [result] = by_hand.enter(
                self.house, Action.UNSUBSCRIBE, sender, group_id, [recipient], actor="ops", reason="phone"
            )
        wish = asked(Action.UNSUBSCRIBE, (sender, group_id, recipient), self.now_ms, "operator", "by hand")
        group_id, effect = self.model.apply(replace(wish, id=result["id"]), self.now_ms)

        assert (result["group"], result["effect"]) == (group_id, effect.value)
        self.agree()

    @rule(picks=st.lists(st.integers(0, 999), min_size=1, max_size=4))
    def requests_come_again(self, picks: list[int]) -> None:
        for pick in picks if self.requests else ():
            self._apply(self.requests[pick % len(self.requests)])
        self.agree()

    def _ask(self, request: Request) -> None:
        self.requests.append(request)
        self._apply(request)
        self.agree()

    def _apply(self, request: Request) -> None:
        key = f"{request.evidence} {next(_numbers)}"
        message = DecidedMessage(key, request.source, Outcome.HONOUR, "x", max(0, request.at_ms), (request,))
        [[result]] = self.house.intake.record([message])
        group, effect = self.model.apply(request, self.now_ms)

        assert (result["group"], result["effect"]) == (group, effect.value), request
        assert result.get("redirected_from") == (request.group if group != request.group else None)

    # --- forgetting

    @rule(person=st.integers(0, 1))
    def somebody_is_forgotten(self, person: int) -> None:
        recipient = self.person(person)
        forget(self.house, recipient)
        senders = self.model.registered | {sender for sender, _, _ in self.model.register.rows}
        self.model.forgotten |= {(sender, recipient) for sender in senders}
        self.agree()

    # --- agreement

    def agree(self) -> None:
        """Compare every row."""
        targets: list[Target] = [
            (self.sender(number), self.group(group), self.person(person))
            for number in range(3) for group in range(5) for person in range(2)
        ]  # fmt: skip
        for target, row in zip(targets, self.house.store.rows(targets), strict=True):
            assert shown(self.model.register.rows.get(target)) == shown(row), target

    @rule()
    def everybody_checks(self) -> None:
        """Compare every answer and every list."""
        for number in range(3):
            for group in range(5):
                self._agree_on_group(self.sender(number), self.group(group))

    def _agree_on_group(self, sender: str, group: int) -> None:
        people = [self.person(0), self.person(1)]
        listed = sorted(name or FORGOTTEN for name, _ in self.house.store.listed(sender, group))
        stopped = [p for p in people if (row := self.model.register.rows.get((sender, group, p))) and row.suppressed]
        assert listed == sorted(FORGOTTEN if (sender, each) in self.model.forgotten else each for each in stopped)
        self.house.groups._known.clear()  # what a second may differ by is not what this is about
        for bypass in BYPASS_SETS[2:]:
            try:
                expected = [self.model.answer(sender, group, each, bypass) for each in people]
            except KeyError:
                with pytest.raises(UnknownAccount):
                    check(self.house, sender, group, people, bypass)
                return
            answers = check(self.house, sender, group, people, bypass)
            assert [answer.scope for answer in answers] == expected, (sender, group, bypass)


def run_houses(opened: Opened, *, examples: int, steps: int) -> None:
    """Compare houses, each *opened* empty, with the model over random histories."""
    run_state_machine_as_test(lambda: HouseMachine(opened), settings=_bounded(examples, stateful_step_count=steps))
