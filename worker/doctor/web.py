"""The web server, at UNSUBD_HTTP and where the world sees it: does it answer, is it https, and is it this installation?

A tag that only our keys can sign opens a page (and changes nothing): no other server answers 200 to it.
"""

from collections.abc import Iterator

import httpx2

from handlers.tag import AddressTemplate, Tag, mint
from worker.doctor.finding import Finding, fail, ok, warn
from worker.installation import with_embedded_secrets
from worker.settings import Settings
from worker.unreached import unreached

_TIMEOUT_S = 5.0
_SHORT = AddressTemplate("", "unsub.example.com")  # the link has the tag alone


def look(settings: Settings) -> Iterator[Finding]:
    """Ask both addresses. A public one may lie behind a proxy that this machine cannot reach: that is a warning."""
    base = f"http://{settings.http}"
    if trouble := _trouble(base, settings):
        yield warn("web", f"UNSUBD_HTTP: {trouble[0]}", "start unsubd run, or unsubd web")
    else:
        yield ok("web", f"{base} answers, and is us")
    if not settings.public_url:
        yield warn(
            "public", "UNSUBD_PUBLIC_URL is not set: no one-click link can be made", "UNSUBD_PUBLIC_URL=https://…"
        )
    elif not settings.public_url.startswith("https://"):
        yield fail(
            "public", f"{settings.public_url}: not https, which mail clients want", "put TLS before it: deploy/proxy"
        )
    elif trouble := _trouble(settings.public_url, settings):
        yield warn("public", f"UNSUBD_PUBLIC_URL: {trouble[0]}", trouble[1])
    else:
        yield ok("public", f"{settings.public_url} answers, and is us")


def _trouble(base: str, settings: Settings) -> tuple[str, str] | None:
    """What is wrong with the server there, and what to do."""
    wrong = "see DNS and proxy: it must lead to us"
    try:
        with httpx2.Client(timeout=_TIMEOUT_S, follow_redirects=False) as client:
            health = client.get(f"{base}/healthz")
            if health.status_code != 200:
                return f"{base}: /healthz says {health.status_code}, expected 200", wrong
            ring = with_embedded_secrets(settings, make=False).keys()
            tag = mint(ring, Tag("doctor", 0, "d@example.com"), _SHORT).tag
            page = client.get(f"{base}/u/{tag}")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return unreached(base, error)
    if page.status_code != 200:
        return f"{base} answers {page.status_code} to a tag of ours: another server, or other keys", wrong
    return None
