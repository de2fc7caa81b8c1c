"""CloudMailin: raw (multipart with `message`), or normalized as JSON or as multipart with names like `envelope[to]`.

Proof: `basic:USER:PASSWORD` in the URL; CloudMailin signs nothing. The sending server waits for our answer: a 4xx bounces
to the subscriber, any 5xx makes that server repeat. So nothing here ever answers 4xx.
"""

import re
from typing import Any

from handlers.errors import PayloadInvalid
from handlers.providers.form import read_form
from handlers.providers.webhook import (
    Codes,
    Headers,
    ProviderMessage,
    address_of,
    bare,
    is_json,
    is_text,
    letter,
    read_object,
    require_shared_secret,
    sender_of,
    text_of,
)

# https://docs.cloudmailin.com/receiving_email/http_status_codes/
CODES = Codes(ack=200, retry=503, drop=200, auth_fail=503)
_BRACKETS = re.compile(r"(envelope|headers)\[([^\[\]]+)\](\[\d*\])?")


def verify(headers: Headers, body: bytes, proofs: list[str], now_s: float) -> int | None:
    """Return None: basic authentication has no time.

    Errors:  SignatureInvalid  none of *proofs* holds.    permanent
    """
    require_shared_secret(headers, proofs)
    return None


def read(headers: Headers, body: bytes) -> list[ProviderMessage]:
    """Return one message per envelope recipient.

    Errors:  PayloadInvalid  no envelope, no message, or fields of another type.    permanent
    """
    raw = None
    if is_json(headers, body):
        post = read_object(body)
    else:
        pairs = read_form(headers, body)
        raw = next((value for name, value in pairs if name == "message"), None)
        post = _nested(pairs)
    envelope = post.get("envelope")
    if not isinstance(envelope, dict):
        raise PayloadInvalid(f"post of {len(post)} fields: expected an envelope, of the format raw or normalized")
    recipients, sender = _recipients(envelope), sender_of(envelope, "from")
    whole = _parsed(post) if raw is None else raw
    return [ProviderMessage(whole, recipient, sender) for recipient in recipients]


def _recipients(envelope: dict[str, Any]) -> list[str]:
    """Whoever is named in recipients, else in to; what is no address among them loses no neighbour."""
    listed = envelope.get("recipients")
    several = [bare(each) for each in listed if is_text(each)] if isinstance(listed, list) else []
    found = [each for each in several if each] or [address_of(envelope, "to")]
    if not found[0]:
        raise PayloadInvalid("envelope: expected addresses in recipients, or one in to")
    return list(dict.fromkeys(found))


def _parsed(post: dict[str, Any]) -> bytes:
    headers = post.get("headers")
    if not isinstance(headers, dict):
        raise PayloadInvalid(
            f"post of {len(post)} fields: expected message (raw), or headers as an object (normalized)"
        )
    fields = [
        (name.replace("_", "-"), value)
        for name, values in headers.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return letter(fields, text_of(post, "plain"), text_of(post, "html"))


def _nested(pairs: list[tuple[str, bytes]]) -> dict[str, Any]:
    """The fields of a form as the JSON format has them."""
    post: dict[str, Any] = {}
    for name, octets in pairs:
        value = octets.decode("utf-8", "replace")
        if name in ("plain", "html"):
            post.setdefault(name, value)
        elif match := _BRACKETS.fullmatch(name):
            group = post.setdefault(match[1], {})
            if match[3]:
                several = group.setdefault(match[2], [])
                group[match[2]] = [*(several if isinstance(several, list) else [several]), value]
            else:
                group.setdefault(match[2], value)
    return post
