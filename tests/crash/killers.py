"""Who kills what, when. Two killers at once: one of the poller, one of everything below `unsubd work`.

The seed decides the mails, the order of the kills and the delays; the machine decides what each kill hits, so every
kill waits for a sign that something is going on.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from tests.crash.mixture import Delivery
from tests.crash.processes import Part, Signs, alive, imap_sessions, kill, kill_group, kill_tree, pause, resume
from tests.harness.dovecot import Mailbox

AT_LEAST = 10  # kills of each kind
_WORK_KINDS = ("horse", "worker", "reaper", "group")
_MOST_LIVES = 25
_WAVE = 25
_MOST_WAVES = 6  # at once
_AHEAD = 0.15  # of all mail, that may be delivered before the workers' kills are as far: those need jobs
_SIGN_S = 6.0
_START_S = 20.0
_LOOK_EVERY_S = 0.003
_STEP_S = 0.001


@dataclass
class Tally:
    """What was killed, by kind, and at what moment."""

    kinds: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)

    def count(self, kind: str, moment: str) -> None:
        """Count one kill."""
        self.kinds[kind] += 1
        self.moments[f"{kind} {moment}"] += 1

    def lacking(self, kinds: Sequence[str] = ("poller", *_WORK_KINDS)) -> list[str]:
        """Return the kinds that were not killed often enough."""
        return [kind for kind in kinds if self.kinds[kind] < AT_LEAST]

    def progress(self) -> float:
        """Return how far the kills of `unsubd work` are, up to 1."""
        return min(1.0, min(self.kinds[kind] for kind in _WORK_KINDS) / AT_LEAST)

    def __str__(self) -> str:
        return ", ".join(f"{count} {moment}" for moment, count in sorted(self.moments.items()))


@dataclass
class Scene:
    """What the killers have in hand."""

    poll: Part
    work: Part
    signs: Signs
    mailbox: Mailbox
    redis: Redis
    seed: int
    tally: Tally = field(default_factory=Tally)


def kill_at_random(scene: Scene, deliveries: Sequence[Delivery]) -> None:
    """Deliver everything while both killers work; when it returns, nothing of unsubd was left running on purpose."""
    with ThreadPoolExecutor(1) as pool:
        workers = pool.submit(_WorkKiller(scene).run)
        _PollerKiller(scene).run(deliveries, workers.done)
        workers.result()


class _PollerKiller:
    """Delivers mail in waves and kills the poller while it takes them."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._signs = scene.signs.of_poller()
        self._random = random.Random(f"{scene.seed}/poller")

    def run(self, deliveries: Sequence[Delivery], others_done: Callable[[], bool]) -> None:
        """Kill until the other killer is done too, then deliver what is left."""
        waves = [deliveries[start : start + _WAVE] for start in range(0, len(deliveries), _WAVE)]
        moments, delivered = self._moments(), 0
        while self._scene.tally.lacking(("poller",)) or not others_done():
            due = round((self._scene.tally.progress() + _AHEAD) * len(waves)) - delivered
            ready = waves[delivered:][: max(1, min(due, _MOST_WAVES))]
            delivered += len(ready)
            self._life(next(moments), [each for wave in ready for each in wave])
        self._deliver([each for wave in waves[delivered:] for each in wave])

    def _moments(self) -> Iterator[str]:
        """Each sign in turn, those of half-done acknowledgements more often, in a new order every round."""
        names = [*self._signs, "marking", "moving", "any", "unanswered", "unanswered"]
        while True:
            yield from self._random.sample(names, k=len(names))

    def _life(self, moment: str, mails: Sequence[Delivery]) -> None:
        """One life of the poller, ended at *moment*; it finds the mail at its start, or is told of it."""
        sign, early = self._signs.get(moment), self._random.random() < 0.6
        if early:
            self._deliver(mails)
        self._scene.poll.start()
        if not early:
            self._slept(2.0)
            self._deliver(mails)
        if moment == "unanswered":
            seen = self._unanswered()
        else:
            before = sign() if sign else 0
            seen = _awaited(lambda: sign() != before) if sign else self._slept(2.5)
            self._slept(self._random.choice((0.0, 0.005, 0.05, 0.3)))
            self._kill()
        self._scene.tally.count("poller", moment if seen else "late")

    def _kill(self) -> None:
        assert self._scene.poll.kill(kill_group), "the poller ended by itself"

    def _unanswered(self) -> bool:
        """Kill it while the mail server is silent and then cuts the line: what was accepted cannot be marked."""
        before = self._signs["accepting"]()
        seen = bool(_awaited(lambda: self._signs["accepting"]() != before))
        sessions = imap_sessions(self._scene.mailbox)
        for pid in sessions:
            pause(pid)
        self._slept(0.2)
        self._kill()
        how = self._random.choice((kill, resume))
        for pid in sessions:
            how(pid)
        return seen

    def _slept(self, up_to_s: float) -> bool:
        time.sleep(self._random.uniform(0, up_to_s))
        return True

    def _deliver(self, mails: Sequence[Delivery]) -> None:
        self._scene.mailbox.append_many([each.raw for each in mails])


