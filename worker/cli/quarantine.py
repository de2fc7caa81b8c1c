"""`unsubd quarantine`: what was not understood, and what a person makes of it."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from handlers.errors import Rejected
from handlers.request import Outcome
from worker.cli.output import Json, Login, login_name, own_settings, say, say_json
from worker.installation import Installation, open_installation
from worker.quarantine.entry import FAILED, Entry
from worker.quarantine.replay import Replay, asked_for
from worker.quarantine.resolution import Resolution, Settled, Way, check_named, plan, resolve
from worker.quarantine.shelf import Selection
from worker.quarantine.shown import asks, content, printable, row, without_addresses

app = typer.Typer(help="What was not understood: look at it, settle it, try it again.", no_args_is_help=True)
_AT_ONCE = 100
_ID_DIGITS = 32
_REASONS = {each.value for each in Outcome} | {FAILED}

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]…", help="As unsubd quarantine list shows them.")]
Kept = Annotated[
    str, typer.Option("--kept-for", help="Only this reason: no-tag, bad-tag, malformed, complaint, failed.")
]
Source = Annotated[str, typer.Option(help="Only from this source, e.g. imap:INBOX.")]
Since = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only what was kept since this day (UTC).")]
Suggested = Annotated[bool, typer.Option("--suggested", help="Only what has a suggestion.")]
Full = Annotated[bool, typer.Option("--full", help="Spell addresses.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be, and change nothing.")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the ledger.")]


@app.command("list")
def list_entries(
    reason: Annotated[str, typer.Option("--reason", "--kept-for", help="Only this reason, e.g. no-tag.")] = "",
    source: Source = "",
    since: Since = None,
    suggested: Suggested = False,
    limit: Annotated[int, typer.Option(min=1, help="So many, newest first.")] = 50,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """List what waits for a person, newest first; addresses are masked."""
    selection = _selection(reason, source, since, suggested)
    with open_installation(own_settings()) as installation:
        ids = installation.quarantine.ids(selection, limit)
        entries = list(installation.quarantine.entries(ids).values())
        total = installation.quarantine.count(selection)
    if not as_json:
        _print_table(entries, total, full=full)
    for entry in entries if as_json else ():
        say_json(row(entry, full=full))


@app.command("show")
def show(
    entry_id: Annotated[str, typer.Argument(metavar="ID")],
    raw: Annotated[bool, typer.Option("--raw", help="What was fetched; exact bytes unless to a terminal.")] = False,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Show one entry: why it is here, what was proved, its decoded headers and the beginning of its text."""
    with open_installation(own_settings()) as installation:
        [entry] = _named(installation, [entry_id])
        kept = installation.quarantine.raw(entry.id)
        asked = asked_for(installation, entry, kept) if kept and entry.reason != FAILED and not raw else []
    if raw:
        _print_raw(kept or b"")
        return
    facts = row(entry, full=full) | asks(asked, full=full) | content(entry, kept, full=full)
    if as_json:
        say_json(facts)
    else:
        for name, value in facts.items():
            _print_fact(name, value)


