"""Minting for one sender, with the address template and links that it chose, or those of the settings.

Tags are minted offline with the keys alone; what a sender chose is asked where there are accounts to ask. Who cannot be
asked is minted for by the settings: every address of ours is read alike.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from handlers import tag as tags
from handlers.address import canonical, one_address
from handlers.errors import ConfigError, Rejected, Unavailable, UnknownAccount
from handlers.headers import Addressed, unsubscribe_headers
from handlers.tag import AddressTemplate, Minted, Tag
from worker.accounts import Accounts, Group, Sender
from worker.installation import Installation, has_no_store, open_installation, open_known
from worker.settings import Settings

Keep = Callable[[Iterable[tuple[Minted, Tag]]], None]


@dataclass(frozen=True, slots=True)
class Minting:
    """What is known of a sender and a group.

    Shape:   warnings: what whoever mints should hear. keep: makes stored tags durable; None opens the installation for it.
    """

    settings: Settings
    sender: Sender
    warnings: tuple[str, ...] = ()
    keep: Keep | None = None

    @property
    def template(self) -> AddressTemplate:
        """Errors: ConfigError  neither the sender nor UNSUBD_ADDRESS names one."""
        return AddressTemplate.parse(self.sender.address) if self.sender.address else self.settings.template()

    @property
    def public_url(self) -> str | None:
        """The base of our links, None where nobody set one."""
        return self.sender.public_url or self.settings.public_url

    def link(self, minted: Minted) -> str | None:
        """Return the https URI of a tag: the sender's own page, else ours; None where nobody set one."""
        if self.sender.https_url:
            return self.sender.https_url.replace("{tag}", minted.tag)
        return f"{self.public_url}/u/{minted.tag}" if self.public_url else None

    def mint(self, group: int, recipient: str) -> Minted:
        """Mint, and store the row when the tag needs one: only then may its address be used.

        Errors:  AddressError, TagMalformed    permanent; ConfigError; Unavailable  the row cannot be stored.    temporary
        """
        return self.mint_all(group, [recipient])[0]

    def mint_all(self, group: int, recipients: Sequence[str]) -> list[Minted]:
        """Mint for each recipient, in order; errors as `mint`, and then for none of them."""
        keys, template = self.settings.keys(), self.template
        wanted = [Tag(self.sender.id, group, canonical(each)) for each in recipients]
        minted = [tags.mint(keys, each, template, opaque=self.sender.opaque) for each in wanted]
        stored = [(one, tag) for one, tag in zip(minted, wanted, strict=True) if one.stored]
        if stored and self.keep:
            self.keep(stored)
        elif stored:
            with open_installation(self.settings) as installation:
                installation.tags.keep(stored)
        return minted

    def headers(self, group: int, recipients: Sequence[str], *, mailto_only: bool = False) -> list[Addressed]:
        """Return the headers of each recipient's mail, in order.

        Errors:  as `mint`; Rejected  not one bare address; ConfigError  no https link to put beside the mailto.
        """
        self.require_link(mailto_only=mailto_only)
        bare = [each.strip() for each in recipients if one_address(each)]
        return [
            Addressed(recipient, unsubscribe_headers(minted, None if mailto_only else self.link(minted)))
            for recipient, minted in zip(bare, self.mint_all(group, bare), strict=True)
        ]

    def require_link(self, *, mailto_only: bool) -> None:
        """Errors: ConfigError  mail clients would get no https link, and nobody said that they shall not."""
        base = self.sender.https_url or self.public_url
        if mailto_only or (base and base.startswith("https://")):
            return
        found = f"{base[:60]!r}" if base else "not set"
        raise ConfigError(
            f"UNSUBD_PUBLIC_URL: {found}, expected e.g. https://unsub.example.com: Gmail and Yahoo want the https link too"
            " (or say --mailto-only)"
        )


def minting(settings: Settings, sender: str, group: int) -> Minting:
    """Return how to mint for *sender* and *group*.

    Errors:  Rejected  the group is essential: nothing in a mail may stop it.    permanent
    """
    unknown = Sender(sender, sender)
    if has_no_store(settings):
        return Minting(settings, unknown)
    try:
        with open_known(settings) as known:
            return _asked(settings, known.accounts, sender, group)
    except UnknownAccount:
        return Minting(settings, unknown)
    except Unavailable as error:
        return Minting(settings, unknown, (f"what sender {sender} chose cannot be asked, the settings count: {error}",))


def minting_at(installation: Installation, sender: str, group: int) -> Minting:
    """Return how to mint for a registered sender and its group, over connections that are open.

    Errors:  UnknownAccount  no such sender or group.    permanent; else as `minting`
    """
    installation.groups.group(sender, group)
    return replace(_asked(installation.settings, installation.accounts, sender, group), keep=installation.tags.keep)


def _asked(settings: Settings, accounts: Accounts, sender: str, group: int) -> Minting:
    known, groups = accounts.sender(sender), accounts.groups(sender)
    return Minting(settings, known, _warnings(sender, group, {each.id: each for each in groups}))


def _warnings(sender: str, group: int, groups: dict[int, Group]) -> tuple[str, ...]:
    if group == 0:
        listed = any(each.visible for each in groups.values())
        return (f"group 0: stops everything that {sender} sends, though it has groups",) if listed else ()
    if group not in groups:
        return (f"group {group}: sender {sender} has none of that id, so this stops everything that it sends",)
    if groups[group].essential:
        raise Rejected(f"group {group}: essential, expected another: no header may stop such mail")
    if groups[group].archived:
        return (f"group {group}: archived, so this stops everything that {sender} sends",)
    return ()
