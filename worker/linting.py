"""Linting a file: the stored tags that it carries are looked up, and on demand its link is tried with a tag of nobody."""

from collections.abc import Mapping

import httpx2

from handlers.errors import ConfigError
from handlers.lint import Finding, Lint
from handlers.tag import StoredTag, Tag
from worker.installation import has_no_store, open_known
from worker.settings import Settings
from worker.unreached import unreached

_TIMEOUT_S = 10.0


def lint(
    settings: Settings, raw: bytes, *, try_link: bool = False, network: httpx2.BaseTransport | None = None
) -> list[Finding]:
    """Return what is to be said about a mail.

    Shape:   try_link: post one-click to its https link, with a tag of a test recipient in it. network: for tests.
    Errors:  ConfigError  no key.    Unavailable  stored tags cannot be looked up.    temporary
             Rejected     nothing to try.    permanent
    """
    keys = settings.keys()
    if not keys.masters:
        raise ConfigError("UNSUBD_SECRET_KEYS: no key, expected hex digits (or set UNSUBD_SECRET_KEYS_FILE)")
    mail = Lint(raw)
    rows: Mapping[StoredTag, Tag] = {}
    if (refs := mail.refs()) and not has_no_store(settings):
        with open_known(settings) as known:
            rows = known.tags.found(refs)
    found = mail.findings(keys, rows)
    return [*found, _tried(mail.test_link(keys, rows), network)] if try_link else found


def _tried(link: str, network: httpx2.BaseTransport | None) -> Finding:
    try:
        with httpx2.Client(timeout=_TIMEOUT_S, follow_redirects=False, transport=network) as client:
            status = client.post(link, data={"List-Unsubscribe": "One-Click"}).status_code
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        told, remedy = unreached(link, error)
        return Finding("one-click-failed", f"one-click: {told}: {remedy}")
    if not 200 <= status < 300:
        return Finding("one-click-failed", f"one-click: answered {status}, expected 2xx without a redirect")
    return Finding(
        "one-click-works", f"one-click: answered {status}; what it stopped goes to a test recipient", is_problem=False
    )
