"""Events out: which change is which event, and that SendGrid's own verifier accepts what we sign."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import fakeredis
import httpx2
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from handlers import events
from handlers.errors import Rejected, Unavailable
from handlers.request import Action, DecidedMessage, Outcome
from tests.harness.receiver import Receiver, receiving
from tests.unit import house
from tests.unit.letters import JANE
from worker import by_hand, forget, jobs
from worker.calls import called
from worker.installation import Installation

KEY = ec.generate_private_key(ec.SECP256R1())


def _change(**more: Any) -> dict[str, Any]:
    change = {"id": "f" * 64, "sender": "acme", "group": 7, "recipient": "jane@example.com", "action": "unsubscribe"}
    return {**change, "effect": "added", "at_ms": 1_700_000_000_999, "source": "imap:INBOX", **more}


@pytest.mark.parametrize(
    ("action", "group", "kind"),
    [
        ("unsubscribe", 7, "group_unsubscribe"), ("complaint", 7, "group_unsubscribe"), ("unsubscribe", 0, "unsubscribe"),
        ("resubscribe", 7, "group_resubscribe"), ("resubscribe", 0, None),
    ],
)  # fmt: skip
def test_kind(action: str, group: int, kind: str | None) -> None:
    found = events.event(_change(action=action, group=group))

    assert (found or {}).get("event") == kind
    assert (found or {"asm_group_id": 0}).get("asm_group_id", 0) == (group if found else 0)


def test_an_event_has_what_is_always_present_and_nothing_invented() -> None:
    assert events.event(_change()) == {
        "email": "jane@example.com", "timestamp": 1_700_000_000, "event": "group_unsubscribe", "sg_event_id": "f" * 64,
        "asm_group_id": 7, "unsubd_source": "imap", "unsubd_action": "unsubscribe",
    }  # fmt: skip


def test_only_what_changed_is_told() -> None:
    message = DecidedMessage("k", "one-click", Outcome.HONOUR, "form", 5, ())
    effects = ["added", "already-present", "stale", "lifted", "not-lifted", "queued"]

    told = events.changes(message, [_change(effect=effect) for effect in effects])

    assert [each["effect"] for each in told] == ["added", "lifted"]
    assert {(each["at_ms"], each["source"]) for each in told} == {(5, "one-click")}


@pytest.mark.parametrize(
    ("source", "told"), [("imap:INBOX", True), ("page", True), ("api", False), ("operator", False), ("api:key", False)]
)
def test_who_did_it(source: str, told: bool) -> None:
    assert events.is_by_recipient(_change(source=source)) is told


def test_what_is_signed_is_what_is_sent_and_it_is_ascii() -> None:
    body = events.body([_change(recipient="jörg@example.com")])
    public = KEY.public_key()

    signed = base64.b64decode(events.signature(KEY, "1700000000", body))

    assert body.isascii()
    assert json.loads(body)[0]["recipient"] == "jörg@example.com"
    public.verify(signed, b"1700000000" + body, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify(signed, b"1700000001" + body, ec.ECDSA(hashes.SHA256()))


# --- from a change to a post


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    server = fakeredis.FakeServer()
    with house.opened(server) as found:
        found.accounts.add_sender("acme")
        found.accounts.add_group("acme", "Weekly news", "", 12)
        monkeypatch.setattr(jobs, "_settings", found.settings)
        yield found


def _queued(acme: Installation) -> list[Any]:
    return list(acme.events.rq.get_jobs())


def _posted(acme: Installation) -> int:
    """Run what is queued, as a worker does, and take it out of the queue."""
    done = [job.perform() for job in _queued(acme)]
    acme.events.rq.empty()
    return sum(done)


def test_a_change_is_posted_signed_and_a_repeat_has_the_same_id(acme: Installation, receiver: Receiver) -> None:
    hook = acme.events.configure("acme", receiver.url)
    message = house.decided()
    acme.intake.record([message])
    acme.intake.record([message])  # as after a crash between effect and job's end

    assert _posted(acme) == 2

    (headers, body), (_, again) = receiver.got
    public = load_der_public_key(base64.b64decode(hook.public_key))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    signed = base64.b64decode(headers[events.SIGNATURE_HEADER])
    public.verify(signed, headers[events.TIMESTAMP_HEADER].encode() + body, ec.ECDSA(hashes.SHA256()))
    (event,) = json.loads(body)
    assert (event["email"], event["event"], event["asm_group_id"]) == (JANE.recipient, "group_unsubscribe", 12)
    assert event["sg_event_id"] == message.requests[0].id == json.loads(again)[0]["sg_event_id"]


def test_what_changed_nothing_is_not_told(acme: Installation, receiver: Receiver) -> None:
    acme.events.configure("acme", receiver.url)
    acme.intake.record([house.decided("k1")])
    acme.intake.record([house.decided("k2")])

    assert _posted(acme) == 1


def test_what_operators_and_api_calls_change_is_told_only_if_asked_for(acme: Installation, receiver: Receiver) -> None:
    acme.events.configure("acme", receiver.url)
    by_hand.enter(acme, Action.UNSUBSCRIBE, "acme", 12, ["a@example.com"], actor="ops", reason="asked by phone")
    assert _queued(acme) == []

    acme.events.configure("acme", receiver.url, every=True)
    by_hand.enter(acme, Action.RESUBSCRIBE, "acme", 12, ["a@example.com"], actor="ops", reason="came back")
    assert _posted(acme) == 1
    assert json.loads(receiver.got[0][1])[0]["event"] == "group_resubscribe"


@pytest.mark.parametrize("status", [301, 302, 400, 404, 429, 500, 503])
def test_anything_but_2xx_is_tried_again_and_a_redirect_is_not_followed(
    acme: Installation, receiver: Receiver, status: int
) -> None:
    acme.events.configure("acme", receiver.url)
    acme.intake.record([house.decided()])
    receiver.status = status
    (job,) = _queued(acme)

    with pytest.raises(Unavailable, match=f"answered {status}, expected 2xx") as failure:
        job.perform()

    assert JANE.recipient not in str(failure.value)
    assert len(receiver.got) == 1
    assert job.retries_left == 31
    assert sum(job.retry_intervals) > 24 * 3600


def test_a_receiver_that_is_away_is_tried_again(acme: Installation, receiver: Receiver) -> None:
    acme.events.configure("acme", receiver.url)
    acme.intake.record([house.decided()])
    receiver.server_close()
    (job,) = _queued(acme)

    with pytest.raises(Unavailable, match="events of acme: ConnectError"):
        job.perform()


def test_an_answer_that_takes_too_long_as_a_whole_ends(receiver: Receiver) -> None:
    receiver.wait_s = 1.0
    with httpx2.Client(timeout=30, trust_env=False) as client:
        request = client.build_request("POST", receiver.url, content=b"[]")
        with pytest.raises(Unavailable, match="no whole answer, expected one"):
            called(client, request, "acme", within_s=0.1)


def test_who_was_forgotten_meanwhile_is_told_to_nobody(acme: Installation, receiver: Receiver) -> None:
    acme.events.configure("acme", receiver.url)
    acme.intake.record([house.decided("k1"), house.decided("k2", recipient="joe@example.com")])

    forget.forget(acme, JANE.recipient)

    assert JANE.recipient not in str([job.kwargs for job in _queued(acme)])
    assert _posted(acme) == 1
    assert [each["email"] for each in json.loads(receiver.got[0][1])] == ["joe@example.com"]


def test_off_means_nothing_more(acme: Installation, receiver: Receiver) -> None:
    acme.events.configure("acme", receiver.url)
    acme.intake.record([house.decided("k1")])

    assert acme.events.remove("acme")
    acme.intake.record([house.decided("k2", recipient="joe@example.com")])

    assert _posted(acme) == 0
    assert receiver.got == []
    assert not acme.events.remove("acme")


def test_a_new_url_keeps_the_key(acme: Installation) -> None:
    first = acme.events.configure("acme", "https://acme.example/events")

    assert acme.events.configure("acme", "https://acme.example/other", every=True).public_key == first.public_key


def test_the_private_key_is_sealed_in_redis(acme: Installation) -> None:
    hook = acme.events.configure("acme", "https://acme.example/events")
    kept = acme.redis.hgetall("unsubd:event-hooks")[b"acme"]

    number = hook.key.private_numbers().private_value.to_bytes(32)
    assert number.hex().encode() not in kept
    assert base64.b64encode(number)[:40] not in kept


@pytest.mark.parametrize(
    "url", ["", "http://acme.example/", "ftp://acme.example/", "https://", "file:///etc/passwd", "x"]
)
def test_a_url_that_is_not_https_is_refused(acme: Installation, url: str) -> None:
    with pytest.raises(Rejected, match="expected https://"):
        acme.events.configure("acme", url)
