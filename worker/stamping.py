"""Stamping for one sender: the links that its mail wants are minted, no others, so that no tag is stored in vain."""

from handlers import stamping
from handlers.address import one_address
from handlers.errors import ConfigError
from handlers.headers import encoded, unsubscribe_headers
from handlers.stamping import Link, Stamped
from handlers.tag import Minted
from worker.minting import Minting


def stamp_with(
    found: Minting, group: int, raw: bytes, *, recipient: str = "", custom: str = "", mailto_only: bool = False
) -> Stamped:
    """Return the mail for one recipient with headers, links and the sender's footer.

    Shape:   recipient: "" = the one in To. custom: as `stamping.draft`.
    Errors:  Rejected  no mail, not one recipient.    permanent; as `Minting.mint`; ConfigError  no https link
    """
    found.require_link(mailto_only=mailto_only)
    footers = {"footer_text": found.sender.footer_text, "footer_html": found.sender.footer_html}
    draft = stamping.draft(raw, custom=custom, **footers)
    [addressed] = found.mint_all(group, [one_address(recipient or draft.recipient())])
    links = {Link.OWN: _link(found, addressed, mailto_only=mailto_only)}
    if Link.EVERYTHING in draft.wanted:
        everything = found.mint(0, recipient or draft.recipient())
        links[Link.EVERYTHING] = _link(found, everything, mailto_only=mailto_only)
    if Link.PREFERENCES in draft.wanted:
        links[Link.PREFERENCES] = _preferences(found, addressed)
    return draft.stamped(unsubscribe_headers(addressed, None if mailto_only else found.link(addressed)), links)


def _link(found: Minting, minted: Minted, *, mailto_only: bool) -> str:
    link = None if mailto_only else found.link(minted)
    return encoded(link) if link else f"mailto:{minted.address}"


def _preferences(found: Minting, minted: Minted) -> str:
    if not found.public_url:
        raise ConfigError(
            "UNSUBD_PUBLIC_URL: not set, expected e.g. https://unsub.example.com: the mail links to the preferences"
        )
    return encoded(f"{found.public_url}/p/{minted.tag}")
