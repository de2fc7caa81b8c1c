"""`unsubd stamp`: a mail goes in, the same mail with headers and links comes out."""

import sys
from typing import Annotated

import typer

from worker.cli.output import own_settings
from worker.minting import minting


def stamp(
    sender_id: Annotated[str, typer.Argument(metavar="SENDER")],
    group_id: Annotated[int, typer.Argument(metavar="GROUP", help="0 = everything this sender sends.")],
    recipient: Annotated[str, typer.Option(help="Whom it goes to; default: the one address in To.")] = "",
    tag: Annotated[str, typer.Option(help="A substitution tag of your own, besides SendGrid's.")] = "",
    mailto_only: Annotated[bool, typer.Option("--mailto-only", help="Without the https link.")] = False,
) -> None:
    """Give one recipient's mail its headers, and links where substitution tags stand: standard input to standard output."""
    from worker.stamping import stamp_with  # costs the start of every command otherwise

    found = minting(own_settings(make=False), sender_id, group_id)
    raw = sys.stdin.buffer.read()
    done = stamp_with(found, group_id, raw, recipient=recipient, custom=tag, mailto_only=mailto_only)
    for warning in (*found.warnings, *done.warnings):
        sys.stderr.write(f"unsubd: {warning}\n")
    sys.stdout.buffer.write(done.raw)
    sys.stdout.buffer.flush()


COMMANDS = (stamp,)
