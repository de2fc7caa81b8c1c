"""What providers tell of their own lists: proved, read, recorded, and not told back."""

import base64
import hmac
import json
import random
import re
import time
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handlers import events
from handlers.errors import PayloadInvalid, SignatureInvalid, Unavailable
from handlers.forwarding import mailgun, postmark, sendgrid
from handlers.forwarding.told import Told
from handlers.request import Action, Request, request_id
from tests.harness.far_side import KEY, FarSide, far_side
from tests.unit import house
from worker import by_hand
from worker.forwarding import Target
from worker.forwarding.heard import hear
from worker.installation import Installation

NOW = 1_760_000_000
SIGNER = ec.generate_private_key(ec.SECP256R1())
PUBLIC = base64.b64encode(SIGNER.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


# --- proofs


def _sendgrid(body: bytes) -> dict[str, list[str]]:
    signed = events.signature(SIGNER, str(NOW), body)
    return {events.SIGNATURE_HEADER.lower(): [signed], events.TIMESTAMP_HEADER.lower(): [str(NOW)]}


def _mailgun(**event: Any) -> bytes:
    signature = hmac.digest(b"signing", f"{NOW}token".encode(), sha256).hex()
    return json.dumps(
        {"signature": {"timestamp": str(NOW), "token": "token", "signature": signature}, "event-data": event}
    ).encode()


def test_sendgrid_signature() -> None:
    body = b'[{"event":"unsubscribe"}]'

    sendgrid.verify_told(_sendgrid(body), body, [PUBLIC], NOW + 60)
    for wrong in (body + b" ", b""):
        with pytest.raises(SignatureInvalid):
            sendgrid.verify_told(_sendgrid(body), wrong, [PUBLIC], NOW + 60)
    with pytest.raises(SignatureInvalid):
        sendgrid.verify_told(_sendgrid(body), body, [PUBLIC], NOW + 30 * 86400)


def test_mailgun_signature() -> None:
    mailgun.verify_told({}, _mailgun(), ["signing"], NOW + 60)
    for proofs, body, now in [
        (["other"], _mailgun(), NOW), ([""], _mailgun(), NOW), ([], _mailgun(), NOW), (["signing"], _mailgun(), NOW + 86400),
        (["signing"], _mailgun().replace(b"token", b"toke2"), NOW), (["signing"], b"{}", NOW), (["signing"], b"[", NOW),
        (["signing"], _mailgun().replace(b': "token"', b': "\\ud800"'), NOW),
        (["signing"], re.sub(b'"signature": "[0-9a-f]+"', rb'"signature": "\\\\ud800"', _mailgun()), NOW),
    ]:  # fmt: skip
        with pytest.raises((SignatureInvalid, PayloadInvalid)):
            mailgun.verify_told({}, body, proofs, now)


def test_postmark_proof() -> None:
    good = "Basic " + base64.b64encode(b"u:p").decode()

    postmark.verify_told({"authorization": [good]}, b"{}", ["basic:u:p"], NOW)
    with pytest.raises(SignatureInvalid):
        postmark.verify_told({"authorization": [good + "="]}, b"{}", ["basic:u:q"], NOW)


# --- what is read


def test_sendgrid_events() -> None:
    row = {"email": "a@example.com", "timestamp": NOW, "sg_event_id": "e"}
    body = json.dumps([
        row | {"event": "unsubscribe"}, row | {"event": "group_unsubscribe", "asm_group_id": 103},
        row | {"event": "group_resubscribe", "asm_group_id": 103}, row | {"event": "spamreport"},
        row | {"event": "delivered"}, row | {"event": "unsubscribe", "email": 5},
        row | {"event": "unsubscribe", "timestamp": "x"},
        {"event": "unsubscribe"}, "text", None, [],
    ])  # fmt: skip

    assert [(each.place, each.action) for each in sendgrid.told(body.encode())] == [
        ("", Action.UNSUBSCRIBE), ("103", Action.UNSUBSCRIBE), ("103", Action.RESUBSCRIBE), ("", Action.COMPLAINT),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("group", "places"),
    [
        (103, ["103", "103"]),
        ("103", ["103", "103"]),
        (" 103 ", ["103", "103"]),
        (True, [""]),
        (None, [""]),
        ("x", [""]),
    ],
)
def test_of_a_group_that_cannot_be_read_only_leaving_counts(group: Any, places: list[str]) -> None:
    """Taking it for everything would lift a global unsubscribe, and mail of every group would go on."""
    row = {"email": "a@example.com", "timestamp": NOW, "sg_event_id": "e", "asm_group_id": group}
    posted = [row | {"event": f"group_{verb}subscribe"} for verb in ("un", "re")]

    assert [each.place for each in sendgrid.told(json.dumps(posted).encode())] == places


@pytest.mark.parametrize("at_s", ["1e999", "-1e999", "NaN", "null", '"now"'])
def test_a_time_that_is_none_leaves_the_event_out(at_s: str) -> None:
    posted = f'{{"email": "a@example.com", "timestamp": {at_s}, "event": "unsubscribe", "sg_event_id": "e", '
    posted += '"recipient": "a@example.com", "id": "e"}'

    assert sendgrid.told(f"[{posted}]".encode()) == []
    assert mailgun.told(f'{{"event-data": {posted.replace("unsubscribe", "unsubscribed")}}}'.encode()) == []


def test_mailgun_event() -> None:
    found = mailgun.told(
        _mailgun(event="unsubscribed", recipient="a@example.com", timestamp=NOW + 0.5, id="e", tags=["news"])
    )

    assert found == [Told("e", "a@example.com", "news", Action.UNSUBSCRIBE, NOW * 1000 + 500)]
    assert mailgun.told(_mailgun(event="opened", recipient="a@example.com", timestamp=NOW, id="e")) == []
    assert mailgun.told(_mailgun(event="complained", recipient="a@example.com", timestamp=NOW, id="e"))[0].place == ""


@pytest.mark.parametrize(
    ("change", "action"),
    [
        ({}, Action.UNSUBSCRIBE), ({"SuppressSending": False}, Action.RESUBSCRIBE),
        ({"SuppressionReason": "SpamComplaint"}, Action.COMPLAINT), ({"SuppressionReason": "HardBounce"}, None),
        ({"RecordType": "Bounce"}, None), ({"Recipient": 7}, None),
    ],
)  # fmt: skip
def test_postmark_change(change: dict[str, Any], action: Action | None) -> None:
    post = {"RecordType": "SubscriptionChange", "SuppressSending": True,
            "Recipient": "a@example.com", "MessageStream": "broadcast",
            "ChangedAt": "2025-10-09T08:53:20Z", "SuppressionReason": "ManualSuppression"} | change  # fmt: skip

    found = postmark.told(json.dumps(post).encode())

    assert [each.action for each in found] == ([action] if action else [])


@pytest.mark.parametrize("read", [sendgrid.told, mailgun.told, postmark.told])
@pytest.mark.parametrize("body", [b"", b"{", b"7", b'"x"', b"null", b"[" * 50_000, b"\xff"])
def test_what_is_no_event_is_refused(read: Any, body: bytes) -> None:
    with pytest.raises(PayloadInvalid):
        read(body)


# --- what becomes of it


def _target(acme: Installation, url: str = "http://127.0.0.1:1") -> Target:
    return acme.forwards.add(Target("", "acme", "sendgrid", KEY, {12: "103"}, "", url, PUBLIC))


def _told(event_id: str = "e1", place: str = "103", action: Action = Action.UNSUBSCRIBE, at_ms: int = 0) -> Told:
    return Told(event_id, "Jane@Example.com", place, action, at_ms or house.now_ms() - 1000)


def _suppressed(acme: Installation, group: int = 12) -> bool:
    (row,) = acme.store.rows([("acme", group, "jane@example.com")])
    return bool(row and row.suppressed)


def test_a_change_is_recorded_once_and_not_told_back(acme: Installation) -> None:
    target, told = _target(acme), _told()

    assert hear(acme, target, [told]) == hear(acme, target, [told]) == 1

    assert _suppressed(acme)
    assert acme.events.rq.get_jobs() == []
    assert [record["source"] for _, record in acme.ledger.records()] == ["provider:acme-sendgrid"]


def test_everything_is_group_0_and_another_list_is_none_of_ours(acme: Installation) -> None:
    target = _target(acme)

    assert hear(acme, target, [_told(place="")]) == 1
    assert hear(acme, target, [_told("e2", place="999")]) == 0

    assert (_suppressed(acme, 0), _suppressed(acme, 12)) == (True, False)


def test_what_is_no_address_is_left_out(acme: Installation) -> None:
    assert hear(acme, _target(acme), [Told("e", "nobody", "103", Action.UNSUBSCRIBE, 1)]) == 0


@pytest.mark.parametrize("told", [_told("\ud800"), _told(at_ms=-(10**30)), _told(at_ms=10**30)])
def test_an_odd_id_or_time_is_no_reason_to_come_again_for_ever(told: Told, acme: Installation) -> None:
    assert hear(acme, _target(acme), [told]) == 1

    assert _suppressed(acme)
    assert [record["outcome"] for _, record in acme.ledger.records()] == ["honour"]


def test_who_may_not_lift_a_held_row_there_is_stopped_there_again(acme: Installation, far: FarSide) -> None:
    target = _target(acme, far.url)
    by_hand.enter(acme, Action.UNSUBSCRIBE, "acme", 12, ["jane@example.com"], actor="ops", reason="asked by phone")
    _drain(acme)

    far.lists["103"].clear()
    hear(acme, target, [_told(action=Action.RESUBSCRIBE, at_ms=house.now_ms() + 60_000)])
    _drain(acme)

    assert _suppressed(acme)
    assert far.lists["103"] == {"jane@example.com"}


def _by_mail(acme: Installation, at_ms: int, group: int = 12) -> None:
    """An unsubscribe of the recipient's own, which holds nothing."""
    action, key = Action.UNSUBSCRIBE, f"mail {at_ms} {group}"
    wish = Request(request_id(key, "acme", group, "jane@example.com", action), action, "acme", group, "jane@example.com",
                   at_ms, "imap:INBOX", key)  # fmt: skip
    acme.intake.record([house.decided(key, requests=(wish,))])


def test_who_comes_back_there_is_lifted_here_and_no_call_is_made(acme: Installation, far: FarSide) -> None:
    target, now_ms = _target(acme, far.url), house.now_ms()
    _by_mail(acme, now_ms - 60_000)
    for job in acme.events.rq.get_jobs():
        job.delete()  # it was told long ago: a call of the last 5 s would be one that crosses

    back = _told(action=Action.RESUBSCRIBE, at_ms=now_ms + 60_000)  # its clock is ahead: counts as now
    hear(acme, target, [back])
    hear(acme, target, [back])
    _drain(acme)

    assert not _suppressed(acme)
    assert far.calls == []


def test_an_unsubscribe_that_crosses_the_way_back_wins_whichever_is_heard_first(acme: Installation) -> None:
    """He came back there 40 minutes ago and left by mail 20 minutes later: what is told late must not undo that."""
    target, now_ms = _target(acme), house.now_ms()
    back = _told(action=Action.RESUBSCRIBE, at_ms=now_ms - 40 * 60_000)

    _by_mail(acme, now_ms - 60 * 60_000)
    hear(acme, target, [back])
    assert not _suppressed(acme)
    _by_mail(acme, now_ms - 20 * 60_000)  # far more than the 10 minutes that lean towards it before our own clock's now
    assert _suppressed(acme)

    hear(acme, target, [replace(back, id="told late"), back])
    assert _suppressed(acme)


def test_who_comes_back_there_lifts_one_place_and_nothing_that_is_held(acme: Installation, far: FarSide) -> None:
    target, now_ms = _target(acme, far.url), house.now_ms()
    _by_mail(acme, now_ms - 60_000, group=0)
    _by_mail(acme, now_ms - 60_000)
    hear(acme, target, [_told("complained", "103", Action.COMPLAINT, now_ms - 50_000)])

    hear(acme, target, [_told(action=Action.RESUBSCRIBE, at_ms=now_ms - 10_000)])
    _drain(acme)

    assert (_suppressed(acme, 0), _suppressed(acme)) == (True, True)
    assert far.lists["103"] == {"jane@example.com"}


def test_a_stream_that_somebody_came_back_to_is_stopped_again_by_what_stops_everything(acme: Installation) -> None:
    with far_side("postmark") as far:
        target, now_ms = (
            acme.forwards.add(Target("", "acme", "postmark", KEY, {12: "broadcast"}, "", far.url)),
            house.now_ms(),
        )
        for group in (0, 12):
            _by_mail(acme, now_ms - 60_000, group)
        _drain(acme)
        far.lists["broadcast"].clear()

        hear(acme, target, [_told(place="broadcast", action=Action.RESUBSCRIBE, at_ms=house.now_ms() + 60_000)])
        _drain(acme)

        assert (_suppressed(acme, 0), _suppressed(acme)) == (True, False)
        assert far.lists["broadcast"] == {"jane@example.com"}


@pytest.mark.parametrize("seed", [1, 11])
def test_both_sides_change_at_once_and_end_equal(seed: int, acme: Installation, far: FarSide) -> None:
    """Changes there are told late and out of order; ours are written late; a third of the calls fail."""
    target, dice = _target(acme, far.url), random.Random(seed)
    names, late = [f"r{number}@example.com" for number in range(6)], []
    far.fails = 0.17
    for number in range(50):
        who, stops = dice.choice(names), dice.random() < 0.6
        if dice.random() < 0.5:
            action = Action.UNSUBSCRIBE if stops else Action.RESUBSCRIBE
            by_hand.enter(acme, action, "acme", 12, [who], actor="ops", reason="a test")
        else:
            with far.lock:
                changed = (who in far.lists.setdefault("103", set())) is not stops
                far._change("103", [who] if stops else [], [] if stops else [who])
            action = Action.UNSUBSCRIBE if stops else Action.RESUBSCRIBE
            late += [Told(f"e{number}", who, "103", action, int(time.time()) * 1000)] if changed else []
        if dice.random() < 0.3:
            _run(acme)
        if late and dice.random() < 0.4:
            hear(acme, target, [late.pop(dice.randrange(len(late)))])
    far.fails = 0.0

    dice.shuffle(late)
    hear(acme, target, late)
    _drain(acme)

    here = {name for name, _ in acme.store.listed("acme", 12) if name}
    assert far.lists["103"] == here


def _run(acme: Installation) -> None:
    for job in acme.events.rq.get_jobs():
        try:
            job.perform()
        except Unavailable:
            continue
        job.delete()


def _drain(acme: Installation) -> None:
    for _ in range(200):
        _run(acme)
        if not acme.events.rq.get_jobs():
            return
    raise AssertionError("never done")