class _WorkKiller:
    """Kills single processes of `unsubd work` with a job in hand, and then all of it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._work = scene.work
        self._random = random.Random(f"{scene.seed}/work")
        self._struck: set[str] = set()

    def run(self) -> None:
        """Kill until every kind was killed often enough."""
        for _ in range(_MOST_LIVES):
            if not self._scene.tally.lacking(_WORK_KINDS):
                return
            self._work.start()
            _awaited(self._at_work, _START_S)
            for deed in self._lacking_deeds():
                deed()
            self._end(self._random.choice((kill_group, kill_tree)))

    def _at_work(self) -> bool:
        """Say whether a worker of this life has told RQ its name, which ends with its process id."""
        names: Any = self._scene.redis.smembers("rq:workers")
        ours = tuple(b"-%d" % pid for pid in self._work.parts("worker"))
        return any(name.endswith(ours) for name in names)

    def _lacking_deeds(self) -> list[Callable[[], None]]:
        deeds = {"horse": self._horse, "worker": self._worker, "reaper": self._reaper}
        lacking = self._scene.tally.lacking(tuple(deeds))
        return [deeds[kind] for kind in self._random.sample(lacking, k=len(lacking))]

    def _end(self, how: Callable[[int], None]) -> None:
        moment = self._with_job_in_hand()
        assert self._work.kill(how), "unsubd work ended by itself"
        self._scene.tally.count("group", f"{'and horses ' if how is kill_tree else ''}{moment}")

    def _with_job_in_hand(self) -> str:
        busy = _awaited(lambda: any(self._work.horses()))
        time.sleep(self._random.choice((0.0, 0.01, 0.03, 0.06)))
        return "busy" if busy else "at rest"

    def _horse(self) -> None:
        """Kill a process that does a job. That counts as a failure of the job, so each job suffers it once."""
        moment = self._random.choice(("early", "applying", "recording", "told"))
        if _awaited(lambda: any(self._struck_down(*each, moment) for each in self._work.horses())):
            self._scene.tally.count("horse", moment)

    def _struck_down(self, worker: int, horse: int, moment: str) -> bool:
        """Hold a horse, let it go on in small steps until *moment*, and kill it; False: it was too fast, or is spared."""
        sign = self._scene.signs.of_jobs().get(moment)
        before = sign() if sign else 0
        pause(horse)
        job = next((job for job, of in self._jobs_in_hand() if of == worker), "")
        if not job or job in self._struck:
            resume(horse)
            return False
        while sign and sign() == before and alive(horse):
            resume(horse)
            time.sleep(_STEP_S)
            pause(horse)
        self._struck.add(job)
        return kill(horse)

    def _jobs_in_hand(self) -> Iterator[tuple[str, int]]:
        """Yield (job, process id of its worker)."""
        entries: Any = self._scene.redis.zrange("rq:wip:unsubd", 0, -1)
        for job in (entry.decode().partition(":")[0] for entry in entries):
            name: Any = self._scene.redis.hget(f"rq:job:{job}", "worker_name")
            if name:
                yield job, int(name.rpartition(b"-")[2])

    def _worker(self) -> None:
        moment = self._with_job_in_hand()
        workers = [worker for worker, _ in self._work.horses()] or self._work.parts("worker")
        if workers and kill(self._random.choice(workers)):
            self._scene.tally.count("worker", moment)

    def _reaper(self) -> None:
        reapers = _awaited(lambda: self._work.parts("reaper"))
        time.sleep(self._random.uniform(0, 1.0))
        if reapers and kill(reapers[0]):
            self._scene.tally.count("reaper", "at work")


def _awaited(sign: Callable[[], Any], seconds: float = _SIGN_S) -> Any:
    """Wait for *sign* to be something true and return it, or what it is when the time is over."""
    deadline = time.monotonic() + seconds
    while not (seen := sign()) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
    return seen
