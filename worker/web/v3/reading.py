"""What a call of /v3 says: its body, the addresses in it, numbers in path and query. Each refusal names its field."""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from starlette.convertors import PathConvertor, register_url_convertor

from handlers.address import one_address
from handlers.errors import AddressError, Rejected
from handlers.tag import MAX_GROUP
from worker.installation import Installation
from worker.web.asker import Asker, asker_of
from worker.web.body import read_body
from worker.web.v3.shape import Problem, Refused, no_group, wrong

MAX_RECIPIENTS = 10_000
_MAX_BODY_BYTES = 4 * 1024 * 1024  # 10,000 addresses of the greatest length
_MAX_LOCAL_OCTETS, _MAX_OCTETS = 64, 254
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_JSON_TYPE = re.compile(r"application/(?:[\w.-]+\+)?json\s*(?:;.*)?", re.ASCII | re.IGNORECASE)


def may(*scopes: str) -> Any:
    """Return a dependency: the key has all of *scopes*, or 403."""

    async def check(request: Request) -> None:
        await asker_of(request, *scopes)

    return Depends(check)


async def _installation(request: Request) -> Installation:
    found: Installation = request.app.state.installation
    return found


async def _object(request: Request) -> dict[str, Any]:
    """The body: a JSON object in UTF-8. A client repeats its Content-Type on calls without a body, so only a body's counts."""
    try:
        body = await read_body(request, _MAX_BODY_BYTES)
    except Rejected:
        raise Refused(413, Problem(field=None, message="body too large", help={"bytes": _MAX_BODY_BYTES})) from None
    kind = request.headers.get("content-type", "").strip()
    if body and kind and not _JSON_TYPE.fullmatch(kind):
        raise Refused(415, Problem(field=None, message="expected Content-Type: application/json"))
    try:
        found = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise wrong("the body is not JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise wrong("the body is not a JSON object")
    return found


async def _asker(request: Request) -> Asker:
    found: Asker = request.state.asker  # the door asked
    return found


class _RestOfPath(PathConvertor):
    """As `path`, line breaks included: what is no address is answered as one, not as a path that nobody knows."""

    regex = "(?s:.*)"


register_url_convertor("address", _RestOfPath())
Email = Annotated[
    str, Path(json_schema_extra={"format": "idn-email"}, description="any spelling; takes the rest of the path")
]
# What is no number is a group that does not exist: text here, a number in the OpenAPI document.
GroupId = Annotated[str, Path(json_schema_extra={"type": "integer", "minimum": 0}, description="id of the group")]
House = Annotated[Installation, Depends(_installation)]
Asking = Annotated[Asker, Depends(_asker)]
Body = Annotated[dict[str, Any], Depends(_object)]


def text(body: dict[str, Any], field: str, most: int) -> str:
    """Return a text of at most *most* characters."""
    value = body.get(field)
    if not isinstance(value, str) or not _is_unicode(value):
        raise wrong(f"{field} is missing" if value is None else f"{field} is not a text", field)
    if len(value) > most:
        raise wrong(f"{field} is longer than {most} characters", field, limit=most)
    return value


def _is_unicode(value: str) -> bool:
    """Say whether *value* can be sent again: JSON can spell half a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def flag(body: dict[str, Any], field: str) -> bool:
    """Return a true or false."""
    if not isinstance(value := body[field], bool):
        raise wrong(f"{field} is neither true nor false", field)
    return value


def recipients(body: dict[str, Any]) -> dict[str, str]:
    """Return `recipient_emails`: key form -> the first spelling of it, in order. One bad address refuses the call."""
    given = body.get("recipient_emails")
    if not isinstance(given, list) or not given:
        raise wrong("expected a list of addresses", "recipient_emails")
    if len(given) > MAX_RECIPIENTS:
        problem = Problem(field="recipient_emails", message="too many addresses", help={"limit": MAX_RECIPIENTS})
        raise Refused(413, problem)
    return _each_address(given)


def _each_address(given: Sequence[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    problems = []
    for number, each in enumerate(given):
        try:
            found.setdefault(key_form(each), each)
        except AddressError:
            problems.append(Problem(field=f"recipient_emails.{number}", message="not an email address"))
    if problems:
        raise Refused(400, *problems)
    return found


def key_form(given: Any) -> str:
    """Return the one form of an address that everything is kept under. Errors: AddressError  it is none.    permanent"""
    address = one_address(given if isinstance(given, str) else "")
    octets = len(address.encode())
    if octets > _MAX_OCTETS or len(address.rpartition("@")[0].encode()) > _MAX_LOCAL_OCTETS or "\ufffd" in address:
        raise AddressError(f"address of {octets} octets: expected at most {_MAX_OCTETS}")
    return address


def path_address(email: str) -> str:
    """Return the key form of an address in a path: decoded once, "+" is a plus, "/" may be part of it."""
    try:
        return key_form(email)
    except AddressError:
        raise wrong("not an email address", "email") from None


def group_id(given: str) -> int:
    """Return a path's group id; one too great for a group names none that exists."""
    if not (given.isascii() and given.isdecimal()):
        raise no_group()
    digits = given.lstrip("0") or "0"
    return int(digits) if len(digits) <= 10 else MAX_GROUP + 1


def number(request: Request, name: str, least: int, most: int | None = None) -> int | None:
    """Return a number of the query, None where it is absent."""
    given = request.query_params.get(name)
    if given is None:
        return None
    value = int(given) if _NUMBER.fullmatch(given) else -1
    if value < least or (most is not None and value > most):
        limits = {"least": least, **({} if most is None else {"limit": most})}
        raise wrong(f"{name} is not a number from {least}{'' if most is None else f' to {most}'}", name, **limits)
    return value
