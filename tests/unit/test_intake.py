"""The two doors: what `accept` promises before it returns, and what `record` writes, once."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
import redis

from handlers import decision
from handlers.decision import FirstReceipt
from handlers.errors import QueueUnavailable, StoreUnavailable, Unavailable
from handlers.request import Action, DecidedMessage, Outcome, Request, request_id
from handlers.tag import AddressTemplate, StoredTag, Tag, mint
from tests.harness.names import answers
from tests.unit import house
from tests.unit.house import decided, mail, now_ms
from tests.unit.letters import JANE, KEYS, TEMPLATE, tagged
from worker.counted import LEFT
from worker.installation import Installation
from worker.intake import is_foreign
from worker.journal import Journal

DAY_MS = 86_400_000
FORGED = "u+aaaaaaaaaaaaaa-acme-12-jane_example.com@unsub.example.com"


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def client(server: fakeredis.FakeServer) -> redis.Redis:
    return house.client(server)


@pytest.fixture
def installation(server: fakeredis.FakeServer) -> Iterator[Installation]:
    with house.opened(server) as installation:
        yield installation


@pytest.fixture
def acme(installation: Installation) -> Installation:
    """An installation with a sender and its group 12."""
    installation.accounts.add_sender("acme")
    installation.accounts.add_group("acme", "Weekly news", "", 12)
    return installation


def queued(installation: Installation) -> list[list[DecidedMessage]]:
    """What the jobs in the queue carry."""
    jobs = installation.queue.rq.get_jobs()
    return [[DecidedMessage.from_wire(wire) for wire in job.kwargs["batch"]] for job in jobs]


def recorded(installation: Installation) -> dict[str, dict[str, Any]]:
    """The ledger, by message key."""
    return dict(installation.ledger.records())


def effects(installation: Installation, *messages: DecidedMessage) -> list[list[str]]:
    return [[result["effect"] for result in results] for results in installation.intake.record(messages)]


def suppressed(installation: Installation, group: int, recipient: str = JANE.recipient) -> bool:
    return answers(installation.store, "acme", group, [recipient])[0].suppressed


def resubscribed(installation: Installation, group: int = 12) -> None:
    """Jane comes back by the page, having seen what there is."""
    row = installation.store.row("acme", group, JANE.recipient)
    assert row is not None
    wish_id = request_id("form", "acme", group, JANE.recipient, Action.RESUBSCRIBE)
    wish = Request(
        wish_id, Action.RESUBSCRIBE, "acme", group, JANE.recipient, now_ms(), "page", "form",
        seen_version=row.version.hex(),
    )  # fmt: skip
    assert effects(installation, decided("form", source="page", requests=(wish,))) == [["lifted"]]


# --- accept


def test_accept_answers_in_the_order_of_the_messages_and_queues_them_all(installation: Installation) -> None:
    messages = [mail(), mail(FORGED, "two"), mail("info@elsewhere.example", "three")]

    accepted = installation.intake.accept(messages)

    outcomes = [Outcome.HONOUR, Outcome.BAD_TAG, Outcome.NO_TAG]
    assert [each.outcome for each in accepted.decided] == outcomes
    assert queued(installation) == [[replace(each, suggestion=None) for each in accepted.decided]]
    assert accepted.job_ids == installation.queue.rq.get_job_ids()


def test_accept_itself_records_nothing(installation: Installation) -> None:
    installation.intake.accept([mail()])

    assert recorded(installation) == {}
    assert not suppressed(installation, 12)


def test_accept_of_nothing_is_nothing(installation: Installation, client: redis.Redis) -> None:
    before = client.dbsize()

    assert installation.intake.accept([]).job_ids == []
    assert client.dbsize() == before


def test_what_a_person_must_see_is_kept_with_its_bytes(installation: Installation) -> None:
    bad, none = mail(FORGED, "two"), mail("info@elsewhere.example", "three")

    installation.intake.accept([mail(), bad, none])

    assert installation.quarantine.counts() == {"quarantine:bad-tag": 1, "quarantine:no-tag": 1}
    assert [installation.quarantine.raw(each.key[:32]) for each in (bad, none)] == [bad.raw, none.raw]


def test_mail_that_is_not_ours_is_not_copied_out_of_a_shared_mailbox(installation: Installation) -> None:
    asks, lunch = mail("info@elsewhere.example", "three"), mail("info@elsewhere.example", "four", subject="Lunch?")
    installation.intake.accept([mail(FORGED, "two"), asks, lunch], keep_untagged=False)

    # Only what a person can make something of is copied: forged, or asking in words.
    assert installation.quarantine.counts() == {"quarantine:bad-tag": 1, "quarantine:no-tag": 1}
    assert installation.quarantine.raw(lunch.key[:32]) is None
    assert [len(batch) for batch in queued(installation)] == [3]  # all get their ledger record
    assert [LEFT in each.evidence for each in queued(installation)[0]] == [False, False, True]


def test_quarantined_bytes_are_safe_before_the_job_exists(installation: Installation) -> None:
    order = []
    with (
        patch.object(type(installation.quarantine), "keep", autospec=True, side_effect=lambda *_: order.append("kept")),
        patch.object(
            type(installation.queue),
            "enqueue",
            autospec=True,
            side_effect=lambda *_, **__: order.append("queued") or [],
        ),
    ):
        installation.intake.accept([mail(FORGED)])

    assert order == ["kept", "queued"]


def test_redis_away_is_unavailable_and_nothing_is_queued(
    installation: Installation, server: fakeredis.FakeServer
) -> None:
    server.connected = False
    with pytest.raises(Unavailable):
        installation.intake.accept([mail()])
    server.connected = True

    assert queued(installation) == []


def test_a_quarantine_that_cannot_be_written_queues_nothing(installation: Installation) -> None:
    away = QueueUnavailable("UNSUBD_REDIS_URL: the server cannot write now (OOM)")
    with (
        patch.object(type(installation.quarantine), "keep", autospec=True, side_effect=away),
        pytest.raises(QueueUnavailable),
    ):
        installation.intake.accept([mail(), mail(FORGED, "two")])

    assert queued(installation) == []


def test_a_stored_tag_that_cannot_be_looked_up_is_no_bad_tag(installation: Installation) -> None:
    away = StoreUnavailable("UNSUBD_STORE_URL: the server does not answer")
    with (
        patch.object(type(installation.tags), "found", autospec=True, side_effect=away),
        pytest.raises(StoreUnavailable),
    ):
        installation.intake.accept([mail(tagged(opaque=True))])

    assert (queued(installation), installation.quarantine.counts()) == ([], {})


def test_a_stored_tag_is_read_from_the_store(installation: Installation) -> None:
    minted = mint(KEYS, JANE, TEMPLATE, opaque=True)
    installation.tags.keep([(minted, JANE)])

    (answer,) = installation.intake.accept([mail(minted.address)]).decided

    assert [(each.sender, each.group, each.recipient) for each in answer.requests] == [("acme", 12, JANE.recipient)]
    assert installation.tags.found([StoredTag(minted.ref)]) == {StoredTag(minted.ref): JANE}


def test_a_message_is_decided_with_what_it_asked_for_alone(installation: Installation) -> None:
    """Of 500 messages each would look through what all 500 asked for."""
    mails = [mail(message_id=f"<{number}@x>") for number in range(3)]

    with patch.object(decision, "decide", wraps=decision.decide) as decide:
        installation.intake.decide(mails)

    assert [set(each.args[3]) for each in decide.call_args_list] == [{FirstReceipt(each.key)} for each in mails]


def test_a_message_that_breaks_the_program_stops_none_of_its_neighbours(installation: Installation) -> None:
    real, poison = decision.decide, mail(FORGED, "poison")

    def breaks(message: Any, *rest: Any) -> DecidedMessage:
        if message is poison:
            raise RuntimeError("jane@example.com broke it")
        return real(message, *rest)

    with patch.object(decision, "decide", autospec=True, side_effect=breaks):
        first, second = installation.intake.accept([poison, mail()]).decided

    assert (first.outcome, first.reason) == (Outcome.MALFORMED, "deciding it failed: RuntimeError")
    assert second.outcome is Outcome.HONOUR
    assert installation.quarantine.raw(poison.key[:32]) == poison.raw
    assert "jane" not in json.dumps(Journal.lines(installation.redis, 10))


def test_explaining_remembers_nothing(installation: Installation, client: redis.Redis) -> None:
    before = client.dbsize()

    installation.intake.decide([mail()], remember=False)

    assert client.dbsize() == before


# --- time


def test_first_receipt_is_remembered_over_a_retry(installation: Installation, client: redis.Redis) -> None:
    (first,) = installation.intake.accept([mail()]).decided
    name = f"unsubd:seen:{first.key[:32]}"
    assert abs(first.received_ms - now_ms()) < 60_000
    assert 6 * 86400 < client.ttl(name) <= 7 * 86400
    client.set(name, first.received_ms - 5000, keepttl=True)  # five seconds pass

    (again,) = installation.intake.accept([mail()]).decided

    assert again.received_ms == first.received_ms - 5000
    assert again.requests[0].id == first.requests[0].id


def test_a_servers_own_time_counts_before_first_receipt(installation: Installation) -> None:
    long_ago = now_ms() - 300 * DAY_MS

    (answer,) = installation.intake.accept([mail(received_ms=long_ago)]).decided

    assert (answer.received_ms, answer.requests[0].at_ms) == (long_ago, long_ago)


def test_a_future_internaldate_read_again_does_not_undo_a_resubscribe(acme: Installation) -> None:
    ahead = mail(received_ms=now_ms() + 3 * DAY_MS)
    assert effects(acme, *acme.intake.accept([ahead]).decided) == [["added"]]
    resubscribed(acme)
    assert not suppressed(acme, 12)

    for _ in range(2):  # the mailbox is read again, e.g. after a new UIDVALIDITY
        assert effects(acme, *acme.intake.accept([ahead]).decided) == [["stale"]]

    assert not suppressed(acme, 12)


def test_a_new_mail_after_a_resubscribe_counts(acme: Installation) -> None:
    effects(acme, *acme.intake.accept([mail(received_ms=now_ms() - DAY_MS)]).decided)
    resubscribed(acme)

    assert effects(acme, *acme.intake.accept([mail(message_id="two")]).decided) == [["added"]]
    assert suppressed(acme, 12)


# --- record


def test_recording_twice_leaves_one_ledger_record_and_the_same_effects(acme: Installation) -> None:
    messages = [decided("k1"), decided("k2", recipient="joe@example.com"), decided("k3", requests=())]

    first = acme.intake.record(messages)
    record = recorded(acme)

    assert [[result["effect"] for result in results] for results in first] == [["added"], ["added"], []]
    assert acme.intake.record(messages) == first
    assert recorded(acme) == record
    assert set(record) == {"k1", "k2", "k3"}


def test_a_second_mail_of_the_same_person_is_already_present(acme: Installation) -> None:
    assert effects(acme, decided("k1"), decided("k2")) == [["added"], ["already-present"]]


def test_results_tell_what_scripts_rely_on(acme: Installation) -> None:
    ((result,),) = acme.intake.record([decided("k1")])

    assert {name: result[name] for name in ("sender", "group", "recipient", "effect", "action")} == {
        "sender": "acme", "group": 12, "recipient": JANE.recipient, "effect": "added", "action": "unsubscribe",
    }  # fmt: skip
    assert "redirected_from" not in result


def test_the_ledger_spells_no_address(acme: Installation) -> None:
    acme.intake.record([decided("k1")])

    ledger = json.dumps(recorded(acme))
    assert acme.pseudonyms.bare(JANE.recipient) in ledger
    assert JANE.recipient not in ledger


def test_a_store_that_is_away_is_unavailable(acme: Installation) -> None:
    away = StoreUnavailable("UNSUBD_STORE_URL: the server does not answer")
    with patch.object(type(acme.store), "apply", autospec=True, side_effect=away), pytest.raises(StoreUnavailable):
        acme.intake.record([decided("k1"), decided("k2")])

    assert (recorded(acme), acme.quarantine.counts()) == ({}, {})


# --- redirects (semantics §4)


def redirected(installation: Installation, message: DecidedMessage) -> tuple[int, int | None]:
    """Where a message's one request went, and from where."""
    ((result,),) = installation.intake.record([message])
    return result["group"], result.get("redirected_from")