@app.command("resolve")
def resolve_entries(
    ids: Ids = None,
    named: Annotated[
        tuple[str, int, str] | None, typer.Option("--as", metavar="SENDER GROUP RECIPIENT", help="It asks for this.")
    ] = None,
    accept: Annotated[bool, typer.Option("--accept-suggestions", help="It asks for what is suggested.")] = False,
    dismiss: Annotated[bool, typer.Option("--dismiss", help="It asks for nothing.")] = False,
    reason: Why = "",
    kept_for: Kept = "",
    source: Source = "",
    since: Since = None,
    suggested: Suggested = False,
    actor: Login = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Settle entries, by id or by filter: as one sender, group and recipient, as suggested, or as nothing."""
    if [named is not None, accept, dismiss].count(True) != 1:
        raise typer.BadParameter("expected one of --as SENDER GROUP RECIPIENT, --accept-suggestions, --dismiss")
    chosen = _chosen(ids, kept_for, source, since, suggested or (accept and not ids))
    if not reason.strip() or chosen == Selection() or (named and not ids):
        raise typer.BadParameter("expected --reason TEXT, and ids or (not with --as) a filter")
    with open_installation(own_settings()) as installation:
        way = Way.NAMED if named else Way.ACCEPTED if accept else Way.DISMISSED
        whom = check_named(installation, *named) if named else None
        resolution = Resolution(way, actor or login_name(), reason, whom)
        take = partial(plan, resolution) if dry_run else partial(resolve, installation, resolution)
        left = _work(installation, chosen, take, dry_run=dry_run, as_json=as_json)
    if left and ids and not dry_run:
        raise Rejected(f"{left} of {len(ids)} entries are still in quarantine")


@app.command("replay")
def replay_entries(
    ids: Ids = None,
    kept_for: Kept = "",
    source: Source = "",
    since: Since = None,
    suggested: Suggested = False,
    reason: Why = "",
    actor: Login = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Try entries again, as after a key was added: all, by id or by filter. What is still not understood stays."""
    with open_installation(own_settings()) as installation:
        replay = Replay(installation, Resolution(Way.REPLAYED, actor or login_name(), reason), dry_run=dry_run)
        chosen = _chosen(ids, kept_for, source, since, suggested)
        _work(installation, chosen, replay.take, dry_run=dry_run, as_json=as_json)


def _chosen(
    ids: list[str] | None, reason: str, source: str, since: datetime | None, suggested: bool
) -> Selection | list[str]:
    selection = _selection(reason, source, since, suggested)
    if ids and selection != Selection():
        raise typer.BadParameter("expected ids or filters, not both")
    return list(dict.fromkeys(ids)) if ids else selection


def _selection(reason: str, source: str, since: datetime | None, suggested: bool) -> Selection:
    if reason and not {reason, f"quarantine:{reason}"} & _REASONS:
        raise typer.BadParameter(
            f"reason {reason!r}: expected no-tag, bad-tag, malformed, failed, or an outcome such as complaint"
        )
    since_ms = round(since.replace(tzinfo=UTC).timestamp() * 1000) if since else 0
    return Selection(reason, source, suggested, since_ms)


def _spelled_out(installation: Installation, ids: Sequence[str]) -> list[str]:
    """The whole ids that the given beginnings (a journal line's 12 digits) stand for; others stay as they are."""
    short = [each for each in ids if len(each) < _ID_DIGITS]
    known = installation.quarantine.ids(Selection()) if short else []
    spelled = []
    for each in ids:
        found = [whole for whole in known if whole.startswith(each)] if each in short else [each]
        if len(found) > 1:
            raise Rejected(f"quarantine id {each!r}: {len(found)} entries begin so, expected more digits")
        spelled.append(found[0] if found else each)
    return spelled


def _named(installation: Installation, ids: Sequence[str]) -> list[Entry]:
    ids = _spelled_out(installation, ids)
    entries = installation.quarantine.entries(ids)
    for entry_id in ids:
        if entry_id not in entries:
            raise Rejected(f"quarantine id {entry_id[:40]!r}: not here, expected one of: unsubd quarantine list")
    return list(entries.values())


def _work(
    installation: Installation,
    chosen: Selection | list[str],
    take: Callable[[Sequence[Entry]], list[Settled]],
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Take the entries some at a time, oldest first; return how many stay. What was done is told whatever ends it."""
    ids = installation.quarantine.ids(chosen)[::-1] if isinstance(chosen, Selection) else chosen
    if not isinstance(chosen, Selection):
        _named(installation, ids)
    counts: Counter[str] = Counter()
    gone = 0
    try:
        with _progress(len(ids)) as advance:
            for start in range(0, len(ids), _AT_ONCE):
                part = ids[start : start + _AT_ONCE]
                settled = take(list(installation.quarantine.entries(part).values()))
                counts.update([each.word for each in settled] + ["gone already"] * (len(part) - len(settled)))
                gone += sum(each.gone for each in settled)
                _tell_each(settled, as_json=as_json, one_by_one=dry_run or not isinstance(chosen, Selection))
                advance(len(part))
    finally:
        if not as_json:
            _tell(counts, len(ids), gone, dry_run=dry_run)
    return len(ids) - gone - counts["gone already"]


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("entries"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=total <= _AT_ONCE) as progress:
        bar = progress.add_task("entries", total=total)
        yield lambda count: progress.advance(bar, count)


def _tell_each(settled: Sequence[Settled], *, as_json: bool, one_by_one: bool) -> None:
    for each in settled:
        if as_json:
            say_json({"id": each.entry.id, "reason": each.entry.reason, "became": each.word, "gone": each.gone})
        elif one_by_one:
            whom = "".join(f" {without_addresses(recipient)}" for recipient in each.whom)
            say(f"{each.entry.id}  {printable(each.entry.reason)}  ->  {printable(each.word + whom)}")


def _tell(counts: Counter[str], total: int, gone: int, *, dry_run: bool) -> None:
    words = [f"{count} {printable(word)}" for word, count in counts.most_common()]
    if (untouched := total - counts.total()) > 0:
        words.append(f"{untouched} not reached")
    say(f"{total} entries: {', '.join(words) or 'none'}")
    say("nothing was changed" if dry_run else f"{gone} left the quarantine")


def _print_table(entries: Sequence[Entry], total: int, *, full: bool) -> None:
    table = Table("Id", "Kept", "Reason", "Source", "From", "Subject", "Suggestion")
    table.columns[0].no_wrap = True
    for entry in entries:
        facts = row(entry, full=full)
        suggestion = " ".join(str(facts["suggestion"].get(name)) for name in ("sender", "group", "recipient")
                              ) if facts["suggestion"] else ""  # fmt: skip
        cells = (
            entry.id,
            facts["kept_at"][:16],
            entry.reason,
            entry.source,
            facts["from"],
            facts["subject"],
            suggestion,
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))  # Text: a subject must not be taken for markup
    table.caption = f"{len(entries)} of {total} entries"
    Console(width=None if _to_terminal() else 200).print(table)


def _print_fact(name: str, value: Any) -> None:
    if isinstance(value, dict):
        value = " ".join(f"{each}={fact}" for each, fact in value.items())
    lines = value if isinstance(value, list) else [value]
    for number, line in enumerate(lines):
        if line not in (None, ""):
            say(f"{'' if number else name:<11} {printable(str(line))}")


def _print_raw(kept: bytes) -> None:
    if not _to_terminal():
        typer.echo(kept, nl=False)
        return
    for line in kept.decode("utf-8", "replace").splitlines():
        say(printable(line))


def _to_terminal() -> bool:
    return sys.stdout.isatty()
