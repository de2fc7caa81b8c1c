"""The parts of a service, each what one process does until it is stopped: `worker.supervisor` keeps them running.

`web`, `poll` (mailboxes, Maildir, SQS), `lmtp`, `policy` and `milter` (what a mail server asks), `worker` (RQ), `events`
(what goes out), `reaper`.
"""

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path

from handlers.errors import ConfigError, QueueUnavailable, Rejected, StoreUnavailable, Unavailable
from worker import jobs
from worker.archiving import archive_ended
from worker.crew import note_run
from worker.installation import Installation, open_installation
from worker.listening import listening
from worker.reaper import Reaper
from worker.reconcile.jobs import keep_failed
from worker.reconcile.pulse import ended_well
from worker.reconcile.watch import watching
from worker.settings import Settings, setting_name
from worker.sources.maildir import Maildir
from worker.sources.polling import mailbox_addresses, poll
from worker.sources.sqs import SqsQueue
from worker.stopping import on_stop, on_stop_of_loop
from worker.store.format import require_known
from worker.systemd import watched

_REAP_EVERY_S = 1.0
_FAILED_EVERY_S = 5.0
_ARCHIVE_EVERY_S = 3600.0
_EXCUSED_S = 60.0  # so long after an outage of Redis no job is blamed for a worker that died
_MOVES_AT_ONCE = 5  # thousand rows of the first layout, between two looks at the jobs


@contextmanager
def _opened(settings: Settings) -> Iterator[Installation]:
    with open_installation(settings) as installation:
        note_run(installation.redis)
        gc.freeze()  # what is there now stays: a collection in a job's process would copy all of it
        yield installation


def run_web(settings: Settings) -> None:
    """Serve HTTP until stopped."""
    from worker.web.app import serve
    from worker.web.doors import listeners

    sockets = listeners(settings)
    # uvicorn raises the signal once more when it has stopped: what is still to be closed must survive that.
    stopped = threading.Event()
    on_stop(stopped.set)
    with _opened(settings) as installation:
        if not stopped.is_set():
            serve(installation, sockets)


def run_poll(settings: Settings, *, once: bool = False, strict: bool = False) -> None:
    """Poll mailboxes, Maildir and SES's queue until stopped.

    Errors:  ConfigError  there is nothing to poll.
    """
    with _opened(settings) as installation:
        path = maildir_path(settings)
        if not _polls(settings):
            raise ConfigError(
                "UNSUBD_IMAP_URL: not set, expected e.g. imaps://user@host/INBOX"
                " (or set UNSUBD_MAILDIR or UNSUBD_SES_QUEUE_URL)"
            )
        if not strict or once:
            asyncio.run(_poll_all(installation, path, once=once, strict=strict))
            return
        begun_s = time.time()
        with watching(installation, "poll"):  # as a part of `run`, the reaper does
            asyncio.run(_poll_all(installation, path, once=once, strict=strict))
        ended_well(installation, begun_s, "poll")


def _polls(settings: Settings) -> bool:
    return bool(settings.imap_url.split() or maildir_path(settings) or settings.ses_queue_url)


async def _poll_all(installation: Installation, path: Path | None, *, once: bool, strict: bool) -> None:
    tasks = [asyncio.ensure_future(poll(installation, once=once, strict=strict))]
    if url := installation.settings.ses_queue_url:
        tasks.append(asyncio.ensure_future(SqsQueue(installation, url).run(once=once)))
    if path is not None and once:
        maildir = Maildir(installation, path)
        while await asyncio.to_thread(maildir.take):
            pass
    elif path is not None:
        tasks.append(asyncio.ensure_future(Maildir(installation, path).run()))
    loop = asyncio.get_running_loop()
    # asyncio would print an error's text, and aioimaplib's name the command that was pending: LOGIN with its password.
    loop.set_exception_handler(
        lambda _, facts: installation.journal.failed("poll", type(facts.get("exception")).__name__)
    )
    on_stop_of_loop(lambda: [task.cancel() for task in tasks])
    try:
        async with watched():
            await asyncio.gather(*tasks)
    except asyncio.CancelledError:
        return
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        # Before the loop ends all that is left: a lease that is not given back keeps the next poller waiting.
        await asyncio.gather(*tasks, return_exceptions=True)


def maildir_path(settings: Settings) -> Path | None:
    """Return the Maildir to take mail from: the configured one, else the embedded default's drop folder."""
    return settings.maildir or settings.drop_folder


def run_lmtp(settings: Settings) -> None:
    """Take mail by LMTP until stopped.

    Errors:  ConfigError  UNSUBD_LMTP is not set, or cannot be listened on.
    """
    from worker.sources import lmtp

    place = _at(settings, "lmtp")
    with _opened(settings) as installation, place as listener:
        lmtp.serve(installation, listener)


def run_policy(settings: Settings) -> None:
    """Answer Postfix before each recipient until stopped.

    Errors:  ConfigError  UNSUBD_POLICY is not set, or cannot be listened on.
    """
    from worker.mta import policy

    place = _at(settings, "policy")
    with _opened(settings) as installation, place as listener:
        policy.serve(installation, listener)


