"""`/ops/senders`: senders, their groups and API keys; and the master keys, by fingerprint."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from worker import adoption
from worker import keys as key_ring
from worker.forwarding.state import forwards_state
from worker.web.ops import gate
from worker.web.ops.gate import Visit
from worker.web.ops.paging import PAGE, page_of

router = APIRouter()


@router.get("/senders")
async def senders(request: Request, page: int = 1) -> Response:
    """The senders, and the master keys that sign their tags."""
    facts = await gate.done(request.state.visit, _senders, page)
    return await gate.page(request, "ops_senders.html", "Senders", **facts)


def _senders(visit: Visit, number: int) -> dict[str, Any]:
    every = visit.installation.accounts.senders()
    page = page_of("/ops/senders", {}, number, len(every))
    groups = visit.installation.accounts.groups()
    counts = {each.id: sum(group.sender == each.id and not group.archived for group in groups) for each in every}
    return {"rows": every[page.start : page.start + PAGE], "page": page, "counts": counts}


@router.get("/keys")
async def keys(request: Request) -> Response:
    """The master keys: fingerprints alone."""
    rows = await gate.done(request.state.visit, _keys)
    return await gate.page(request, "ops_keys.html", "Master keys", rows=rows)


def _keys(visit: Visit) -> list[dict[str, Any]]:
    active = visit.installation.keys.fingerprints()
    used = key_ring.in_use(visit.installation.store_redis)
    names = dict.fromkeys((*active, *sorted(used)))
    return [
        {"name": name, "active": name in active, "used": name in used, "signs": name == active[0]} for name in names
    ]


@router.get("/senders/{sender}")
async def sender(request: Request, sender: str) -> Response:
    """One sender: groups and API keys."""
    facts = await gate.done(request.state.visit, _sender, sender)
    return await gate.page(request, "ops_sender.html", facts["sender"].name, new_key="", **facts)


def _sender(visit: Visit, sender: str) -> dict[str, Any]:
    accounts = visit.installation.accounts
    found = accounts.sender(sender)
    forwards = [each for each in forwards_state(visit.installation) if each["sender"] == sender]
    return {
        "sender": found, "groups": accounts.groups(sender), "api_keys": accounts.api_keys(sender), "forwards": forwards,
    }  # fmt: skip


@router.post("/senders")
async def add_sender(request: Request) -> Response:
    """Register a sender."""
    visit: Visit = request.state.visit
    return gate.to(await gate.done(visit, _add_sender))


def _add_sender(visit: Visit) -> str:
    added = adoption.register(visit.installation, visit.field("sender"), name=visit.field("name"))
    visit.note("add sender", added.id)
    visit.say(f"Sender {added.id} is registered.")
    return f"/ops/senders/{added.id}"


@router.post("/senders/{sender}/name")
async def rename_sender(request: Request, sender: str) -> Response:
    """Change the name that recipients read."""
    return await _changed(request, sender, _rename_sender)


def _rename_sender(visit: Visit, sender: str) -> str:
    changed = visit.installation.accounts.edit_sender(sender, name=visit.field("name"))
    visit.note("edit sender", sender)
    return f"The sender's name is {changed.name} now."


@router.post("/senders/{sender}/groups")
async def add_group(request: Request, sender: str) -> Response:
    """Add a group."""
    return await _changed(request, sender, _add_group)


def _add_group(visit: Visit, sender: str) -> str:
    more = {"essential": bool(visit.field("essential")), "is_default": bool(visit.field("is_default"))}
    added = visit.installation.accounts.add_group(sender, visit.field("name"), visit.field("description"), **more)
    visit.note("add group", f"{sender} {added.id}")
    return f"Group {added.id} was added."


@router.post("/senders/{sender}/groups/{group_id}")
async def edit_group(request: Request, sender: str, group_id: int) -> Response:
    """Change name, description and place of a group."""
    return await _changed(request, sender, _edit_group, group_id)


def _edit_group(visit: Visit, sender: str, group_id: int) -> str:
    changes = {"name": visit.field("name"), "description": visit.field("description")}
    visit.installation.accounts.edit_group(sender, group_id, is_default=bool(visit.field("is_default")), **changes)
    visit.note("edit group", f"{sender} {group_id}")
    return f"Group {group_id} was changed."


@router.post("/senders/{sender}/groups/{group_id}/archive")
async def archive_group(request: Request, sender: str, group_id: int) -> Response:
    """Take a group away from recipients and lists."""
    return await _changed(request, sender, _archive_group, group_id, True)


@router.post("/senders/{sender}/groups/{group_id}/restore")
async def restore_group(request: Request, sender: str, group_id: int) -> Response:
    """Bring an archived group back."""
    return await _changed(request, sender, _archive_group, group_id, False)


def _archive_group(visit: Visit, sender: str, group_id: int, archived: bool) -> str:
    visit.installation.accounts.edit_group(sender, group_id, archived=archived)
    visit.note("archive group" if archived else "restore group", f"{sender} {group_id}")
    if archived:
        return f"Group {group_id} is archived: its suppressions still count. Restore brings it back."
    return f"Group {group_id} is back, with its suppressions."


async def _changed(request: Request, sender: str, work: Any, *args: Any) -> Response:
    visit: Visit = request.state.visit
    visit.say(await gate.done(visit, work, sender, *args))
    return gate.to(f"/ops/senders/{sender}")


@router.post("/senders/{sender}/keys")
async def new_key(request: Request, sender: str) -> Response:
    """Make an API key: shown on this one page, and never again."""
    key, facts = await gate.done(request.state.visit, _new_key, sender)
    return await gate.page(request, "ops_sender.html", facts["sender"].name, new_key=key, **facts)


def _new_key(visit: Visit, sender: str) -> tuple[str, dict[str, Any]]:
    key = visit.installation.accounts.new_api_key(sender)
    visit.note("create API key", sender)
    return key, _sender(visit, sender)


@router.post("/senders/{sender}/keys/{name}/revoke")
async def revoke_key(request: Request, sender: str, name: str) -> Response:
    """Make an API key useless, once a person confirmed it."""
    visit: Visit = request.state.visit
    if visit.field("confirm"):
        return await _changed(request, sender, _revoke_key, name)
    return await gate.page(
        request, "ops_confirm.html", "Revoke", action=f"/ops/senders/{sender}/keys/{name}/revoke", fields=[],
        back=f"/ops/senders/{sender}", question="Revoke 1 API key?", button="Revoke 1 API key",
        means="Whoever asks with it hears 401 from then on. It cannot be undone: make a new key instead.",
    )  # fmt: skip


def _revoke_key(visit: Visit, sender: str, name: str) -> str:
    gone = visit.installation.accounts.revoke_api_key(sender, name)
    visit.note("revoke API key", f"{sender} {name[:12]}", "done" if gone else "was not there")
    return "The key is revoked." if gone else "There is no such key any more."
