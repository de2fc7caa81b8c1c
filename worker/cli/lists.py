"""`unsubd import`, `unsubd export`: lists of people in and out."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from handlers.exports import FORMATS
from worker import imports
from worker.cli.output import Json, Login, login_name, own_settings, say, say_json
from worker.cli.progress import bar
from worker.installation import open_installation
from worker.lists import written_file

_COLUMNS = ("email", "group", "created", "source", "reason")
_TOLD_EVERY = 5000


def import_list(
    sender: Annotated[str, typer.Argument(metavar="SENDER")],
    group: Annotated[int, typer.Argument(metavar="GROUP", help="Of rows that name none; 0 = everything.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON Lines or one address a line; - for stdin.")],
    form: Annotated[str, typer.Option("--format", help=f"Default: what the columns say. {', '.join(FORMATS)}.")] = "",
    rejects: Annotated[Path | None, typer.Option(help="Where rejected rows go; default: FILE.rejected.csv.")] = None,
    actor: Login = "",
    as_json: Json = False,
) -> None:
    """Add the people of a list; an import never removes. Left in the middle, the same command goes on."""
    target = rejects or Path("import.rejected.csv" if str(file) == "-" else f"{file}.rejected.csv")
    size = None if str(file) == "-" or not file.exists() else file.stat().st_size
    with open_installation(own_settings()) as installation, bar("imported", size) as move:
        done = imports.run(
            installation, sender, group, file, actor=actor or login_name(), form=form, rejects=target, progress=move
        )
    row = {name: getattr(done, name) for name in ("id", "rows", "added", "present", "stale", "rejected")}
    if as_json:
        say_json(row)
        return
    where = f" (see {target})" if done.rejected else ""
    say(
        f"{done.rows:,} rows: {done.added:,} added, {done.present:,} already present, {done.stale:,} stale"
        f" (they came back later), {done.rejected:,} rejected{where}"
    )
    say(f"import {done.id}")


def export(
    sender: Annotated[str, typer.Argument(metavar="SENDER")],
    group: Annotated[int | None, typer.Argument(metavar="[GROUP]", help="Default: every group, 0 among them.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: standard output.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines instead of CSV.")] = False,
) -> None:
    """Write who is suppressed, as CSV or JSON Lines that unsubd import reads. Forgotten people are only counted."""
    with open_installation(own_settings()) as installation:
        known = [each.id for each in installation.accounts.groups(installation.accounts.sender(sender).id)]
        if group is not None:
            installation.accounts.group(sender, group)
        found = imports.rows(installation, sender, [0, *known] if group is None else [group])
        with _opened(output) as file, bar("exported", None) as move:
            counts = _write(file, found, as_json=as_json, move=move)
    forgotten = f", {counts['forgotten']:,} forgotten are not named" if counts["forgotten"] else ""
    sys.stderr.write(f"{counts['written']:,} suppressions{forgotten}\n")


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    with written_file(path) as file:
        Path(file.name).chmod(0o600)
        yield file


def _write(file: IO[str], found: Iterator[dict[str, Any] | None], *, as_json: bool, move: Any) -> Counter[str]:
    counts: Counter[str] = Counter()
    writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
    if not as_json:
        writer.writeheader()
    for row in found:
        if row is None:
            counts["forgotten"] += 1
            continue
        file.write(json.dumps(row) + "\n") if as_json else writer.writerow(row)
        counts["written"] += 1
        if not counts["written"] % _TOLD_EVERY:
            move(counts["written"], f"{counts['written']:,}")
    return counts


import_list.__name__ = "import"
COMMANDS = (import_list, export)
