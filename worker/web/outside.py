"""What the web server itself asks of others: one GET, whose URL its caller made. Never one that a post brought unjudged.

No redirect is followed, so that the host stays the one that was judged; size and time have an end.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx2

from handlers.errors import Unavailable


async def fetch(
    transport: httpx2.AsyncBaseTransport | None,
    url: str,
    what: str,
    *,
    limit_bytes: int,
    answer_s: float,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return what *url* answers.

    Shape:   transport: for tests, None = https with the system's settings. what: one word for errors, "certificate".
    Errors:  Unavailable  no 200 with at most *limit_bytes* within *answer_s*.    temporary
    """
    host, answer = urlsplit(url).hostname, bytearray()
    # Undecoded and unasked for: a compressed answer could be of any size.
    sent = {**(headers or {}), "Accept-Encoding": "identity"}
    try:
        async with (
            asyncio.timeout(answer_s),
            httpx2.AsyncClient(transport=transport, timeout=answer_s, follow_redirects=False) as client,
            client.stream("GET", url, headers=sent) as response,
        ):
            if response.status_code != 200:
                raise Unavailable(f"{host} answers HTTP {response.status_code}, expected 200 and a {what}")
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > limit_bytes:
                    raise Unavailable(f"{host} answers more than {limit_bytes} octets, expected a {what}")
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
        # Without its cause, which would quote the URL.
        raise Unavailable(f"{host} does not answer ({type(error).__name__}), expected a {what}") from None
    return bytes(answer)
