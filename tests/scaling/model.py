"""How much of each part a load needs, from measured figures, and which part is at its end first. Pure.

A day: half of the requests come as people read, in a wave over the day; the other half answer a campaign of ten o'clock,
half of them within two hours.
"""

import math
from dataclasses import dataclass, replace

from tests.scaling import figures as f

DAY_S, CAMPAIGN_S, HALF_LIFE_S = 86_400, 36_000, 7_200
SERVER_OCTETS = 64 * 2**30
ROOM = 0.5  # of a server's memory: the rest is for the rewrite of its file, replicas that connect, and a growing year
BUSY = 0.6  # of a core, at the busiest second: the rest catches up after a failover
SKEW = 1.1  # memory of the fullest shard over the mean with ten senders or more, see `spread.py`
_SEEN_DAYS, _RESULT_S, _MONTH_DAYS = 7, 300, 31


@dataclass(frozen=True)
class Load:
    """What is asked of an installation.

    Shape:   of the requests, `polled` and `posted` (webhook, LMTP) are shares; the rest is one-click.
             campaign: recipients that are checked over HTTP within an hour. ledger_days: UNSUBD_LEDGER_DAYS.
    """

    name: str
    suppressions: float
    requests_a_day: float
    campaign: float
    ledger_days: int = 90
    polled: float = 0.5
    posted: float = 0.0

    @property
    def clicked(self) -> float:
        """The share of one-click."""
        return 1 - self.polled - self.posted

    @property
    def checks_a_second(self) -> float:
        """Addresses checked a second while the campaign is prepared."""
        return self.campaign / 3600


@dataclass(frozen=True)
class Plan:
    """What runs. Shape: counts of processes and primaries, for all installations together; mailboxes: pollers that work."""

    installations: int
    shards: int
    workers: int
    web: int
    takers: int
    mailboxes: int


def wave(second: float) -> float:
    """Return the share of a day's requests that comes in this second of it, before the third day of such campaigns."""
    base = 0.5 / DAY_S * (1 + 0.5 * math.sin(2 * math.pi * (second - 6 * 3600) / DAY_S))
    since = (second - CAMPAIGN_S) % DAY_S
    return base + 0.5 * math.log(2) / HALF_LIFE_S * 0.5 ** (since / HALF_LIFE_S) / (1 - 0.5 ** (DAY_S / HALF_LIFE_S))


PEAK = max(wave(minute * 60) for minute in range(1440))


def jobs_a_second(taken: float, processes: int) -> float:
    """Return how many jobs web or LMTP processes make of so many mails a second while jobs wait."""
    return min(taken, f.TURNS.value * processes)


def polled_jobs(taken: float, mailboxes: int) -> float:
    """Return how many jobs the pollers make: a batch each, but one a mail while few come."""
    return max(taken / f.POLL_BATCH.value, min(taken, f.LOOKS.value * mailboxes))


def ledger_days(load: Load) -> int:
    """Return for how many days records lie in the store: a month goes into files when all of it is old enough."""
    return load.ledger_days + _MONTH_DAYS


def store_octets(load: Load) -> float:
    """Return what the store holds: suppressions and ledger."""
    ledger = f.LEDGER.value * load.requests_a_day * ledger_days(load)
    return f.SUPPRESSION.value * load.suppressions + ledger


def queue_octets(load: Load) -> float:
    """Return what the queue's server holds: first receipts of a week, of mail only, and results of five minutes."""
    mail = (1 - load.clicked) * load.requests_a_day
    return f.SEEN.value * mail * _SEEN_DAYS + f.JOB.value * mail * PEAK * _RESULT_S


@dataclass(frozen=True)
class Need:
    """What a load takes at its busiest second. Units: cores, but of workers: processes; octets."""

    queue: float
    store: float
    workers: float
    web: float
    store_octets: float
    queue_octets: float


def need(load: Load, plan: Plan) -> Need:
    """Return what *load* takes of the servers when it is served by the processes of *plan*."""
    peak = load.requests_a_day * PEAK
    clicked, posted, polled = peak * load.clicked, peak * load.posted, peak * load.polled
    jobs = jobs_a_second(posted, plan.takers) + polled_jobs(polled, plan.mailboxes)
    mail = posted + polled
    return Need(
        queue=f.ACCEPT_QUEUE.seconds(jobs, mail) + f.JOB_QUEUE.seconds(jobs, mail) + f.CLICK_QUEUE * clicked,
        # A job writes to every shard: what a pipeline costs whatever it holds is paid by each.
        store=f.JOB_STORE.seconds(jobs, 0) * plan.shards / plan.installations + f.JOB_STORE.seconds(0, mail)
        + f.CLICK_STORE * clicked + f.CHECK_STORE.value / 1e6 * load.checks_a_second,
        workers=f.JOB_WALL.seconds(jobs, mail),
        web=f.CLICK_OURS * clicked + load.checks_a_second / f.CHECK_HTTP.value,
        store_octets=store_octets(load),
        queue_octets=queue_octets(load),
    )  # fmt: skip


def plan(load: Load) -> Plan:
    """Return the smallest plan that leaves the room that ROOM and BUSY ask for."""
    peak = load.requests_a_day * PEAK
    room = ROOM * SERVER_OCTETS
    start = Plan(
        installations=1,
        shards=_many(store_octets(load) * (SKEW if store_octets(load) > room else 1), room),
        workers=1,
        web=1,
        takers=_many(peak * load.posted, BUSY * f.POSTED.value) if load.posted else 0,
        mailboxes=_many(peak * load.polled, BUSY * f.POLLED.value) if load.polled else 0,
    )
    found = need(load, start)
    installations = max(_many(found.queue, BUSY), _many(found.queue_octets, room))
    shards = max(start.shards, _many(found.store, BUSY), installations)
    spread = replace(
        start, installations=installations, shards=shards,
        takers=max(start.takers, installations * bool(load.posted)),
        mailboxes=max(start.mailboxes, installations * bool(load.polled)),
    )  # fmt: skip
    found = need(load, spread)
    return replace(
        spread,
        workers=max(installations, _many(found.workers, BUSY)),
        web=max(installations, _many(found.web, BUSY)),
    )


def _many(needed: float, each: float) -> int:
    return max(1, math.ceil(needed / each))


def strain(load: Load, plan: Plan) -> dict[str, float]:
    """Return how far each part is used at the busiest second, 1 = its end, the fullest first."""
    found, room = need(load, plan), SERVER_OCTETS
    peak = load.requests_a_day * PEAK
    used = {
        "queue's core": found.queue / plan.installations,
        "queue's memory": found.queue_octets / plan.installations / room,
        "store's cores": found.store / plan.shards,
        "store's memory": found.store_octets / plan.shards / room,
        "workers": found.workers / plan.workers,
        "web processes": found.web / plan.web,
        "takers of posts": peak * load.posted / f.POSTED.value / max(1, plan.takers),
        "mailboxes": peak * load.polled / f.POLLED.value / max(1, plan.mailboxes),
    }
    return dict(sorted(used.items(), key=lambda each: -each[1]))


ONE_MACHINE = Plan(installations=1, shards=1, workers=1, web=1, takers=1, mailboxes=1)
SIZES = (
    Load("small", 1e5, 1_000, 1e5),
    Load("10 million", 1e7, 500_000, 1e6),
    Load("100 million", 1e8, 5_000_000, 1e7, ledger_days=30, polled=0.25, posted=0.25),
    Load("1 billion", 1e9, 50_000_000, 1e8, ledger_days=1, polled=0.0, posted=0.5),
)
