"""`unsubd mailbox`: log in to a mailbox by OAuth, and list the configured ones."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from handlers.errors import ConfigError
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import has_no_store, open_installation
from worker.settings import Settings, load_settings
from worker.sources import source_states
from worker.sources.credential import Credential
from worker.sources.imap import MailboxAddress
from worker.sources.oauth import choice, file
from worker.sources.oauth.endpoint import Refused, Token
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
    token_url: Annotated[str, typer.Option(help="For a mail host that is neither Microsoft's nor Google's.")] = "",
    authorize_url: Annotated[str, typer.Option(help="The same: where a person consents.")] = "",
    device_url: Annotated[str, typer.Option(help="The same: where --device gets its code.")] = "",
) -> None:
    """Let a person consent, store the refresh token (0600), log in with it once, and print what was found."""
    settings, address = load_settings(), MailboxAddress.parse(url)
    path = settings.imap_oauths.get(address.name) or choice.stored_file(settings, address)
    known = _known(path)
    secret = file.secret_text(client_secret_file).strip() if client_secret_file else known.get("client_secret", "")
    client = client_id or known.get("client_id", ""), secret
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


def _consented(server: Provider, client: tuple[str, str], user: str, port: int, *, device: bool) -> Token:
    from worker.sources.oauth import consent

    opened = "Open on any device:" if device else "Open in a browser on this machine, within 5 minutes:"

    def tell(what: str) -> None:
        say(f"{opened}\n\n  {what}\n")

    try:
        if device:
            token = asyncio.run(consent.by_device(server, client, tell))
        else:
            token = consent.by_browser(server, client, user, port, tell)
    except Refused as error:
        raise ConfigError(f"{error}: check --client-id, --client-secret-file and --scope") from None
    if not token.refresh:
        raise ConfigError("--scope: the server gave no refresh token, expected one: add what asks for offline access")
    return token


def _content(server: Provider, client: tuple[str, str], token: Token) -> dict[str, Any]:
    urls = {name: getattr(server, name) for name in ("token_url", "authorize_url", "device_url", "scope")}
    secret = {"client_secret": client[1]} if client[1] else {}
    return {"type": "refresh_token", "client_id": client[0], **urls, **secret, "refresh_token": token.refresh}


def _say_what_is_left(settings: Settings, address: MailboxAddress, path: Path) -> None:
    if choice.password(settings, address) or choice.oauth_file(settings, address) != path:
        name = f"UNSUBD_IMAP_{address.name.upper()}_OAUTH"
        say(f"another login is set and comes first: set {name}={path} to use this one")
    if address.name not in {each.name for each in mailbox_addresses(settings)}:
        say("to poll it, add its URL to UNSUBD_IMAP_URL")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the configured mailboxes: how each logs in, and the state it is in."""
    settings = own_settings(make=False)
    addresses = mailbox_addresses(settings)
    if not addresses and not as_json:
        say("none configured (UNSUBD_IMAP_URL is not set)")
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
        "login": choice.described(settings, address),
        "state": state.get("state", "never polled"),
        "detail": state.get("detail", ""),
    }
