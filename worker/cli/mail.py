"""`unsubd deliver` and `unsubd explain`: one message through the path, with and without effect."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from handlers import message
from handlers.errors import Rejected, Unavailable
from handlers.message import MAX_LOOK_BYTES, InboundMessage
from handlers.providers import Headers
from handlers.request import Effect
from worker.cli.output import Json, own_settings, say, say_json
from worker.explain import Explainer, as_json, hops, message_files
from worker.installation import Installation, open_installation
from worker.intake import Accepted
from worker.points import point

_EFFECT_S = 10.0


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a message file") from error


def _beginning(path: Path) -> tuple[bytes, int]:
    """Return what is looked at of a message, and its size: a mail server may pipe 64 MB, and many mails at once."""
    if str(path) != "-":
        raw = _read(path)
        return raw[:MAX_LOOK_BYTES], len(raw)
    begin = sys.stdin.buffer.read(MAX_LOOK_BYTES)
    size = len(begin)
    while rest := sys.stdin.buffer.read(MAX_LOOK_BYTES):  # to the end: whoever pipes must not meet a closed pipe
        size += len(rest)
    return begin, size


def deliver(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…|-", help="Message files, or - for standard input.")],
    envelope_to: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Whom the mail server delivers to (RCPT TO); repeatable."),
    ] = None,
    envelope_from: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The return path (MAIL FROM), '' for a bounce.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing, and do not wait for the effect.")] = False,
    as_json_lines: Json = False,
) -> None:
    """Hand messages to the whole path. Exits 0 once they are durable; waits up to 10 s to tell the effect.

    With - every failure is 75, "try again": a mail server that pipes would bounce any other code.
    """
    recipients: list[str | None] = [*envelope_to] if envelope_to else [None]
    inbound = [each for path in files for each in _messages(path, recipients, envelope_from)]
    paths = [path for path in files for _ in recipients]
    with open_installation(own_settings()) as installation:
        accepted = installation.intake.accept(inbound)
        with point("pipe.exit"):
            if not quiet:
                _tell(installation, accepted, paths, as_json_lines)


def _tell(installation: Installation, accepted: Accepted, paths: Sequence[Path], as_json_lines: bool) -> None:
    effects = _effects(installation, accepted)
    for path, decided, known in zip(paths, accepted.decided, effects, strict=True):
        row = {"file": str(path), **as_json(decided)}
        for request, effect in zip(row["requests"], known, strict=True):
            request["effect"] = effect
        _print(row, as_json_lines)


def _messages(path: Path, recipients: Sequence[str | None], envelope_from: str | None) -> list[InboundMessage]:
    raw, size_bytes = _beginning(path)
    return [
        message.read(raw, source="pipe:deliver", envelope_to=to, envelope_from=envelope_from, size_bytes=size_bytes)
        for to in recipients
    ]


def _effects(installation: Installation, accepted: Accepted) -> list[list[str]]:
    """The effects of each message's requests, as far as the worker tells them in time."""
    try:
        known = installation.queue.wait(accepted.job_ids, _EFFECT_S) or []
    except Unavailable:
        known = []  # it is accepted and durable: nobody may hear "try again"
    every = known if len(known) == len(accepted.decided) else [[] for _ in accepted.decided]
    return [
        effects if len(effects) == len(decided.requests) else [Effect.QUEUED.value] * len(decided.requests)
        for decided, effects in zip(accepted.decided, every, strict=True)
    ]


def explain(
    files: Annotated[list[Path], typer.Argument(metavar="FILE-OR-DIR…")],
    provider: Annotated[str, typer.Option(help="Read FILE as the body of this provider's webhook.")] = "",
    content_type: Annotated[str, typer.Option(help="The webhook's Content-Type.")] = "",
    header: Annotated[
        list[str] | None, typer.Option(help="A header of the webhook, 'Name: value'; repeatable.")
    ] = None,
    as_json_lines: Json = False,
) -> None:
    """Say what each hop makes of a message, by the functions that production calls, with no effect."""
    explainer = Explainer(own_settings(make=False))
    outcomes: Counter[tuple[str, str]] = Counter()
    for path in message_files(files):
        for row in _explained(explainer, path, provider, _headers(content_type, header or [])):
            outcomes[row["outcome"], row["reason"]] += 1
            _print({"file": str(path), **row}, as_json_lines)
    if outcomes.total() > 1 and not as_json_lines:
        _print_summary(outcomes)


def _explained(explainer: Explainer, path: Path, provider: str, headers: Headers) -> Iterator[dict[str, Any]]:
    if provider:
        yield from explainer.webhook(provider, headers, _read(path))
    else:
        yield explainer.explain(message.read(_read(path), source="explain"))


def _print_summary(outcomes: Counter[tuple[str, str]]) -> None:
    table = Table("Messages", "Outcome", "Why", title=f"{outcomes.total()} messages")
    for (outcome, reason), count in sorted(outcomes.items(), key=lambda each: (each[0][0], -each[1])):
        table.add_row(str(count), outcome, reason)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _headers(content_type: str, lines: list[str]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {"content-type": [content_type]} if content_type else {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), []).append(value.strip())
    return headers


def _print(row: dict[str, Any], as_json_lines: bool) -> None:
    if as_json_lines:
        say_json(row)
        return
    say(f"{row['file']}")
    if "envelope_to" in row:
        say(f"  envelope  to={row['envelope_to']} from={row['envelope_from']} signature={row['signature']}")
    for hop, text in hops(row):
        say(f"  {hop:9} {text}")


COMMANDS = (deliver, explain)
