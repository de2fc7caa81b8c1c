"""`/in/{provider}/{name}`: a provider posts mail; it hears "accepted" only when the work is durable.

Exact bytes, read under a limit before any parsing; the proof is checked over them; one message per envelope recipient.
A status is a promise, and each provider owns its four (`handlers.providers`).
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from handlers import message
from handlers.errors import CredentialsMissing, Rejected, SignatureInvalid, Unavailable, UnsubdError
from handlers.message import InboundMessage
from handlers.providers import PROVIDERS, Headers, ProviderMessage, ses
from handlers.providers.delivery import Delivery, signed_delivery
from worker import habits, s3
from worker.deliveries import DeliveryForged
from worker.endpoints import REFUSED, TAKEN
from worker.hooks import Hook
from worker.installation import Installation
from worker.web import mailtrap
from worker.web.answers import ANSWERS, answer, answered, header_values
from worker.web.body import read_body
from worker.web.failure import place_of
from worker.web.passing import pass_on

MAX_BODY_BYTES = 64 * 1024 * 1024  # every provider's own limit is lower
router = APIRouter()


@dataclass(frozen=True, slots=True)
class _Proof:
    """Why a post is believed. Shape: signed_ms, delivery: what the provider's signature covers, None = nothing so."""

    signed_ms: int | None = None
    delivery: Delivery | None = None
    is_test: bool = False


@router.api_route("/in/{provider}", methods=["GET", "HEAD"], include_in_schema=False)
@router.api_route("/in/{provider}/{name}", methods=["GET", "HEAD"], include_in_schema=False)
@router.api_route("/in/mailgun/{name}/mime", methods=["GET", "HEAD"], include_in_schema=False)
async def probe(provider: str = "mailgun") -> Response:
    """Providers look whether the URL exists before they show its key: 200, without authentication or content."""
    return Response(status_code=200 if provider in PROVIDERS else 404)


@router.post("/in/{provider}/", include_in_schema=False)  # a redirect would bounce the mail at Postal
@router.post(
    "/in/{provider}",
    tags=["webhooks"],
    summary="Inbound mail of the source named default",
    response_description="accepted, durably (or 204)",
    responses=ANSWERS,
)
async def receive_default(request: Request, provider: str) -> Response:
    """Take mail that a provider posts, as the source named `default`."""
    return await receive(request, provider, "default")


@router.post("/in/mailgun/mime", include_in_schema=False)
async def receive_default_mime(request: Request) -> Response:
    """Mailgun posts the raw message to URLs that end in "mime" only; the source is still `default`."""
    return await receive(request, "mailgun", "default")


@router.post("/in/mailgun/{name}/mime", include_in_schema=False)
async def receive_mime(request: Request, name: str) -> Response:
    """The raw message, for a named source."""
    return await receive(request, "mailgun", name)


@router.post("/in/{provider}/{name}/", include_in_schema=False)
@router.post(
    "/in/{provider}/{name}",
    tags=["webhooks"],
    summary="Inbound mail of a named source",
    response_description="accepted, durably (or 204)",
    responses=ANSWERS,
)
async def receive(request: Request, provider: str, name: str) -> Response:
    """Take mail that a provider posts. The answer's status is what makes that provider keep, retry or drop it."""
    module = PROVIDERS.get(provider)
    if module is None:
        return answer(404, "unknown_provider", f"expected one of {', '.join(sorted(PROVIDERS))}")
    work = _received(request, provider, name)
    return await answered(request, provider, module.CODES, work)


async def _received(request: Request, provider: str, name: str) -> str:
    installation: Installation = request.app.state.installation
    try:
        body = await read_body(request, MAX_BODY_BYTES)
        hook = await asyncio.to_thread(find_hook, installation, provider, name)
        repeated = await _take(request, hook, header_values(request), body)
    except CredentialsMissing:
        raise
    except SignatureInvalid:
        await asyncio.to_thread(_unproved, installation, provider, name)
        raise
    return "repeated" if repeated else "accepted"


def _unproved(installation: Installation, provider: str, name: str) -> None:
    """Count a post for the alarms; the name of an endpoint that nobody configured is a stranger's, and not kept."""
    with suppress(Unavailable):
        hook = installation.hooks.find(provider, name)
        habits.unproved(installation.redis, hook.source if hook else f"{provider}:?")
        if hook:
            installation.endpoints.note(hook.source, REFUSED)


async def _take(request: Request, hook: Hook, headers: Headers, body: bytes) -> bool:
    """Return when the post's work is durable; say whether it was so before. 64 MB take a while: in a thread."""
    installation: Installation = request.app.state.installation
    source = hook.source
    try:
        proof = await _proved(request, hook, headers, body)
        if proof.delivery is not None and await asyncio.to_thread(
            installation.deliveries.is_known, source, proof.delivery
        ):
            await _taken(installation, source, proof)
            return True
        messages = await _messages(request, hook, headers, body, proof)
    except (SignatureInvalid, DeliveryForged):
        raise
    except Rejected:
        if not hook.pass_on_url:
            raise
        # Whatever it is, it has no tag of ours: the application that shares this URL may know it.
        proof, messages = _Proof(), []
    if hook.pass_on_url:
        messages = await pass_on(installation, hook, headers, body, messages)
    if messages:  # none: all passed on, or a provider's own test post
        await request.app.state.gatherer.accept(messages)
    if proof.delivery:
        await asyncio.to_thread(installation.deliveries.remember, source, proof.delivery)
    await _taken(installation, source, proof)
    return False


