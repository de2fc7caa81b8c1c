"""What an account is: a sender, and its groups."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from handlers.errors import ConfigError, Rejected
from handlers.tag import AddressTemplate

MAX_NAME, MAX_DESCRIPTION = 30, 100  # of a group
MAX_SENDER_NAME = 100
MAX_GROUPS = 200
MAX_FOOTER = 10_000


@dataclass(frozen=True, slots=True)
class Sender:
    """A sender account.

    Shape:   id: 1 to 16 of a-z, 0-9. name: as people know it, at most 100 characters. address: its own template instead of
             UNSUBD_ADDRESS, "" = none. public_url: its own base of links, https_url: its own page to stand beside our
             mailto, likewise. opaque: its tags spell no address, they are stored. max_groups: how many groups it may have.
             footer_text, footer_html: end mails without a substitution tag, may hold some, "" = none. parent: the sender
             whose API keys may act for this one.
    """

    id: str
    name: str
    address: str = ""
    public_url: str = ""
    https_url: str = ""
    opaque: bool = False
    max_groups: int = MAX_GROUPS
    parent: str = ""
    footer_text: str = ""
    footer_html: str = ""

    def checked(self) -> "Sender":
        """Errors: Rejected  a name, address template, URL or footer that cannot be used.    permanent"""
        if len(self.name) > MAX_SENDER_NAME:
            raise Rejected(f"sender name of {len(self.name)} characters: expected at most {MAX_SENDER_NAME}")
        if self.address:
            try:
                AddressTemplate.parse(self.address)
            except ConfigError as error:
                raise Rejected(str(error).replace("UNSUBD_ADDRESS", "address")) from None
        for name, url in (("public-url", self.public_url), ("https-url", self.https_url)):
            if url and (
                not url.isprintable() or " " in url or urlsplit(url).scheme != "https" or not urlsplit(url).hostname
            ):
                raise Rejected(f"{name}: {url[:60]!r}, expected e.g. https://unsub.example.com")
        if self.parent == self.id:
            raise Rejected("parent: the sender itself, expected another one, or none")
        for name, footer in (("footer-text", self.footer_text), ("footer-html", self.footer_html)):
            if len(footer) > MAX_FOOTER or "\0" in footer:
                raise Rejected(f"{name}: {len(footer)} characters, expected text of at most {MAX_FOOTER}")
        return replace(self, name=self.name or self.id, public_url=self.public_url.rstrip("/"))


@dataclass(frozen=True, slots=True)
class Group:
    """A kind of mail within a sender; id 0 is everything the sender sends.

    Shape:   archived: gone for everybody who lists groups, while its suppressions still count. essential: receipts and
             account alerts, which nothing stops but an entry for this very group. is_default: listed first.
    """

    id: int
    sender: str
    name: str
    description: str
    archived: bool = False
    essential: bool = False
    is_default: bool = False

    @property
    def visible(self) -> bool:
        """Say whether recipients see it."""
        return not self.archived and not self.essential

    def checked(self) -> "Group":
        """Errors: Rejected  a name or description that is too long, or no name.    permanent"""
        if not 1 <= len(self.name) <= MAX_NAME or len(self.description) > MAX_DESCRIPTION:
            raise Rejected(
                f"group name of {len(self.name)} and description of {len(self.description)} characters:"
                f" expected 1-{MAX_NAME} and 0-{MAX_DESCRIPTION}"
            )
        return self


def as_json(account: Sender | Group) -> str:
    """Return what Redis holds; the id is the field's name."""
    content = asdict(account)
    del content["id"]
    return json.dumps(content)


def read_sender(sender_id: str, row: bytes) -> Sender:
    """Undo `as_json`; what another release wrote besides is left out."""
    return Sender(**_known(Sender, row), id=sender_id)


def read_group(group_id: int, row: bytes) -> Group:
    """Undo `as_json`; what another release wrote besides is left out."""
    return Group(**_known(Group, row), id=group_id)


def _known(kind: type[Sender] | type[Group], row: bytes) -> dict[str, Any]:
    found = json.loads(row)
    return {name: found[name] for name in kind.__slots__ if name in found and name != "id"}
