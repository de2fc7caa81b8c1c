"""The check: whose row decides, which bypass sees past it, and a version that never says "unchanged" wrongly."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.errors import AddressError, QueueUnavailable, Rejected, StoreUnavailable, UnknownAccount
from handlers.request import Action, Request, request_id
from tests.unit import house
from worker.accounts import Group
from worker.check import BYPASSES, EVERY_LIST, GLOBAL_LIST, Answer, Question, as_json, check
from worker.installation import Installation

JANE, JO, ANN = "jane@example.com", "jo@example.com", "ann@example.com"
NOON_MS = 1_780_000_000_000
OTHERS = [name for name in BYPASSES if name not in (EVERY_LIST, GLOBAL_LIST)]


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@contextmanager
def registered(server: fakeredis.FakeServer) -> Iterator[Installation]:
    """acme with groups 12, 13 (essential) and 14 (archived); 20 is beta's."""
    with house.opened(server) as installation:
        accounts = installation.accounts
        accounts.add_sender("acme")
        accounts.add_group("acme", "Weekly news", "", 12)
        accounts.add_group("acme", "Receipts", "", 13, essential=True)
        accounts.add_group("acme", "Old news", "", 14)
        accounts.edit_group("acme", 14, archived=True)
        accounts.add_sender("beta")
        accounts.add_group("beta", "Beta news", "", 20)
        yield installation


@pytest.fixture
def acme(server: fakeredis.FakeServer) -> Iterator[Installation]:
    with registered(server) as installation:
        yield installation


def wish(action: Action, group: int, recipient: str, at_ms: int = NOON_MS, source: str = "imap") -> Request:
    wish_id = request_id(f"{at_ms}{source}", "acme", group, recipient, action)
    return Request(wish_id, action, "acme", group, recipient, at_ms, source, "k")


def suppress(acme: Installation, *rows: tuple[int, str], **more: Any) -> None:
    acme.store.apply([wish(Action.UNSUBSCRIBE, *row, **more) for row in rows], now_ms=NOON_MS + 1000)


def lift(acme: Installation, group: int, recipient: str = JANE, at_ms: int = NOON_MS + 1000) -> None:
    row = acme.store.row("acme", group, recipient)
    assert row is not None
    back = wish(Action.RESUBSCRIBE, group, recipient, at_ms, "operator")
    acme.store.apply([replace(back, seen_version=row.version.hex())], now_ms=at_ms)


def scopes(acme: Installation, group: int, *recipients: str, bypass: tuple[str, ...] = ()) -> list[str | None]:
    return [each.scope for each in check(acme, "acme", group, recipients or [JANE], bypass)]


def one(acme: Installation, group: int = 12, recipient: str = JANE) -> Answer:
    return check(acme, "acme", group, [recipient])[0]


# --- whose row decides


def test_answers_come_in_order_and_in_canonical_spelling(acme: Installation) -> None:
    suppress(acme, (12, JANE), (0, JO))

    answers = check(acme, "acme", 12, [" Jane@EXAMPLE.com ", ANN, JO, JANE])

    assert [(each.recipient, each.scope) for each in answers] == [
        (JANE, "group"), (ANN, None), (JO, "global"), (JANE, "group"),
    ]  # fmt: skip
    assert [each.suppressed for each in answers] == [True, False, True, True]


def test_everything_beats_the_group_and_names_its_own_row(acme: Installation) -> None:
    suppress(acme, (12, JANE))
    suppress(acme, (0, JANE), at_ms=NOON_MS - 5000, source="page")

    answer = one(acme)

    assert as_json(answer) == {
        "recipient": JANE, "suppressed": True, "scope": "global", "since": "2026-05-28T20:26:35Z", "source": "page",
        "version": answer.version,
    }  # fmt: skip


