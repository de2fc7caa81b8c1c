"""`unsubd sender`, `unsubd group`, `unsubd keys`."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from handlers.errors import ConfigError, Rejected
from handlers.tag import SENDER_ID, AddressTemplate
from worker import adoption
from worker import keys as key_ring
from worker.accounts import Group, Sender, api_keys
from worker.cli import sources
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import open_installation
from worker.settings import Settings

sender = typer.Typer(help="Sender accounts and their API keys.", no_args_is_help=True)
group = typer.Typer(help="Groups: the kinds of mail a recipient can stop.", no_args_is_help=True)
keys = typer.Typer(help="The master keys that sign tags.", no_args_is_help=True)
sender.add_typer(sources.app, name="source")
Id = Annotated[str, typer.Argument(metavar="SENDER", help="1 to 16 of a-z and 0-9; it is part of every tag.")]
GroupId = Annotated[int, typer.Argument(metavar="GROUP", help="As unsubd group list shows it.")]
Name = Annotated[str | None, typer.Option(help="At most 100 characters, as recipients know it; default: the id.")]
Address = Annotated[
    str | None, typer.Option(help="Its own template, e.g. u+{tag}@unsub.acme.example; default: UNSUBD_ADDRESS.")
]
PublicUrl = Annotated[str | None, typer.Option(help="Its own base of our links; default: UNSUBD_PUBLIC_URL.")]
HttpsUrl = Annotated[str | None, typer.Option(help="Its own unsubscribe page, {tag} in it, instead of ours.")]
Opaque = Annotated[bool | None, typer.Option("--opaque/--readable", help="Tags that spell no address: all are stored.")]
Parent = Annotated[str | None, typer.Option(help="The sender whose API keys may act for it (On-Behalf-Of).")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="e.g. asm.groups.read, or asm.groups for all of it; default: everything."),
]
KeyName = Annotated[str, typer.Option("--name", help="Who asks, as the ledger tells it; default: the key's id.")]
PerMinute = Annotated[int, typer.Option("--per-minute", min=1, help="How many calls it may make in a minute.")]
MaxGroups = Annotated[int | None, typer.Option(min=1, help="How many groups it may have; default: 200.")]
FooterText = Annotated[str | None, typer.Option(help="Ends plain text that holds no substitution tag; may hold <% %>.")]
FooterHtml = Annotated[str | None, typer.Option(help="The same for HTML; may hold <% words to click %>.")]
GroupName = Annotated[str | None, typer.Option(help="1 to 30 characters, as recipients read it.")]
Description = Annotated[str | None, typer.Option(help="At most 100 characters, as recipients read it.")]
Default = Annotated[bool | None, typer.Option("--default/--no-default", help="Listed before the others.")]


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@sender.command("add")
def sender_add(
    sender_id: Id,
    name: Name = None,
    address: Address = None,
    public_url: PublicUrl = None,
    https_url: HttpsUrl = None,
    opaque: Opaque = None,
    max_groups: MaxGroups = None,
    footer_text: FooterText = None,
    footer_html: FooterHtml = None,
    parent: Parent = None,
) -> None:
    """Register a sender; prints its id alone on the last line. Groups that its tags name already become its groups."""
    given = _given(name=name, address=address, public_url=public_url, https_url=https_url, opaque=opaque,
                   max_groups=max_groups, footer_text=footer_text, footer_html=footer_html, parent=parent)  # fmt: skip
    settings = own_settings()
    with open_installation(settings) as installation:
        added = adoption.register(installation, sender_id, **given)
        adopted = installation.accounts.groups(sender_id)
    if adopted:
        say(f"adopted the groups that its tags name already: {', '.join(str(each.id) for each in adopted)}")
    _say_budget(settings, added)
    say(added.id)


@sender.command("edit")
def sender_edit(
    sender_id: Id,
    name: Name = None,
    address: Address = None,
    public_url: PublicUrl = None,
    https_url: HttpsUrl = None,
    opaque: Opaque = None,
    max_groups: MaxGroups = None,
    footer_text: FooterText = None,
    footer_html: FooterHtml = None,
    parent: Parent = None,
) -> None:
    """Change what is given; an empty text goes back to the default."""
    given = _given(name=name, address=address, public_url=public_url, https_url=https_url, opaque=opaque,
                   max_groups=max_groups, footer_text=footer_text, footer_html=footer_html, parent=parent)  # fmt: skip
    settings = own_settings()
    with open_installation(settings) as installation:
        _say_budget(settings, installation.accounts.edit_sender(sender_id, **given))


def _say_budget(settings: Settings, account: Sender) -> None:
    chosen = account.address or settings.address
    template = AddressTemplate.parse(chosen) if chosen else AddressTemplate("u+", "example.com")
    budget = template.readable_budget(account.id, 9999)
    say(
        f"addresses up to {budget} characters stay readable in tags, longer ones are stored (prefix {template.prefix!r})"
    )
    if len(template.prefix) > len("u+"):
        shorter = template.readable_budget(account.id, 9999) + len(template.prefix) - len("u+")
        say(f"a shorter prefix keeps more of them: with 'u+' up to {shorter} characters")


@sender.command("list")
def sender_list(as_json: Json = False) -> None:
    """List the senders."""
    with open_installation(own_settings()) as installation:
        for each in installation.accounts.senders():
            _print_sender(each, as_json)


def _print_sender(account: Sender, as_json: bool) -> None:
    names = ("address", "public_url", "https_url", "opaque", "max_groups", "footer_text", "footer_html", "parent")
    chosen = {name: getattr(account, name) for name in names}
    if as_json:
        say_json({"sender": account.id, "name": account.name, **chosen})
        return
    words = [str(chosen[name]) for name in ("address", "public_url", "https_url") if chosen[name]]
    say(f"{account.id:16}  {account.name}  {' '.join([*words, *(['opaque tags'] if account.opaque else [])])}".rstrip())


@sender.command("key")
def sender_key(
    sender_id: Id,
    scope: Scopes = None,
    name: KeyName = "",
    per_minute: PerMinute = api_keys.PER_MINUTE,
    signing: Annotated[
        bool, typer.Option("--signing", help="Instead: the key that mints its tags without us (deploy/minting).")
    ] = False,
) -> None:
    """Make an API key; it is shown this once, alone on the last line."""
    if signing:
        _say_signing_key(sender_id)
        return
    with open_installation(own_settings()) as installation:
        say(installation.accounts.new_api_key(sender_id, name=name, scopes=scope or (), per_minute=per_minute))


@sender.command("keys")
def sender_keys(sender_id: Id, as_json: Json = False) -> None:
    """List the API keys of a sender: their ids, never the keys themselves."""
    with open_installation(own_settings()) as installation:
        for each in installation.accounts.keys.of(installation.accounts.sender(sender_id).id):
            _print_key(each, as_json)


def _print_key(key: api_keys.ApiKey, as_json: bool) -> None:
    if as_json:
        say_json({name: getattr(key, name) for name in ("id", "name", "scopes", "per_minute", "created_ms")})
        return
    made = time.strftime("%Y-%m-%d", time.gmtime(key.created_ms / 1000))
    may = "everything" if key.scopes == api_keys.SCOPES else " ".join(key.scopes)
    say(f"{key.id}  {key.name:20}  {made}  {key.per_minute:,} a minute  {may}")


@sender.command("revoke")
def sender_revoke(
    sender_id: Id, key_id: Annotated[str, typer.Argument(metavar="KEY-ID", help="As unsubd sender keys shows it.")]
) -> None:
    """Take an API key away, from this moment on."""
    with open_installation(own_settings()) as installation:
        revoked = installation.accounts.keys.revoke(sender_id, key_id)
    say(f"revoked {revoked.id} ({revoked.name})")


def _say_signing_key(sender_id: str) -> None:
    if not SENDER_ID.fullmatch(sender_id):
        raise Rejected(f"sender {sender_id[:20]!r}: expected 1 to 16 characters of a-z and 0-9")
    ring = own_settings(make=False).keys()
    if not ring.masters:
        raise ConfigError("UNSUBD_SECRET_KEYS: no key, expected hex digits (or set UNSUBD_SECRET_KEYS_FILE)")
    sys.stderr.write(
        f"unsubd: whoever has this key can unsubscribe anybody from {sender_id}, in any group, and undo what they stopped"
        " themselves. It cannot be revoked alone: only a new master key ends it. Keep it where you keep passwords.\n"
    )
    say(ring.sender_keys(sender_id)[0].hex())


Logo = Annotated[Path | None, typer.Option(help="PNG or SVG of at most 64 KB; an empty file takes it away.")]
Texts = Annotated[Path | None, typer.Option(help='JSON: {"de": {"stop": "…"}}; {} goes back to ours.')]


@sender.command("look")
def sender_look(
    sender_id: Id,
    colour: Annotated[str | None, typer.Option(help="Of buttons and links, e.g. #1f5fbf.")] = None,
    contact: Annotated[str | None, typer.Option(help="Address where people can write to the sender.")] = None,
    logo: Logo = None,
    texts: Texts = None,
    as_json: Json = False,
) -> None:
    """Change how a sender's pages look, and what they say; an empty text goes back to the default. Prints what holds."""
    given = _given(colour=colour, contact=contact, logo=_octets(logo), texts=_json(texts))
    with open_installation(own_settings()) as installation:
        installation.accounts.sender(sender_id)
        installation.looks.change(sender_id, **given)
        found = installation.looks.of(sender_id)
    row = {"colour": found.colour, "contact": found.contact, "logo": found.logo_type, "texts": found.texts}
    say_json(row) if as_json else say("\n".join(f"{name:8} {value or '-'}" for name, value in row.items()))


