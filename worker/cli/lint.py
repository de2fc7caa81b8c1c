"""`unsubd lint`: what an outgoing or received mail lacks for an Unsubscribe button."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from handlers.errors import EX_DATAERR, Rejected
from worker.cli.output import Json, own_settings, say, say_json


def lint(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A mail, before or after it was sent; - for stdin.")],
    try_link: Annotated[
        bool, typer.Option("--try", help="Post one-click to its link, with the tag of a test recipient in it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what keeps a mail from having an Unsubscribe button; exit 65 when something does."""
    from handlers.lint import CHOICE  # costs the start of every command otherwise
    from worker.linting import lint as look

    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise Rejected(f"{file}: {error.strerror}, expected a mail") from error
    found = look(own_settings(make=False), raw, try_link=try_link)
    bad = any(each.is_problem for each in found)
    if as_json:
        rows = [{"code": each.code, "problem": each.is_problem, "text": each.text} for each in found]
        say_json({"file": str(file), "ok": not bad, "findings": rows, "note": CHOICE})
    else:
        for each in found:
            say(f"{'problem' if each.is_problem else 'note'}: {each.text}")
        say("not good" if bad else "good")
        say(CHOICE)
    if bad:
        raise SystemExit(EX_DATAERR)


COMMANDS = (lint,)
