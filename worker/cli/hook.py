"""`unsubd hook`: webhook endpoints, what to enter at the provider, and a test of one."""

import base64
import re
import secrets
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from handlers.errors import ConfigError, Rejected
from handlers.providers import PROVIDERS, provider
from handlers.providers.setup import SETUPS, Setup
from handlers.tag import AddressTemplate
from worker.cli.output import Json, own_settings, say, say_json
from worker.cli.progress import waiting
from worker.hook_test import run
from worker.hooks import Hook, kind_of
from worker.installation import open_installation
from worker.settings import Settings

app = typer.Typer(help="Webhook endpoints: where a provider posts mail.", no_args_is_help=True)
ProviderName = Annotated[str, typer.Argument(metavar="PROVIDER", help=", ".join(PROVIDERS))]
Name = Annotated[str, typer.Argument(metavar="[NAME]", help="The last part of the URL; several of one provider.")]
_HEADER = "x-unsubd-secret"
_URL_HELP = (
    "The whole endpoint, e.g. http://127.0.0.1:8125/in/sendgrid; default: at UNSUBD_PUBLIC_URL, else UNSUBD_HTTP."
)


@app.command("add")
def add(
    name_of_provider: ProviderName,
    name: Name = "default",
    secret_file: Annotated[
        Path | None,
        typer.Option(help="What the provider gives (a key, a secret, an ARN), or a secret of yours; - for stdin."),
    ] = None,
    forwarded: Annotated[
        bool, typer.Option("--forwarded", help="Your own application posts on what the provider posted to it.")
    ] = False,
    pass_on_url: Annotated[str, typer.Option(help="Posts with mail that has no tag of ours go on to this URL.")] = "",
) -> None:
    """Make an endpoint, or add a proof to one; prints the URL, what to enter at the provider, and the DNS lines."""
    provider(name_of_provider)
    settings = own_settings()
    setup = SETUPS["relay" if forwarded else name_of_provider]
    given = _given(secret_file) if secret_file else ""
    if not given and not setup.makes:
        raise ConfigError(
            f"{name_of_provider}: gives {setup.gives}: expected it in --secret-file FILE (or - for stdin)"
        )
    # Between the two of you a token will do, and ten lines can send it; a Standard Webhooks secret may be given instead.
    proof = given or (f"bearer:{secrets.token_urlsafe(24)}" if forwarded else _made(setup))
    with open_installation(settings) as installation:
        hook = installation.hooks.add(Hook(name_of_provider, name, (proof,), forwarded, pass_on_url))
    _print(settings, hook, setup, proof, shown=not given)


def _given(path: Path) -> str:
    try:
        text = (sys.stdin.read() if str(path) == "-" else path.read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"--secret-file {path}: {error}, expected a text file") from None
    if text.startswith("-----BEGIN"):
        text = "".join(line for line in text.splitlines() if not line.startswith("-----"))
    if not text or len(text.split()) != 1:
        raise Rejected(f"--secret-file {path}: {len(text.split())} words, expected one secret, key or ARN")
    return text


def _made(setup: Setup) -> str:
    made = secrets.token_urlsafe(24)
    return {
        "whsec": "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
        "basic": f"basic:unsubd:{made}", "token": f"token:{made}", "header": f"header:{_HEADER}:{made}",
    }[setup.makes]  # fmt: skip


def _print(settings: Settings, hook: Hook, setup: Setup, proof: str, *, shown: bool) -> None:
    kind, _, secret = proof.rpartition(":")
    url = _url(settings, hook, f"{kind.partition(':')[2]}:{secret}" if kind.startswith("basic:") and shown else "")
    say(f"endpoint   {url}")
    if kind.startswith("basic:") and shown:
        say("           the password stands in the URL, and is shown this once")
    facts = {"url": url, "secret": secret if shown else "(the one you gave)", "header": _HEADER}
    steps = () if hook.forwarded else setup.steps
    for number, step in enumerate(steps, 1):
        say(f"enter   {number}  {step.format(**facts)}")
    if hook.forwarded:
        say(
            f"enter   1  let your application post the body on, unchanged, to {url}: see Forwarded webhooks in the README"
        )
        how = "Authorization: Bearer" if kind == "bearer" else "Standard Webhooks, secret"
        say(f"        2  with {how} {facts['secret']}")
    domain = AddressTemplate.parse(settings.address).domain if settings.address else "unsub.example.com"
    region = found[1] if (found := re.match(r"arn:[a-z-]+:sns:([a-z0-9-]+):", proof)) else "REGION"
    for priority, host in () if hook.forwarded else [(each, name.replace("REGION", region)) for each, name in setup.mx]:
        say(f"DNS        {domain}. MX {priority} {host}{'.' if '.' in host and ' ' not in host else ''}")
    if setup.experimental and not hook.forwarded:
        say(f"unconfirmed  {setup.experimental}")
    if settings.public_url is None:
        say("note       UNSUBD_PUBLIC_URL is not set: the URL is the local one; the provider needs https")
    say(f"then       unsubd hook test {hook.provider}{'' if hook.name == 'default' else ' ' + hook.name}")


def _url(settings: Settings, hook: Hook, userinfo: str = "") -> str:
    base = urlsplit(settings.public_url or f"http://{settings.http}")
    at = f"{userinfo}@" if userinfo else ""
    return f"{base.scheme}://{at}{base.netloc}{base.path}{hook.path}"


@app.command("list")
def list_hooks(as_json: Json = False) -> None:
    """List the endpoints, of settings and of hook add; no secret is shown."""
    settings = own_settings()
    with open_installation(settings) as installation:
        hooks = installation.hooks.every()
    for each in hooks:
        kinds = [kind_of(proof) for proof in each.proofs]
        row = {
            "provider": each.provider, "name": each.name, "url": _url(settings, each), "proofs": kinds,
            "forwarded": each.forwarded, "pass_on": bool(each.pass_on_url),
        }  # fmt: skip
        marks = [word for word, holds in (("forwarded", each.forwarded), ("passes on", each.pass_on_url)) if holds]
        say_json(row) if as_json else say(f"{row['url']}  {', '.join([*kinds, *marks])}")


@app.command("remove")
def remove(name_of_provider: ProviderName, name: Name = "default") -> None:
    """Remove an endpoint of hook add; one of the settings stays."""
    with open_installation(own_settings()) as installation:
        if not installation.hooks.remove(name_of_provider, name):
            raise Rejected(f"hook {name_of_provider[:20]} {name[:40]}: not here, expected one of: unsubd hook list")
    say(f"removed {name_of_provider} {name}")


@app.command("test")
def try_endpoint(
    name_of_provider: ProviderName,
    name: Name = "default",
    url: Annotated[
        str,
        typer.Option(help=_URL_HELP),
    ] = "",
    as_json: Json = False,
) -> None:
    """Post a sample of the provider's shape to the endpoint, and say what each hop made of it; suppresses nobody real."""
    settings = own_settings()
    with open_installation(settings) as installation:
        hook = installation.hooks.find(name_of_provider, name)
        if hook is None:
            raise Rejected(f"hook {name_of_provider[:20]} {name[:40]}: not here, expected one of: unsubd hook list")
        with waiting("following a sample to its effect"):
            lines = run(installation, hook, url or _url(settings, hook))
    for hop, text in lines:
        say_json({"hop": hop, "what": text}) if as_json else say(f"{hop:9}  {text}")
    if lines[-1][0] == "failed":
        raise typer.Exit(69)