def archive(installation: Installation, group_id: int) -> None:
    row = json.loads(installation.redis.hget("unsubd:groups", str(group_id)) or b"")
    installation.redis.hset("unsubd:groups", str(group_id), json.dumps(row | {"archived": True}))


@pytest.fixture
def strays(acme: Installation) -> Installation:
    """acme with an archived group 13, and beta with group 14; nobody has 99."""
    acme.accounts.add_group("acme", "Old news", "", 13)
    archive(acme, 13)
    acme.accounts.add_sender("beta")
    acme.accounts.add_group("beta", "Beta news", "", 14)
    return acme


@pytest.mark.parametrize("group", [0, 12])
def test_a_living_group_keeps_its_requests(strays: Installation, group: int) -> None:
    assert redirected(strays, decided(group=group)) == (group, None)


@pytest.mark.parametrize("group", [13, 14, 99], ids=["archived", "another sender's", "unknown"])
def test_a_tag_of_a_group_that_is_gone_stops_everything(strays: Installation, group: int) -> None:
    message = decided(group=group)

    assert redirected(strays, message) == (0, group)

    assert recorded(strays)["k1"]["requests"][0]["redirected_from"] == group
    assert strays.store.row("acme", group, JANE.recipient) is None
    assert suppressed(strays, 12)
    assert redirected(strays, message) == (0, group)  # a repeat goes the same way


