"""One readable test for every rule of semantics.md §1-4 that the store keeps, to be run on the fake and on real servers.

A module that gives a `store` (and its `client`) inherits these classes.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
import redis

from handlers.request import Action, DecidedMessage, Effect, Outcome, Request
from handlers.tag import Minted, StoredTag, Tag
from tests.harness.names import answers
from tests.store_model import DAY, LEAN, MINUTE, NOW, SECOND, Target, asked
from worker.keys import Pseudonyms
from worker.store import Store
from worker.store.ledger import Ledger, result_of
from worker.store.row import Row
from worker.store.tags import StoredTags

JANE: Target = ("acme", 12, "jane@example.com")
YEAR = 365 * DAY
ADDED, PRESENT, STALE = Effect.ADDED, Effect.ALREADY_PRESENT, Effect.STALE
LIFTED, NOT_LIFTED = Effect.LIFTED, Effect.NOT_LIFTED


class Register:
    """A store, a clock that one can set, and people who ask for something; every request is a new one."""

    def __init__(self, store: Store) -> None:
        self.store, self.now_ms = store, NOW
        self._nonces = count()

    def unsubscribe(self, at: int | None = None, *, by: str = "imap:INBOX", of: Target = JANE) -> Request:
        return self._asked(Action.UNSUBSCRIBE, at, by, of)

    def complaint(self, at: int | None = None, *, by: str = "imap:INBOX", of: Target = JANE) -> Request:
        return self._asked(Action.COMPLAINT, at, by, of)

    def resubscribe(self, *, by: str = "page", seen: Row | None = None, of: Target = JANE) -> Request:
        """Whoever asks sees the present row, unless *seen* is an older one."""
        seen = seen or self.row(of)
        request = self._asked(Action.RESUBSCRIBE, None, by, of)
        return replace(request, seen_version=seen.version.hex()) if seen else request

    def apply(self, *requests: Request) -> Effect:
        """Apply in one batch; the last effect."""
        return self.store.apply(requests, now_ms=self.now_ms)[-1]

    def row(self, of: Target = JANE) -> Row | None:
        return self.store.row(*of)

    def state(self) -> tuple[bool, int]:
        row = self.row()
        assert row is not None
        return row.suppressed, row.time_ms - NOW

    def resubscribed(self, lifted_ago: int = 30 * MINUTE) -> None:
        """Jane unsubscribed *lifted_ago* before NOW and comes back NOW."""
        self.apply(self.unsubscribe(NOW - lifted_ago))

        assert self.apply(self.resubscribe()) is LIFTED

    def _asked(self, action: Action, at: int | None, by: str, of: Target) -> Request:
        return asked(action, of, self.now_ms if at is None else at, by, f"nonce {next(self._nonces)}")


class RegisterRules:
    """Semantics §1-3."""

    @pytest.fixture
    def register(self, store: Store) -> Register:
        return Register(store)

    # --- time

    def test_first_unsubscribe_is_added(self, register: Register) -> None:
        request = register.unsubscribe(NOW - SECOND, by="imap:INBOX")

        assert register.apply(request) is ADDED
        row = register.row()
        assert row is not None
        expected = Row(
            suppressed=True, held=False, complaint=False, first_seen_s=(NOW - SECOND) // 1000, time_ms=NOW - SECOND,
            source="imap", evidence=bytes.fromhex(request.id)[:8], version=row.version,
        )  # fmt: skip
        assert expected == row

    def test_event_time_later_than_now_counts_as_now(self, register: Register) -> None:
        register.apply(register.unsubscribe(NOW + YEAR))

        assert register.state() == (True, 0)

    def test_event_time_before_1970_counts_as_1970(self, register: Register) -> None:
        register.apply(register.unsubscribe(-1))
        row = register.row()

        assert row is not None
        assert (row.first_seen_s, row.time_ms) == (0, 0)

    def test_first_seen_never_moves(self, register: Register) -> None:
        register.resubscribed(lifted_ago=MINUTE)
        register.apply(register.unsubscribe(), register.unsubscribe(NOW - DAY), register.complaint())
        row = register.row()

        assert row is not None
        assert row.first_seen_s == (NOW - MINUTE) // 1000

    def test_later_unsubscribe_moves_time_and_keeps_evidence(self, register: Register) -> None:
        first = register.unsubscribe(NOW - MINUTE, by="page")
        register.apply(first)

        assert register.apply(register.unsubscribe(NOW, by="imap:INBOX")) is PRESENT
        row = register.row()
        assert row is not None
        assert (row.time_ms, row.evidence, row.source) == (NOW, bytes.fromhex(first.id)[:8], "page")

    def test_earlier_unsubscribe_leaves_time(self, register: Register) -> None:
        register.apply(register.unsubscribe(NOW - MINUTE))

        assert register.apply(register.unsubscribe(NOW - DAY)) is PRESENT
        assert register.state() == (True, -MINUTE)

    def test_tie_goes_to_unsubscribe(self, register: Register) -> None:
        register.resubscribed()

        assert register.apply(register.unsubscribe(NOW)) is ADDED
        assert register.state() == (True, 0)

    @pytest.mark.parametrize(("before", "effect"), [(1, ADDED), (LEAN, ADDED), (LEAN + 1, STALE)])
    def test_unsubscribe_wins_up_to_10_minutes_before_resubscribe(
        self, register: Register, before: int, effect: Effect
    ) -> None:
        register.resubscribed()

        assert register.apply(register.unsubscribe(NOW - before)) is effect

    @pytest.mark.parametrize(("after", "effect"), [(-1, STALE), (0, STALE), (1, ADDED)])
    def test_unsubscribe_is_stale_at_or_before_time_of_lifted_row(
        self, register: Register, after: int, effect: Effect
    ) -> None:
        register.resubscribed(lifted_ago=MINUTE)

        assert register.apply(register.unsubscribe(NOW - MINUTE + after)) is effect

    def test_unsubscribe_that_wins_over_later_resubscribe_takes_its_time(self, register: Register) -> None:
        register.resubscribed()
        register.apply(register.unsubscribe(NOW - 5 * MINUTE))

        assert register.state() == (True, 0)

    def test_later_mail_takes_its_own_time(self, register: Register) -> None:
        register.resubscribed()
        register.now_ms += DAY

        assert register.apply(register.unsubscribe(NOW + MINUTE)) is ADDED
        assert register.state() == (True, MINUTE)

    # --- a clock that ran ahead, a clock set back

    def test_stored_future_resubscribe_gives_way_to_unsubscribe_now(self, register: Register) -> None:
        register.now_ms = NOW + YEAR
        register.apply(register.unsubscribe())
        register.apply(register.resubscribe())
        register.now_ms = NOW

        assert register.apply(register.unsubscribe()) is ADDED
        assert register.state() == (True, 0)

    def test_stored_future_unsubscribe_gives_way_to_resubscribe_now(self, register: Register) -> None:
        register.now_ms = NOW + YEAR
        register.apply(register.unsubscribe())
        register.now_ms = NOW

        assert register.apply(register.resubscribe()) is LIFTED
        assert register.state() == (False, 0)

    def test_delayed_mail_after_clock_ran_ahead_is_stale_once(self, register: Register) -> None:
        """The page decides so: the lifted row's time counts as now - 1 ms too, and a mail is always older than that."""
        register.now_ms = NOW + YEAR
        register.resubscribed(lifted_ago=-YEAR + DAY)
        register.now_ms = NOW

        assert register.apply(register.unsubscribe(NOW - 30 * SECOND)) is STALE
        register.now_ms += MINUTE
        assert register.apply(register.unsubscribe(NOW + 30 * SECOND)) is ADDED

    def test_repeat_of_future_event_flips(self, register: Register) -> None:
        """Why an event time must not lie in the future: at each repeat it counts as a new now."""
        request = register.unsubscribe(NOW + DAY)
        register.apply(request)
        register.now_ms += MINUTE
        register.apply(register.resubscribe())
        register.now_ms += MINUTE

        assert register.apply(request) is ADDED

    def test_repeat_while_clock_is_set_back_flips(self, register: Register) -> None:
        """The same, by our own clock: then it is again in the future. It errs towards the unsubscribe."""
        request = register.unsubscribe(NOW)
        register.apply(request)
        register.now_ms = NOW + SECOND
        register.apply(register.resubscribe())
        register.now_ms = NOW - SECOND

        assert register.apply(request) is ADDED

    def test_server_has_its_own_clock(self, store: Store) -> None:
        requests = [asked(Action.UNSUBSCRIBE, JANE, 1 << 46, "page", "form 1")]

        assert store.apply(requests) == [ADDED]
        row = store.row(*JANE)
        assert row is not None
        assert NOW < row.time_ms < NOW + 100 * YEAR
        assert row.first_seen_s == row.time_ms // 1000

    # --- ids and versions

    def test_same_id_hears_its_first_effect(self, register: Register) -> None:
        first = register.unsubscribe()
        register.apply(first)
        register.apply(register.unsubscribe())

        assert register.apply(first) is ADDED

        again = register.resubscribe()
        assert [register.apply(again), register.apply(again)] == [LIFTED, LIFTED]

    def test_repeat_of_lifted_unsubscribe_is_stale(self, register: Register) -> None:
        first, second = register.unsubscribe(NOW - MINUTE), register.unsubscribe(NOW)
        register.apply(first, second)
        register.apply(register.resubscribe())

        assert [register.apply(first), register.apply(second)] == [STALE, STALE]

    def test_resubscribe_is_dated_now(self, register: Register) -> None:
        register.apply(register.unsubscribe())
        register.now_ms += DAY
        register.apply(register.resubscribe())

        assert register.state() == (False, DAY)

    def test_resubscribe_is_dated_after_row_it_lifts(self, register: Register) -> None:
        register.apply(register.unsubscribe())
        register.apply(register.resubscribe())

        assert register.state() == (False, 1)

    def test_resubscribe_of_outdated_version_is_refused_also_again(self, register: Register) -> None:
        register.apply(register.unsubscribe(NOW - MINUTE))
        outdated = register.resubscribe()
        register.apply(register.unsubscribe(NOW))

        assert [register.apply(outdated), register.apply(outdated)] == [NOT_LIFTED, NOT_LIFTED]
        assert register.state() == (True, 0)

    def test_resubscribe_repeated_after_new_unsubscribe_is_refused(self, register: Register) -> None:
        register.apply(register.unsubscribe(NOW - MINUTE))
        lifting = register.resubscribe()
        register.apply(lifting)
        register.apply(register.unsubscribe())

        assert register.apply(lifting) is NOT_LIFTED
        assert register.state() == (True, 0)

    def test_resubscribe_that_saw_no_row_is_refused(self, register: Register) -> None:
        blind = register.resubscribe()
        register.apply(register.unsubscribe())

        assert register.apply(blind) is NOT_LIFTED

    def test_resubscribe_without_row_stores_nothing(self, register: Register, client: redis.Redis) -> None:
        assert register.apply(register.resubscribe(by="operator")) is NOT_LIFTED
        assert register.row() is None
        assert client.keys() == []

    def test_resubscribe_of_resubscribed_row_changes_nothing(self, register: Register) -> None:
        register.resubscribed()
        before = register.row()

        assert register.apply(register.resubscribe()) is NOT_LIFTED
        assert register.row() == before

    # --- held

    @pytest.mark.parametrize("source", ["import", "api", "provider", "operator", "import:list.csv"])
    def test_entry_by_machine_or_operator_holds(self, register: Register, source: str) -> None:
        register.apply(register.unsubscribe(by=source))

        assert register.apply(register.resubscribe(by="page")) is NOT_LIFTED

    @pytest.mark.parametrize("source", ["imap:INBOX", "one-click", "page", "sendgrid", "relay:default", "lmtp"])
    def test_page_lifts_what_recipient_stopped(self, register: Register, source: str) -> None:
        register.apply(register.unsubscribe(by=source))

        assert register.apply(register.resubscribe(by="page")) is LIFTED

    def test_later_mail_never_launders_complaint(self, register: Register) -> None:
        register.apply(register.complaint(NOW - DAY))
        register.apply(register.unsubscribe(NOW))

        assert register.apply(register.resubscribe(by="page")) is NOT_LIFTED

    def test_complaint_holds_whatever_its_time(self, register: Register) -> None:
        register.apply(register.unsubscribe(NOW))

        assert register.apply(register.complaint(NOW - YEAR)) is PRESENT
        assert register.apply(register.resubscribe(by="page")) is NOT_LIFTED

    def test_stale_complaint_holds_next_suppression(self, register: Register) -> None:
        register.resubscribed()

        assert register.apply(register.complaint(NOW - YEAR)) is STALE
        assert register.apply(register.unsubscribe()) is ADDED
        assert register.apply(register.resubscribe(by="page")) is NOT_LIFTED

    def test_same_id_by_operator_holds(self, register: Register) -> None:
        request = register.unsubscribe(by="imap:INBOX")
        register.apply(request)

        assert register.apply(replace(request, source="operator")) is ADDED
        assert register.apply(register.resubscribe(by="page")) is NOT_LIFTED

    @pytest.mark.parametrize("source", ["page", "one-click", "imap:INBOX", "import", "provider"])
    def test_only_operator_or_api_lifts_held_row(self, register: Register, source: str) -> None:
        register.apply(register.complaint())

        assert register.apply(register.resubscribe(by=source)) is NOT_LIFTED

    @pytest.mark.parametrize("source", ["operator", "api"])
    def test_operator_or_api_clears_held(self, register: Register, source: str) -> None:
        register.apply(register.complaint())

        assert register.apply(register.resubscribe(by=source)) is LIFTED
        register.now_ms += DAY
        register.apply(register.unsubscribe())
        row = register.row()
        assert row is not None
        assert (row.suppressed, row.held, row.complaint) == (True, False, False)
        assert register.apply(register.resubscribe(by="page")) is LIFTED

    def test_row_says_when_somebody_complained(self, register: Register) -> None:
        register.apply(register.unsubscribe(NOW))
        register.apply(register.complaint(NOW - DAY))
        row = register.row()

        assert row is not None
        assert row.complaint


