"""What RQ runs to make a provider's lists equal. The function's dotted name and its arguments are wire format."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2

from handlers.errors import ConfigError, Unavailable, UnsubdError
from handlers.forwarding import PACE_S, forwarder
from handlers.forwarding.call import Call
from handlers.tag import is_forgotten
from worker import jobs
from worker.batch import require_known
from worker.calls import called
from worker.check import check
from worker.forwarding import Target, owing
from worker.forwarding.sigv4 import SigV4
from worker.installation import Installation, open_installation
from worker.points import point

_WAIT_S = 20.0
_ROUNDS = 5  # so often the register may change under our hands; then the change's own job goes on


def forward(target: str, batch: list[dict[str, Any]], owed: str = "", version: int = 1) -> int:
    """Make *target* equal to the register for the recipients of *batch*; return for how many calls said so.

    Shape:   a recipient who was forgotten meanwhile is left out: the address is gone. owed: the job's entry in `owing`.
    Errors:  Unavailable  the provider did not take a call: RQ tries again, at intervals that grow to an hour.    temporary
             ConfigError  only a newer program reads this version: tried again as long.
    Repeat:  safe: who is known to be equal is not called for.
    """
    require_known(version)
    with open_installation(jobs.settings_of_process(), forked=True) as installation:
        found = installation.forwards.find(target)
        if found is None:
            return 0
        by_group: dict[int, list[str]] = {}
        for each in batch:
            if each["group"] in found.places and not is_forgotten(each["recipient"]):
                by_group.setdefault(each["group"], []).append(each["recipient"])
        with (
            installation.forwards.alone(found) as renew,
            _failures_told(installation, target),
            _client(found) as client,
        ):
            told = sum(
                _Place(installation, found, client, renew, group).equalize(who) for group, who in by_group.items()
            )
        owing.settle(installation.redis, target, owed)
        installation.intake.clock.forwarded(target, [each["at_ms"] for each in batch if "at_ms" in each])
        installation.journal.service("forwarded", target=target, recipients=told)
    return told


@contextmanager
def _failures_told(installation: Installation, target: str) -> Iterator[None]:
    """Let ops see why a try failed, before RQ tries again."""
    try:
        yield
    except (UnsubdError, ConfigError) as error:
        owing.failed(installation.redis, target, str(error))  # names no address
        raise
    except Exception as error:
        owing.failed(installation.redis, target, f"{target}: {type(error).__name__}")
        raise


def _client(target: Target) -> httpx2.Client:
    headers = {**forwarder(target.provider).headers(target.secret), "Accept-Encoding": "identity"}
    auth = SigV4(target.secret, target.base) if target.provider == "ses" else None
    return httpx2.Client(
        base_url=target.base, headers=headers, auth=auth, timeout=_WAIT_S, follow_redirects=False, trust_env=False
    )


class _Place:
    """One group's place at a target."""

    def __init__(
        self, installation: Installation, target: Target, client: httpx2.Client, renew: Callable[[], None], group: int
    ) -> None:
        self._installation = installation
        self._target = target
        self._client = client
        self._renew = renew
        self._group = group
        self._place = target.places[group]
        self._module = forwarder(target.provider)

    def equalize(self, recipients: Sequence[str]) -> int:
        """Make them equal, and again what changed meanwhile; return how many recipients were called for."""
        told = 0
        for _ in range(_ROUNDS):
            unequal = self._unequal(recipients)
            if not unequal:
                break
            if not told and (look := self._module.look(self._target.account, self._place)):
                self._say(look)
            self._make_equal(unequal)
            told += len(unequal)
        return told

    def _unequal(self, recipients: Sequence[str]) -> dict[str, bool]:
        """Return who is not known to be at the far side what he is here, and what he is here."""
        wanted = self._wanted(recipients)
        known = self._installation.forwards.known(self._target, [self._keyed(each) for each in recipients])
        return {each: wanted[each] for each, there in zip(recipients, known, strict=True) if there is not wanted[each]}

    def _wanted(self, recipients: Sequence[str]) -> dict[str, bool]:
        sender = self._target.sender
        if not self._target.has_global:  # each of its places must know what stops everything
            answers = check(self._installation, sender, self._group, list(recipients))
            return {each: answer.suppressed for each, answer in zip(recipients, answers, strict=True)}
        rows = self._installation.store.rows([(sender, self._group, each) for each in recipients])
        return {each: bool(row and row.suppressed) for each, row in zip(recipients, rows, strict=True)}

    def _make_equal(self, unequal: dict[str, bool]) -> None:
        for suppressed in (True, False):
            who = [each for each, wanted in unequal.items() if wanted is suppressed]
            for part in _parts(who, self._module.AT_ONCE):
                names = [self._keyed(each) for each in part]
                self._installation.forwards.wrote(self._target, names, None)  # an answer may be lost, and the call done
                added, lifted = (part, []) if suppressed else ([], part)
                for call in self._module.calls(self._target.account, self._place, added, lifted):
                    self._say(call)
                self._installation.forwards.wrote(self._target, names, suppressed)

    def _keyed(self, recipient: str) -> str:
        return f"{self._group}:{self._installation.pseudonyms.bare(recipient)}"

    def _say(self, call: Call) -> None:
        """Make one call, and those that follow from its answer. Its path spells an address, so no error does."""
        time.sleep(PACE_S.get(self._target.provider, 0.0))
        self._renew()
        request = self._client.build_request(call.method, call.path, json=call.content)
        with point("forward.call"):
            status, content = called(self._client, request, self._target.name, within_s=_WAIT_S)
        if not 200 <= status < 300 and status not in call.also:
            where = f"place {self._place} of group {self._group}"
            raise Unavailable(f"{self._target.name}: {call.method} answered {status} for {where}, expected 2xx")
        if content and status < 300 and (refused := self._module.failed(_json(content))):
            raise Unavailable(f"{self._target.name}: {refused}, expected none")
        for each in call.then(status, _json(content)) if call.then else ():
            self._say(each)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _parts(who: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(who), size):
        yield list(who[start : start + size])
