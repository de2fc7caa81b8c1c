"""The journal: one method per event. It alone knows the log line, the counter and the redaction.

Lines go to stderr, the last 1,000 and all counters to Redis, where the console and /metrics read them, whichever process
wrote them. A line may repeat after a crash, with the same message digest. Never in a line: an address, a tag, a subject.

| key               | type | holds                                   | lives    |
|-------------------|------|-----------------------------------------|----------|
| `unsubd:journal`  | LIST | the last 1,000 lines, newest first      | for good |
| `unsubd:counters` | HASH | metric and label -> count               | for good |
"""

import io
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, TextIO, cast

import redis
import structlog

from handlers.request import DecidedMessage
from worker.counted import apart, word_of
from worker.points import point
from worker.quarantine.shown import printable, without_addresses

_LINES, _COUNTERS = "unsubd:journal", "unsubd:counters"
_KEPT_LINES = 1000

METRICS = {
    "unsubd_messages_total": (
        "outcome",
        "Messages by what became of them; entry, return and test: no recipient sent them",
    ),
    "unsubd_requests_total": ("effect", "Requests of recipients by what they did to their row"),
    "unsubd_webhook_answers_total": ("answer", "Webhook posts by provider and answer"),
    "unsubd_mta_answers_total": ("answer", "What a mail server that asked was told, by service and answer"),
    "unsubd_failures_total": ("kind", "What failed, by kind"),
}


class Stderr:
    """Standard error, as it was. Why: a log on a full disk must not end what it tells of; its lines are lost, no more."""

    def __init__(self) -> None:
        self._file = sys.stderr

    def write(self, text: str) -> None:
        """Write *text* if it can be written."""
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Send on what was written, if it can be sent."""
        with suppress(OSError):
            self._file.flush()


def write_through() -> None:
    """Let stdout and stderr keep no line that cannot be written: each fork of ours would try it again, and fail of it."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw = io.FileIO(number, "w", closefd=False)
        setattr(sys, name, io.TextIOWrapper(cast(IO[bytes], raw), errors="backslashreplace", write_through=True))


def configure_logging(*, quiet: bool = False) -> None:
    """Send structlog to stderr as one line an event, and hold the libraries that would log mail or credentials."""
    # From the environment: a setting that is wrong must be told, too, and in some form. `load_settings` refuses it.
    form = os.environ.get("UNSUBD_LOG") or ("console" if sys.stderr.isatty() else "logfmt")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderers(form),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, Stderr())),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else logging.INFO),
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    # It logs received mail and encoded credentials at DEBUG, whatever the root level is.
    logging.getLogger("aioimaplib").setLevel(logging.WARNING)
    # It warns with what it read: text of the mail.
    logging.getLogger("mailparser").setLevel(logging.CRITICAL)
    # It warns of each post that it cannot read, which anybody may send: the refusal is told already.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    # aiosmtpd's: it writes the commands that it received, addresses and all, up to the level of errors.
    logging.getLogger("mail").setLevel(logging.CRITICAL + 1)


def _renderers(form: str) -> list[Any]:
    if form == "json":
        return [structlog.processors.JSONRenderer()]  # ASCII: it spells what a terminal might obey
    if form == "console":
        return [_printable, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    # It spells line ends itself, and a backslash that stands for one would be doubled.
    return [_printable_lines, structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])]


def _printable_lines(_: Any, __: str, line: Any) -> Any:
    return {
        name: "\n".join(map(printable, value.split("\n"))) if isinstance(value, str) else value
        for name, value in line.items()
    }


def _printable(_: Any, __: str, line: Any) -> Any:
    return {name: printable(value) if isinstance(value, str) else value for name, value in line.items()}


