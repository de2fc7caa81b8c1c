"""`unsubd sender events`: where a sender's own program hears of each change."""

from typing import Annotated

import typer

from worker.cli.accounts import Id
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import open_installation


def sender_events(
    sender_id: Id,
    url: Annotated[str, typer.Option(help="Where to post them; https, or http on this machine.")] = "",
    every: Annotated[bool, typer.Option("--every", help="Also what API calls and operators change.")] = False,
    off: Annotated[bool, typer.Option("--off", help="Post no more.")] = False,
    as_json: Json = False,
) -> None:
    """Post what recipients change to a URL, in the shape of SendGrid's event webhook, signed; prints the public key."""
    with open_installation(own_settings()) as installation:
        installation.accounts.sender(sender_id)
        if off:
            say("off" if installation.events.remove(sender_id) else "was off")
            return
        hook = (
            installation.events.configure(sender_id, url, every=every) if url else installation.events.find(sender_id)
        )
        if hook is None:
            say("off: --url turns it on")
        elif as_json:
            say_json({"sender": hook.sender, "url": hook.url, "every": hook.every, "public_key": hook.public_key})
        else:
            say(f"{hook.url}  {'every change' if hook.every else 'what recipients change'}")
            say(f"public key (SendGrid's verifiers take it): {hook.public_key}")
