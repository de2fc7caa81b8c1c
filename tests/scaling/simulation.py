"""A day of a load on a plan, in steps of ten seconds: who waits where and how long, with two failures at the busiest time.

Ten minutes into the campaign's answers a shard is away for 30 s, in which no job and no page ends, because each of them
writes to every shard sooner or later; and one poller is killed, whose mailbox waits 20 s for the next one.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.scaling import figures as f
from tests.scaling.model import CAMPAIGN_S, DAY_S, ROOM, SERVER_OCTETS, Load, Plan, queue_octets, store_octets, wave
from worker.settings import Settings

STEP_S = 10
FAILS_S = CAMPAIGN_S + 600
SHARD_AWAY_S = 30
P99_S, BUSIEST = 60, 0.75
_JOBS_AT_WHICH_TURNS_WAIT = 10
_QUEUE_LIMIT = Settings.model_fields["queue_limit"].default
_HOURS = DAY_S // 3600


@dataclass
class Line:
    """Who waits, first come first served. Shape: an entry: since when, messages, jobs."""

    waiting: deque[tuple[float, float, float]] = field(default_factory=deque)
    messages: float = 0.0
    jobs: float = 0.0

    def add(self, since: float, messages: float, jobs: float = 0.0) -> None:
        """Let some more wait."""
        if messages > 0:
            self.waiting.append((since, messages, jobs))
            self.messages += messages
            self.jobs += jobs

    def take(self, budget: float, cost: Callable[[float, float], float]) -> list[tuple[float, float, float]]:
        """Return who is served for *budget*; *cost*: of messages and jobs, in its unit."""
        served = []
        while self.waiting and budget > 1e-9:
            since, messages, jobs = self.waiting.popleft()
            part = min(1.0, budget / cost(messages, jobs))
            served.append((since, messages * part, jobs * part))
            self.messages -= messages * part
            self.jobs -= jobs * part
            budget -= cost(messages, jobs) * part
            if part < 1:
                self.waiting.appendleft((since, messages * (1 - part), jobs * (1 - part)))
        return served


@dataclass
class Day:
    """What came of it. Shape: ages: by hour of the effect, how many took so many seconds. queue_busy: by hour, of its cores."""

    ages: list[dict[float, float]] = field(default_factory=lambda: [{} for _ in range(_HOURS)])
    queue_busy: list[float] = field(default_factory=lambda: [0.0] * _HOURS)
    most_jobs: float = 0.0
    fullest_shard: float = 0.0
    fullest_queue: float = 0.0
    left: float = 0.0

    @property
    def oldest_s(self) -> float:
        """The greatest age of all."""
        return max(age for hour in self.ages for age in hour)

    @property
    def p99_s(self) -> float:
        """The 99th percentile of the ages in the worst hour."""
        return max(_percentile(hour, 0.99) for hour in self.ages if hour)

    def broken(self) -> list[str]:
        """Return what the plan promises and does not hold."""
        found = {
            f"p99 of an hour {self.p99_s:.0f} s": self.p99_s >= P99_S,
            f"{self.left:.0f} requests left at midnight": self.left
            > 0.001 * sum(map(sum, map(dict.values, self.ages))),
            f"{self.most_jobs:,.0f} jobs in a queue": self.most_jobs > _QUEUE_LIMIT,
            f"queue's core {max(self.queue_busy):.0%} busy for an hour": max(self.queue_busy) > BUSIEST,
            f"fullest shard {self.fullest_shard:.0%} of its memory": self.fullest_shard > ROOM,
            f"queue's server {self.fullest_queue:.0%} of its memory": self.fullest_queue > ROOM,
        }
        return [what for what, is_so in found.items() if is_so]


def simulate(load: Load, plan: Plan, *, skew: float, seed: int = 12) -> Day:
    """Return a day of *load* on *plan*. Shape: skew: memory of the fullest shard over the mean."""
    rng, day = random.Random(seed), Day()
    clicks, posts, boxes, queue = Line(), Line(), Line(), Line()
    for second in range(0, DAY_S, STEP_S):
        since = second + STEP_S / 2  # on average
        mean = load.requests_a_day * wave(second) * STEP_S
        come = max(0.0, rng.gauss(mean, mean**0.5))
        for line, share in ((clicks, load.clicked), (posts, load.posted), (boxes, load.polled)):
            line.add(since, come * share)
        cores_s = _accepted(load, plan, second, posts, boxes, queue)
        cores_s += _effects(load, plan, second, clicks, queue, day, plan.installations * STEP_S - cores_s)
        day.queue_busy[second // 3600] += cores_s / plan.installations / 3600
        day.most_jobs = max(day.most_jobs, queue.jobs / plan.installations)
        held = queue_octets(load) + f.JOB.value * queue.messages
        day.fullest_queue = max(day.fullest_queue, held / plan.installations / SERVER_OCTETS)
    day.left = sum(line.messages for line in (clicks, posts, boxes, queue))
    day.fullest_shard = store_octets(load) * (skew if plan.shards > 1 else 1) / plan.shards / SERVER_OCTETS
    return day


def _accepted(load: Load, plan: Plan, second: int, posts: Line, boxes: Line, queue: Line) -> float:
    """Put into the queue what takers and pollers manage, and return the seconds of the queue's cores that it took."""
    turns = (f.TURNS if queue.jobs > _JOBS_AT_WHICH_TURNS_WAIT * plan.installations else f.HASTY).value
    away = STEP_S if FAILS_S <= second < FAILS_S + f.TAKEOVER_S.value else 0
    taken = posts.take(f.POSTED.value * plan.takers * STEP_S, _messages)
    read = boxes.take(f.POLLED.value * (plan.mailboxes * STEP_S - away), _messages)
    jobs = min(_sum(taken), turns * plan.takers * STEP_S)
    # A poller looks as soon as something came: of little, a job each; of much, full batches.
    looks = max(_sum(read) / f.POLL_BATCH.value, min(_sum(read), f.LOOKS.value * plan.mailboxes * STEP_S))
    for entries, made in ((taken, jobs), (read, looks)):
        for since, messages, _ in entries:
            queue.add(since, messages, made * messages / _sum(entries))
    return f.ACCEPT_QUEUE.seconds(jobs + looks, _sum(taken) + _sum(read))