def test_who_is_allowed_has_neither_date_nor_source(acme: Installation) -> None:
    answer = one(acme)

    assert as_json(answer) == {
        "recipient": JANE, "suppressed": False, "scope": None, "since": None, "source": None, "version": answer.version,
    }  # fmt: skip


def test_another_groups_row_stops_nothing_here(acme: Installation) -> None:
    suppress(acme, (12, JANE))

    assert (scopes(acme, 0), scopes(acme, 14), scopes(acme, 13)) == ([None], [None], [None])


def test_who_came_back_is_allowed(acme: Installation) -> None:
    suppress(acme, (12, JANE), (0, JANE))
    lift(acme, 0)
    assert scopes(acme, 12) == ["group"]
    lift(acme, 12)
    assert scopes(acme, 12) == [None]


def test_an_archived_group_answers_from_its_rows_and_group_0(acme: Installation) -> None:
    suppress(acme, (14, JANE), (0, JO))

    assert scopes(acme, 14, JANE, JO, ANN) == ["group", "global", None]


def test_an_essential_group_has_its_own_entry_alone(acme: Installation) -> None:
    suppress(acme, (0, JANE))
    suppress(acme, (13, JO), (0, JO), source="operator")

    answers = check(acme, "acme", 13, [JANE, JO])

    assert [(each.scope, each.essential) for each in answers] == [(None, True), ("group", True)]
    assert [as_json(each)["essential"] for each in answers] == [True, True]
    assert "essential" not in as_json(one(acme, 12))


# --- bypass


@pytest.mark.parametrize(
    ("bypass", "expected"),
    [
        ((EVERY_LIST,), [None, None, None]),
        ((GLOBAL_LIST,), ["group", None, "group"]),
        *[((name,), ["group", "global", "global"]) for name in OTHERS],
        (tuple(OTHERS), ["group", "global", "global"]),
        ((GLOBAL_LIST, *OTHERS), ["group", None, "group"]),
        ((EVERY_LIST, EVERY_LIST), [None, None, None]),
    ],
)
def test_each_bypass_sees_past_what_its_name_says(
    acme: Installation, bypass: tuple[str, ...], expected: list[str | None]
) -> None:
    suppress(acme, (12, JANE), (0, JO), (12, ANN), (0, ANN))

    assert scopes(acme, 12, JANE, JO, ANN, bypass=bypass) == expected


def test_no_bypass_for_spam_sees_past_a_complaint(acme: Installation) -> None:
    acme.store.apply([wish(Action.COMPLAINT, 12, JANE)])

    assert scopes(acme, 12, bypass=("bypass_spam_management",)) == ["group"]


def test_a_bypass_of_the_global_list_leaves_group_0_to_nobody(acme: Installation) -> None:
    suppress(acme, (0, JANE))

    assert scopes(acme, 0) == ["global"]
    assert scopes(acme, 0, bypass=(GLOBAL_LIST,)) == [None]


def test_an_essential_groups_own_entry_holds_but_for_the_bypass_of_every_list(acme: Installation) -> None:
    suppress(acme, (13, JANE), source="operator")

    assert scopes(acme, 13, bypass=(GLOBAL_LIST,)) == ["group"]
    assert scopes(acme, 13, bypass=(EVERY_LIST,)) == [None]


@pytest.mark.parametrize(
    ("bypass", "message"),
    [
        (("bypass_everything",), "bypass 'bypass_everything': expected one of bypass_list_management, "),
        (("",), "bypass '': expected one of"),
        ((EVERY_LIST, GLOBAL_LIST), "expected no other beside it"),
        ((OTHERS[0], EVERY_LIST), "expected no other beside it"),
    ],
)
def test_a_bypass_that_means_nothing_is_refused(acme: Installation, bypass: tuple[str, ...], message: str) -> None:
    with pytest.raises(Rejected, match=message):
        check(acme, "acme", 12, [], bypass)


# --- who cannot be asked for