class NeighbourRules:
    """Batches; who sees whom."""

    @pytest.fixture
    def register(self, store: Store) -> Register:
        return Register(store)

    def test_batch_is_applied_in_order(self, register: Register, store: Store) -> None:
        joe: Target = ("acme", 12, "joe@example.com")
        register.apply(register.unsubscribe(NOW - DAY, of=joe))
        page, mail = register.unsubscribe(by="page"), register.unsubscribe(by="imap:INBOX")
        batch = [page, register.resubscribe(of=joe), mail, register.unsubscribe(NOW - DAY, of=joe), page]

        assert store.apply(batch, now_ms=NOW) == [ADDED, LIFTED, PRESENT, STALE, ADDED]
        row = register.row()
        assert row is not None
        assert (row.source, row.evidence) == ("page", bytes.fromhex(page.id)[:8])

    def test_empty_batch_does_nothing(self, store: Store) -> None:
        assert store.apply([]) == []
        assert answers(store, "acme", 12, []) == []

    def test_one_sender_never_sees_or_affects_another(self, register: Register, store: Store) -> None:
        others: list[Target] = [(sender, group, JANE[2]) for sender in ("acm", "acme1", "bolt") for group in (0, 2, 12)]
        register.apply(*(register.unsubscribe(of=other) for other in others))

        assert [answer.scope for group in (0, 2, 12) for answer in answers(store, "acme", group, [JANE[2]])] == [
            None
        ] * 3
        before = store.rows(others)
        register.apply(register.complaint(of=("acme", 0, JANE[2])))
        register.apply(register.resubscribe(of=("acme", 0, JANE[2]), by="operator"))
        assert store.rows(others) == before

    def test_group_0_beats_every_group(self, register: Register, store: Store) -> None:
        everything: Target = ("acme", 0, JANE[2])
        register.apply(register.unsubscribe(by="page"), register.complaint(of=everything))

        for group in (0, 12, 13, 4294967295):
            [answer] = answers(store, "acme", group, [JANE[2]])
            assert (answer.suppressed, answer.scope, answer.row) == (True, "global", register.row(everything))

    def test_group_answers_once_group_0_is_lifted(self, register: Register, store: Store) -> None:
        everything: Target = ("acme", 0, JANE[2])
        register.apply(register.unsubscribe(by="page"), register.unsubscribe(of=everything))
        register.apply(register.resubscribe(of=everything))

        assert [answers(store, "acme", group, [JANE[2]])[0].scope for group in (0, 12, 13)] == [None, "group", None]
        assert answers(store, "acme", 12, [JANE[2]])[0].row == register.row()

    def test_check_answers_in_order_of_question(self, register: Register, store: Store) -> None:
        register.apply(register.unsubscribe())
        asked_about = ["joe@example.com", JANE[2], "JANE@example.com", JANE[2]]
        found = answers(store, "acme", 12, asked_about)

        assert [answer.recipient for answer in found] == asked_about
        assert [answer.suppressed for answer in found] == [False, True, False, True]

    def test_list_names_suppressed_of_this_very_group(self, register: Register, store: Store) -> None:
        other, lifted = ("acme", 13, "joe@example.com"), ("acme", 12, "jörg@example.com")
        register.apply(register.unsubscribe(), register.unsubscribe(of=other), register.unsubscribe(of=lifted))
        register.apply(register.resubscribe(of=lifted))

        assert list(store.listed("acme", 12)) == [(JANE[2], register.row())]

    def test_stored_tags_come_back(self, client: redis.Redis) -> None:
        tags = {
            StoredTag("a" * 26): Tag("acme", 0, JANE[2]),
            StoredTag("b" * 26): Tag("bolt", 4294967295, "jörg+news@xn--exmple-cua.com"),
        }
        minted = [
            (Minted(f"h{ref.ref}", f"u+h{ref.ref}@unsub.example.com", True, ref.ref), tag) for ref, tag in tags.items()
        ]
        stored = StoredTags(client)
        stored.keep(minted)
        stored.keep(reversed(minted))

        assert stored.found([*tags, StoredTag("c" * 26)]) == tags
        assert stored.found([]) == {}

    def test_no_stored_tags_is_no_error(self, client: redis.Redis) -> None:
        StoredTags(client).keep([])

        assert StoredTags(client).found([StoredTag("a" * 26)]) == {}


