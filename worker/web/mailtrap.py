"""The mails that Mailtrap only refers to, by its Messages API. It goes to one host, with paths of its own making.

Experimental: the API's shape is documented, but no account was at hand. A mail that cannot be had is never given up:
Mailtrap posts its reference again, up to ten times in a day.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2

from handlers.errors import Unavailable
from handlers.providers.mailtrap import API, Reference
from worker.web.outside import fetch

MAX_BYTES = 8 * 1024 * 1024  # text and HTML decoded; attachments stay behind URLs of their own
ANSWER_S = 5.0
_AT_ONCE = 8
_MOST = 100
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Fetched:
    """Shape: documents: JSON as the API gives it, in order. failure: why one is missing, the first of several."""

    documents: list[bytes]
    failure: Unavailable | None


async def fetch_all(
    references: Sequence[Reference], proofs: Sequence[str], transport: httpx2.AsyncBaseTransport | None
) -> Fetched:
    """Return what *references* refer to.

    Shape:   proofs: the endpoint's; the newest `api:TOKEN` among them asks.
    Errors:  Unavailable  no token is configured, or more references than a post may bring.    temporary
    """
    tokens = [proof.removeprefix(API) for proof in proofs if proof.startswith(API)]
    if not tokens:
        raise Unavailable(
            "mailtrap: no API token: expected api:TOKEN beside the signing secret: unsubd hook add mailtrap"
        )
    if len(references) > _MOST:
        raise Unavailable(f"mailtrap: {len(references)} events in a post, expected at most {_MOST}")
    gate = asyncio.Semaphore(_AT_ONCE)
    answers = await asyncio.gather(*(_fetched(each, tokens[-1], transport, gate) for each in references))
    return Fetched(
        [each for each in answers if isinstance(each, bytes)],
        next((each for each in answers if isinstance(each, Unavailable)), None),
    )


async def _fetched(
    reference: Reference, token: str, transport: httpx2.AsyncBaseTransport | None, gate: asyncio.Semaphore
) -> bytes | Unavailable:
    # fullmatch, so that an id is one segment of the path, whatever the post says.
    if not (_ID.fullmatch(reference.inbox_id) and _ID.fullmatch(reference.message_id)):
        return Unavailable("mailtrap: an event without ids of inbox and message: expected letters, digits and hyphens")
    url = f"https://mailtrap.io/api/inbound/inboxes/{reference.inbox_id}/messages/{reference.message_id}"
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    async with gate:
        try:
            return await fetch(transport, url, "message", limit_bytes=MAX_BYTES, answer_s=ANSWER_S, headers=headers)
        except Unavailable as error:
            return error