class Journal:
    """The journal of one process. `client` None: lines only (before Redis is known)."""

    def __init__(self, client: redis.Redis | None, pseudonym: Callable[[str], str] | None = None) -> None:
        self._redis = client
        self._pseudonym = pseudonym or (lambda _: "?")
        self._log = structlog.get_logger()
        self._job: dict[str, str] = {}

    def follow(self, job_id: str) -> None:
        """From now on, name this job in the line of every message: it is what the process has in hand."""
        self._job = {"job": job_id} if job_id else {}

    def recorded(self, entries: Sequence[tuple[DecidedMessage, list[dict[str, Any]]]]) -> None:
        """Write one line per message whose requests were applied, or that needed none."""
        lines: list[dict[str, Any]] = []
        counts: list[str] = []
        for message, results in entries:
            age_s = round(time.time() - message.received_ms / 1000, 3)
            word, other = word_of(message.outcome, message.evidence), apart(message)
            line = {
                "event": word,
                "message": message.key[:12],
                "source": message.source,
                "age_s": age_s,
                **self._job,
            }
            counts.append(f"unsubd_messages_total|{other or word}")
            counts += [f"unsubd_requests_total|{result['effect']}" for result in results if not other]
            lines += [line | self._redacted(result) for result in results] or [line | {"reason": message.reason}]
        self._write(lines, counts)

    def _redacted(self, result: dict[str, Any]) -> dict[str, Any]:
        shown = {name: result[name] for name in ("sender", "group", "effect", "redirected_from") if name in result}
        return shown | {"recipient": self._pseudonym(result["recipient"])}

    def accepted(self, source: str, messages: int, job_ids: Sequence[str]) -> None:
        """A batch is durable. To stderr alone: its source waits, and the job tells the rest."""
        self._log.info("accepted", source=source, messages=messages, job=" ".join(job_ids))

    def settled(self, event: str, source: str, messages: int, **facts: Any) -> None:
        """A batch was `acknowledged` at its source, or `moved` out of the way."""
        self._write([{"event": event, "source": source, "messages": messages, **facts}], [])

    def failed(self, kind: str, detail: str, **facts: Any) -> None:
        """Something is our fault: a message that broke the program, a job that ran out of tries.

        Why:     *detail* may be what an exception of somebody else's said, and that may spell an address.
        """
        line = {"event": "failed", "kind": kind, "detail": without_addresses(detail), **facts}
        self._write([line], [f"unsubd_failures_total|{kind}"])

    def webhooks(self, answers: Sequence[tuple[str, str, str]]) -> None:
        """Posts were answered. Shape: (provider, answer, detail) of each; plain acceptance is counted and needs no line."""
        lines = [
            {"event": "webhook", "provider": provider, "answer": answer, "detail": detail}
            for provider, answer, detail in answers
            if answer != "accepted"
        ]
        self._write(lines, [f"unsubd_webhook_answers_total|{provider}:{answer}" for provider, answer, _ in answers])

    def source(self, name: str, state: str, detail: str = "", *, aloud: bool = True) -> None:
        """A source changed its state: connected, idle, waiting, refused. Shape: aloud False: not to stderr, where a command
        ends with the same words.
        """
        self._write([{"event": "source", "source": name, "state": state, "detail": detail}], [], aloud=aloud)

    def told(self, service: str, answers: Mapping[str, int]) -> None:
        """What the mail server was told since the last line, by answer: one line for many, since each mail asks."""
        counts = {f"unsubd_mta_answers_total|{service}:{answer}": count for answer, count in answers.items()}
        self._write([{"event": "told", "service": service, **answers}], counts)

    def service(self, event: str, **facts: Any) -> None:
        """A process started, stopped, or re-queued another's work."""
        self._write([{"event": event, **facts}], [])

    def _write(
        self, lines: list[dict[str, Any]], counts: Sequence[str] | Mapping[str, int], *, aloud: bool = True
    ) -> None:
        for line in lines if aloud else ():
            self._log.info(**line)
        if self._redis is None or not (lines or counts):
            return
        now_ms = time.time_ns() // 1_000_000
        pipeline = self._redis.pipeline(transaction=False)
        if lines:
            pipeline.lpush(_LINES, *[json.dumps({"at_ms": now_ms, **line}) for line in lines])
            pipeline.ltrim(_LINES, 0, _KEPT_LINES - 1)
        for name, count in Counter(counts).items():
            pipeline.hincrby(_COUNTERS, name, count)
        try:
            with point("journal.write"):
                pipeline.execute()
        except redis.RedisError as error:
            # The journal tells of work already done: its own trouble must never undo or repeat that work.
            self._log.warning("journal-unwritten", error=type(error).__name__, lines=len(lines))

    def forget(self, recipient: str) -> int:
        """Take the lines that tell of *recipient* out of Redis; return how many. A counter of them all stays as it is."""
        if self._redis is None:
            return 0
        pseudonym = self._pseudonym(recipient).partition("@")[0].encode()
        lines = [line for line in cast(list[Any], self._redis.lrange(_LINES, 0, -1)) if pseudonym in line]
        with point("forget.journal"):
            return sum([self._redis.lrem(_LINES, 0, line) for line in lines])

    @staticmethod
    def lines(client: redis.Redis, count: int) -> list[dict[str, Any]]:
        """Return the last *count* lines of all processes, newest first."""
        return [json.loads(line) for line in client.lrange(_LINES, 0, count - 1)]

    @staticmethod
    def counters(client: redis.Redis) -> dict[tuple[str, str], int]:
        """Return every (metric, label) and its count."""
        rows = cast(dict[bytes, bytes], client.hgetall(_COUNTERS))
        return {(name, label): int(count) for (name, _, label), count in
                ((key.decode().partition("|"), value) for key, value in rows.items())}  # fmt: skip
