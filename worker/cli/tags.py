"""`unsubd tag`, `unsubd headers`, `unsubd check`."""

from typing import Annotated

import typer

from handlers import tag as tags
from handlers.address import canonical
from handlers.errors import ConfigError
from handlers.headers import unsubscribe_headers
from handlers.tag import Minted, Tag
from worker.check import as_json as answer_json
from worker.check import check as ask
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import has_no_store, open_installation, open_known
from worker.settings import Settings

tag = typer.Typer(help="Mint and read address tags.", no_args_is_help=True)
SenderId = Annotated[str, typer.Argument(metavar="SENDER")]
GroupId = Annotated[int, typer.Argument(metavar="GROUP", help="0 = everything this sender sends.")]
Recipient = Annotated[str, typer.Argument(metavar="RECIPIENT")]


def _mint(settings: Settings, wanted: Tag) -> Minted:
    """Mint, and store the row when the tag needs one: only then may its address be used."""
    minted = tags.mint(settings.keys(), wanted, settings.template())
    if minted.stored:
        with open_installation(settings) as installation:
            exact = Tag(wanted.sender, wanted.group, canonical(wanted.recipient))
            installation.store.keep_tags([(minted, exact)])
    return minted


@tag.command("mint")
def mint(sender_id: SenderId, group_id: GroupId, recipient: Recipient, as_json: Json = False) -> None:
    """Print the unsubscribe address of one recipient. Needs UNSUBD_SECRET_KEYS and UNSUBD_ADDRESS."""
    minted = _mint(own_settings(make=False), Tag(sender_id, group_id, recipient))
    row = {"tag": minted.tag, "address": minted.address, "stored": minted.stored}
    say_json(row) if as_json else say(minted.address)


@tag.command("read")
def read(address: Annotated[str, typer.Argument(metavar="ADDRESS")], as_json: Json = False) -> None:
    """Print what a tag says; exit 65 when no key of ours signed it."""
    settings = own_settings(make=False)
    rows = {}
    if (refs := tags.stored_refs(address)) and not has_no_store(settings):
        with open_known(settings) as known:
            rows = known.store.tags(refs)
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
    settings = own_settings(make=False)
    if settings.public_url is None and not mailto_only:
        raise ConfigError(
            "UNSUBD_PUBLIC_URL: not set, expected e.g. https://unsub.example.com: Gmail and Yahoo want the https link too"
            " (or say --mailto-only)"
        )
    minted = _mint(settings, Tag(sender_id, group_id, recipient))
    for name, value in unsubscribe_headers(minted, None if mailto_only else settings.public_url):
        say(f"{name}: {value}")


def check(
    sender_id: SenderId,
    group_id: GroupId,
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS…")],
    as_json: Json = False,
) -> None:
    """Say for each address whether mail must not be sent. A store that cannot answer is exit 75, never "allowed"."""
    with open_installation(own_settings()) as installation:
        answers = ask(installation, sender_id, group_id, addresses)
    for answer in answers:
        row = answer_json(answer)
        if as_json:
            say_json(row)
        else:
            said = (
                f"suppressed ({row['scope']}, since {row['since']}, {row['source']})"
                if row["suppressed"]
                else "allowed"
            )
            say(f"{answer.recipient}  {said}")


COMMANDS = (headers, check)
