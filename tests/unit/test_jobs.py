"""What RQ runs: it waits through an outage, isolates what it cannot read, and its argument is wire format."""

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from handlers.errors import ConfigError, StoreUnavailable
from handlers.request import Action, DecidedMessage, Outcome, Request
from tests.unit import house
from tests.unit.house import decided
from worker import installation as installations
from worker import jobs
from worker.batch import RECORD, VERSION, UnsubdJob
from worker.events.jobs import post
from worker.forwarding.jobs import forward
from worker.installation import Installation, open_installation
from worker.settings import load_settings

ENVIRON = house.ENVIRON | {"UNSUBD_REDIS_URL": "redis://queue", "UNSUBD_STORE_URL": "redis://store"}


@pytest.fixture
def queue_server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def store_server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def installation(
    queue_server: fakeredis.FakeServer, store_server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """The installation that jobs of this process work with; its queue and its store are two servers."""
    servers = {"redis://queue": queue_server, "redis://store": store_server}
    settings = load_settings(ENVIRON)
    monkeypatch.setattr(jobs, "_settings", settings)
    with (
        patch.object(installations, "connect", autospec=True, side_effect=lambda url: house.client(servers[url])),
        open_installation(settings) as found,
    ):
        found.accounts.add_sender("acme")
        found.accounts.add_group("acme", "Weekly news", "", 12)
        yield found


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """A function that makes every server listed come back after so many waits; it returns the seconds waited."""

    def prepare(*servers: fakeredis.FakeServer, after: int) -> list[float]:
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            for server in servers:
                server.connected = len(waited) >= after

        monkeypatch.setattr(jobs.time, "sleep", sleep)
        for server in servers:
            server.connected = False
        return waited

    return prepare


def wire(*messages: DecidedMessage) -> list[dict[str, Any]]:
    """What a job carries, having been JSON."""
    batch: list[dict[str, Any]] = json.loads(json.dumps([message.as_wire() for message in messages]))
    return batch


# --- what it does


def test_effects_are_told_message_by_message(installation: Installation) -> None:
    batch = wire(decided("k1"), decided("k2", requests=()), decided("k3"))

    assert jobs.record(batch) == [["added"], [], ["already-present"]]
    assert jobs.record(batch) == [["added"], [], ["already-present"]]


def test_a_process_that_configured_nothing_reads_its_environment(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_settings", None)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)

    assert jobs.record(wire(decided())) == [["added"]]


def test_configured_settings_are_used(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_settings", None)

    jobs.configure(installation.settings)

    assert jobs.record(wire(decided())) == [["added"]]


# --- outages


@pytest.mark.parametrize("away", ["queue", "store", "both"])
def test_an_outage_is_waited_for(
    installation: Installation, queue_server: fakeredis.FakeServer, store_server: fakeredis.FakeServer,
    waits: Callable[..., list[float]], away: str,
) -> None:  # fmt: skip
    servers = {"queue": [queue_server], "store": [store_server], "both": [queue_server, store_server]}[away]
    waited = waits(*servers, after=10)

    assert jobs.record(wire(decided("k1"), decided("k2"))) == [["added"], ["already-present"]]

    assert waited == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert set(dict(installation.ledger.records())) == {"k1", "k2"}


@pytest.fixture
def restored_signals() -> Iterator[None]:
    """RQ's worker installs handlers; ours come back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("restored_signals")
def test_an_outage_uses_up_no_try(
    installation: Installation, store_server: fakeredis.FakeServer, waits: Callable[..., list[float]]
) -> None:
    (job_id,) = installation.queue.enqueue([decided()])
    waited = waits(store_server, after=5)
    worker = SimpleWorker(
        [installation.queue.rq], connection=installation.redis, job_class=UnsubdJob, serializer=JSONSerializer
    )

    worker.work(burst=True, logging_level="CRITICAL")

    job = UnsubdJob.fetch(job_id, connection=installation.redis, serializer=JSONSerializer)
    assert (len(waited), job.retries_left, job.get_status().value) == (5, 3, "finished")
    assert installation.queue.wait([job_id], 0) == [["added"]]


@pytest.mark.usefixtures("restored_signals")
def test_a_job_is_excused_as_long_as_it_waits_and_no_longer(
    installation: Installation, store_server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = installation.queue.enqueue([decided()])
    job = UnsubdJob.fetch(job_id, connection=installation.redis, serializer=JSONSerializer)
    seen: list[bool] = []

    def sleep(_: float) -> None:
        seen.append(job.is_excused())
        store_server.connected = len(seen) == 3

    def watched(*_: Any) -> list[list[str]]:
        seen.append(job.is_excused())
        return [["added"]]

    monkeypatch.setattr(jobs.time, "sleep", sleep)
    monkeypatch.setattr(jobs, "_record_each", watched)
    store_server.connected = False
    worker = SimpleWorker(
        [installation.queue.rq], connection=installation.redis, job_class=UnsubdJob, serializer=JSONSerializer
    )

    worker.work(burst=True, logging_level="CRITICAL")

    assert seen == [True, True, True, False]


def test_a_missing_key_is_waited_for_as_well(
    installation: Installation, waits: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = jobs.open_installation, [ConfigError("UNSUBD_SECRET_KEYS: none unwraps the pseudonym key")]

    def missing(*arguments: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return real(*arguments, **named)

    monkeypatch.setattr(jobs, "open_installation", missing)

    assert (waits(after=0), jobs.record(wire(decided()))) == ([0.5], [["added"]])


# --- what cannot be read

GOOD = decided("good").as_wire()
UNREADABLE: dict[str, Any] = {
    "nothing": None,
    "a number": 5,
    "a text": "k1",
    "a list": [1, 2],
    "an empty object": {},
    "a field is missing": {name: value for name, value in GOOD.items() if name != "key"},
    "an unknown outcome": GOOD | {"outcome": "honoured"},
    "requests are no list": GOOD | {"requests": 5},
    "a request is no object": GOOD | {"requests": ["jane"]},
    "a request without action": GOOD | {"requests": [{"id": "x"}]},
    "an unknown action": GOOD | {"requests": [GOOD["requests"][0] | {"action": "delete"}]},
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_element_that_cannot_be_read_is_quarantined_alone(installation: Installation, kind: str) -> None:
    element = UNREADABLE[kind]

    done = jobs.record([*wire(decided("k1")), element, *wire(decided("k2", recipient="joe@example.com"))])

    assert done == [["added"], ["added"]]
    assert installation.quarantine.counts() == {"failed": 1}
    (kept,) = installation.redis.hvals("unsubd:quarantine:raw")
    assert json.loads(kept) == (element if isinstance(element, dict) else {"value": str(element)})
    (facts,) = (json.loads(row) for row in installation.redis.hvals("unsubd:quarantine"))
    assert facts["detail"].startswith("message 1 of the job: ")


def test_a_request_that_cannot_be_read_is_quarantined_alone(installation: Installation) -> None:
    [wire_of_two] = wire(decided("k1"))
    unreadable = wire_of_two["requests"][0] | {"action": "delete"}
    wire_of_two["requests"] = [unreadable, *wire_of_two["requests"], "jane"]

    assert jobs.record([wire_of_two, *wire(decided("k2"))]) == [["added"], ["already-present"]]

    (kept,) = installation.redis.hvals("unsubd:quarantine:raw")
    assert json.loads(kept)["requests"] == [unreadable, "jane"]
    record = dict(installation.ledger.records())["k1"]
    assert record["reason"] == "message 0 of the job: ValueError"


@pytest.mark.parametrize("kind", UNREADABLE)
def test_it_is_kept_once_however_often_the_job_repeats(
    installation: Installation, store_server: fakeredis.FakeServer, waits: Callable[..., list[float]], kind: str
) -> None:
    batch = [*wire(decided("k1")), UNREADABLE[kind]]
    with patch.object(
        type(installation.store), "apply", autospec=True, side_effect=_away_first(type(installation.store).apply, 3)
    ):
        waits(after=0)
        jobs.record(batch)
    jobs.record(batch)

    assert installation.quarantine.counts() == {"failed": 1}


def _away_first(real: Callable[..., Any], times: int) -> Callable[..., Any]:
    """The real function, unavailable so many times."""
    left = list(range(times))

    def answer(*arguments: Any, **named: Any) -> Any:
        if left:
            left.pop()
            raise StoreUnavailable("UNSUBD_STORE_URL: the server does not answer")
        return real(*arguments, **named)

    return answer


# --- the wire format

texts = st.text(st.characters(exclude_categories=()), max_size=20)
requests = st.builds(
    Request, id=texts, action=st.sampled_from(Action), sender=texts, group=st.integers(0, 4294967295), recipient=texts,
    at_ms=st.integers(0, 2**48), source=texts, evidence=texts, actor=texts, seen_version=texts,
)  # fmt: skip
messages = st.builds(
    DecidedMessage, key=texts, source=texts, outcome=st.sampled_from(Outcome), reason=texts,
    received_ms=st.integers(0, 2**48), requests=st.lists(requests, max_size=3).map(tuple),
    evidence=st.dictionaries(texts, texts, max_size=3),
)  # fmt: skip


@given(messages)
def test_a_decided_message_survives_the_queue(message: DecidedMessage) -> None:
    carried = JSONSerializer.loads(JSONSerializer.dumps(message.as_wire()))

    assert DecidedMessage.from_wire(carried) == message


def test_the_wire_format_stays() -> None:
    wish = Request(
        "1f" * 16, Action.UNSUBSCRIBE, "acme", 12, "jane@example.com", 1700000000000, "imap:INBOX", "5f" * 32
    )
    message = DecidedMessage(
        "5f" * 32, "imap:INBOX", Outcome.HONOUR, "valid tag", 1700000000000, (wish,), {"repair": ""}
    )

    # A queue may hold jobs of the version before: what is here may be added to, not renamed.
    assert message.as_wire() == {
        "key": "5f" * 32, "source": "imap:INBOX", "outcome": "honour", "reason": "valid tag",
        "received_ms": 1700000000000, "evidence": {"repair": ""},
        "requests": [{
            "id": "1f" * 16, "action": "unsubscribe", "sender": "acme", "group": 12, "recipient": "jane@example.com",
            "at_ms": 1700000000000, "source": "imap:INBOX", "evidence": "5f" * 32, "actor": "recipient",
            "seen_version": "", "undated": False,
        }],
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"recipient": ["x"]}, {"group": "1"}, {"group": True}, {"at_ms": 1.5}, {"sender": None}, {"action": "drop"}],
)
def test_a_request_of_other_types_is_not_read(wrong: dict[str, object]) -> None:
    wire = decided().as_wire()
    assert DecidedMessage.from_wire(wire).as_wire() == wire
    wire["requests"][0] |= wrong

    with pytest.raises((TypeError, ValueError)):
        DecidedMessage.from_wire(wire)


def test_a_job_of_another_release_is_read() -> None:
    message = decided()
    wire = message.as_wire() | {"since": "version 9"}
    wire["requests"] = [wire["requests"][0] | {"since": 9}]
    del wire["requests"][0]["seen_version"]

    assert DecidedMessage.from_wire(wire) == message


@pytest.mark.usefixtures("restored_signals")
def test_a_job_of_a_newer_program_waits_for_one(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a person upgrades or stops this one: it is neither read nor failed."""
    newer = installation.queue.rq.enqueue(RECORD, batch=[{"key": "of tomorrow"}], version=VERSION + 1)
    excused = []

    def stop(_: float) -> None:
        excused.append(newer.is_excused())
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.time, "sleep", stop)
    worker = SimpleWorker(
        [installation.queue.rq], connection=installation.redis, job_class=UnsubdJob, serializer=JSONSerializer
    )
    worker.work(burst=True, max_jobs=1, logging_level="CRITICAL")

    assert excused == [True]
    assert installation.redis.hlen("unsubd:quarantine") == 0


@pytest.mark.parametrize("send", [post, forward])
def test_what_goes_out_of_a_newer_program_is_tried_again(send: Callable[..., int]) -> None:
    with pytest.raises(ConfigError, match="version 2, expected 1 or older: a newer unsubd enqueued it"):
        send("acme", [{"of": "tomorrow"}], version=2)
