"""`unsubd trace`: what became of one message, one recipient or one job."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import open_installation
from worker.quarantine.shown import printable
from worker.trace import Event, traced


def trace(
    what: Annotated[str, typer.Argument(metavar="MESSAGE-ID|DIGEST|ADDRESS|JOB")],
    full: Annotated[bool, typer.Option("--full", help="Spell addresses.")] = False,
    whole: Annotated[
        bool, typer.Option("--all", help="Look through all of the ledger, not the newest 100,000 records alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell everything known of one message, recipient or job, oldest first: ledger, journal, quarantine, queue."""
    with open_installation(own_settings()) as installation, Console(stderr=True).status("looking"):
        found = traced(installation, what, full=full, whole=whole)
    for event in found.events if as_json else ():
        say_json({"at": event.at, "hop": event.hop, "what": event.what})
    if not as_json:
        _print(found.events)
    if found.unread:
        typer.echo(found.unread, err=True)


def _print(events: list[Event]) -> None:
    if not sys.stdout.isatty():  # one line an event, for grep
        for event in events:
            say(f"{event.at}  {event.hop:10}  {' '.join(event.what.split())}")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for style, overflow in (("dim", "fold"), ("cyan", "fold"), ("", "fold")):
        table.add_column(style=style, overflow=overflow)  # type: ignore[arg-type]
    for event in events:
        table.add_row(event.at, event.hop, Text(printable(event.what)))
    Console().print(table)


COMMANDS = (trace,)