@pytest.mark.parametrize("lifted", [False, True])
def test_an_old_request_is_not_widened_when_the_recipient_has_a_row_in_that_group(
    strays: Installation, *, lifted: bool
) -> None:
    strays.accounts.add_group("acme", "Closing", "", 15)
    message = decided(group=15, received_ms=now_ms() - DAY_MS)
    assert redirected(strays, message) == (15, None)
    if lifted:
        resubscribed(strays, 15)
    archive(strays, 15)

    assert redirected(strays, message) == (15, None)
    assert redirected(strays, decided("k2", group=15, received_ms=now_ms() - DAY_MS)) == (15, None)

    assert not suppressed(strays, 0)
    assert suppressed(strays, 15) is not lifted


def test_others_of_an_archived_group_are_still_redirected(strays: Installation) -> None:
    strays.accounts.add_group("acme", "Closing", "", 15)
    redirected(strays, decided(group=15))
    archive(strays, 15)

    assert redirected(strays, decided("k2", group=15, recipient="joe@example.com")) == (0, 15)


def test_a_sender_that_nobody_registered_keeps_the_ids_of_its_tags(strays: Installation) -> None:
    assert redirected(strays, decided(sender="nobody", group=99)) == (99, None)
    assert redirected(strays, decided("k2", sender="nobody", group=12)) == (0, 12)