async def _taken(installation: Installation, source: str, proof: _Proof) -> None:
    if not proof.is_test:  # a test of our own must not hide that the provider is silent
        await asyncio.to_thread(installation.endpoints.note, source, TAKEN)


async def _proved(request: Request, hook: Hook, headers: Headers, body: bytes) -> _Proof:
    installation: Installation = request.app.state.installation
    if await asyncio.to_thread(installation.hooks.is_test, headers.get("authorization", [])):
        return _Proof(is_test=True)
    if hook.provider == "ses" and not hook.forwarded:
        url = await asyncio.to_thread(ses.certificate_url, headers, body, hook.proofs, time.time())
        certificate = await request.app.state.sns.certificate(url)
        signed_ms: int | None = await asyncio.to_thread(
            ses.verify, headers, body, hook.proofs, time.time(), certificate
        )
    else:
        signed_ms = await _verified(hook, headers, body)
    if signed_ms is None:
        return _Proof()  # whatever else proved it, no signature names the delivery
    return _Proof(signed_ms, await asyncio.to_thread(signed_delivery, hook.provider, headers, body))


async def _messages(request: Request, hook: Hook, headers: Headers, body: bytes, proof: _Proof) -> list[InboundMessage]:
    installation: Installation = request.app.state.installation
    if hook.provider == "mailtrap" and not proof.is_test:
        return await _from_mailtrap(request, hook, headers, body)
    messages = await asyncio.to_thread(read_messages, installation, hook, headers, body, proof.signed_ms)
    if hook.provider == "ses" and not (hook.forwarded or proof.is_test):
        await request.app.state.sns.settle(body, f"ses:{hook.name}", installation.journal)
        return await asyncio.to_thread(s3.completed, messages, body, installation.journal)
    return messages


async def _from_mailtrap(request: Request, hook: Hook, headers: Headers, body: bytes) -> list[InboundMessage]:
    """The mails that a post refers to. One that cannot be had now costs the others nothing but a repeat."""
    references = await asyncio.to_thread(PROVIDERS["mailtrap"].references, headers, body)
    fetched = await mailtrap.fetch_all(references, hook.proofs, request.app.state.outside)
    installation: Installation = request.app.state.installation
    messages: list[InboundMessage] = []
    for document in fetched.documents:
        messages += await asyncio.to_thread(read_messages, installation, hook, {}, document, None)
    if fetched.failure and messages and not hook.pass_on_url:
        await request.app.state.gatherer.accept(messages)
    if fetched.failure:
        raise fetched.failure
    return messages


def find_hook(installation: Installation, provider: str, name: str) -> Hook:
    """Errors: SignatureInvalid  nobody configured it: then the sender keeps the mail.    permanent"""
    hook = installation.hooks.find(provider, name)
    if hook is None or not hook.proofs:
        # The name is whatever somebody put into the URL, a tag perhaps.
        setting = f"UNSUBD_IN_{provider.upper()}" + ("" if name == "default" else "_<NAME>")
        raise SignatureInvalid(f"{setting}: not set, expected the secret that {provider} signs with: unsubd hook add")
    return hook


def read_messages(
    installation: Installation, hook: Hook, headers: Headers, body: bytes, signed_ms: int | None
) -> list[InboundMessage]:
    """Return the messages of a post that is proved.

    Shape:   signed_ms: the event time that its proof signs, None where it signs none.
    Errors:  Rejected  a body that can never be understood.    permanent
    """
    return [
        message.read(
            each.raw,
            source=hook.source,
            envelope_to=each.envelope_to,
            envelope_from=each.envelope_from,
            received_ms=signed_ms,
        )
        for each in _parts(installation, hook.provider, headers, body)
    ]


async def _verified(hook: Hook, headers: Headers, body: bytes) -> int | None:
    """The signed time of a post that is proved; None for a proof without one."""
    # Our own application proves itself as a relay does, over the body that it posts on; its time is not the event's.
    verify = PROVIDERS["relay" if hook.forwarded else hook.provider].verify
    signed_ms: int | None = await asyncio.to_thread(verify, headers, body, list(hook.proofs), time.time())
    return None if hook.forwarded else signed_ms


def _parts(installation: Installation, provider: str, headers: Headers, body: bytes) -> list[ProviderMessage]:
    try:
        return list(PROVIDERS[provider].read(headers, body))
    except UnsubdError:
        raise
    except Exception as error:  # noqa: BLE001  a bug of ours must not cost a mail: a person gets the body as it came
        installation.journal.failed("webhook", f"{provider}: {place_of(error)}: quarantined")
        return [ProviderMessage(body, None, None)]
