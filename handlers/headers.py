"""`List-Unsubscribe` and `List-Unsubscribe-Post`: what a mail must carry for the buttons to appear.

RFC: 2369 (List-Unsubscribe), 6068 (mailto), 8058 (one-click: the https URI must be there).
"""

from handlers.tag import Minted


def unsubscribe_headers(minted: Minted, link: str | None) -> list[tuple[str, str]]:
    """Return the header lines of one recipient's mail as (name, value).

    Shape:   link: the https URI of the same tag; None leaves it and the one-click header out.
    Why:     mail clients ignore an RFC 2047-encoded value, so this is plain ASCII and its pieces have no spaces; fold
             only between them.
    Example:
        >>> from handlers.tag import Minted
        >>> unsubscribe_headers(Minted("hx", "u+hx@d.example", True, "x"), None)
        [('List-Unsubscribe', '<mailto:u+hx@d.example>')]
    """
    mailto = f"<mailto:{minted.address}>"
    if link is None:
        return [("List-Unsubscribe", mailto)]
    return [("List-Unsubscribe", f"{mailto}, <{link}>"), ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")]
