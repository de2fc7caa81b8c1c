"""`unsubd …`: every command is one call elsewhere. Exit codes are sysexits: 0, 64, 65, 69, 70, 75, 78.

`unsubd deliver -` is a mail server's pipe: it says 0 or 75.
"""

import sys
from collections.abc import Sequence

import typer

from handlers.errors import EX_SOFTWARE, EX_TEMPFAIL, EX_USAGE
from worker.cli import (
    accounts,
    anomaly,
    backup,
    check,
    events,
    forward,
    hook,
    lint,
    lists,
    mail,
    mailbox,
    migrate,
    mta,
    people,
    quarantine,
    reconcile,
    report,
    service,
    stamp,
    survey,
    tags,
    trace,
)
from worker.cli.failure import explained
from worker.dumps import leave_no_dump
from worker.journal import configure_logging

app = typer.Typer(
    name="unsubd",
    help="Turns the mail that an Unsubscribe button sends into a suppression your next campaign obeys.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for commands in (
    service,
    mail,
    check,
    people,
    lists,
    backup,
    migrate,
    survey,
    tags,
    report,
    reconcile,
    stamp,
    lint,
    trace,
):
    for command in commands.COMMANDS:
        app.command()(command)
accounts.sender.command("events")(events.sender_events)
app.add_typer(accounts.sender, name="sender")
app.add_typer(accounts.group, name="group")
app.add_typer(accounts.keys, name="keys")
app.add_typer(tags.tag, name="tag")
app.add_typer(mailbox.app, name="mailbox")
app.add_typer(hook.app, name="hook")
app.add_typer(forward.app, name="forward")
app.add_typer(mta.app, name="mta")
app.add_typer(anomaly.app, name="anomaly")
app.add_typer(quarantine.app, name="quarantine")


def main() -> None:
    """Run a command and exit with its code."""
    leave_no_dump()
    try:
        _main()
    except SystemExit as stop:
        raise SystemExit(EX_TEMPFAIL if stop.code and _from_pipe(sys.argv[1:]) else stop.code) from None


def _from_pipe(words: Sequence[str]) -> bool:
    """Say whether a mail server may be waiting for our exit code.

    Why:     Postfix's pipe(8) and Exim's pipe transport bounce 64, 65, 69, 70 and 78 alike, to the person who pressed
             Unsubscribe. Only 75 keeps the mail in their queue, until ops have mended a setting or we a bug.
    """
    return words[:1] == ["deliver"] and "-" in words[1:]


def _main() -> None:
    configure_logging(quiet=not {"run", "poll", "lmtp", "policy", "milter", "work", "web"} & set(sys.argv[1:2]))
    try:
        with explained():
            app()
    except SystemExit as stop:
        # typer's own usage errors are 2; scripts of this field expect 64
        raise SystemExit(EX_USAGE if stop.code == 2 else stop.code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception:  # noqa: BLE001  a bug: its traceback, and the exit code that says so
        import traceback

        traceback.print_exc()
        raise SystemExit(EX_SOFTWARE) from None
