"""`/look/{sender}`: a sender's colour as a stylesheet, and its logo; from us, so that no page asks anybody else.

Why:     strict CSP lets no page hold a style of its own. The colour is shaded until text on it and of it reads well.
"""

import asyncio

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from handlers.colour import SHAPE, TEXT, ink, shade

router = APIRouter(prefix="/look", include_in_schema=False)
_LIGHT, _DARK = "#f6f6f3", "#1f2124"  # the darkest light ground, and the lightest dark one, of style.css
_FRESH = {"Cache-Control": "public, max-age=300"}
# A picture that is opened by its own address runs nothing, whatever it holds.
_HARMLESS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


@router.get("/{sender}.css")
async def stylesheet(request: Request, sender: str) -> Response:
    """Return a sender's colour; nothing for one that chose none."""
    look = await asyncio.to_thread(request.app.state.installation.looks.of, sender)
    content = _colours(look.colour) if look.colour else ""
    return Response(content, media_type="text/css", headers=_FRESH)


@router.get("/{sender}/logo")
async def logo(request: Request, sender: str) -> Response:
    """Return a sender's logo."""
    found = await asyncio.to_thread(request.app.state.installation.looks.logo, sender)
    if found is None:
        raise HTTPException(404, "no logo, expected one that unsubd sender look keeps")
    return Response(found[1], media_type=found[0], headers=_FRESH | _HARMLESS)


def _colours(colour: str) -> str:
    return f":root{{{_scheme(colour, _LIGHT)}}}@media (prefers-color-scheme:dark){{:root{{{_scheme(colour, _DARK)}}}}}"


def _scheme(colour: str, ground: str) -> str:
    button = shade(colour, ground, SHAPE)
    return f"--button:{button};--on-button:{ink(button)};--accent:{shade(colour, ground, TEXT)}"
