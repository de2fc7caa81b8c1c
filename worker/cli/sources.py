"""`unsubd sender source`: the addresses and patterns that a sender's recipients were mailed before unsubd."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from handlers.errors import Rejected
from handlers.sender_source import Kind, SenderSource, Trust, source_kind
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import open_installation
from worker.sender_sources import Imported

app = typer.Typer(help="Addresses that other systems mailed for a sender, and what they prove.", no_args_is_help=True)
Sender = Annotated[str, typer.Argument(metavar="SENDER", help="As unsubd sender list shows it.")]


@app.command("add")
def add(
    sender: Sender,
    address: Annotated[str, typer.Option(help="One address for everybody: unsubscribe@example.com")] = "",
    pattern: Annotated[
        str, typer.Option(help="u.{job}.{queue}.{token}@host, l-{user}={host}@host, unsubscribe:{token}")
    ] = "",
    kind: Annotated[Kind | None, typer.Option(help="Default: what the fields suggest.")] = None,
    group: Annotated[int, typer.Option(min=0, help="The group of its requests; 0: everything.")] = 0,
    trust: Annotated[
        Trust, typer.Option(help="dmarc: believe an author whom our own mail server proved.")
    ] = Trust.NONE,
    authserv_id: Annotated[
        str, typer.Option(help="Of our mail server's Authentication-Results; microsoft-365 writes none.")
    ] = "",
    tokens: Annotated[Path | None, typer.Option(help="CSV of opaque tokens: token,recipient[,group]")] = None,
    known: Annotated[Path | None, typer.Option(help="Believe these authors only: one address a line.")] = None,
) -> None:
    """Add or replace a source and import its tables; prints its id alone on the last line."""
    if bool(address) == bool(pattern):
        raise Rejected("--address and --pattern: expected exactly one of them")
    chosen = kind or source_kind(address or pattern)
    if address and chosen is not Kind.ADDRESS:
        raise Rejected(f"--address: kind {chosen.value} reads a pattern, expected --pattern")
    with open_installation(own_settings()) as installation:
        sources = installation.intake.sender_sources
        wanted = SenderSource(
            sender, chosen, address or pattern, group, trust, authserv_id, known_only=known is not None
        )
        source = sources.checked(wanted)
        if tokens and not chosen.opaque:
            raise Rejected(f"--tokens: kind {chosen.value} reads no token, expected a pattern with {{token}}")
        complete = not tokens or _imported(tokens, lambda lines: sources.import_tokens(sender, group, lines, _progress))
        complete &= not known or _imported(known, lambda lines: sources.import_known(sender, lines, _progress))
        say(sources.add(source).id)
    if not complete:
        raise Rejected("some lines were refused, the rest is stored: correct them and repeat the command")


@app.command("list")
def show(sender: Sender, as_json: Json = False) -> None:
    """List the sources of a sender."""
    with open_installation(own_settings()) as installation:
        installation.accounts.sender(sender)
        for each in installation.intake.sender_sources.sources(sender):
            trust = f"{each.trust.value} {each.authserv_id}".strip() + (
                ", known recipients only" if each.known_only else ""
            )
            row = {"id": each.id, **each.as_wire()}
            say_json(row) if as_json else say(
                f"{each.id}  {each.kind.value:8} {each.group:>10}  {each.pattern}  ({trust})"
            )


@app.command("remove")
def remove(sender: Sender, source_id: Annotated[str, typer.Argument(metavar="ID", help="As list shows it.")]) -> None:
    """Remove a source; a sender's imported tables go with its last one."""
    with open_installation(own_settings()) as installation:
        last = installation.intake.sender_sources.remove(sender, source_id)
    say(f"removed {source_id}" + (" and the imported tables: it was the sender's last source" if last else ""))


def _imported(path: Path, store: Callable[[TextIO], Imported]) -> bool:
    with _opened(path) as lines:
        done = store(lines)
    _progress(0)
    for problem in done.problems:
        say(f"{path}: {problem}")
    say(f"{path}: {done.stored} stored, {done.refused} refused")
    return not done.refused


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            yield lines
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a file that we may read") from error


def _progress(count: int) -> None:
    """One line that is written over, for a person who waits; 0 ends it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{count} stored" if count else "\r\033[K")
        sys.stderr.flush()
