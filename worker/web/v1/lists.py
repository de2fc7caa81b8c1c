"""/v1/imports and /v1/export: lists in, as jobs, and out, as a stream."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from handlers.exports import FORMATS
from worker import imports
from worker.imports import Import, Imports
from worker.installation import Installation
from worker.posted_lists import PostedLists
from worker.web.asker import asker_of
from worker.web.failure import Failure
from worker.web.v1.reading import MAX_GROUP_ID, documented, house, scope

router = APIRouter(tags=["lists"])
_COLUMNS = ("email", "group", "created", "source", "reason")
_MAX_LIST_BYTES = 1 << 30
_AT_ONCE = 500  # lines a chunk
Group = Annotated[int, Query(ge=0, le=MAX_GROUP_ID, description="id of the group; 0 = global")]


class ImportAnswer(BaseModel):
    """An import, and how far it is: rows = added + present + stale + rejected."""

    id: str
    state: Literal["waiting", "running", "done", "failed"]
    group: int = Field(description="of rows that name none")
    file: str = Field(description="what it was called")
    started_ms: int = Field(description="ms UTC: the time of rows that have none")
    rows: int
    added: int
    present: int
    stale: int = Field(description="they came back later")
    rejected: int
    failed: str = Field(description='why it ended early, "" = it did not')


_LIST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "text/csv": {"schema": {"type": "string"}, "example": "email,created\njane@example.com,2026-05-01\n"},
        },
    }
}
_UNFIT: dict[int | str, dict[str, Any]] = {
    422: {
        "model": Failure,
        "description": "no list, no address in it, or columns that are not those of the format named",
    }
}
_TOO_LARGE: dict[int | str, dict[str, Any]] = {413: {"model": Failure, "description": "a list of more than 1 GiB"}}


@router.post("/imports", status_code=202, response_model=ImportAnswer, summary="Import a list", openapi_extra=_LIST,
             responses=documented(404) | _UNFIT | _TOO_LARGE)  # fmt: skip
async def take(
    request: Request,
    group: Group,
    form: Annotated[
        str,
        Query(alias="format", json_schema_extra={"enum": ["", *FORMATS]}, description="default: what the columns say"),
    ] = "",
    name: Annotated[str, Query(max_length=100, description="what the list is called")] = "posted list",
) -> Response:
    """The body is the list: CSV, JSON Lines or one address a line. 202: it is kept, and imported soon; an import only adds."""
    asker = await asker_of(request, scope(group, "create"), scope(0, "create"), scope(1, "create"))
    posted: PostedLists = request.app.state.posted_lists
    draft = await asyncio.to_thread(posted.draft)
    try:
        await _write(request, draft)
        facts = {"name": name, "form": form, "actor": asker.key.name}
        one = await asyncio.to_thread(lambda: posted.take(draft, asker.sender, group, **facts))
    finally:
        draft.unlink(missing_ok=True)
    return JSONResponse(_shown(one), 202)


async def _write(request: Request, draft: Path) -> None:
    size = 0
    with draft.open("wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > _MAX_LIST_BYTES:
                raise HTTPException(413, f"a list of more than {_MAX_LIST_BYTES} octets: expected it in parts")
            await asyncio.to_thread(file.write, chunk)


@router.get("/imports", response_model=list[ImportAnswer], summary="List the imports", responses=documented())
async def list_all(request: Request) -> Response:
    """Oldest first; those of the command line, too."""
    asker = await asker_of(request, scope(0, "read"), scope(1, "read"))
    found = await asyncio.to_thread(Imports(house(request).redis).of, asker.sender)
    return JSONResponse([_shown(each) for each in found])


@router.get(
    "/imports/{import_id}", response_model=ImportAnswer, summary="How far an import is", responses=documented(404)
)
async def one(request: Request, import_id: str) -> Response:
    """Ask until its state is done or failed."""
    return JSONResponse(_shown(await _found(request, import_id)))


_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


@router.get("/imports/{import_id}/rejected", summary="The rows that were rejected, with why", response_class=FileResponse,
            responses=documented(404) | _CSV)  # fmt: skip
async def rejected(request: Request, import_id: str) -> Response:
    """Kept for a week by the server that took the list; empty when none were rejected."""
    posted: PostedLists = request.app.state.posted_lists
    found = await _found(request, import_id)
    path = posted.rejected(found.id)
    if path is None and found.rejected:
        raise HTTPException(404, "the rejected rows are not kept here, expected a list of this week, and its server")
    if path is None:
        return Response(media_type="text/csv")
    return FileResponse(path, media_type="text/csv")


async def _found(request: Request, import_id: str) -> Import:
    asker = await asker_of(request, scope(0, "read"), scope(1, "read"))
    found = await asyncio.to_thread(Imports(house(request).redis).find, import_id)
    if found is None or found.sender != asker.sender:
        raise HTTPException(404, "no such import, expected the id of one of: GET /v1/imports")
    return found


def _shown(one: Import) -> dict[str, Any]:
    state = "failed" if one.failed else "done" if one.done else "running" if one.rows else "waiting"
    names = ("id", "group", "file", "started_ms", "rows", "added", "present", "stale", "rejected", "failed")
    return {"state": state} | {name: getattr(one, name) for name in names}


_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/jsonl": {
                "schema": {"type": "string"},
                "example": '{"email": "jane@example.com", "group": 12}\n',
            },
            "text/csv": {"schema": {"type": "string"}},
        }
    }
}


@router.get("/export", summary="Everybody who is suppressed", response_class=StreamingResponse,
            responses=documented(404, 422) | _LINES)  # fmt: skip
async def export(
    request: Request,
    group: Annotated[int | None, Query(ge=0, le=MAX_GROUP_ID, description="default: every group, 0 among them")] = None,
    form: Annotated[Literal["jsonl", "csv"], Query(alias="format")] = "jsonl",
) -> Response:
    """A stream, in no order, that an import reads. Forgotten recipients are left out."""
    asker = await asker_of(request, scope(0, "read"), scope(1, "read"))
    lines = await asyncio.to_thread(_exported, house(request), asker.sender, group, form)
    return StreamingResponse(lines, media_type="text/csv" if form == "csv" else "application/jsonl")


def _exported(installation: Installation, sender: str, group: int | None, form: str) -> Iterator[str]:
    """The chunks of an export; the first is made before the answer begins, so that an absent store is a 503."""
    if group is not None:
        installation.accounts.group(sender, group)
    groups = [0, *(each.id for each in installation.accounts.groups(sender))] if group is None else [group]
    rows = filter(None, imports.rows(installation, sender, groups))
    chunks = _chunks(rows, form)
    return chain([next(chunks, "")], chunks)


def _chunks(rows: Iterator[dict[str, Any]], form: str) -> Iterator[str]:
    is_first = form == "csv"
    while (part := list(islice(rows, _AT_ONCE))) or is_first:
        text = io.StringIO()
        if form == "csv":
            writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
            if is_first:
                writer.writeheader()
            writer.writerows(part)
        else:
            text.writelines(json.dumps(row) + "\n" for row in part)
        is_first = False
        yield text.getvalue()
