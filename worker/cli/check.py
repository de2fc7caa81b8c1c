"""`unsubd check`: arguments, or a list of any size."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from handlers.address import one_address
from handlers.errors import AddressError
from worker.check import BYPASSES, Answer
from worker.check import as_json as answer_json
from worker.check import check as ask
from worker.cli.output import Json, own_settings, say, say_json
from worker.cli.progress import bar
from worker.installation import open_installation
from worker.lists import ListFile, open_list, written_list

_CHUNK = 2000
Bypass = Annotated[list[str] | None, typer.Option(help=f"As in SendGrid's mail_settings: {', '.join(BYPASSES)}.")]
Asker = Callable[[Sequence[str]], list[Answer]]


def check(
    sender_id: Annotated[str, typer.Argument(metavar="SENDER")],
    group_id: Annotated[int, typer.Argument(metavar="GROUP", help="0 = everything this sender sends.")],
    addresses: Annotated[list[str] | None, typer.Argument(metavar="[ADDRESS]…")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A list: CSV, JSON Lines or one address a line, of any size; - for stdin.")
    ] = None,
    column: Annotated[str, typer.Option(help="Its column of addresses; default: the one named email, or alike.")] = "",
    allowed: Annotated[
        Path | None, typer.Option(help="Write the list here without whom mail must not reach; columns stay.")
    ] = None,
    bypass: Bypass = None,
    as_json: Json = False,
) -> None:
    """Say for each address whether mail must not be sent. A store that cannot answer is exit 75, never "allowed"."""
    if bool(addresses) == (file is not None) or (allowed and file is None):
        raise typer.BadParameter("expected addresses, or --file LIST (with --allowed perhaps)")
    with open_installation(own_settings()) as installation:

        def asker(some: Sequence[str]) -> list[Answer]:
            return ask(installation, sender_id, group_id, some, bypass or ())

        if file is not None:
            asker([])  # an unknown group is said before anything is read
            _check_list(file, column, allowed, asker, as_json)
            return
        for answer in asker(addresses or []):
            _print(answer, as_json)


def _print(answer: Answer, as_json: bool) -> None:
    row = answer_json(answer)
    if as_json:
        say_json(row)
        return
    stopped = f"suppressed ({row['scope']}, since {row['since']}, {row['source']})"
    essential = " (essential: only an entry for this very group stops it)" if answer.essential else ""
    say(f"{row['recipient']}  {stopped if answer.suppressed else 'allowed'}{essential}")


def _check_list(path: Path, column: str, allowed: Path | None, asker: Asker, as_json: bool) -> None:
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        found = stack.enter_context(open_list(path))
        number = found.address_column(column)
        keep = stack.enter_context(written_list(allowed, found)) if allowed else None
        move = stack.enter_context(bar("checked", found.size_bytes))
        for rows in _chunks(found):
            for row, answer in zip(rows, _answers([_cell(row, number) for row in rows], asker), strict=True):
                counts["not an address" if answer is None else answer.scope or "allowed"] += 1
                if keep and answer is not None and not answer.suppressed:
                    keep(row)
                if as_json:
                    say_json(
                        answer_json(answer) if answer else {"recipient": _cell(row, number), "error": "not an address"}
                    )
            move(found.read_bytes(), f"{counts.total():,}")
    if not as_json:
        _say_counts(counts, allowed)


def _chunks(found: ListFile) -> Iterator[list[list[str]]]:
    rows = found.rows()
    while some := list(islice(rows, _CHUNK)):
        yield some


def _cell(row: list[str], number: int) -> str:
    return row[number] if number < len(row) else ""


def _answers(cells: Sequence[str], asker: Asker) -> list[Answer | None]:
    """The answer for each cell; None for what is no address: nobody was declared allowed."""
    exact = [_canonical(cell) for cell in cells]
    found = iter(asker([each for each in exact if each is not None]))
    return [None if each is None else next(found) for each in exact]


def _canonical(cell: str) -> str | None:
    try:
        return one_address(cell)
    except AddressError:
        return None


def _say_counts(counts: Counter[str], allowed: Path | None) -> None:
    suppressed = counts["group"] + counts["global"]
    say(
        f"{counts.total():,} rows: {counts['allowed']:,} allowed, {suppressed:,} suppressed"
        f" (group {counts['group']:,}, global {counts['global']:,}), {counts['not an address']:,} not an address"
    )
    if allowed:
        say(f"{allowed}: the {counts['allowed']:,} allowed rows")


COMMANDS = (check,)
