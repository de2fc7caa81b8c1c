"""Passing a post on: an endpoint that a customer's own application shares gets what is not ours, exactly as it came.

One provider posts to one URL. Where that is ours, mail without a tag of ours goes on to the application's URL; the provider
hears "accepted" only when that answered 2xx, so that nothing is lost in between.
"""

import asyncio
from collections.abc import Sequence

import httpx2

from handlers.errors import Unavailable
from handlers.message import InboundMessage
from handlers.providers import Headers
from worker.hooks import Hook
from worker.installation import Installation
from worker.intake import is_foreign
from worker.points import point

_TIMEOUT_S = 8.0  # providers wait 10 s and less for us
_HOP = {
    "host", "connection", "content-length", "transfer-encoding", "keep-alive", "te", "trailer", "upgrade", "expect",
    "proxy-authorization", "proxy-connection",
}  # fmt: skip


async def pass_on(
    installation: Installation, hook: Hook, headers: Headers, body: bytes, messages: Sequence[InboundMessage]
) -> list[InboundMessage]:
    """Pass a post on if some of its mail is not ours; return the messages that we take ourselves.

    Shape:   a message that asks in words is taken (for the quarantine) and passed on as well.
    Errors:  Unavailable  the application did not take it: the provider keeps it and comes again.    temporary
    Repeat:  the application may hear a post again, as from the provider.
    """
    decided = await asyncio.to_thread(installation.intake.decide, messages, remember=False)
    pairs = list(zip(messages, decided, strict=True))
    if all(not is_foreign(each) for _, each in pairs) and pairs:
        return list(messages)
    await _post(hook.pass_on_url, headers, body)
    installation.journal.webhooks([(hook.provider, "passed-on", "")])
    return [inbound for inbound, each in pairs if not is_foreign(each) or each.suggestion]


async def _post(url: str, headers: Headers, body: bytes) -> None:
    sent = [(name, value) for name, values in headers.items() if name not in _HOP for value in values]
    try:
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            with point("webhook.pass-on"):
                answer = await client.post(url, content=body, headers=sent)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable(f"pass-on-url: {type(error).__name__}, expected an answer within {_TIMEOUT_S:g} s") from error
    if not 200 <= answer.status_code < 300:
        raise Unavailable(f"pass-on-url: answered {answer.status_code}, expected 2xx")
