"""Inbound providers: one small pure module each, with `CODES`, `verify` and `read`.

`verify(headers, body, proofs, now_s)` checks the exact bytes received and returns the signed time in ms, None when the
proof has none. `read(headers, body)` returns one `ProviderMessage` per envelope recipient. Adding a provider: one
module, its samples under tests/webhooks, one row in `PROVIDERS`.
"""

from types import ModuleType

from handlers.errors import Rejected
from handlers.providers import (
    brevo,
    cloudmailin,
    forwardemail,
    mailersend,
    mailgun,
    mailjet,
    mailtrap,
    mandrill,
    postal,
    postmark,
    relay,
    resend,
    sendgrid,
    ses,
    sparkpost,
)
from handlers.providers.webhook import Codes, Headers, ProviderMessage

__all__ = ["PROVIDERS", "Codes", "Headers", "ProviderMessage", "provider"]

# In the order in which the README and `unsubd hook add --help` name them.
PROVIDERS: dict[str, ModuleType] = {
    "relay": relay,
    "sendgrid": sendgrid,
    "ses": ses,
    "mailgun": mailgun,
    "postmark": postmark,
    "postal": postal,
    "cloudmailin": cloudmailin,
    "mandrill": mandrill,
    "sparkpost": sparkpost,
    "mailjet": mailjet,
    "forwardemail": forwardemail,
    "resend": resend,
    "mailersend": mailersend,
    "brevo": brevo,
    "mailtrap": mailtrap,
}


def provider(name: str) -> ModuleType:
    """Return the module of provider *name*.

    Errors:  Rejected  nobody of that name.    permanent
    """
    if name not in PROVIDERS:
        raise Rejected(f"provider {name[:20]!r}: expected one of {', '.join(sorted(PROVIDERS))}")
    return PROVIDERS[name]
