"""`/ops/sources`: every way in, what it last said, and what each webhook demands; no secret is shown."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from worker import habits
from worker.endpoints import endpoint_states
from worker.hooks import kind_of
from worker.journal import Journal
from worker.sources import source_states
from worker.web.ops import gate
from worker.web.ops.gate import Visit

router = APIRouter()


@router.get("/sources")
async def sources(request: Request) -> Response:
    """The polled sources and the webhook endpoints."""
    facts = await gate.done(request.state.visit, _facts)
    return await gate.page(request, "ops_sources.html", "Sources", **facts)


def _facts(visit: Visit) -> dict[str, Any]:
    installation = visit.installation
    counted = Journal.counters(installation.redis)
    answers: dict[str, list[tuple[str, int]]] = {}
    for (metric, label), count in sorted(counted.items()):
        if metric == "unsubd_webhook_answers_total":
            provider, _, answer = label.partition(":")
            answers.setdefault(provider, []).append((answer, count))
    facts = {"sources": source_states(installation.redis), "habits": habits.habits(installation.redis)}
    return facts | {"hooks": _hooks(visit), "answers": answers}


def _hooks(visit: Visit) -> list[dict[str, Any]]:
    states = {each["name"]: each for each in endpoint_states(visit.installation.redis, visit.installation.hooks)}
    base = visit.installation.settings.public_url or f"http://{visit.installation.settings.http}"
    return [
        states[each.source]
        | {"url": base + each.path, "provider": each.provider, "source": each.source, "forwarded": each.forwarded,
           "passes_on": bool(each.pass_on_url), "proofs": [kind_of(proof) for proof in each.proofs]}
        for each in visit.installation.hooks.every() if each.source in states
    ]  # fmt: skip
