"""What was measured, and where: the only numbers that the plan is made of. Nothing here is guessed.

Measured on 2 shared cores (x86_64, Python 3.11, Redis 7.0, `appendfsync always`). CPU of a step is given at two sizes of
its batch, because most of it is the same for one message and for 500.
"""

from dataclasses import dataclass

_MEASURE = "`python -m tests.scaling.measure`"
_TURNS = "`python -m tests.scaling.turns`"


@dataclass(frozen=True)
class Figure:
    """One measured number, with what it is of and where it was measured."""

    value: float
    unit: str
    what: str
    where: str


@dataclass(frozen=True)
class Step:
    """CPU of one step a message, at a batch of 20 and of 500, in microseconds."""

    by_20: float
    by_500: float

    def seconds(self, batches: float, messages: float) -> float:
        """Return the CPU that so many messages in so many batches take."""
        each = (500 * self.by_500 - 20 * self.by_20) / 480
        return (batches * 20 * (self.by_20 - each) + messages * each) / 1e6


SUPPRESSION = Figure(55.3, "octets", "a suppression, 1,000 senders of 100 (51.6 at one sender of 1,000,000)",
                     "`python -m tests.bench.store`")  # fmt: skip
LEDGER = Figure(439, "octets", "a ledger record, 12,000 of one sender", _MEASURE)
SEEN = Figure(150, "octets", "a first receipt, kept for 7 days", _MEASURE)
JOB = Figure(258, "octets", "a message in a job that waits, or was done in the last 300 s", _MEASURE)
STORED_TAG = Figure(189, "octets", "a tag of form h", _MEASURE)
CHECK_STORE = Figure(2.7, "µs", "an address checked, of the store's core", _MEASURE)
CHECK_LIBRARY = Figure(
    92_000,
    "addresses/s",
    "checked by the library, of the asker's core, in a quick hour",
    "`python -m tests.bench.library`",
)
CHECK_HTTP = Figure(
    91_000,
    "addresses/s",
    "checked over HTTP by 1,000, of a web process, in a quick hour",
    "`python -m tests.bench.served`",
)
POSTED = Figure(
    1_356,
    "mails/s",
    "webhook's mail to its durable answer, of a web process, in a quick hour",
    "`python -m tests.bench.served`",
)
POLLED = Figure(657, "mails/s", "poll and work of one mailbox, with 2 workers", "`python -m tests.bench.delivery`")
DRAINED = Figure(2187, "mails/s", "of a mailbox of 100,000, half of them foreign", "README, `tests.bench.drain`")
TURNS = Figure(40, "jobs/s", "a web or LMTP process makes at most while jobs wait", _TURNS)
HASTY = Figure(215, "jobs/s", "the same process makes at most while none wait, of 500 posts/s", _TURNS)
LOOKS = Figure(12, "jobs/s", "a mailbox makes of 200 mails/s that come one by one", _TURNS)
POLL_BATCH = Figure(500, "messages", "of a mailbox in one job, at most", "`worker/sources/look.py`")
REDIS_ALONE = Figure(1_264, "writes/s", "of one connection, each with its fsync", "redis-benchmark -c 1")
REDIS_FSYNC = Figure(77_459, "writes/s", "of 50 connections, which share fsyncs", "redis-benchmark -c 50")
REDIS_READS = Figure(136_986, "reads/s", "of 50 connections", "redis-benchmark -c 50")
TAKEOVER_S = Figure(20, "s", "until another poller works on a killed one's mailbox", "`tests/servers/test_leases.py`")

ACCEPT_OURS, ACCEPT_QUEUE = Step(241, 222), Step(42, 8.8)
JOB_OURS, JOB_QUEUE, JOB_STORE = Step(1626, 211), Step(224, 10.5), Step(85, 30)
JOB_WALL = Step(5189, 577)
"""Of a worker process: it does one job at a time, and waits for two servers and the disk. At a load of 5 on the 2 cores."""
CLICK_OURS, CLICK_QUEUE, CLICK_STORE = 2363e-6 + 1 / 2975, 990e-6, 444e-6
"""A one-click post, which is applied at once: seconds of CPU of the web process, the queue's core, the store's core.

The HTTP around it was not measured: taken to be that of a check of one address (README), 2,975 a second.
"""
PAGE_FIGURES = (
    SUPPRESSION, LEDGER, SEEN, JOB, STORED_TAG, CHECK_STORE, CHECK_LIBRARY, CHECK_HTTP, POSTED, POLLED, DRAINED, TURNS,
    HASTY, LOOKS, POLL_BATCH, REDIS_ALONE, REDIS_FSYNC, REDIS_READS, TAKEOVER_S,
    Figure(JOB_WALL.seconds(1, 0) * 1e3, "ms", "a job, of a worker, whatever it holds; others used the cores, too", _MEASURE),
    Figure(JOB_OURS.seconds(1, 0) * 1e3, "ms", "of this a core's", _MEASURE),
    Figure(JOB_QUEUE.seconds(1, 0) * 1e3, "ms", "a job, of the queue's core", _MEASURE),
    Figure(CLICK_QUEUE * 1e3, "ms", "a one-click post, of the queue's core", _MEASURE),
    Figure(CLICK_OURS * 1e3, "ms", "a one-click post, of a web process, with the HTTP of a check", _MEASURE),
)  # fmt: skip
