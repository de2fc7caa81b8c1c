"""The crash matrix: at every point of the path, before and after its effect, the real process is killed with -9 and started
again; then every request has its effect exactly once, and every message is accounted for."""

import base64
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.conftest import _redis_binary, _valkey_binary
from tests.crash.actions import ACTIONS
from tests.crash.buckets import BUCKETS
from tests.crash.house import PLACE, House, doors
from tests.crash.points import MOMENTS, found
from tests.crash.tally import TALLY, Tally
from tests.crash.ways import SIGNER, WAYS, Sent
from tests.harness.dovecot import Dovecot, Mailbox
from tests.harness.redis_server import RedisServer
from worker.installation import Installation
from worker.store import layout

_EFFECT_S = 60.0
EVERY = WAYS | ACTIONS | BUCKETS
_numbers = count(1)


@dataclass(frozen=True)
class Case:
    """One kill."""

    way: str
    part: str
    point: str
    moment: str
    victim: str

    def __str__(self) -> str:
        return f"{self.way}-{self.point}-{self.moment}-{self.part}-{self.victim}"


CASES = [
    Case(name, part, point, moment, victim)
    for name, way in EVERY.items()
    for part, points in way.passes.items()
    for point in points
    for moment in MOMENTS
    for victim in way.victims.get(part, ("self",))
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, dovecot_server: Dovecot) -> Iterator[House]:
    """The queue on Redis, the store on Valkey, every part running."""
    public = SIGNER.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with (
        RedisServer(_redis_binary(), tmp_path_factory.mktemp("queue")) as queue,
        RedisServer(_valkey_binary(), tmp_path_factory.mktemp("store")) as store,
        doors() as outside,
    ):
        built = House(tmp_path_factory.mktemp("matrix"), queue, store, Mailbox(dovecot_server, "matrix"), outside)
        try:
            built.register(base64.b64encode(public).decode())
            built.tend(built.service.is_ready, 60, lambda: "every part runs")
            yield built
        finally:
            built.close()


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Tally:
    """What the closing line tells."""
    return request.config.stash.setdefault(TALLY, Tally())


def test_every_point_of_the_code_is_killed_at() -> None:
    assert set(found()) == {case.point for case in CASES}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_kill_loses_nothing_and_repeats_nothing(house: House, tally: Tally, case: Case) -> None:
    way = EVERY[case.way]
    with house.installation() as installation:
        before = _changes(installation)
    hits = [house.arm(*each) for each in way.first]
    hits.append(house.arm(case.point, case.moment, case.part, case.victim))
    sent = way.send(house, next(_numbers))
    tally.sent.append(sent)
    problems: list[str] = []

    def settled() -> bool:
        with house.installation() as installation:
            changes = _changes(installation) - before
            problems[:] = [*_waiting(house), *_problems(house, installation, sent), *_of_register(changes, sent)]
        return not problems

    try:
        house.tend(sent.come_again, _EFFECT_S, lambda: "its far side hears that it is done")
        house.tend(lambda: all(hit.exists() for hit in hits), _EFFECT_S, lambda: f"{case.point} was not passed")
        house.tend(settled, _EFFECT_S, lambda: problems)
    finally:
        house.disarm()
        house.queue.start()
    tally.kills += len(hits)
    tally.points.add(case.point)


def test_at_the_end_everything_is_accounted_for(house: House, tally: Tally) -> None:
    """All over again, when nothing is killed any more: no late repeat has changed anything."""
    with house.installation() as installation:
        wrong = [problem for sent in tally.sent for problem in _problems(house, installation, sent)]
        records = Counter(key for key, _ in installation.ledger.records())
    many = [f"{times} records of one message" for times in records.values() if times != 1]
    tally.duplicated = len(many) + sum("expected one" in each or "added" in each for each in wrong)
    tally.lost = len(wrong + many) - tally.duplicated

    assert [*wrong, *many] == []


def _waiting(house: House) -> list[str]:
    return [f"waits: {key}" for key in house.stranded()]


def _problems(house: House, installation: Installation, sent: Sent) -> list[str]:
    """Return what is not (yet) as it must be, a line each."""
    records = dict(installation.ledger.records())
    outcomes = {key: records[key]["outcome"] if key in records else "no record" for key in sent.mails}
    wrong = [f"{outcomes[key]}, expected {each}" for key, each in sent.mails.items() if outcomes[key] != each]
    kept = [key[:32] for key, outcome in sent.mails.items() if outcome == "quarantine:bad-tag"]
    wrong += [f"quarantine lacks {key}" for key in set(kept) - installation.quarantine.entries(kept).keys()]
    wrong += [problem for who in sent.who for problem in _of_request(house, installation, who, sent)]
    return [*wrong, *sent.rest()]


def _of_request(house: House, installation: Installation, who: str, sent: Sent) -> Iterator[str]:
    row = installation.store.row("acme", 1, who)
    if not row or not row.suppressed:
        yield "the request has no effect"
    story = installation.ledger.story("acme", [installation.pseudonyms.bare(who)])
    effects = Counter(effect for record in story.values() for _, effect in _requests(record))
    if effects["added"] != 1 or set(effects) - {"added", "already-present"}:
        yield f"effects in the ledger: {dict(effects)}, expected one added"
    if sent.mails and effects.total() != 1:
        yield f"{effects.total()} requests in the ledger, expected one"
    if len(ids := house.events().get(who, Counter())) != 1:
        yield f"{len(ids)} different events heard, expected one"
    if who not in house.doors.far.lists.get(PLACE, ()):
        yield "the provider has not heard of it"


def _requests(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The (id, effect) of a record's requests; a replay tells of its own again, as a resolution."""
    own = [(each["id"], each["effect"]) for each in record["requests"]]
    resolved = [(each["id"], each["effect"]) for made in record.get("resolutions", []) for each in made["requests"]]
    return own + [each for each in resolved if each not in own]


def _changes(installation: Installation) -> int:
    """How often a row of the sender has changed, as its buckets say: the number by group rises with every try."""
    heads: Any = [
        installation.store_redis.hget(key, "") for key in installation.store_redis.scan_iter("unsubd:supp:{acme:*}")
    ]
    return sum(layout.read_head(head).changes for head in heads)


def _of_register(changes: int, sent: Sent) -> list[str]:
    """A repeated message changes its row once; who asks anew, as a one-click does, may move the date of his own row."""
    wanted = len(sent.who) if sent.rows is None else sent.rows
    is_exact = bool(sent.mails) or sent.rows is not None
    is_wrong = changes != wanted if is_exact else changes < wanted
    return [f"{changes} changes of the register, expected {wanted}"] if is_wrong else []