@sender.command("reasons")
def sender_reasons(sender_id: Id, as_json: Json = False) -> None:
    """Show why people left, as many as said so."""
    with open_installation(own_settings()) as installation:
        installation.accounts.sender(sender_id)
        found = installation.looks.reasons(sender_id)
    say_json(found) if as_json else say("\n".join(f"{name:15} {count}" for name, count in found.items()))


def _octets(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}, expected a file we may read") from error


def _json(path: Path | None) -> Any:
    content = _octets(path)
    try:
        return None if content is None else json.loads(content)
    except ValueError as error:
        raise Rejected(f"{path}: no JSON, expected texts by language") from error


@group.command("add")
def group_add(
    sender_id: Id,
    name: Annotated[str, typer.Argument(help="1 to 30 characters, as recipients read it.")],
    description: Description = None,
    group_id: Annotated[int | None, typer.Option("--id", help="Keep a former SendGrid group's id.")] = None,
    essential: Annotated[
        bool, typer.Option("--essential", help="Receipts, alerts: stopped by an entry for this very group alone.")
    ] = False,
    is_default: Default = None,
) -> None:
    """Add a group; prints its id alone on the last line."""
    with open_installation(own_settings()) as installation:
        more = {"essential": essential, "is_default": bool(is_default)}
        say(str(installation.accounts.add_group(sender_id, name, description or "", group_id, **more).id))