class LedgerRules:
    """One record per message, without addresses."""

    LOCAL_PARTS = ("jane.doe", "jörg.sesam", "joe-x77")

    @pytest.fixture
    def ledger(self, client: redis.Redis) -> Ledger:
        return Ledger(client, Pseudonyms(b"k" * 32).bare)

    def test_message_has_one_record(self, ledger: Ledger) -> None:
        message = _message("m1", "jane.doe@example.com")
        ledger.write([(message, _results(message, ADDED))])
        [(key, record)] = ledger.records()

        assert key == message.key
        expected = {"outcome": "honour", "reason": "tag verified", "source": "imap:INBOX", "received_ms": NOW}
        assert expected.items() <= record.items()
        assert [(each["sender"], each["group"], each["effect"]) for each in record["requests"]] == [
            ("acme", 12, "added")
        ]
        assert record["requests"][0]["recipient"] == Pseudonyms(b"k" * 32).bare("jane.doe@example.com")

    def test_first_record_stays(self, ledger: Ledger) -> None:
        message = _message("m1", "jane.doe@example.com")
        ledger.write([(message, _results(message, ADDED))])
        before = list(ledger.records())
        ledger.write([(replace(message, reason="read again"), _results(message, PRESENT))])

        assert list(ledger.records()) == before

    def test_second_recipient_gets_a_pointer(self, ledger: Ledger, client: redis.Redis) -> None:
        message = _message("m1", *_apart(2))
        ledger.write([(message, _results(message, ADDED))])
        stored = _dump(client)

        assert len(stored) == 2
        assert len(list(ledger.records())) == 1
        homes = {json.loads(value).get("see", "record"): key for key, value in stored.items()}
        assert homes[homes["record"].partition(" ")[0]] != homes["record"]
        assert len(json.loads(stored[homes["record"]])["requests"]) == 2

    def test_recipients_in_other_order_change_nothing(self, ledger: Ledger, client: redis.Redis) -> None:
        message = _message("m1", *_apart(3))
        results = _results(message, ADDED)
        ledger.write([(message, results)])
        before = _dump(client)
        ledger.write([(message, results[::-1])])

        assert _dump(client) == before

    def test_two_senders_of_one_message_both_find_it(self, ledger: Ledger, client: redis.Redis) -> None:
        message = _message("m1", "jane.doe@example.com")
        [request] = message.requests
        message = replace(message, requests=(request, replace(request, sender="bolt")))
        ledger.write([(message, _results(message, ADDED))])

        assert sorted(key[:20] for key in _dump(client)) == ["unsubd:ledger:{acme:", "unsubd:ledger:{bolt:"]
        assert len(list(ledger.records())) == 1

    def test_message_of_no_sender_has_a_record(self, ledger: Ledger, client: redis.Redis) -> None:
        message = replace(_message("m1"), outcome=Outcome.NO_TAG)
        ledger.write([(message, [])])

        assert [key for key, _ in ledger.records()] == [message.key]
        assert next(iter(_dump(client))).startswith("unsubd:ledger:{-}:2023-11 ")

    def test_no_stored_value_has_an_address(self, ledger: Ledger, client: redis.Redis) -> None:
        recipients = [f"{local_part}@example.com" for local_part in self.LOCAL_PARTS]
        message = _message("m1", *recipients)
        complaint = replace(_message("m2", *recipients), outcome=Outcome.COMPLAINT)
        ledger.write([(message, _results(message, ADDED)), (complaint, _results(complaint, STALE))])
        everything = "\n".join(f"{key} {value}" for key, value in _dump(client).items())

        assert everything.count('"effect"') >= 6
        assert "example.com" not in everything
        for local_part in self.LOCAL_PARTS:
            assert local_part not in everything
            assert json.dumps(local_part)[1:-1] not in everything

    def test_records_end_when_the_archive_had_time(self, ledger: Ledger, client: redis.Redis) -> None:
        message = _message("m1", *_apart(2))
        ledger.write([(message, _results(message, ADDED))])

        for key in client.scan_iter("unsubd:ledger:{*"):
            assert 151 * DAY < 1000 * client.ttl(key) <= 152 * DAY

    def test_story_of_one_recipient_follows_pointers_and_resolutions(self, ledger: Ledger) -> None:
        bare = Pseudonyms(b"k" * 32).bare
        jane, joe = _apart(2)
        both, other = _message("m1", joe, jane), _message("m2", joe)
        untagged = replace(_message("m3"), outcome=Outcome.NO_TAG)
        for message in (both, other, untagged):
            ledger.write([(message, _results(message, ADDED))])
        addition = {"id": "1", "action": "named", "actor": "ops", "at_ms": NOW, "reason": "phone"}
        resolved = _message("m3", jane)
        ledger.refer([(untagged, resolved)])
        ledger.append([(untagged, {**addition, "requests": _results(resolved, ADDED)})])

        assert set(ledger.story("acme", [bare(jane)])) == {both.key, untagged.key}
        assert set(ledger.story("acme", [bare(jane), bare(joe)])) == {both.key, other.key, untagged.key}
        assert ledger.story("bolt", [bare(jane)]) == {}

    def test_records_are_found_by_a_key_or_its_beginning_known_or_not(self, ledger: Ledger) -> None:
        jane, joe = _apart(2)
        both, untagged = _message("ab".ljust(64, "0"), joe, jane), _message("ac".ljust(64, "0"))
        for message in (both, untagged):
            ledger.write([(message, _results(message, ADDED))])
        named = ("acme", Pseudonyms(b"k" * 32).bare(jane))

        for about in ([], [named], [None], [named, None]):
            assert (
                list(ledger.beginning([both.key], about)[0]) == list(ledger.beginning(["ab"], about)[0]) == [both.key]
            )
            assert set(ledger.beginning([untagged.key, "ab"], about)[0]) == {both.key, untagged.key}
            assert ledger.beginning(["ad", "f" * 64], about) == ({}, "")

    def test_a_month_ends_and_goes(self, ledger: Ledger) -> None:
        message = _message("m1", *_apart(2))
        ledger.write([(message, _results(message, ADDED))])
        after = datetime.fromtimestamp(NOW / 1000, UTC).replace(day=1) + timedelta(days=31 + 91)

        assert ledger.ended_months(after - timedelta(days=32)) == []
        assert ledger.ended_months(after) == ["2023-11"]
        found = list(ledger.month("2023-11"))
        assert len(found) == 2
        ledger.drop("2023-11", [(home, key, len(content)) for home, key, content in found])
        assert (list(ledger.month("2023-11")), ledger.ended_months(after)) == ([], [])


def _message(key: str, *recipients: str) -> DecidedMessage:
    requests = tuple(asked(Action.UNSUBSCRIBE, ("acme", 12, each), NOW, "imap:INBOX", key) for each in recipients)
    return DecidedMessage(key, "imap:INBOX", Outcome.HONOUR, "tag verified", NOW, requests, {"tag_in": "Delivered-To"})


def _results(message: DecidedMessage, effect: Effect) -> list[dict[str, Any]]:
    return [
        result_of(effect, request.sender, request.group, request.recipient, request.id) for request in message.requests
    ]


def _apart(number: int) -> list[str]:
    """Return recipients whose records lie under different keys."""
    pseudonym = Pseudonyms(b"k" * 32)
    by_home = {pseudonym(recipient)[:2]: recipient for recipient in (f"jane{n}@example.com" for n in range(50))}
    return list(by_home.values())[:number]


def _dump(client: redis.Redis) -> dict[str, str]:
    """Return every field of every hash as the server has it: "key field" -> value."""
    keys = [key for key in client.scan_iter() if client.type(key) == b"hash"]
    return {
        f"{key.decode()} {field.decode()}": value.decode()
        for key in keys
        for field, value in client.hgetall(key).items()
    }