def _effects(load: Load, plan: Plan, second: int, clicks: Line, queue: Line, day: Day, core_s: float) -> float:
    """Let pages and workers write, and return the seconds of the queue's cores, of at most *core_s*, that it took."""
    if FAILS_S <= second < FAILS_S + SHARD_AWAY_S:
        return 0.0
    prepares = CAMPAIGN_S - 3600 <= second < CAMPAIGN_S  # the campaign's recipients are checked in the hour before it
    web_s = (plan.web - load.checks_a_second / f.CHECK_HTTP.value * prepares) * STEP_S
    pressed = clicks.take(min(web_s / f.CLICK_OURS, core_s / f.CLICK_QUEUE), _messages)
    core_s -= _sum(pressed) * f.CLICK_QUEUE
    done = queue.take(1.0, _share_of(plan.workers * STEP_S, core_s))
    for since, messages, _ in [*pressed, *done]:
        age, ages = second + STEP_S - since, day.ages[second // 3600]
        ages[age] = ages.get(age, 0.0) + messages
    return _sum(pressed) * f.CLICK_QUEUE + f.JOB_QUEUE.seconds(sum(jobs for *_, jobs in done), _sum(done))


def _share_of(workers_s: float, core_s: float) -> Callable[[float, float], float]:
    """Return what jobs take, as a share of what workers and the queue's cores have in a step: the scarcer one counts."""
    return lambda messages, jobs: max(
        f.JOB_WALL.seconds(jobs, messages) / workers_s, f.JOB_QUEUE.seconds(jobs, messages) / max(core_s, 1e-9)
    )


def _messages(messages: float, _: float) -> float:
    return messages


def _sum(entries: list[tuple[float, float, float]]) -> float:
    return sum(messages for _, messages, _ in entries)


def _percentile(ages: dict[float, float], share: float) -> float:
    left = share * sum(ages.values())
    for age in sorted(ages):
        left -= ages[age]
        if left <= 0:
            return age
    return max(ages)