@group.command("edit")
def group_edit(
    sender_id: Id,
    group_id: GroupId,
    name: GroupName = None,
    description: Description = None,
    is_default: Default = None,
) -> None:
    """Change what is given. Whether a group is essential is said once, when it is added."""
    with open_installation(own_settings()) as installation:
        given = _given(name=name, description=description, is_default=is_default)
        _print_group(installation.accounts.edit_group(sender_id, group_id, **given), as_json=False)


@group.command("archive")
def group_archive(sender_id: Id, group_id: GroupId) -> None:
    """Take a group away from recipients and lists; who left it stays suppressed, and its tags stop everything."""
    with open_installation(own_settings()) as installation:
        installation.accounts.edit_group(sender_id, group_id, archived=True)
    say(f"archived {group_id}: its suppressions still count")


@group.command("restore")
def group_restore(sender_id: Id, group_id: GroupId) -> None:
    """Bring an archived group back, with its id and its suppressions."""
    with open_installation(own_settings()) as installation:
        installation.accounts.edit_group(sender_id, group_id, archived=False)
    say(f"restored {group_id}")


@group.command("list")
def group_list(sender_id: Id, as_json: Json = False) -> None:
    """List the groups of a sender: defaults first, archived ones included."""
    with open_installation(own_settings()) as installation:
        installation.accounts.sender(sender_id)
        for each in installation.accounts.groups(sender_id):
            _print_group(each, as_json)


def _print_group(each: Group, as_json: bool) -> None:
    names = ("id", "name", "description", "archived", "essential", "is_default")
    row = {name: getattr(each, name) for name in names}
    marks = [word for word, holds in (("archived", each.archived), ("essential", each.essential)) if holds]
    text = f"{each.id:>10}  {each.name:30}  {each.description}" + (f"  ({', '.join(marks)})" if marks else "")
    say_json(row) if as_json else say(text)


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
        key_ring.retire(installation.store_redis, fingerprint, min_replicas=settings.min_replicas)
    say(f"retired {fingerprint}")
