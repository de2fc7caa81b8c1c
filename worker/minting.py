"""Minting for one sender, with the address template and links that it chose, or those of the settings.

Tags are minted offline with the keys alone; what a sender chose is asked where there are accounts to ask. Who cannot be
asked is minted for by the settings: every address of ours is read alike.
"""

from dataclasses import dataclass

from handlers import tag as tags
from handlers.address import canonical
from handlers.errors import Rejected, Unavailable, UnknownAccount
from handlers.tag import AddressTemplate, Minted, Tag
from worker.accounts import Accounts, Group, Sender
from worker.installation import has_no_store, open_installation, open_known
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Minting:
    """What is known of a sender and a group. Shape: warnings: what whoever mints should hear."""

    settings: Settings
    sender: Sender
    warnings: tuple[str, ...] = ()

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
        wanted = Tag(self.sender.id, group, recipient)
        minted = tags.mint(self.settings.keys(), wanted, self.template, opaque=self.sender.opaque)
        if minted.stored:
            with open_installation(self.settings) as installation:
                installation.tags.keep([(minted, Tag(wanted.sender, wanted.group, canonical(recipient)))])
        return minted


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
