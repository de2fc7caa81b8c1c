"""`/in/{provider}-events/{target}` over HTTP: each provider's code for what is taken, unproved, unreadable, or for later."""

import base64
import hmac
import json
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handlers import events
from handlers.errors import StoreUnavailable
from tests.harness.far_side import KEY
from tests.harness.web import Web, serving
from worker.forwarding import Target

SIGNER = ec.generate_private_key(ec.SECP256R1())
PUBLIC = base64.b64encode(SIGNER.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


@pytest.fixture
def web(tmp_path: Path, redis_url: str) -> Iterator[Web]:
    with serving(tmp_path, redis_url) as running:
        running.installation.accounts.add_sender("acme")
        running.installation.accounts.add_group("acme", "Weekly news", "", 12)
        running.installation.forwards.add(
            Target("", "acme", "sendgrid", KEY, {12: "103"}, "", "http://127.0.0.1:1", PUBLIC)
        )
        running.installation.forwards.add(Target("quiet", "acme", "sendgrid", KEY, {}, "", "http://127.0.0.1:1"))
        yield running


def _event(**more: object) -> bytes:
    event = {"email": "a@example.com", "timestamp": int(time.time()), "event": "group_unsubscribe", "sg_event_id": "e"}
    return json.dumps([event | {"asm_group_id": 103} | more]).encode()


def _post(web: Web, body: bytes, path: str = "sendgrid-events/acme-sendgrid", signed: bytes | None = None) -> int:
    now = str(int(time.time()))
    headers = {events.TIMESTAMP_HEADER: now, events.SIGNATURE_HEADER: events.signature(SIGNER, now, signed or body)}
    return web.post(f"/in/{path}", body, {"Content-Type": "application/json", **headers}).status


def test_a_signed_event_takes_effect(web: Web) -> None:
    assert _post(web, _event()) == 200

    assert [name for name, _ in web.installation.store.listed("acme", 12)] == ["a@example.com"]
    assert web.installation.events.rq.get_jobs() == []


def test_what_is_not_proved_changes_nothing(web: Web) -> None:
    assert _post(web, _event(), signed=_event(email="b@example.com")) == 503
    assert _post(web, _event(), "sendgrid-events/quiet") == 503
    assert _post(web, _event(), "sendgrid-events/nobody") == 503
    assert _post(web, _event(), "mailgun-events/acme-sendgrid") == 401
    assert _post(web, _event(), "brevo-events/acme-sendgrid") == 404

    assert list(web.installation.store.listed("acme", 12)) == []


def test_a_mailgun_signature_is_good_for_one_body(web: Web) -> None:
    """It does not cover the body: whoever saw one could tell anything of anybody."""
    web.installation.forwards.add(
        Target("mg", "acme", "mailgun", KEY, {}, "mg.example.com", "http://127.0.0.1:1", "signing")
    )
    now = str(int(time.time()))
    signed = {"timestamp": now, "token": "t", "signature": hmac.digest(b"signing", f"{now}t".encode(), sha256).hex()}

    def post(who: str) -> int:
        event = {"event": "unsubscribed", "recipient": who, "timestamp": int(now), "id": who}
        return web.post("/in/mailgun-events/mg", json.dumps({"signature": signed, "event-data": event}).encode()).status

    assert [post("a@example.com"), post("a@example.com"), post("victim@example.com")] == [200, 200, 406]
    assert [name for name, _ in web.installation.store.listed("acme", 0)] == ["a@example.com"]


def test_what_can_never_be_read_is_dropped(web: Web) -> None:
    assert _post(web, b'{"an": "object"}') == 200
    assert _post(web, b"[[[") == 200


def test_a_store_that_is_away_makes_the_provider_come_again(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("UNSUBD_STORE_URL: away")

    monkeypatch.setattr("worker.web.told.hear", away)

    assert _post(web, _event()) == 503
