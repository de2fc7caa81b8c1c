"""UNSUBD_MIN_REPLICAS: what a person, a program or a provider is told is kept, the replicas have. WAIT is answered here."""

from collections.abc import Callable, Iterator
from typing import Any

import fakeredis
import pytest
from redis.client import Pipeline

from handlers.errors import StoreUnavailable, Unavailable
from handlers.request import Action, Effect
from handlers.route import Route
from handlers.sender_source import Kind, SenderSource
from handlers.tag import Keyring, Minted, Tag
from tests.unit.house import JANE, client, decided, mail, opened
from worker import by_hand, imports, keys
from worker.accounts.tracking import change_tracking
from worker.clock import hours
from worker.forwarding import Target
from worker.hooks import Hook
from worker.imports import Import
from worker.installation import Installation
from worker.mta.map import Routes
from worker.store import format as store_format
from worker.store.growth import RAISE
from worker.store.ledger import result_of

MASTER = b"m" * 32
MINTED = Minted("h", "u+h@unsub.example.com", True, "a" * 26), Tag("acme", 12, JANE.recipient)
SOURCE = SenderSource("acme", Kind.CIVICRM, "u.{job}.{queue}.{token}@unsub.example.com")
TARGET = Target("far", "acme", "sendgrid", "s3cret", {12: "999"})
TOKENS = ["a-long-token,jane@example.com"]
ADDITION = {"id": "1", "action": "honour", "actor": "ops", "at_ms": 1, "reason": "", "requests": []}


class Confirming:
    """How many replicas confirm each write, from now on."""

    count = 1


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Confirming:
    found, execute = Confirming(), Pipeline.execute_command

    def answered(pipeline: Any, *command: Any, **options: Any) -> Any:
        return execute(pipeline, *(("ECHO", found.count) if command[0] == "WAIT" else command), **options)

    monkeypatch.setattr(Pipeline, "execute_command", answered)
    return found


@pytest.fixture
def house(replicas: Confirming) -> Iterator[Installation]:
    """One that has something of everything that can be changed or taken away."""
    with opened(fakeredis.FakeServer(), min_replicas="1") as found:
        found.accounts.add_sender("acme")
        found.accounts.add_group("acme", "Weekly news", "", 12)
        found.hooks.add(Hook("relay", "eu", ("bearer:s3cret",)))
        found.events.configure("acme", "https://acme.example/events")
        found.forwards.add(TARGET)
        found.intake.sender_sources.add(SOURCE)
        found.intake.sender_sources.import_tokens("acme", 12, TOKENS)
        found.tags.keep([MINTED])
        _routes(found).add("port:2525", Route("acme", 12, discard=False))
        found.store_redis.sadd("unsubd:masters", "lost")
        found.ledger.write([(decided("first"), [])])
        yield found


def _routes(house: Installation) -> Routes:
    return Routes(house.redis, min_replicas=house.settings.min_replicas)


def _written(house: Installation) -> object:
    (wish,) = decided().requests
    return house.ledger.write([(decided(), [result_of(Effect.ADDED, "acme", 12, wish.recipient, wish.id)])])


def _revoke(house: Installation) -> object:
    house.redis.hset("unsubd:api-keys", "0123456789abcdef", '{"sender": "acme", "created_ms": 1}')
    return house.accounts.keys.revoke("acme", "0123456789ab")


WRITES: dict[str, Callable[[Installation], object]] = {
    "a suppression": lambda house: by_hand.enter(
        house, Action.UNSUBSCRIBE, "acme", 12, [JANE.recipient], actor="ops", reason="she asked"
    ),
    "a split": lambda house: house.store._buckets._growth._send_kept([RAISE("unsubd:buckets:{acme}", 2)]),
    "the store's format": lambda house: store_format.enter(client(fakeredis.FakeServer()), list, min_replicas=1),
    "a mail": lambda house: house.intake.accept([mail()]),
    "a record": _written,
    "a pointer": lambda house: house.ledger.refer([(decided("first"), decided("first", recipient="ann@example.com"))]),
    "what a person made of it": lambda house: house.ledger.append([(decided("first"), ADDITION)]),
    "a sender": lambda house: house.accounts.add_sender("beta"),
    "a change of a sender": lambda house: house.accounts.edit_sender("acme", name="Acme"),
    "a group": lambda house: house.accounts.add_group("acme", "Offers"),
    "a change of a group": lambda house: house.accounts.edit_group("acme", 12, archived=True),
    "an API key": lambda house: house.accounts.new_api_key("acme"),
    "an API key's end": _revoke,
    "a look": lambda house: house.looks.change("acme", colour="#123456"),
    "a tracking setting": lambda house: change_tracking(house.redis, "acme", {"enabled": True}, min_replicas=1),
    "an endpoint": lambda house: house.hooks.add(Hook("relay", "us", ("bearer:s3cret",))),
    "an endpoint's end": lambda house: house.hooks.remove("relay", "eu"),
    "where events go": lambda house: house.events.configure("acme", "https://acme.example/more"),
    "the end of events": lambda house: house.events.remove("acme"),
    "a target": lambda house: house.forwards.add(TARGET),
    "a target's end": lambda house: house.forwards.remove("far"),
    "a source": lambda house: house.intake.sender_sources.add(SOURCE),
    "a source's end": lambda house: house.intake.sender_sources.remove("acme", SOURCE.id),
    "a table": lambda house: house.intake.sender_sources.import_tokens("acme", 12, TOKENS),
    "known recipients": lambda house: house.intake.sender_sources.import_known("acme", ["jane@example.com"]),
    "a route": lambda house: _routes(house).add("port:2526", Route("acme", 12, discard=False)),
    "a route's end": lambda house: _routes(house).remove("port:2525"),
    "a stored tag": lambda house: house.tags.keep([MINTED]),
    "a list": lambda house: imports.Imports(house.redis, min_replicas=1).keep(
        Import("00" * 8, "acme", 12, "list", "", "", "ops", 1)
    ),
    "a retired master key": lambda house: keys.retire(house.store_redis, "lost", min_replicas=1),
    "the pseudonym key": lambda _: keys.pseudonym_key(
        client(fakeredis.FakeServer()), Keyring((MASTER,)), min_replicas=1
    ),
    "a forgotten recipient's rows": lambda house: house.store.forget(JANE.recipient, ["acme"]),
    "a forgotten recipient's tags": lambda house: house.tags.forget(JANE.recipient, house.names),
    "a forgotten recipient's tokens": lambda house: house.intake.sender_sources.forget(JANE.recipient, house.names),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_what_no_replica_has_is_not_said_to_be_kept(
    house: Installation, replicas: Confirming, write: Callable[[Installation], object]
) -> None:
    replicas.count = 0

    with pytest.raises(Unavailable, match="of 1 replicas confirmed"):
        write(house)


def test_a_record_that_no_replica_confirmed_is_counted_once(
    house: Installation, replicas: Confirming, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = type(house.store).apply

    def lose_the_replica(*args: Any) -> list[Effect]:
        effects, replicas.count = apply(*args), 0
        return effects

    monkeypatch.setattr(type(house.store), "apply", lose_the_replica)
    with pytest.raises(StoreUnavailable, match="of 1 replicas confirmed"):
        house.intake.record([decided()])
    monkeypatch.setattr(type(house.store), "apply", apply)
    replicas.count = 1
    house.intake.record([decided()])

    assert hours(house.redis, 1)[0].honoured == 1