def test_the_request_id_is_over_the_group_of_the_tag(strays: Installation) -> None:
    message = decided(group=99)

    ((result,),) = strays.intake.record([message])

    assert result["id"] == message.requests[0].id
    assert result["id"] == request_id("k1", "acme", 99, JANE.recipient, Action.UNSUBSCRIBE)


def test_one_batch_may_hold_all_kinds(strays: Installation) -> None:
    batch = [decided(f"k{group}", group=group) for group in (12, 13, 14, 99, 0)]

    targets = [(results[0]["group"], results[0].get("redirected_from")) for results in strays.intake.record(batch)]

    assert targets == [(12, None), (0, 13), (0, 14), (0, 99), (0, None)]


# --- one bad message


def broken(kind: str, client: redis.Redis) -> DecidedMessage:
    """A message whose request cannot be applied, each in another hop."""
    message = decided("bad", group=12, recipient="bad@example.com")
    if kind == "row":
        client.hset("unsubd:supp:{acme:0}", mapping={"": "0 0", "bad@example.com\0": "?", "worse@example.com\0": "?"})
        return replace(message, requests=(replace(message.requests[0], group=0),))
    if kind == "group":
        client.hset("unsubd:groups", "77", "not JSON")
        return replace(message, requests=(replace(message.requests[0], group=77),))
    wrong: dict[str, Any] = {"id": {"id": "no hex"}, "source": {"source": None}, "at": {"at_ms": "yesterday"},
                             "sender": {"sender": None}}[kind]  # fmt: skip
    return replace(message, requests=(replace(message.requests[0], **wrong),))


@pytest.mark.parametrize("kind", ["row", "group", "id", "source", "at", "sender"])
def test_one_bad_message_is_quarantined_alone(acme: Installation, client: redis.Redis, kind: str) -> None:
    bad = broken(kind, client)
    good = [decided(f"k{number}", recipient=f"p{number}@example.com") for number in range(4)]

    done = effects(acme, *good[:2], bad, *good[2:])

    assert done == [["added"], ["added"], [], ["added"], ["added"]]
    assert acme.quarantine.counts() == {"failed": 1}
    assert json.loads(acme.quarantine.raw("bad") or b"") == bad.as_wire()
    assert set(recorded(acme)) == {"bad", "k0", "k1", "k2", "k3"}
    record = recorded(acme)["bad"]
    assert (record["outcome"], record["requests"]) == ("honour", [])
    assert record["reason"].startswith("applying it failed: ")


def test_a_bad_message_again_is_still_one_entry_and_one_record(acme: Installation, client: redis.Redis) -> None:
    batch = [decided("k1"), broken("row", client)]
    acme.intake.record(batch)

    assert effects(acme, *batch) == [["added"], []]
    assert acme.quarantine.counts() == {"failed": 1}
    assert len(recorded(acme)) == 2


