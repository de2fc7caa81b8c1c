"""Deliveries: what names one, and that one is known only once somebody remembered it."""

import json
from collections.abc import Iterator
from unittest.mock import patch

import fakeredis
import pytest

from handlers.errors import PayloadInvalid
from handlers.providers.delivery import Delivery, signed_delivery
from tests.harness import posts
from tests.harness import sns as aws
from worker import deliveries
from worker.deliveries import Deliveries

FORM = {name.lower(): [value] for name, value in posts.URLENCODED.items()}
ONE = Delivery("token", "aa" * 32, 3600)
OTHER = Delivery("token", "bb" * 32, 3600)


@pytest.fixture
def redis() -> Iterator[fakeredis.FakeRedis]:
    with fakeredis.FakeRedis() as client:
        yield client


def test_a_delivery_is_known_once_it_was_remembered_and_to_its_source_only(redis: fakeredis.FakeRedis) -> None:
    known = Deliveries(redis)
    before = known.is_known("mailgun:a", ONE)
    known.remember("mailgun:a", ONE)

    assert (before, known.is_known("mailgun:a", ONE), known.is_known("mailgun:b", ONE)) == (False, True, False)


def test_another_content_under_a_name_is_refused_and_the_first_stays(redis: fakeredis.FakeRedis) -> None:
    known = Deliveries(redis)
    known.remember("mailgun:a", ONE)
    known.remember("mailgun:a", OTHER)

    with pytest.raises(PayloadInvalid, match="another body"):
        known.is_known("mailgun:a", OTHER)
    assert known.is_known("mailgun:a", ONE)


@pytest.mark.parametrize(("later_s", "known"), [(0, True), (3600, True), (7200, False)])
def test_a_delivery_is_known_for_its_window_at_least(redis: fakeredis.FakeRedis, later_s: int, known: bool) -> None:
    memory = Deliveries(redis)
    with patch("worker.deliveries.time.time", return_value=7200.0 * 1000):
        memory.remember("mailgun:a", ONE)
    with patch("worker.deliveries.time.time", return_value=7200.0 * 1000 + later_s):
        assert memory.is_known("mailgun:a", ONE) is known


def test_the_memory_is_bounded_in_number_and_in_time(redis: fakeredis.FakeRedis) -> None:
    memory = Deliveries(redis)
    with patch.object(deliveries, "_KEPT_COUNT", 2):
        for number in range(4):
            memory.remember("mailgun:a", Delivery(str(number), "aa" * 32, 3600))

    [key] = redis.keys()
    assert redis.hlen(key) == 2
    assert 0 < redis.ttl(key) <= 7200


def test_mailguns_token_names_a_delivery_whatever_the_body_is() -> None:
    first = posts.mailgun(recipient="a@b", body_mime="x")
    other = first.replace(b"a%40b", b"c%40d")
    one, two = (signed_delivery("mailgun", FORM, body) for body in (first, other))

    assert one is not None
    assert two is not None
    assert (one.name, one.kept_s) == (two.name, 32 * 3600)
    assert one.content != two.content


@pytest.mark.parametrize(("provider", "header"), [("relay", "webhook-id"), ("resend", "svix-id")])
def test_where_the_signature_covers_the_body_another_body_is_another_delivery(provider: str, header: str) -> None:
    named = {header: ["msg_1"]}
    one, same, two = (signed_delivery(provider, named, body) for body in (b"a", b"a", b"b"))

    assert one is not None
    assert two is not None
    assert (one == same, one.name == two.name) == (True, False)


def test_one_body_for_two_recipients_is_two_deliveries() -> None:
    one, two = (signed_delivery("relay", {"webhook-id": ["1"], "x-envelope-to": [to]}, b"a") for to in ("a@b", "c@d"))

    assert one is not None
    assert two is not None
    assert one.name != two.name


def test_sns_names_a_delivery_by_its_message_id() -> None:
    envelope = aws.envelope(aws.received("a@b"))
    one = signed_delivery("ses", {}, json.dumps(envelope).encode())
    again = signed_delivery("ses", {}, json.dumps(envelope | {"Signature": "anew"}).encode())

    assert one is not None
    assert one == again


@pytest.mark.parametrize(("provider", "headers"), [("sendgrid", {}), ("relay", {})])
def test_what_no_signature_names_is_no_delivery(provider: str, headers: dict[str, list[str]]) -> None:
    assert signed_delivery(provider, headers, b"a") is None