@pytest.mark.parametrize(("sender", "group"), [("gamma", 0), ("gamma", 12), ("acme", 99), ("acme", 20), ("acme", -1)])
@pytest.mark.parametrize("recipients", [[JANE], []])
def test_a_sender_or_group_that_nobody_registered_is_never_allowed(
    acme: Installation, sender: str, group: int, recipients: list[str]
) -> None:
    acme.store.apply([replace(wish(Action.UNSUBSCRIBE, group % 100, JANE), sender="gamma")])

    for _ in range(2):  # and nothing of it is remembered
        with pytest.raises(UnknownAccount):
            check(acme, sender, group, recipients)


@pytest.mark.parametrize(
    "text", ["jane", "", "@", "a@x.com,b@y.org", "a@x.com b@y.org", "a@x.com;b@y.org", "Jane <jane@example.com>",
             "<jane@example.com>", "jane@example.com,", "jane@exa mple.com", "~AAAAAAAAAAAAAAAA", "j\x00ane@example.com"]
)  # fmt: skip
def test_what_is_not_one_address_is_refused(acme: Installation, text: str) -> None:
    suppress(acme, (12, JANE))

    with pytest.raises(AddressError) as error:
        check(acme, "acme", 12, [JANE, text])
    assert "jane" not in str(error.value)


def test_a_forgotten_person_is_still_suppressed(acme: Installation) -> None:
    people = [JANE, JO, ANN, "~jo@example.com"]  # an address may begin as the names of the forgotten do
    suppress(acme, (12, JANE), (0, JO), (12, "~jo@example.com"))
    before = check(acme, "acme", 12, people)
    for person in people:
        acme.store.forget(person, ["acme"])

    assert check(acme, "acme", 12, people) == before
    assert set(acme.store.listed("acme", 12)) == {(None, each.row) for each in before if each.scope == "group"}
    suppress(acme, (12, ANN))
    assert scopes(acme, 12, ANN) == ["group"]
    assert not [each for each in acme.redis.hkeys("unsubd:supp:{acme:0}") if ANN.encode() in each]


def test_a_store_that_is_away_is_never_allowed(acme: Installation, server: fakeredis.FakeServer) -> None:
    assert scopes(acme, 12) == [None]
    server.connected = False
    try:
        with pytest.raises(StoreUnavailable):  # the group is known for some seconds
            check(acme, "acme", 12, [JANE])
        with pytest.raises(QueueUnavailable):
            check(acme, "acme", 0, [JANE])
    finally:
        server.connected = True


@pytest.mark.parametrize("answer", ["LOADING", "READONLY x", "MISCONF x", "BUSY x", "MASTERDOWN x", "UNBLOCKED x"])
def test_a_server_that_cannot_answer_is_away(acme: Installation, answer: str) -> None:
    error = redis.BusyLoadingError(answer) if answer == "LOADING" else redis.ResponseError(answer)
    scopes(acme, 12)

    with (
        patch.object(redis.Redis, "parse_response", autospec=True, side_effect=error),
        pytest.raises(StoreUnavailable),
    ):
        check(acme, "acme", 12, [JANE])


# --- one round trip


@pytest.mark.parametrize("group", [0, 12, 13])
@pytest.mark.parametrize("people", [1, 100])
def test_once_the_group_is_known_a_check_is_one_round_trip(acme: Installation, group: int, people: int) -> None:
    scopes(acme, group)
    answered: list[Any] = []
    real = redis.Redis.parse_response

    def counted(*words: Any, **named: Any) -> Any:
        answered.append(words)
        return real(*words, **named)

    with patch.object(redis.Redis, "parse_response", autospec=True, side_effect=counted):
        check(acme, "acme", group, [f"p{number}@example.com" for number in range(people)])

    assert len(answered) == 1, "of a single command; a pipeline's answers are counted one by one"


def test_nobody_is_asked_for_nobody(acme: Installation) -> None:
    scopes(acme, 12)
    with patch.object(redis.Redis, "parse_response", autospec=True, side_effect=AssertionError):
        assert check(acme, "acme", 12, []) == []