def several(good: int, bad: list[Request]) -> DecidedMessage:
    """A message with good requests on both sides of bad ones."""
    people = [decided("m", recipient=f"p{number}@example.com").requests[0] for number in range(good)]
    return decided("m", requests=(*people[:1], *bad, *people[1:]))


@pytest.mark.parametrize("kind", ["row", "group", "id", "source", "at"])
def test_one_bad_request_of_a_message_is_quarantined_alone(acme: Installation, client: redis.Redis, kind: str) -> None:
    bad = broken(kind, client).requests[0]
    message = several(3, [bad])

    assert effects(acme, decided("k1"), message, decided("k2")) == [["added"], ["added"] * 3, ["already-present"]]

    assert all(acme.store.row("acme", 12, f"p{number}@example.com") for number in range(3))
    (raw,) = client.hvals("unsubd:quarantine:raw")
    assert json.loads(raw) == replace(message, requests=(bad,)).as_wire()
    assert set(recorded(acme)) == {"k1", "k2", "m"}
    record = recorded(acme)["m"]
    assert [result["effect"] for result in record["requests"]] == ["added"] * 3
    assert record["reason"].startswith("applying 1 of 4 requests failed: ")


def test_requests_that_fail_at_different_times_are_all_kept(acme: Installation, client: redis.Redis) -> None:
    bad = broken("row", client).requests[0]
    worse = replace(bad, id="ab" * 16, recipient="worse@example.com")
    message = several(2, [bad])
    acme.intake.record([message])

    acme.intake.record([replace(message, requests=(*message.requests, worse))])  # the same message, read again
    acme.intake.record([message])

    assert acme.quarantine.counts() == {"failed": 2}
    assert len(recorded(acme)) == 1


def test_an_outage_between_two_requests_is_no_failure(acme: Installation, client: redis.Redis) -> None:
    message = several(2, [broken("row", client).requests[0]])
    real, calls = type(acme.store).apply, []

    def away_at_last(store: Any, requests: Any, **named: Any) -> Any:
        calls.append(requests)
        if len(calls) > 3:
            raise StoreUnavailable("UNSUBD_STORE_URL: the server does not answer")
        return real(store, requests, **named)

    with (
        patch.object(type(acme.store), "apply", autospec=True, side_effect=away_at_last),
        pytest.raises(StoreUnavailable),
    ):
        acme.intake.record([message])

    assert recorded(acme) == {}
    assert effects(acme, message) == [["added", "added"]]


def test_a_message_that_cannot_be_told_stops_none_of_its_neighbours(acme: Installation) -> None:
    timeless = decided("bad", recipient="joe@example.com")
    timeless = replace(timeless, received_ms=10**20)  # no month to put its record into

    assert effects(acme, decided("k1"), timeless, decided("k2")) == [["added"], ["added"], ["already-present"]]

    assert acme.quarantine.counts() == {"failed": 1}
    assert set(recorded(acme)) == {"k1", "k2"}


def test_what_failed_is_told_without_an_address(acme: Installation, client: redis.Redis) -> None:
    acme.intake.record([decided("k1"), broken("row", client)])

    assert Journal.counters(client)["unsubd_failures_total", "apply"] == 1
    told = json.dumps(Journal.lines(client, 10))
    assert "bad@" not in told
    assert JANE.recipient not in told


def test_no_journal_line_spells_an_address_a_tag_or_a_subject(acme: Installation, client: redis.Redis) -> None:
    accepted = acme.intake.accept([mail(), mail(FORGED, "two"), mail("info@elsewhere.example", "three")])
    acme.intake.record(accepted.decided)

    lines = Journal.lines(client, 10)
    assert sorted(line["event"] for line in lines) == ["honour", "quarantine:bad-tag", "quarantine:no-tag"]
    told = json.dumps(lines)
    for secret in ("jane", "acme-12", "aaaaaaaa", "info@", "unsubscribe", "x@example.net"):
        assert secret not in told


def test_a_template_is_no_condition_for_reading(server: fakeredis.FakeServer) -> None:
    elsewhere = AddressTemplate("bye.", "other.example")
    with house.opened(server, address="") as installation:
        (answer,) = installation.intake.accept(
            [mail(mint(KEYS, Tag("acme", 1, "jo@x.example"), elsewhere).address)]
        ).decided

    assert answer.outcome is Outcome.HONOUR


def test_a_bug_of_ours_is_kept_for_a_person_even_in_a_shared_mailbox(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(decision, "decide", broken)
    [decided] = installation.intake.accept([mail()], keep_untagged=False).decided

    assert not is_foreign(decided)
    assert installation.quarantine.counts() == {"quarantine:malformed": 1}
