"""`unsubd forward`: providers whose own lists follow a sender's suppressions."""

from pathlib import Path
from typing import Annotated

import typer

from handlers.errors import Rejected
from handlers.forwarding import FORWARDERS, groups_told, warnings_of
from worker.cli.accounts import Id
from worker.cli.output import Json, own_settings, say, say_json
from worker.cli.progress import waiting
from worker.forwarding import Target
from worker.forwarding.sigv4 import require_signer
from worker.installation import Installation, open_installation

app = typer.Typer(help="Providers whose own lists follow a sender's suppressions.", no_args_is_help=True)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="As `forward list` prints it.")]


@app.command("add")
def forward_add(
    sender: Id,
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help=", ".join(FORWARDERS))],
    key_file: Annotated[
        Path,
        typer.Option(help="File that holds the provider's API key or token; ses: ACCESS_KEY_ID:SECRET_ACCESS_KEY."),
    ],
    group: Annotated[
        list[str] | None, typer.Option(help="GROUP=PLACE: a group there, a tag, a stream, a topic; repeat it.")
    ] = None,
    account: Annotated[str, typer.Option(help="The domain that Mailgun sends for, or SES's contact list.")] = "",
    base: Annotated[
        str, typer.Option(help="Where the API is, e.g. https://api.eu.mailgun.net; default: the provider's.")
    ] = "",
    name: Annotated[str, typer.Option(help="Default: SENDER-PROVIDER.")] = "",
    told_by_file: Annotated[
        Path | None,
        typer.Option(help="What proves its event webhook: public key, signing key, or basic:USER:PASSWORD."),
    ] = None,
) -> None:
    """From now on write each change of a sender there, too; `forward sync` brings what is there already.

    SES: topics of one contact list. --group 0=account-suppression-list instead stops every mail of that account to a
    recipient, essential mail as well: only for who sends nothing else there.
    """
    secret, told_by = _read("key-file", key_file), _read("told-by-file", told_by_file) if told_by_file else ""
    places = dict(map(_place, group or []))
    if provider == "ses":
        require_signer()
    with open_installation(own_settings()) as installation:
        for each in [0, *places]:
            installation.accounts.group(sender, each)
        kept = installation.forwards.add(Target(name, sender, provider, secret, places, account, base, told_by))
    _say(kept, as_json=False)
    for warning in warnings_of(provider, kept.places):
        say(warning)
    if told_by:
        say(f"its event webhook goes to: /in/{provider}-events/{kept.name}")
    say(f"next: unsubd forward sync {kept.name}")


def _read(option: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"{option} {path}: {type(error).__name__}, expected a readable file with the key") from error


def _place(text: str) -> tuple[int, str]:
    group, _, place = text.partition("=")
    if not group.isdecimal() or not place:
        raise Rejected(f"group {text[:60]!r}: expected GROUP=PLACE, e.g. 12=103")
    return int(group), place


@app.command("list")
def forward_list(as_json: Json = False) -> None:
    """List them; their keys are not shown."""
    with open_installation(own_settings()) as installation:
        for each in installation.forwards.every():
            _say(each, as_json=as_json)


def _say(target: Target, *, as_json: bool) -> None:
    facts = {"name": target.name, "sender": target.sender, "provider": target.provider, "base": target.base}
    if as_json:
        say_json(
            {**facts, "account": target.account, "places": {str(key): each for key, each in target.places.items()}}
        )
    else:
        places = " ".join(f"{group}={place}" for group, place in target.places.items())
        say(f"{target.name:24}  {target.sender:16}  {target.provider} {target.account}  {target.base}  {places}")


@app.command("remove")
def forward_remove(name: _Name) -> None:
    """Write nothing more there; what is there stays."""
    with open_installation(own_settings()) as installation:
        say("removed" if installation.forwards.remove(name) else "there was none")


@app.command("sync")
def forward_sync(name: _Name, as_json: Json = False) -> None:
    """Bring everybody who is suppressed there, and what ran out of tries; who is known to be there is not called for."""
    with open_installation(own_settings()) as installation, waiting("enqueuing"):
        target = installation.forwards.find(name)
        if target is None:
            raise Rejected(f"forward {name[:40]!r}: none of that name, expected one of `unsubd forward list`")
        count = _sync(installation, target)
    say_json({"name": name, "enqueued": count}) if as_json else say(
        f"{count} recipients enqueued; `unsubd status` shows how it goes"
    )


def _sync(installation: Installation, target: Target) -> int:
    count = installation.forwards.again(target)
    for group in dict.fromkeys([0, *target.places]):
        told = groups_told(target.places, group, has_global=target.has_global)
        items: list[tuple[int, str]] = []
        for recipient, _ in installation.store.listed(target.sender, group):
            items += [(each, recipient) for each in told if recipient]
            if len(items) >= 5000:
                count += installation.forwards.enqueue(target, items)
                items = []
        count += installation.forwards.enqueue(target, items)
    return count
