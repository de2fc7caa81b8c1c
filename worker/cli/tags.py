"""`unsubd tag` and `unsubd headers`."""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from handlers import tag as tags
from handlers.address import one_address
from handlers.errors import AddressError
from handlers.headers import MAX_PERSONALIZATIONS, Form, shaped
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import has_no_store, open_known
from worker.lists import open_list
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
    recipient: Annotated[str, typer.Argument(metavar="RECIPIENT")] = "",
    file: Annotated[
        Path | None, typer.Option(help="Recipients: CSV, JSON Lines or one address a line; - for stdin.")
    ] = None,
    column: Annotated[str, typer.Option(help="Its column of addresses; default: the one named email, or alike.")] = "",
    form: Annotated[
        Form, typer.Option("--format", help="plain lines, json, or SendGrid's v3, v2, smtpapi: one JSON value a line.")
    ] = "plain",
    mailto_only: Annotated[bool, typer.Option("--mailto-only", help="Without the https link.")] = False,
) -> None:
    """Print the header lines of one recipient's mail, ready to paste; or those of a list, in its order."""
    if bool(recipient) == (file is not None):
        raise typer.BadParameter("expected a recipient, or --file LIST")
    sender = _minting(own_settings(make=False), sender_id, group_id)
    sender.require_link(mailto_only=mailto_only)
    lists = [[recipient]] if file is None else _recipients(file, column)
    for number, some in enumerate(
        lists if form not in ("v2", "smtpapi") else [[each for one in lists for each in one]]
    ):
        made = shaped(form, sender.headers(group_id, some, mailto_only=mailto_only))
        if form == "plain":
            _say_plain(made, apart=number > 0)
            continue
        for each in made:
            say_json(each)


def _recipients(file: Path, column: str) -> Iterator[list[str]]:
    with open_list(file) as found:
        number = found.address_column(column)
        cells = (_address(row[number] if number < len(row) else "", found.line) for row in found.rows())
        while some := list(islice(cells, MAX_PERSONALIZATIONS)):
            yield some


def _address(cell: str, line: int) -> str:
    try:
        one_address(cell)
    except AddressError as error:
        raise AddressError(f"line {line}: {error}") from None
    return cell


def _say_plain(made: list[dict[str, Any]], *, apart: bool) -> None:
    for number, each in enumerate(made):
        if apart or number:
            say()
        say("\n".join(each["lines"]))


COMMANDS = (headers,)
