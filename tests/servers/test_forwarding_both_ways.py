"""Both sides change at once, while calls fail, the provider goes away and comes back, and our workers are killed."""

import base64
import json
import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from redis import Redis

from handlers import events
from tests.harness.far_side import KEY, far_side
from tests.harness.names import NAMES
from tests.harness.sendgrid_client import client
from tests.harness.service import MASTERS, Service, until
from tests.servers.test_forwarding import _kill_events_worker, _names, _there
from worker.store import Store

PLACES = ("global", "103")
ROUNDS, PEOPLE, WITHIN_S = 120, 12, 400


class Provider:
    """A SendGrid that is used as well: its pages change its lists, its events tell us late, twice and in any order."""

    def __init__(self, service: Service, dice: random.Random) -> None:
        self._service, self._dice = service, dice
        self._signer = ec.generate_private_key(ec.SECP256R1())
        self._untold: list[dict[str, Any]] = []
        self._told = 0
        self._stack = ExitStack()
        self.far = self._stack.enter_context(far_side("sendgrid"))
        self.far.fails = 0.17  # before and after: 31 % of the calls

    @property
    def public_key(self) -> str:
        """What its signatures are proved with."""
        found = self._signer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(found).decode()

    def stop(self) -> None:
        """Stop serving, in mid-call. Repeat: safe."""
        self._stack.close()

    def start_again(self) -> None:
        """Serve again, with what was there."""
        self.far = self._stack.enter_context(far_side("sendgrid", self.far))

    def change(self, who: str) -> None:
        """Let somebody leave or come back by the provider's own page; what stops everything has no way back there."""
        place = "103" if self._dice.random() < 0.75 else "global"
        with self.far.lock:
            stops = who not in self.far.lists.setdefault(place, set())
            if not stops and place == "global":
                return
            self.far._change(place, [who] if stops else [], [] if stops else [who])
        kind = "unsubscribe" if place == "global" else "group_unsubscribe" if stops else "group_resubscribe"
        group = {} if place == "global" else {"asm_group_id": int(place)}
        self._told += 1
        event = {"email": who, "timestamp": int(time.time()), "event": kind, "sg_event_id": f"e{self._told}"}
        self._untold.append(event | group)

    def tell(self, *, everything: bool = False) -> None:
        """Post a few events, or all there are; some come twice."""
        self._dice.shuffle(self._untold)
        count = len(self._untold) if everything else self._dice.randrange(len(self._untold) + 1)
        told, self._untold = self._untold[:count], self._untold[count:]
        told += self._dice.sample(told, len(told) // 3)
        for start in range(0, len(told), 5):
            body, now = json.dumps(told[start : start + 5]).encode(), str(int(time.time()))
            signed = {events.TIMESTAMP_HEADER: now, events.SIGNATURE_HEADER: events.signature(self._signer, now, body)}
            post = ("/in/sendgrid-events/acme-sendgrid", body, "application/json")
            assert self._service.post(*post, **{name.replace("-", "_"): value for name, value in signed.items()}) == 200


def _change_here(api: Any, dice: random.Random) -> None:
    """Let a program of the sender suppress or lift, by the API."""
    lists = api.asm.suppressions._("global") if dice.random() < 0.5 else api.asm.groups._("1").suppressions
    who = list(dict.fromkeys(f"r{dice.randrange(PEOPLE)}@example.com" for _ in range(4)))
    if dice.random() < 0.6:
        lists.post({"recipient_emails": who})
    else:
        lists._(who[0]).delete()


def _both_change(provider: Provider, api: Any, dice: random.Random, redis: Redis) -> None:
    """Rounds of changes on either side, with three kills of our worker and three absences of the provider."""
    for number in range(ROUNDS):
        if dice.random() < 0.5:
            _change_here(api, dice)
        else:
            provider.change(f"r{dice.randrange(PEOPLE)}@example.com")
        if dice.random() < 0.4:
            provider.tell()
        if number % 40 == 10:
            _kill_events_worker(redis)
        if number % 40 == 20:
            provider.stop()
        if number % 40 == 30:
            provider.start_again()
        time.sleep(0.1)


@pytest.mark.fault
@pytest.mark.timeout(600)
def test_both_sides_end_equal_though_both_change_and_everything_dies(tmp_path: Path, redis_url: str) -> None:
    """Each run has another seed."""
    seed = random.SystemRandom().randrange(1 << 31)
    dice, service = random.Random(seed), Service(tmp_path, redis_url=redis_url, secret_keys=",".join(MASTERS))
    service.last_line("sender", "add", "acme")
    assert service.last_line("group", "add", "acme", "Weekly news") == "1"
    provider = Provider(service, dice)
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "proof").write_text(provider.public_key)
    with ExitStack() as stack, Redis.from_url(redis_url) as redis:
        stack.callback(provider.stop)
        service.last_line("forward", "add", "acme", "sendgrid", "--key-file", str(tmp_path / "key"), "--group", "1=103",
                          "--base", provider.far.url, "--told-by-file", str(tmp_path / "proof"))  # fmt: skip
        stack.enter_context(service.running("run"))
        _both_change(provider, client(service.port, service.last_line("sender", "key", "acme")), dice, redis)
        provider.far.fails = 0.0
        provider.tell(everything=True)
        store = Store(redis, NAMES)

        def equal() -> bool:
            return _there(provider.far, PLACES) == [_names(store, 0), _names(store, 1)]

        until(equal, WITHIN_S, f"equality with seed {seed}")
        time.sleep(3)
        assert equal(), seed
        assert any(_there(provider.far, PLACES)), seed
