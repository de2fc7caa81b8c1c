"""What the service asks of Amazon SNS: certificates, and that a subscription be confirmed. It goes nowhere else.

A URL gets here only from `handlers.providers.sns`: https, a host that SNS has in the topic's region, no port, no user.
Who asks has judged before that the topic is one of ours. No redirect is followed, 3 s and 64 KB are the end.

Tests give `Sns` a transport of their own, which sees each URL as Amazon would and takes the request to a server of
theirs; every rule above stays in force. Without one, https with the system's settings, HTTPS_PROXY included.
"""

import asyncio
import logging
import time
from typing import TypeVar

import httpx2

from handlers.errors import SignatureInvalid, Unavailable
from handlers.providers import sns
from worker.journal import Journal
from worker.web.outside import fetch

ANSWER_S = 3
MAX_BYTES = 64 * 1024
_KEPT_S, _FAILURE_KEPT_S = 86400, 10  # SNS repeats after 20 s: a short outage costs no second failure
_KEPT_COUNT = 64
_AT_ONCE = 8
_Value = TypeVar("_Value")


class Sns:
    """Amazon SNS, for one event loop. Holds the certificates it gave, by URL, and what it refused a moment ago."""

    def __init__(self, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._certificates: dict[str, tuple[float, bytes]] = {}
        self._failures: dict[str, tuple[float, str]] = {}
        self._confirmed: dict[str, None] = {}
        self._asking: dict[str, asyncio.Task[bytes | str]] = {}
        for name in ("httpx2", "httpcore2"):  # at INFO they log URLs, and a token is in one
            logging.getLogger(name).setLevel(logging.WARNING)

    async def certificate(self, url: str) -> bytes:
        """Return the certificate at *url*, PEM, from memory for a day.

        Errors:  Unavailable  SNS does not answer, or with no certificate in its dates; for 10 s it is not asked again.
                              temporary
        """
        now_s = time.monotonic()
        until_s, certificate = self._certificates.get(url, (0.0, b""))
        if now_s < until_s:
            return certificate
        until_s, reason = self._failures.get(url, (0.0, ""))
        if now_s < until_s:
            raise Unavailable(reason)
        if url not in self._asking and len(self._asking) >= _AT_ONCE:
            raise Unavailable(f"{_AT_ONCE} certificates are being fetched already: try again")
        task = self._asking.get(url) or self._ask(url)
        answer = await asyncio.shield(task)  # one who hangs up takes it from nobody else
        if isinstance(answer, str):
            raise Unavailable(answer)
        return answer

    def _ask(self, url: str) -> asyncio.Task[bytes | str]:
        task = self._asking[url] = asyncio.create_task(self._fetched(url))
        task.add_done_callback(lambda _: self._asking.pop(url))
        return task

    async def _fetched(self, url: str) -> bytes | str:
        """The certificate at *url*, or why there is none; either is kept."""
        try:
            certificate = await self._get(url, "certificate")
            sns.public_key(certificate, time.time())
        except (Unavailable, SignatureInvalid) as error:
            reason = f"SNS's certificate: {error}"
            _keep(self._failures, url, (time.monotonic() + _FAILURE_KEPT_S, reason))
            return reason
        _keep(self._certificates, url, (time.monotonic() + _KEPT_S, certificate))
        return certificate

    async def settle(self, body: bytes, source: str, journal: Journal) -> None:
        """Confirm the subscription that a verified *body* offers; say aloud that one ended. Any other body: nothing.

        Errors:  Unavailable     SNS did not confirm.    temporary
                 PayloadInvalid  no token to confirm with.    permanent
        Repeat:  safe: a token is confirmed once.
        """
        envelope = sns.read_envelope(body)
        topic = envelope.get("TopicArn", "")
        if envelope["Type"] == sns.UNSUBSCRIPTION:
            said = f"{topic} posts here no more: unless you meant that, subscribe this URL to it again"
            await asyncio.to_thread(journal.source, source, "unsubscribed", said)
        elif envelope["Type"] == sns.SUBSCRIPTION:
            url = sns.confirmation_url(envelope)
            if url not in self._confirmed:
                await self._get(url, "confirmation")
                _keep(self._confirmed, url, None)
                await asyncio.to_thread(journal.source, source, "subscribed", f"{topic}: confirmed")

    async def _get(self, url: str, what: str) -> bytes:
        return await fetch(self._transport, url, what, limit_bytes=MAX_BYTES, answer_s=ANSWER_S)


def _keep(kept: dict[str, _Value], url: str, value: _Value) -> None:
    kept.pop(url, None)
    kept[url] = value
    if len(kept) > _KEPT_COUNT:
        kept.pop(next(iter(kept)))  # the oldest
