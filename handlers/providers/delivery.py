"""Deliveries that can be told apart: what a provider names one by, where its signature covers that name.

A post that comes again with the same name is a repeat, and needs no new work. Mailgun's signature covers the name (its
token) but not the body: the same token with another body is a forgery. Everywhere else the signature covers the body
too, so another body under the same name is another delivery that the provider really made; it is never refused.

Why:     basic and bearer proofs cover no name: a mail's author can add fields to Mailgun's form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from handlers.providers import mailgun, sns
from handlers.providers.webhook import Headers, read_json, single

_DAY_S, _HOUR_S = 86400, 3600


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery.

    Shape:   name: what must not come with another content. content: SHA-256, hex.
    Units:   kept_s: the provider's freshness window and then its retries; after that a repeat is stale, or harmless.
    """

    name: str
    content: str
    kept_s: int


def signed_delivery(provider: str, headers: Headers, body: bytes) -> Delivery | None:
    """Return the delivery of a post whose provider's own signature was verified; None where none names it."""
    told = _NAMED.get(provider)
    if told is None:
        return None
    named, kept_s = told
    name, content = named(headers, body)
    return Delivery(name, content, kept_s) if name else None


def told_delivery(provider: str, body: bytes) -> Delivery | None:
    """Return the delivery of a post of Mailgun's event webhook; None for other providers, whose signatures cover the body."""
    if provider != "mailgun":
        return None
    signed = read_json(body)["signature"]
    return Delivery(str(signed["token"]), sha256(body).hexdigest(), _NAMED["mailgun"][1])


def _mailgun(headers: Headers, body: bytes) -> tuple[str, str]:
    return mailgun.token(headers, body), sha256(body).hexdigest()


def _sns(headers: Headers, body: bytes) -> tuple[str, str]:
    envelope = sns.read_envelope(body)
    return _covered(
        envelope.get("MessageId", ""), sha256(envelope["Message"].encode("utf-8", "surrogatepass")).digest()
    )


def _standard(headers: Headers, body: bytes) -> tuple[str, str]:
    name = next((single(headers, each) for each in ("svix-id", "webhook-id") if each in headers), "")
    # The signature does not cover a relay's envelope headers; one body for two recipients is two deliveries.
    envelope = "\0".join([*headers.get("x-envelope-to", []), "", *headers.get("x-envelope-from", [])])
    return _covered(name, sha256(envelope.encode("latin-1", "replace") + b"\0" + body).digest())


def _covered(name: str, content: bytes) -> tuple[str, str]:
    """A name that holds its content: then no two contents can ever share one."""
    return (f"{name} {content.hex()}" if name else ""), content.hex()


_NAMED: Mapping[str, tuple[Callable[[Headers, bytes], tuple[str, str]], int]] = {
    "mailgun": (_mailgun, _DAY_S + 8 * _HOUR_S),
    "ses": (_sns, _DAY_S + _HOUR_S),
    "relay": (_standard, 3 * _DAY_S),  # as the mail server's queue lives; it signs each attempt anew
    "resend": (_standard, 18 * _HOUR_S),
}
