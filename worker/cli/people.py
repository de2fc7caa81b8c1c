"""`unsubd suppress`, `unsubd resubscribe`, `unsubd evidence`, `unsubd forget`: one person at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from handlers.errors import Rejected
from handlers.request import Action, Effect
from worker import by_hand
from worker.cli.output import Json, Login, login_name, own_settings, say, say_json
from worker.evidence import Story, bundle, told
from worker.forget import forget as forget_address
from worker.installation import open_installation

Sender = Annotated[str, typer.Argument(metavar="SENDER")]
Group = Annotated[int, typer.Argument(metavar="GROUP", help="0 = everything this sender sends.")]
Addresses = Annotated[list[str], typer.Argument(metavar="ADDRESS…")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the ledger.")]


def suppress(
    sender: Sender, group: Group, addresses: Addresses, reason: Why, actor: Login = "", as_json: Json = False
) -> None:
    """Stop mail of this very group, also of an essential one, in your own name."""
    _enter(Action.UNSUBSCRIBE, sender, group, addresses, reason, actor, as_json)


def resubscribe(
    sender: Sender, group: Group, addresses: Addresses, reason: Why, actor: Login = "", as_json: Json = False
) -> None:
    """Let mail of this very group go out again, in your own name; lifts a complaint's and an import's hold, too."""
    _enter(Action.RESUBSCRIBE, sender, group, addresses, reason, actor, as_json)


def _enter(
    action: Action, sender: str, group: int, addresses: Sequence[str], reason: str, actor: str, as_json: bool
) -> None:
    if not reason.strip():
        raise typer.BadParameter("--reason: expected why, for the ledger")
    with open_installation(own_settings()) as installation:
        results = by_hand.enter(
            installation, action, sender, group, addresses, actor=actor or login_name(), reason=reason
        )
    for each in results:
        row = {name: each[name] for name in ("recipient", "sender", "group", "effect")}
        say_json(row) if as_json else say(f"{row['recipient']}  {row['effect']}")
    if any(each["effect"] == Effect.NOT_LIFTED.value for each in results):
        raise Rejected("some were not lifted: nothing of theirs is suppressed in this very group")


def evidence(
    sender: Sender,
    address: Annotated[str, typer.Argument(metavar="ADDRESS")],
    bundle_file: Annotated[
        Path | None, typer.Option("--bundle", help="Write a file that a third person can verify without us.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell the whole story of one recipient: what counts now, and every message and entry that made it so."""
    settings = own_settings()
    with open_installation(settings) as installation:
        story = told(installation, sender, address)
        head = bundle(installation, story, bundle_file) if bundle_file else ""
    if as_json:
        say_json(story.as_json() | ({"bundle": str(bundle_file), "head": head} if head else {}))
        return
    _print_story(story)
    if head:
        say(f"{bundle_file}: note its head and keep it elsewhere: {head}")


def _print_story(story: Story) -> None:
    say(
        f"{story.recipient}, sender {story.sender}, pseudonym {story.pseudonym}{' (forgotten)' if story.forgotten else ''}"
    )
    for row in story.rows:
        marks = "".join(f", {word}" for word in ("held", "complaint") if row[word])
        by_import = f", import {row['import']}" if row.get("import") else ""
        say(
            f"now      group {row['group']} ({row['name']}): {'suppressed' if row['suppressed'] else 'allowed again'}"
            f" since {row['first_seen']}, last change {row['time']} by {row['source']}{by_import}{marks}"
        )
    if not story.rows:
        say("now      allowed: nothing is stored of this recipient")
    for each in story.events:
        say(f"{each['at']}  {each['what']}")
    say(f"{len(story.events)} events, {story.archived} of them from the archive")


def forget(
    address: Annotated[str, typer.Argument(metavar="ADDRESS")],
    yes: Annotated[bool, typer.Option("--yes", help="Without being asked.")] = False,
    as_json: Json = False,
) -> None:
    """Take an address out of every place that holds it; a keyed name keeps suppressing. Cannot be undone."""
    if not (yes or _agreed("Forget this address for every sender? It cannot be undone")):
        raise typer.BadParameter("nobody said yes: nothing was forgotten; where nobody can be asked, expected --yes")
    with open_installation(own_settings()) as installation, Console(stderr=True).status("forgetting") as status:
        found = forget_address(installation, address, lambda what: status.update(f"forgetting: {what}"))
    names = ("suppressions", "stored_tags", "imported", "quarantine", "jobs", "journal", "mails")
    counts: dict[str, Any] = {name: getattr(found, name) for name in names}
    if as_json:
        say_json({**counts, "newer_jobs": found.newer_jobs, "rewriting": list(found.rewriting)})
        return
    say(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items()))
    for line in found.rewriting:
        say(line)
    if found.newer_jobs:
        say(f"{found.newer_jobs} jobs may hold it still: a newer unsubd enqueued them; forget it with that one, too")
    say("backups, your mailboxes and lists may hold it still; ledger and archive hold keyed pseudonyms alone")


def _agreed(question: str) -> bool:
    """Ask on stderr. Why: without a terminal typer says "Aborted" alone, and not how to go on."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)
        return False


COMMANDS = (suppress, resubscribe, evidence, forget)
