"""`unsubd reconcile`: mailbox, ledger, queue and store compared, and what is missing repaired."""

import time
from typing import Annotated

import typer

from handlers.errors import EX_UNAVAILABLE
from worker.cli.output import Json, own_settings, say, say_json
from worker.cli.progress import bar
from worker.installation import open_installation
from worker.reconcile import KINDS, Report
from worker.reconcile import reconcile as compare
from worker.reconcile.mail import Scope

_DAY_MS = 86_400_000


def reconcile(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is missing; repair nothing.")] = False,
    days: Annotated[
        int | None, typer.Option(min=1, help="How far back; default: UNSUBD_LEDGER_DAYS.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare mailboxes, ledger, queue and store, and repair what is missing; exit 69 when something still is."""
    settings = own_settings()
    since_ms = time.time_ns() // 1_000_000 - (days or settings.ledger_days) * _DAY_MS
    with open_installation(settings) as installation, bar("comparing", None) as progress:
        report = compare(installation, Scope(max(0, since_ms)), repair=not dry_run, progress=progress)
    say_json(report.as_json()) if as_json else _say(report)
    if report.left:
        raise SystemExit(EX_UNAVAILABLE)


def _say(report: Report) -> None:
    for kind, what in KINDS.items():
        if found := report.found[kind]:
            done = "repaired" if report.repaired[kind] == found else f"{report.repaired[kind]} of them repaired"
            say(f"{found:>7,} {kind}: {what}; {done} (e.g. {report.examples[kind]})")
    say(
        f"{report.messages:,} messages and {report.records:,} records compared: {report.found.total():,} gaps,"
        f" {report.repaired.total():,} repaired, {report.left:,} left"
    )


COMMANDS = (reconcile,)
