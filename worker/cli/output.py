"""What commands print: one JSON value a line for programs, plain lines for people."""

import json
from typing import Annotated, Any

import typer

from worker.installation import with_embedded_secrets
from worker.settings import Settings, load_settings

Json = Annotated[bool, typer.Option("--json", help="One JSON value a line.")]


def say(text: str = "") -> None:
    """Print one line for people."""
    typer.echo(text)


def say_json(value: Any) -> None:
    """Print one JSON value on one line."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def own_settings(*, make: bool = True) -> Settings:
    """Return this process's settings, with the embedded default's key and token; make False: if they are there."""
    return with_embedded_secrets(load_settings(), make=make)
