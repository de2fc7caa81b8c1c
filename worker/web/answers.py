"""What a provider hears of its post: one ladder from error to status, over the four codes that each provider owns.

A status is a promise (`handlers.providers`): it makes the provider keep, retry or drop what it posted.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from handlers.errors import ContentTypeInvalid, CredentialsMissing, Rejected, SignatureInvalid, Unavailable
from handlers.providers import Codes
from worker.journal import Journal
from worker.points import point
from worker.together import Together
from worker.web.failure import Failure, place_of

ANSWERS: dict[int | str, dict[str, Any]] = {
    "default": {
        "model": Failure,
        "description": "the code that makes this provider try again, give up, or keep the mail",
    }
}


Told = Together[tuple[str, str, str], None]


def told(journal: Journal) -> Told:
    """Return what tells the journal of answers: of those that come at once, together. One for each event loop."""

    def tell(answers: list[tuple[str, str, str]]) -> list[None]:
        journal.webhooks(answers)
        return [None] * len(answers)

    return Together(tell)


async def answered(request: Request, post: str, codes: Codes, work: Awaitable[str]) -> Response:
    """Return the answer to a post: empty when `work` is durable, else a refusal in the provider's own code.

    Shape:   post: the journal's name of it, e.g. mailgun, mailgun-events.  work: returns its word, accepted or repeated
    """
    try:
        word, detail, status = await work, "", codes.ack
    except CredentialsMissing as error:
        word, detail, status = "credentials_missing", str(error), 401
    except SignatureInvalid as error:
        word, detail, status = "signature_invalid", str(error), codes.auth_fail
    except ContentTypeInvalid as error:
        word, detail, status = "content_type_invalid", str(error), 415
    except Rejected as error:
        word, detail, status = "payload_invalid", str(error), codes.drop
    except Unavailable as error:
        word, detail, status = "unavailable", str(error), codes.retry
    except ClientDisconnect:
        word, detail, status = "disconnected", "the body ended early", codes.retry
    except Exception as error:  # noqa: BLE001  a bug of ours: the provider keeps the post and comes again
        word, detail, status = "failed", "a bug of ours: see the journal's failed", codes.retry
        journal = request.app.state.installation.journal
        await asyncio.to_thread(journal.failed, "webhook", f"{post}: {place_of(error)}")
    await request.app.state.told.ask((post, word, detail))
    with point("webhook.answer"):
        return answer(status, word, detail) if detail else Response(status_code=status)


def answer(status: int, word: str, detail: str) -> Response:
    """Return a refusal as programs read it."""
    content: dict[str, Any] = {"error": word, "detail": detail}
    asked = {"WWW-Authenticate": 'Basic realm="unsubd"'} if word == "credentials_missing" else None
    return JSONResponse(content, status_code=status, headers=asked)


def header_values(request: Request) -> Mapping[str, list[str]]:
    """Return every header's values by lower-case name, latin-1."""
    values: dict[str, list[str]] = {}
    for name, value in request.headers.raw:
        values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return values
