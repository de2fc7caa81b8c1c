"""`List-Unsubscribe` and `List-Unsubscribe-Post`: what a mail must carry for the buttons to appear.

The value is plain ASCII, its URIs hold no spaces and are percent-encoded once; it may be folded between them, nowhere
else: mail clients ignore one that is RFC 2047-encoded or broken inside a URI. Each recipient's mail has its own.

RFC: 2369 (List-Unsubscribe), 3986 (URI), 5322 2.1.1 (998 octets), 6068 (mailto), 8058 (one-click: https must be there).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from handlers.address import canonical
from handlers.errors import Rejected
from handlers.tag import Minted

Form = Literal["plain", "json", "v3", "v2", "smtpapi"]
MAX_PERSONALIZATIONS = 1000  # of one v3 Mail Send request
_FOLD_AT = 78
_LINK = re.compile(r"(https?)://([^/?#]+)(.*)", re.S | re.I)
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_URI_MARKS = ":/?#[]@!$&'()*+,;=-._~%"
_SUBSCRIPTION_TRACKING = {"filters": {"subscriptiontrack": {"settings": {"enable": 0}}}}

Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Addressed:
    """What one recipient's mail carries. Shape: recipient: as whoever asked spelled it. lines: (name, value)."""

    recipient: str
    lines: Lines


def unsubscribe_headers(minted: Minted, link: str | None) -> Lines:
    """Return the header lines of one recipient's mail as (name, value).

    Shape:   link: the https URI of the same tag; None leaves it and the one-click header out.
    Errors:  Rejected  a link that is none, or does not fit a line.    permanent
    Example:
        >>> from handlers.tag import Minted
        >>> unsubscribe_headers(Minted("hx", "u+hx@d.example", True, "x"), None)
        (('List-Unsubscribe', '<mailto:u+hx@d.example>'),)
    """
    mailto = f"<mailto:{minted.address}>"
    if link is None:
        return (("List-Unsubscribe", mailto),)
    value = f"{mailto}, <{encoded(link)}>"
    return ("List-Unsubscribe", value), ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")


def encoded(link: str) -> str:
    """Return *link* as a header may carry it: ASCII, its host an A-label, each other octet percent-encoded once.

    Errors:  Rejected  no http or https URI, or over 900 octets.    permanent
    Example:
        >>> encoded("https://bücher.example/ö?a=1 2%20<x>")
        'https://xn--bcher-kva.example/%C3%B6?a=1%202%20%3Cx%3E'
    """
    match = _LINK.fullmatch(link)
    if not match:
        raise Rejected(f"link of {len(link)} characters: expected e.g. https://unsub.example.com/u/…")
    host, colon, port = match[2].partition(":") if not match[2].startswith("[") else (match[2], "", "")
    if not host.isascii():
        host = canonical(f"x@{host}").removeprefix("x@")
    rest = _LONE_PERCENT.sub("%25", f"{host}{colon}{port}{match[3]}")
    found = f"{match[1].lower()}://{quote(rest, safe=_URI_MARKS, errors='replace')}"
    if len(found) > 900:
        raise Rejected(f"link of {len(found)} octets: expected at most 900, to fit a line")
    return found


def folded(name: str, value: str, line_end: str = "\r\n") -> str:
    """Return a header line, without its end, folded between the URIs where it is long.

    Example:
        >>> folded("List-Unsubscribe", "<mailto:u@d.example>, <https://d.example/u/x>")
        'List-Unsubscribe: <mailto:u@d.example>, <https://d.example/u/x>'
    """
    line = f"{name}: {value}"
    return line if len(line) <= _FOLD_AT else line.replace(">, <", f">,{line_end} <")


def shaped(form: Form, addressed: Sequence[Addressed]) -> list[dict[str, Any]]:
    """Return the headers as *form* wants them; each value becomes one JSON object.

    Shape:   json, plain: one object a recipient. v3: parts of SendGrid Mail Send requests, 1,000 recipients each, to merge
             into yours. v2: parameters of mail.send. smtpapi: the header lines of one SMTP message, by name.
    Errors:  Rejected  v2 or smtpapi for several recipients.    permanent
    """
    if form in ("v2", "smtpapi") and len(addressed) != 1:
        raise Rejected(
            f"{form}: {len(addressed)} recipients, expected one: its headers go to everybody, who would share a tag"
            " (v3 gives each their own)"
        )
    if form == "v3":
        return [
            _v3(addressed[start : start + MAX_PERSONALIZATIONS])
            for start in range(0, len(addressed), MAX_PERSONALIZATIONS)
        ]
    if form == "v2":
        return [_v2(addressed[0])]
    if form == "smtpapi":
        only = json.dumps({"to": [addressed[0].recipient], **_SUBSCRIPTION_TRACKING})
        return [{**dict(addressed[0].lines), "X-SMTPAPI": only}]
    if form == "json":
        return [{"recipient": each.recipient, "headers": dict(each.lines)} for each in addressed]
    return [{"recipient": each.recipient, "lines": [f"{k}: {v}" for k, v in each.lines]} for each in addressed]


def _v3(addressed: Sequence[Addressed]) -> dict[str, Any]:
    entries = [{"to": [{"email": each.recipient}], "headers": dict(each.lines)} for each in addressed]
    return {"personalizations": entries, "tracking_settings": {"subscription_tracking": {"enable": False}}}


def _v2(addressed: Addressed) -> dict[str, Any]:
    return {
        "to": addressed.recipient,
        "headers": json.dumps(dict(addressed.lines)),
        "x-smtpapi": json.dumps(_SUBSCRIPTION_TRACKING),
    }
