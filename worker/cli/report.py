"""`unsubd report`, `unsubd sent`: what a month comes to, and whom a sender mailed."""

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from handlers.errors import Rejected
from worker import report as reports
from worker import sent as sent_mails
from worker.cli.output import Json, own_settings, say, say_json
from worker.cli.progress import bar, waiting
from worker.installation import open_installation

_FIELDS = {"recipient", "group", "at"}


def report(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Default: the present month, UTC.")] = "",
    sender: Annotated[str, typer.Option(help="Only what concerns this sender.")] = "",
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page instead; must not exist.")] = None,
    as_json: Json = False,
) -> None:
    """Print the compliance report of a month: counts that add up, how fast, the slowest, who was mailed after all."""
    with open_installation(own_settings()) as installation, waiting("reading the month"):
        found = reports.report(installation, month or reports.this_month(), sender)
    if html is not None:
        _write(html, reports.as_html(found))
    if as_json:
        say_json(reports.as_json(found))
    elif html is not None:
        say(f"{html}: {reports.sentence(found)}")
    else:
        for line in reports.as_text(found):
            say(line)


def _write(path: Path, page: str) -> None:
    try:
        with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(page)
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a new file in a folder that we may write") from error


def sent(
    sender: Annotated[str, typer.Argument(metavar="SENDER")],
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Columns recipient, group, at; - for stdin.")],
    as_json: Json = False,
) -> None:
    """Compare whom a sender mailed with the suppressions, as POST /v1/sent does; exit 65 when somebody should not have been."""
    compared = violations = 0
    with open_installation(own_settings()) as installation, _opened(file) as lines, bar("compared", None) as move:
        mails = _mails(lines)
        while some := list(islice(mails, sent_mails.MOST)):
            for found in sent_mails.reported(installation, sender, some):
                violations += 1
                row = {"recipient": found.recipient, "group": found.group, "scope": found.scope,
                       "at": found.at.isoformat(), "since": found.since.isoformat()}  # fmt: skip
                since = f"suppressed ({found.scope}) since {row['since']}"
                line = f"{found.recipient}  group {found.group}: sent {row['at']}, {since}"
                say_json(row) if as_json else say(line)
            compared += len(some)
            move(compared, f"{compared:,} mails")
    if not as_json:
        say(f"{compared:,} mails compared, {violations:,} sent after a suppression took effect")
    if violations:
        raise Rejected(f"{violations:,} mails were sent after a suppression took effect: check before each send")


def _opened(path: Path) -> Any:
    if str(path) == "-":
        return nullcontext(sys.stdin)
    try:
        return open(path, encoding="utf-8-sig", newline="")
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a CSV file that we may read") from error


def _mails(lines: IO[str]) -> Iterator[sent_mails.Sent]:
    rows = csv.DictReader(lines)
    if not set(rows.fieldnames or ()) >= _FIELDS:
        raise Rejected(f"line 1: expected the columns {', '.join(sorted(_FIELDS))}")
    for row in rows:
        try:
            group, at = int(row["group"]), _time(row["at"])
        except (ValueError, TypeError, OverflowError, OSError):
            raise Rejected(
                f"line {rows.line_num}: expected a group's number, and a time: ISO 8601, or seconds since 1970"
            ) from None
        yield sent_mails.Sent(row["recipient"] or "", group, at)


def _time(text: str) -> datetime:
    if text.replace(".", "", 1).isdecimal():
        return datetime.fromtimestamp(float(text), UTC)
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


COMMANDS = (report, sent)
