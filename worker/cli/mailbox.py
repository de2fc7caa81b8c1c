"""`unsubd mailbox`: log in to a mailbox by OAuth, and list the configured ones."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from handlers.errors import ConfigError
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import has_no_store, open_installation
from worker.settings import Settings, load_settings, too_open
from worker.sources import oauth, source_states
from worker.sources.credential import Credential
from worker.sources.imap import MailboxAddress
from worker.sources.oauth import consent, file
from worker.sources.oauth.endpoint import Token
from worker.sources.oauth.provider import Provider, provider_of
from worker.sources.polling import mailbox_addresses
from worker.sources.visit import visit

app = typer.Typer(help="Log in to mailboxes by OAuth, and list them.", no_args_is_help=True)


@app.command("login")
def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="imaps://user@host/INBOX#name")],
    client_id: Annotated[str, typer.Option(help="The application's id; once is enough.")] = "",
    client_secret_file: Annotated[Path | None, typer.Option(help="File (0600) of the application's secret.")] = None,
    device: Annotated[bool, typer.Option("--device", help="Type a code on another device instead.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the redirect to 127.0.0.1; 0: any.")] = 0,
    tenant: Annotated[str, typer.Option(help="Microsoft's tenant, by default organizations.")] = "",
    scope: Annotated[str, typer.Option(help="Scopes, separated by spaces.")] = "",
    token_url: Annotated[str, typer.Option(help="For a host that is neither Microsoft's nor Google's.")] = "",
    authorize_url: Annotated[str, typer.Option(help="The same.")] = "",
    device_url: Annotated[str, typer.Option(help="The same, for --device.")] = "",
) -> None:
    """Let a person consent, store the refresh token (0600), log in with it once, and print what was found."""
    settings, address = load_settings(), MailboxAddress.parse(url)
    path = settings.imap_oauths.get(address.name) or oauth.stored_file(settings, address)
    known = _known(path)
    client = client_id or known.get("client_id", ""), _secret(client_secret_file) or known.get("client_secret", "")
    if not client[0]:
        raise ConfigError("--client-id: not given, expected the id of an application that you registered")
    flags = {"scope": scope, "token_url": token_url, "authorize_url": authorize_url, "device_url": device_url}
    stored = {} if tenant else {name: known.get(name, "") for name in flags}
    server = provider_of(address, tenant, **{name: flag or stored.get(name, "") for name, flag in flags.items()})
    token = _consented(server, client, address.user, port, device=device)
    file.write(path, _content(server, client, token))
    say(f"stored {path} (mode 0600)")
    found = asyncio.run(visit(address, Credential("token", token.access), settings.imap_ca_file))
    say(f"mailbox {address.name}: {found.line()}")
    _say_what_is_left(settings, address, path)


def _known(path: Path) -> dict[str, str]:
    """What an earlier login stored in *path*, so that a second one needs no flags; another kind of login is kept safe."""
    if not path.exists():
        return {}
    stored = file.read(path)
    if not isinstance(stored, file.RefreshToken):
        raise ConfigError(f"{path}: holds a {stored.type} login, expected none: no consent is needed with it")
    secret = stored.client_secret.get_secret_value() if stored.client_secret else ""
    return {"client_secret": secret} | stored.model_dump(
        include={"client_id", "scope", "token_url", "authorize_url", "device_url"}
    )


def _secret(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        if too_open(path):
            raise ConfigError(f"{path}: others may read it, expected mode 0600: chmod 600 {path}")
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"--client-secret-file: {path}: {reason}, expected a file that we may read") from None


def _consented(server: Provider, client: tuple[str, str], user: str, port: int, *, device: bool) -> Token:
    if device:
        token = asyncio.run(consent.by_device(server, client, lambda code: say(f"Open on any device:\n\n  {code}\n")))
    else:
        opened = "Open in a browser on this machine, within 5 minutes:\n\n  "
        token = consent.by_browser(server, client, user, port, lambda link: say(f"{opened}{link}\n"))
    if not token.refresh:
        raise ConfigError("--scope: the server gave no refresh token, expected one: add what asks for offline access")
    return token


def _content(server: Provider, client: tuple[str, str], token: Token) -> dict[str, Any]:
    urls = {name: getattr(server, name) for name in ("token_url", "authorize_url", "device_url", "scope")}
    secret = {"client_secret": client[1]} if client[1] else {}
    return {"type": "refresh_token", "client_id": client[0], **urls, **secret, "refresh_token": token.refresh}


def _say_what_is_left(settings: Settings, address: MailboxAddress, path: Path) -> None:
    if oauth.password(settings, address) or oauth.oauth_file(settings, address) != path:
        name = f"UNSUBD_IMAP_{address.name.upper()}_OAUTH"
        say(f"another login is set and comes first: set {name}={path} to use this one")
    if address.name not in {each.name for each in mailbox_addresses(settings)}:
        say("to poll it, add its URL to UNSUBD_IMAP_URL")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the configured mailboxes: how each logs in, and the state it is in."""
    settings = own_settings(make=False)
    addresses = mailbox_addresses(settings)
    states = _states(settings) if addresses else {}
    for address in addresses:
        row = _row(settings, address, states.get(f"imap:{address.name}", {}))
        say_json(row) if as_json else say("  ".join(str(value) for value in row.values() if value))


def _states(settings: Settings) -> dict[str, dict[str, Any]]:
    if has_no_store(settings):
        return {}
    with open_installation(settings) as installation:
        return {state["name"]: state for state in source_states(installation.redis)}


def _row(settings: Settings, address: MailboxAddress, state: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": address.name,
        "host": address.host,
        "user": address.user,
        "folder": address.mailbox,
        "login": oauth.kind(settings, address),
        "state": state.get("state", "never polled"),
        "detail": state.get("detail", ""),
    }
