"""`unsubd sender`, `unsubd group`, `unsubd keys`."""

from typing import Annotated

import typer

from handlers.errors import Rejected
from handlers.tag import AddressTemplate
from worker import keys as key_ring
from worker.cli import sources
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import open_installation

sender = typer.Typer(help="Sender accounts and their API keys.", no_args_is_help=True)
group = typer.Typer(help="Groups: the kinds of mail a recipient can stop.", no_args_is_help=True)
keys = typer.Typer(help="The master keys that sign tags.", no_args_is_help=True)
sender.add_typer(sources.app, name="source")
Id = Annotated[str, typer.Argument(metavar="SENDER", help="1 to 16 of a-z and 0-9; it is part of every tag.")]


@sender.command("add")
def sender_add(
    sender_id: Id, name: Annotated[str, typer.Option(help="As recipients know it; default: the id.")] = ""
) -> None:
    """Register a sender; prints its id alone on the last line."""
    settings = own_settings()
    with open_installation(settings) as installation:
        added = installation.accounts.add_sender(sender_id, name)
    template = AddressTemplate.parse(settings.address) if settings.address else AddressTemplate("u+", "example.com")
    budget = template.readable_budget(sender_id, 9999)
    say(
        f"addresses up to {budget} characters stay readable in tags, longer ones are stored (prefix {template.prefix!r})"
    )
    say(added.id)


@sender.command("list")
def sender_list(as_json: Json = False) -> None:
    """List the senders."""
    with open_installation(own_settings()) as installation:
        for each in installation.accounts.senders():
            say_json({"sender": each.id, "name": each.name}) if as_json else say(f"{each.id:16}  {each.name}")


@sender.command("key")
def sender_key(sender_id: Id) -> None:
    """Make an API key; it is shown this once, alone on the last line."""
    with open_installation(own_settings()) as installation:
        say(installation.accounts.new_api_key(sender_id))


@group.command("add")
def group_add(
    sender_id: Id,
    name: Annotated[str, typer.Argument(help="1 to 30 characters, as recipients read it.")],
    description: Annotated[str, typer.Option(help="At most 100 characters, as recipients read it.")] = "",
    group_id: Annotated[int | None, typer.Option("--id", help="Keep a former SendGrid group's id.")] = None,
) -> None:
    """Add a group; prints its id alone on the last line."""
    with open_installation(own_settings()) as installation:
        say(str(installation.accounts.add_group(sender_id, name, description, group_id).id))


@group.command("list")
def group_list(sender_id: Id, as_json: Json = False) -> None:
    """List the groups of a sender."""
    with open_installation(own_settings()) as installation:
        installation.accounts.sender(sender_id)
        for each in installation.accounts.groups(sender_id):
            row = {"id": each.id, "name": each.name, "description": each.description, "archived": each.archived}
            say_json(row) if as_json else say(f"{each.id:>10}  {each.name:30}  {each.description}")


@keys.command("list")
def keys_list(as_json: Json = False) -> None:
    """List the master keys by fingerprint: which are active here, which are in use by the store."""
    with open_installation(own_settings()) as installation:
        active = installation.keys.fingerprints()
        used = key_ring.in_use(installation.store_redis)
    for name in dict.fromkeys((*active, *sorted(used))):
        row = {"fingerprint": name, "active": name in active, "in_use": name in used}
        words = ", ".join(word for word, holds in (("active", name in active), ("in use", name in used)) if holds)
        say_json(row) if as_json else say(f"{name}  {words}{', signs new tags' if name == active[0] else ''}")


@keys.command("retire")
def keys_retire(fingerprint: Annotated[str, typer.Argument(help="As unsubd keys list shows it.")]) -> None:
    """Give up a lost master key: tags that only it signed are refused from now on."""
    settings = own_settings()
    with open_installation(settings, forked=False, lost_key_allowed=True) as installation:
        if fingerprint in installation.keys.fingerprints():
            raise Rejected(
                f"fingerprint {fingerprint}: active here, expected a lost key: take it out of the settings first"
            )
        key_ring.retire(installation.store_redis, fingerprint)
    say(f"retired {fingerprint}")
