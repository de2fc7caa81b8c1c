"""`unsubd mta`: which mail of a mail server is whose."""

from typing import Annotated

import typer

from handlers.errors import Rejected
from handlers.route import Route, read_key
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import Installation, open_installation
from worker.mta.map import Routes

app = typer.Typer(help="Mail servers that ask unsubd before they send.", no_args_is_help=True)
routes = typer.Typer(help="Which mail is of which sender and group.", no_args_is_help=True)
app.add_typer(routes, name="map")
Key = Annotated[
    str, typer.Argument(metavar="KEY", help="from:ADDRESS, from:DOMAIN (MAIL FROM), user:LOGIN or port:NUMBER.")
]


@routes.command("add")
def add(
    key: Key,
    sender_id: Annotated[str, typer.Argument(metavar="SENDER")],
    group_id: Annotated[int, typer.Argument(metavar="GROUP", help="0 = everything this sender sends.")],
    discard: Annotated[
        bool,
        typer.Option("--discard", help="The policy service discards suppressed mail without a word, instead of 550."),
    ] = False,
) -> None:
    """Say whose the mail of one origin is; in effect within 5 seconds, everywhere."""
    exact = read_key(key)
    with open_installation(own_settings()) as installation:
        group = installation.accounts.group(sender_id, group_id)
        _map(installation).add(exact, Route(sender_id, group_id, discard))
    say(f"{exact}  {sender_id} {group_id} ({group.name}){'  archived' if group.archived else ''}")
    if discard:
        say("note: Postfix discards a mail for all its recipients: set smtpd_recipient_limit=1, see deploy/postfix")


@routes.command("list")
def list_routes(as_json: Json = False) -> None:
    """List the map; of several that fit a mail, an address beats a domain, then the login, then the port."""
    with open_installation(own_settings()) as installation:
        every = _map(installation).every()
    for key, route in every.items():
        row = {"key": key, "sender": route.sender, "group": route.group, "discard": route.discard}
        text = f"{key}  {route.sender} {route.group}{'  discard' if route.discard else ''}"
        say_json(row) if as_json else say(text)


@routes.command("remove")
def remove(key: Key) -> None:
    """Take a key out of the map: its mail is then none of unsubd's business."""
    with open_installation(own_settings()) as installation:
        if not _map(installation).remove(key):
            raise Rejected("key: not in the map, expected one of: unsubd mta map list")
    say(f"removed {read_key(key)}")


def _map(installation: Installation) -> Routes:
    return Routes(installation.redis, min_replicas=installation.settings.min_replicas)
