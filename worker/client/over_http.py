"""Check and headers over HTTP: `/v1/check`, `/v1/headers`, with an API key, which names the sender. Connections are kept."""

import json
from collections.abc import Collection, Iterator, Sequence
from types import TracebackType
from typing import Any

import httpx2

from . import Checked, CheckFailed, Headers, HeadersFailed

_AT_ONCE = 10_000  # what one request takes


class Client:
    """One sender's connection to an installation. Threads may share it; close it, or use it in a `with`."""

    def __init__(self, url: str, *, api_key: str, timeout_s: float = 10.0) -> None:
        self._url = url.rstrip("/")
        self._http = httpx2.Client(**_options(api_key, timeout_s))

    def check(self, group: int, recipients: Sequence[str], bypass: Collection[str] = ()) -> list[Checked]:
        """Return one answer per recipient, in order.

        Shape:   bypass: names of SendGrid's mail_settings, e.g. bypass_unsubscribe_management.
        Errors:  CheckFailed  no answer, an unknown group, a wrong key, not an address: nobody was declared allowed.
        """
        found: list[Checked] = []
        for question in _questions(group, recipients, bypass=sorted(bypass)):
            try:
                answer = self._http.post(f"{self._url}/v1/check", content=_body(question))
            except httpx2.HTTPError as error:
                raise _failed(self._url, error) from error
            found += _read(self._url, answer, question)
        return found

    def headers(self, group: int, recipients: Sequence[str], *, mailto_only: bool = False) -> list[Headers]:
        """Return the headers of each recipient's mail, in order.

        Errors:  HeadersFailed  no answer, an unknown or essential group, a wrong key, not an address, no https link.
        Repeat:  the same headers.
        """
        found: list[Headers] = []
        for question in _questions(group, recipients, mailto_only=mailto_only):
            try:
                answer = self._http.post(f"{self._url}/v1/headers", content=_body(question))
            except httpx2.HTTPError as error:
                raise HeadersFailed(_why(self._url, error)) from error
            found += _read_headers(self._url, answer, question)
        return found

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio. Tasks may share it; close it, or use it in an `async with`."""

    def __init__(self, url: str, *, api_key: str, timeout_s: float = 10.0) -> None:
        self._url = url.rstrip("/")
        self._http = httpx2.AsyncClient(**_options(api_key, timeout_s))

    async def check(self, group: int, recipients: Sequence[str], bypass: Collection[str] = ()) -> list[Checked]:
        """As `Client.check`."""
        found: list[Checked] = []
        for question in _questions(group, recipients, bypass=sorted(bypass)):
            try:
                answer = await self._http.post(f"{self._url}/v1/check", content=_body(question))
            except httpx2.HTTPError as error:
                raise _failed(self._url, error) from error
            found += _read(self._url, answer, question)
        return found

    async def headers(self, group: int, recipients: Sequence[str], *, mailto_only: bool = False) -> list[Headers]:
        """As `Client.headers`."""
        found: list[Headers] = []
        for question in _questions(group, recipients, mailto_only=mailto_only):
            try:
                answer = await self._http.post(f"{self._url}/v1/headers", content=_body(question))
            except httpx2.HTTPError as error:
                raise HeadersFailed(_why(self._url, error)) from error
            found += _read_headers(self._url, answer, question)
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()


def _options(api_key: str, timeout_s: float) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    return {"headers": headers, "timeout": timeout_s, "follow_redirects": False}


def _questions(group: int, recipients: Sequence[str], **more: Any) -> Iterator[dict[str, Any]]:
    for start in range(0, len(recipients), _AT_ONCE):
        yield {"group": group, "recipients": list(recipients[start : start + _AT_ONCE]), **more}


def _body(question: dict[str, Any]) -> bytes:
    # Half a character is no address, and the installation says so; its escape is JSON's own.
    return json.dumps(question, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _read(url: str, answer: httpx2.Response, question: dict[str, Any]) -> list[Checked]:
    if answer.status_code != 200:
        raise CheckFailed(f"{url}: {answer.status_code} {answer.text[:500]}")
    try:
        found = [Checked(**{name: row[name] for name in Checked._fields if name in row}) for row in answer.json()]
    except (TypeError, ValueError, RecursionError) as error:
        raise _failed(url, error) from error
    if any(type(each.suppressed) is not bool for each in found):  # null would pass for allowed
        raise CheckFailed(f"{url}: an answer without yes or no")
    if len(found) != len(question["recipients"]):  # a proxy that cut the answer: the rest must not pass for allowed
        raise CheckFailed(f"{url}: {len(found)} answers, expected {len(question['recipients'])}")
    return found


def _read_headers(url: str, answer: httpx2.Response, question: dict[str, Any]) -> list[Headers]:
    if answer.status_code != 200:
        raise HeadersFailed(f"{url}: {answer.status_code} {answer.text[:500]}")
    try:
        found = [Headers(str(row["recipient"]), dict(row["headers"])) for row in answer.json()["headers"]]
    except (TypeError, ValueError, LookupError, RecursionError) as error:
        raise HeadersFailed(_why(url, error)) from error
    if [each.recipient for each in found] != [each.strip() for each in question["recipients"]]:
        raise HeadersFailed(f"{url}: other recipients than were asked for: nobody may get another's tag")
    if not all("mailto:" in str(each.headers.get("List-Unsubscribe", "")) for each in found):
        raise HeadersFailed(f"{url}: an answer without List-Unsubscribe")
    return found


def _failed(url: str, error: Exception) -> CheckFailed:
    return CheckFailed(_why(url, error))


def _why(url: str, error: Exception) -> str:
    return f"{url}: {type(error).__name__}: {error}"
