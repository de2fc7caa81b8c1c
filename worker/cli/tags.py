"""`unsubd tag` and `unsubd headers`."""

import sys
from typing import Annotated

import typer

from handlers import tag as tags
from handlers.errors import ConfigError
from handlers.headers import unsubscribe_headers
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import has_no_store, open_known
from worker.minting import Minting, minting
from worker.settings import Settings

tag = typer.Typer(help="Mint and read address tags.", no_args_is_help=True)
SenderId = Annotated[str, typer.Argument(metavar="SENDER")]
GroupId = Annotated[int, typer.Argument(metavar="GROUP", help="0 = everything this sender sends.")]
Recipient = Annotated[str, typer.Argument(metavar="RECIPIENT")]


def _minting(settings: Settings, sender_id: str, group_id: int) -> Minting:
    found = minting(settings, sender_id, group_id)
    for warning in found.warnings:
        sys.stderr.write(f"unsubd: {warning}\n")
    return found


@tag.command("mint")
def mint(sender_id: SenderId, group_id: GroupId, recipient: Recipient, as_json: Json = False) -> None:
    """Print the unsubscribe address of one recipient. Needs UNSUBD_SECRET_KEYS and UNSUBD_ADDRESS."""
    minted = _minting(own_settings(make=False), sender_id, group_id).mint(group_id, recipient)
    row = {"tag": minted.tag, "address": minted.address, "stored": minted.stored}
    say_json(row) if as_json else say(minted.address)


@tag.command("read")
def read(address: Annotated[str, typer.Argument(metavar="ADDRESS")], as_json: Json = False) -> None:
    """Print what a tag says; exit 65 when no key of ours signed it."""
    settings = own_settings(make=False)
    rows = {}
    if (refs := tags.stored_refs(address)) and not has_no_store(settings):
        with open_known(settings) as known:
            rows = known.tags.found(refs)
    found = tags.read(address, settings.keys(), rows).tag
    row = {"sender": found.sender, "group": found.group, "recipient": found.recipient}
    say_json(row) if as_json else say(f"{found.sender} {found.group} {found.recipient}")


def headers(
    sender_id: SenderId,
    group_id: GroupId,
    recipient: Recipient,
    mailto_only: Annotated[bool, typer.Option("--mailto-only", help="Without the https link.")] = False,
) -> None:
    """Print the header lines of one recipient's mail, ready to paste."""
    sender = _minting(own_settings(make=False), sender_id, group_id)
    if not (sender.public_url or sender.sender.https_url) and not mailto_only:
        raise ConfigError(
            "UNSUBD_PUBLIC_URL: not set, expected e.g. https://unsub.example.com: Gmail and Yahoo want the https link too"
            " (or say --mailto-only)"
        )
    minted = sender.mint(group_id, recipient)
    for name, value in unsubscribe_headers(minted, None if mailto_only else sender.link(minted)):
        say(f"{name}: {value}")


COMMANDS = (headers,)
