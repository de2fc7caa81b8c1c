"""What commands print: one JSON value a line for programs, plain lines for people."""

import getpass
import json
from typing import Annotated, Any

import typer

from worker.installation import with_embedded_secrets
from worker.quarantine.shown import printable
from worker.settings import Settings, load_settings

Json = Annotated[bool, typer.Option("--json", help="One JSON value a line.")]


def login_name() -> str:
    """Return who runs this process, "operator" where nobody can tell."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "operator"


Login = Annotated[str, typer.Option("--actor", help="Who decides, for the ledger; default: the login name.")]


def say(text: str = "") -> None:
    """Print lines for people; what a terminal might obey is spelled."""
    typer.echo("\n".join(map(printable, text.split("\n"))))


def say_json(value: Any) -> None:
    """Print one JSON value on one line, in ASCII: a mail's characters may steer a terminal."""
    typer.echo(json.dumps(value).replace("\x7f", "\\u007f"))


def own_settings(*, make: bool = True) -> Settings:
    """Return this process's settings, with the embedded default's key and token; make False: if they are there."""
    return with_embedded_secrets(load_settings(), make=make)
