"""Our processes, as Redis knows them: the workers, and what each source last said."""

from collections.abc import Iterator

from handlers.errors import QueueUnavailable
from worker.anomalies import described
from worker.crew import EVENTS, REQUESTS, has_run, is_alive
from worker.doctor.finding import Finding, fail, ok, warn
from worker.installation import Installation
from worker.server import away_as
from worker.sources import source_states

_TROUBLED = {"refused": fail, "silent": fail, "waiting": warn}
_REMEDIES = {
    "refused": "mend what it says; it is tried again by itself",
    "silent": "start unsubd run (or unsubd poll): nobody looks at this source",
    "waiting": "it is tried again by itself: see the line of mailbox, or the journal",
}


def workers(installation: Installation) -> Iterator[Finding]:
    """Say which workers live, which were killed, and which are not ours."""
    known = installation.queue.workers()
    for each in known:
        for fault in each["faults"][:1]:
            told = f"worker {each['name'][:40]!r} {', and '.join([fault, *each['faults'][1:]])}"
            yield fail("worker", told, "stop it, and start unsubd run or unsubd work instead")
    living = [each for each in known if is_alive(each)]
    ours = [each for each in living if REQUESTS in each["queues"] and not each["faults"]]
    for each in known:
        if not is_alive(each):
            told = f"{each['name'][:40]!r} was killed or hangs: no heartbeat for {each['heartbeat_s']:.0f} s"
            verdict = warn if ours else fail
            yield verdict(
                "worker", told, "its job comes back by itself; start unsubd run, or unsubd work; kill one that hangs"
            )
    if not known and not has_run(installation.redis):
        yield warn("worker", "nothing runs yet: no part of unsubd ever ran on this Redis", "start unsubd run")
        return
    if not ours:
        yield fail("worker", "no worker is alive, expected at least one", "start unsubd run, or unsubd work")
        return
    yield ok("worker", f"{len(ours)} alive, last heartbeat {min(each['heartbeat_s'] for each in ours)} s ago")
    if not any(EVENTS in each["queues"] for each in living):
        yield warn("worker", "nobody works on what goes out (events)", "start unsubd run, or unsubd work")


def sources(installation: Installation) -> Iterator[Finding]:
    """Say what each source that ever worked says of itself."""
    with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
        states = source_states(installation.redis)
    for each in states:
        where = f" ({each['where']})" if each.get("where") else ""
        where += f" by {each['by']}:" if each.get("by") else ""
        if each["state"] == "standby":
            yield ok("source", f"{each['name']} standby: {each['detail']}")
            continue
        told = f"{each['name']}{where} {each['state']}, {each['messages']:,} messages. {each['detail']}".rstrip(" .")
        if found := _TROUBLED.get(each["state"]):
            yield found("source", f"{told}; heard from {each['age_s']:.0f} s ago", _REMEDIES[each["state"]])
        elif each.get("held"):
            yield warn("source", f"{told}; {each['held']:,} held", "release them with UNSUBD_IMAP_BACKLOG=all")
        else:
            yield ok("source", told)


def anomalies(installation: Installation) -> Iterator[Finding]:
    """Say what is odd and waits for a person."""
    found = installation.intake.anomalies.open()
    for each in found:
        yield warn("anomaly", described(each), f"look, then: unsubd anomaly undo {each.id} (or dismiss)")
    if not found:
        yield ok("anomaly", "nothing is odd: no burst of a source, no tag that many use")
