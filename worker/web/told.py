"""`/in/{provider}-events/{target}`: what a provider tells of its own lists, signed as it signs."""

import asyncio
import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from handlers.errors import SignatureInvalid
from handlers.forwarding import TELLERS
from handlers.providers import PROVIDERS
from handlers.providers.delivery import told_delivery
from worker.forwarding import Target
from worker.forwarding.heard import hear
from worker.installation import Installation
from worker.web.answers import ANSWERS, answer, answered, header_values
from worker.web.body import read_body

router = APIRouter()
_MAX_BODY_BYTES = 4 * 1024 * 1024


@router.post(
    "/in/{provider}-events/{name}",
    tags=["webhooks"],
    summary="What changed on a provider's own lists",
    response_description="recorded (or nothing of ours)",
    responses=ANSWERS,
)
async def receive_events(request: Request, provider: str, name: str) -> Response:
    """Take unsubscribes, resubscribes and complaints that a provider's own pages took, for a target of `forward add`."""
    if provider not in TELLERS:
        return answer(404, "unknown_provider", f"expected one of {', '.join(sorted(TELLERS))}")
    work = _told(request, provider, name)
    return await answered(request, f"{provider}-events", PROVIDERS[provider].CODES, work)


async def _told(request: Request, provider: str, name: str) -> str:
    installation = request.app.state.installation
    body = await read_body(request, _MAX_BODY_BYTES)
    target = await asyncio.to_thread(_target, installation, provider, name)
    verify = TELLERS[provider].verify_told
    await asyncio.to_thread(verify, header_values(request), body, [target.told_by], time.time())
    await asyncio.to_thread(_hear, installation, target, body)
    return "accepted"


def _hear(installation: Installation, target: Target, body: bytes) -> None:
    """Record what a proved post tells, once.

    Why:     Mailgun's signature does not cover the body: whoever sees one, of an event or of a route's mail, could tell anything.
    """
    deliveries, told = installation.deliveries, TELLERS[target.provider].told(body)
    delivery = told_delivery(target.provider, body)
    if delivery:
        places = [each.source for each in installation.hooks.every() if each.provider == "mailgun"]
        known = [deliveries.is_known(place, delivery) for place in (f"mailgun-events:{target.name}", *places)]
        if any(known):
            return
    hear(installation, target, told)
    if delivery:
        deliveries.remember(f"mailgun-events:{target.name}", delivery)


def _target(installation: Installation, provider: str, name: str) -> Target:
    found = installation.forwards.find(name)
    if found is None or found.provider != provider or not found.told_by:
        raise SignatureInvalid("no such target: expected one of `unsubd forward add --told-by-file`")
    return found
