"""Inbound providers: one small pure module each, with `CODES`, `verify` and `read`.

`verify(headers, body, proofs, now_s)` checks the exact bytes received and returns the signed time in ms, None when the
proof has none. `read(headers, body)` returns one `ProviderMessage` per envelope recipient. Adding a provider: one
module, its samples under tests/webhooks, one row in `PROVIDERS`.
"""

from types import ModuleType

from handlers.errors import Rejected
from handlers.providers import cloudmailin, mailgun, postal, postmark, relay, sendgrid
from handlers.providers.webhook import Codes, Headers, ProviderMessage

__all__ = ["PROVIDERS", "Codes", "Headers", "ProviderMessage", "provider"]

PROVIDERS: dict[str, ModuleType] = {
    "cloudmailin": cloudmailin,
    "mailgun": mailgun,
    "postal": postal,
    "postmark": postmark,
    "relay": relay,
    "sendgrid": sendgrid,
}


def provider(name: str) -> ModuleType:
    """Return the module of provider *name*.

    Errors:  Rejected  nobody of that name.    permanent
    """
    if name not in PROVIDERS:
        raise Rejected(f"provider {name[:20]!r}: expected one of {', '.join(sorted(PROVIDERS))}")
    return PROVIDERS[name]