# --- versions


def test_the_version_stays_while_nothing_changes(acme: Installation) -> None:
    suppress(acme, (12, JANE), (0, JO))
    before = [each.version for each in check(acme, "acme", 12, [JANE, JO, ANN])]
    suppress(acme, (14, JANE), (12, "x@example.com"))  # somebody and something else
    acme.store.forget(JANE, ["acme"])
    suppress(acme, (12, JANE))  # the same request again

    assert [each.version for each in check(acme, "acme", 12, [JANE, JO, ANN])] == before


def test_every_change_of_an_answer_changes_its_version(acme: Installation) -> None:
    answers = [one(acme)]

    def changed() -> None:
        answers.append(one(acme))

    suppress(acme, (12, JANE))
    changed()
    acme.store.apply([wish(Action.COMPLAINT, 12, JANE)], now_ms=NOON_MS + 1000)
    changed()
    suppress(acme, (0, JANE))
    changed()
    lift(acme, 0)
    changed()
    lift(acme, 12)
    changed()
    suppress(acme, (12, JANE), at_ms=NOON_MS + 1000, source="operator")
    changed()

    assert [each.scope for each in answers] == [None, "group", "group", "global", "group", None, "group"]
    versions = [each.version for each in answers]
    assert len(set(versions)) == len(versions)


def test_what_was_added_and_lifted_again_has_another_version_than_nothing(acme: Installation) -> None:
    before = one(acme)
    suppress(acme, (12, JANE))
    lift(acme, 12)

    after = one(acme)

    assert (before.suppressed, after.suppressed) == (False, False)
    assert before.version != after.version


def test_the_version_tells_questions_apart(acme: Installation) -> None:
    suppress(acme, (12, JANE))
    rows = acme.store.asked("acme", 12, [JANE])[0]
    group = Group(12, "acme", "", "")

    versions = {
        Question.of(each, bypass).answer(JANE, rows).version
        for each in (group, replace(group, essential=True))
        for bypass in ((), (EVERY_LIST,), (GLOBAL_LIST,), *((name,) for name in OTHERS), tuple(OTHERS))
    }

    assert len(versions) == 12


_STEPS = st.tuples(
    st.sampled_from(["unsubscribe", "complaint", "lift", "forget"]),
    st.sampled_from([0, 12, 13]),
    st.sampled_from([JANE, JO]),
    st.sampled_from(["imap", "page", "operator", "import"]),
    st.integers(-2, 2),
)


def _seen(answer: Answer) -> dict[str, Any]:
    """What an answer says to the one who asks, without its version."""
    return {name: value for name, value in as_json(answer).items() if name != "version"}


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(_STEPS, max_size=14))
def test_equal_versions_mean_equal_answers(steps: list[tuple[str, int, str, str, int]]) -> None:
    with registered(fakeredis.FakeServer()) as acme:
        questions = [(group, bypass, person) for group in (0, 12, 13) for bypass in ((), (GLOBAL_LIST,), (EVERY_LIST,))
                     for person in (JANE, JO)]  # fmt: skip
        known: dict[Any, dict[str, Any]] = {}
        for number, (what, group, person, source, hours) in enumerate([("", 0, JANE, "", 0), *steps]):
            now = NOON_MS + number * 60_000
            if what == "lift" and acme.store.row("acme", group, person):
                lift(acme, group, person, now)
            elif what == "forget":
                acme.store.forget(person, ["acme"])
            elif what in ("unsubscribe", "complaint"):
                acme.store.apply([wish(Action(what), group, person, now + hours * 3_600_000, source)], now_ms=now)
            for question in questions:
                answer = check(acme, "acme", question[0], [question[2]], question[1])[0]
                assert known.setdefault((question, answer.version), _seen(answer)) == _seen(answer)
