"""`unsubd audit` and `unsubd poll --dry-run`: a mailbox read, and left as it was."""

import asyncio
import csv
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from handlers.address import masked
from handlers.errors import ConfigError, Rejected
from handlers.request import DecidedMessage
from worker.audit import COLUMNS, Audit, day_of
from worker.cli.output import Json, own_settings, say, say_json
from worker.explain import Explainer
from worker.installation import Installation, open_installation
from worker.intake import is_foreign
from worker.settings import Settings
from worker.sources.imap import MailboxAddress
from worker.sources.mailbox import BACKLOG_ASKED_ABOVE
from worker.sources.polling import mailbox_addresses
from worker.sources.survey import Survey


def dry_run(settings: Settings, limit: int) -> None:
    """Print what polling would make of the newest *limit* messages that are not marked; write nothing anywhere."""
    if not settings.imap_url.split():
        raise ConfigError("UNSUBD_IMAP_URL: not set, expected e.g. imaps://user@host/INBOX")
    for address in mailbox_addresses(settings):
        asyncio.run(_dry_run(settings, address, limit))
    say("nothing was marked, moved or written")


async def _dry_run(settings: Settings, address: MailboxAddress, limit: int) -> None:
    explainer, survey = Explainer(settings), Survey(settings, address, settings.keys())
    table = Table("UID", "Arrived", "Outcome", "Why", "Request", title=f"{address.name}: {address.mailbox}")
    outcomes: Counter[str] = Counter()
    notes: set[str] = set()
    try:
        uids = await survey.uids(waiting=True)
        async for messages in survey.messages(uids[-limit:]):
            for uid, inbound in messages.items():
                decided, note = explainer.decide(inbound)
                outcome = _planned(decided, settings)
                outcomes[outcome] += 1
                notes |= {note} if note else set()
                table.add_row(str(uid), day_of(inbound.received_ms or 0), outcome, decided.reason, _requests(decided))
    finally:
        await survey.close()
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    say(f"the newest {min(limit, len(uids))} of {len(uids)} messages that are not marked: {_counted(outcomes)}")
    for note in sorted(notes):
        say(f"note: {note}")
    if settings.imap_backlog == "ask" and len(uids) > BACKLOG_ASKED_ABOVE:
        say("a mailbox never polled before is held first: release it with UNSUBD_IMAP_BACKLOG=all, or from a date")


def _planned(decided: DecidedMessage, settings: Settings) -> str:
    """The outcome, or what polling does with mail that is not ours in a mailbox that is shared."""
    if settings.imap_untagged == "process" or not is_foreign(decided):
        return decided.outcome.value
    return "left, and suggested" if decided.suggestion else "left untouched"


def _requests(decided: DecidedMessage) -> str:
    return "\n".join(f"{each.sender} {each.group} {masked(each.recipient)}" for each in decided.requests)


def _counted(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in outcomes.most_common())


def audit(
    urls: Annotated[list[str], typer.Argument(metavar="IMAP-URL…", help="imaps://user@host/INBOX#name")],
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write one line per person to this file (0600).")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Honour the requests that can be proved.")] = False,
    as_json: Json = False,
) -> None:
    """Read whole mailboxes, changing nothing there, and say who asked, who can be proved, and who still gets mail."""
    settings, addresses = own_settings(), [MailboxAddress.parse(url) for url in urls]
    tally = Audit()
    with open_installation(settings) as installation:
        unreadable = asyncio.run(_read(installation, addresses, tally, apply=apply))
        tally.look_up(installation)
    if csv_file:
        _write(csv_file, tally)
    if as_json:
        for share in tally.shares():
            say_json({name: getattr(share, name) for name in share.__slots__})
    else:
        _print(tally, unreadable, applied=apply)


async def _read(installation: Installation, addresses: list[MailboxAddress], tally: Audit, *, apply: bool) -> int:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    unreadable = 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for address in addresses:
            survey = Survey(installation.settings, address, installation.keys)
            try:
                uids = await survey.uids(waiting=False)
                bar = progress.add_task(f"{address.name}: {address.mailbox}", total=len(uids))
                async for messages in survey.messages(uids):
                    provable = await asyncio.to_thread(tally.take, installation, messages)
                    if apply and provable:
                        await asyncio.to_thread(installation.intake.accept, list(provable.values()))
                    progress.advance(bar, len(messages))
            finally:
                await survey.close()
            unreadable += survey.unreadable
    return unreadable


def _write(path: Path, tally: Audit) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *tally.rows()])
    except OSError as error:
        raise Rejected(f"--csv: {path}: {error.strerror}, expected a file that we may write") from error


def _print(tally: Audit, unreadable: int, *, applied: bool) -> None:
    shares = tally.shares()
    table = Table("Sender", "Group", "People", "Messages", "Oldest", "Not suppressed", title="Who asked")
    for share in shares:
        named = (share.sender, str(share.group)) if share.sender else ("no proof", "-")
        counts = (str(share.people), str(share.messages), day_of(share.oldest_ms))
        table.add_row(*named, *counts, str(share.not_suppressed) if share.sender else "-")
    if shares:
        Console(width=None if sys.stdout.isatty() else 120).print(table)
    provable = [share for share in shares if share.sender]
    asked, proved = sum(share.people for share in shares), sum(share.people for share in provable)
    say(f"{tally.outcomes.total()} messages: {_counted(tally.outcomes)}")
    say(
        f"{asked} people asked, {proved} of them provably; {sum(share.not_suppressed for share in provable)} still get mail"
    )
    if unreadable:
        say(f"{unreadable} messages could not be fetched")
    if applied:
        say("the provable requests are queued; the workers give them effect")
    elif any(share.not_suppressed for share in provable):
        say("honour the provable ones with --apply")


COMMANDS = (audit,)