def run_milter(settings: Settings) -> None:
    """Stamp the mail that a mail server shows, and drop suppressed recipients, until stopped.

    Errors:  ConfigError  UNSUBD_MILTER is not set, or cannot be listened on.
    """
    from worker.mta import milter

    place = _at(settings, "milter")
    with _opened(settings) as installation, place as listener:
        milter.serve(installation, listener)


def _at(settings: Settings, part: str) -> AbstractContextManager[socket.socket]:
    if part not in settings.listens:
        raise ConfigError(f"{setting_name(part)}: not set, expected unix:/path or e.g. 127.0.0.1:2424")
    return listening(settings.listens[part], setting_name(part))


def run_worker(settings: Settings) -> None:
    """Work on the queue until stopped: RQ forks for each job, so that a poison message kills only its own process."""
    import rq.utils  # noqa: F401  loaded before the fork, like everything a job needs

    with _opened(settings) as installation:
        jobs.configure(installation.settings)
        worker = installation.queue.worker(f"{socket.gethostname().partition('.')[0]}-{os.getpid()}")
        worker.work(logging_level="WARNING")


def run_events(settings: Settings) -> None:
    """Post events until stopped; apart from requests, so that a receiver who is slow delays nobody's request."""
    import worker.events.jobs
    import worker.forwarding.jobs  # noqa: F401  loaded before the fork, like everything a job needs

    with _opened(settings) as installation:
        jobs.configure(installation.settings)
        installation.events.worker(f"{socket.gethostname().partition('.')[0]}-{os.getpid()}").work(
            logging_level="ERROR"
        )


def run_reaper(settings: Settings) -> None:
    """Give due retries and the jobs of killed workers back to the queue, and failed jobs' requests to the quarantine."""
    stopped = threading.Event()
    on_stop(stopped.set)
    seen: dict[str, float] = {}
    seen_events: dict[str, float] = {}
    kept: set[str] = set()
    looked_at = archived_at = 0.0
    excused_until = 0.0
    with _opened(settings) as installation, watching(installation):
        moves: Iterator[int] | None = installation.store.migrate()
        while not stopped.is_set():
            try:
                for reaper, memory in ((installation.queue.reaper, seen), (installation.events.reaper, seen_events)):
                    reaper.enqueue_due()
                    _settle_lost(installation, reaper, memory, excused=time.monotonic() < excused_until)
                installation.intake.begun.move(installation.queue, installation.quarantine_failed)
                with suppress(StoreUnavailable):
                    installation.parked.move(installation.queue, installation.quarantine_failed)
                if time.monotonic() - looked_at > _FAILED_EVERY_S:
                    looked_at = time.monotonic()
                    require_known(installation.store_redis)
                    _quarantine_failed(installation, kept)
                    installation.quarantine.expire()
                if not archived_at or time.monotonic() - archived_at > _ARCHIVE_EVERY_S:
                    archived_at = time.monotonic()
                    _archive(installation)
                if moves and (moved := list(islice(moves, _MOVES_AT_ONCE))):
                    installation.journal.service("migrated", rows=sum(moved))
                else:
                    moves = None  # done: to look again is to look at every key
            except Unavailable:
                moves = installation.store.migrate() if moves else None
                seen.clear()
                seen_events.clear()  # heartbeats could not be written either: give the workers their time again
                excused_until = time.monotonic() + _EXCUSED_S
            time.sleep(_REAP_EVERY_S)


def _archive(installation: Installation) -> None:
    try:
        if count := archive_ended(installation):
            installation.journal.service("archived", records=count)
    except (StoreUnavailable, QueueUnavailable):
        raise
    except (ConfigError, Rejected, Unavailable) as error:  # the ledger waits in the store, 62 days long; jobs must not
        installation.journal.failed("archive", str(error))


def _settle_lost(installation: Installation, reaper: Reaper, seen: dict[str, float], *, excused: bool) -> None:
    for job_id, fate in reaper.reap(seen, excused=excused).items():
        if fate != "halved":  # the job itself tells of that, whoever halves it
            installation.journal.service(fate, job=job_id, why="its worker stopped beating")


def _quarantine_failed(installation: Installation, kept: set[str]) -> None:
    for job_id, batch, why in installation.queue.reaper.take_failed(kept):
        keep_failed(installation, job_id, batch, why)


PARTS: dict[str, Callable[[Settings], None]] = {
    "web": run_web, "poll": run_poll, "lmtp": run_lmtp, "policy": run_policy, "milter": run_milter,
    "worker": run_worker, "events": run_events, "reaper": run_reaper,
}  # fmt: skip


def parts_of(settings: Settings) -> list[str]:
    """Return the parts that `unsubd run` starts.

    Errors:  ConfigError  a mailbox URL is wrong: said before anything starts.
    """
    mailbox_addresses(settings)
    ways_in = ["web", *(["poll"] if _polls(settings) else []), *settings.listens]
    return [*ways_in, "events", "reaper", *["worker"] * settings.workers]
