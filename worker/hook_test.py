"""`unsubd hook test`: a sample of the provider's shape is posted to the endpoint, and followed to its effect.

The endpoint takes it by a proof that lives a minute; whether the provider's own signature verifies only a post of the
provider's can show. It asks for a recipient of a reserved domain, so that nobody's mail is stopped.
"""

import secrets
import time

import httpx2

from handlers import tag as tags
from handlers.errors import Rejected
from handlers.providers import PROVIDERS
from handlers.providers.samples import SAMPLES
from handlers.tag import Tag
from worker.counted import HOOK_TEST
from worker.hooks import Hook
from worker.installation import Installation
from worker.settings import Settings
from worker.unreached import unreached

_EFFECT_S = 10.0
_TIMEOUT_S = 15.0


def run(installation: Installation, hook: Hook, url: str) -> list[tuple[str, str]]:
    """Post a sample of *hook*'s provider to *url*; return (hop, what it made of it), the last "effect" or "failed".

    Errors:  ConfigError  UNSUBD_ADDRESS is not set.
             Unavailable  Redis is away.    temporary
    """
    whom = Tag(HOOK_TEST, 0, f"hook-test-{secrets.token_hex(4)}@example.com")
    address = tags.mint(installation.keys, whom, installation.settings.template()).address
    content_type, body = SAMPLES[hook.provider](address)
    lines = [("sample", f"{len(body)} octets, {content_type.partition(';')[0]}, for {whom.recipient}")]
    try:
        found = PROVIDERS[hook.provider].read({"content-type": [content_type]}, body)
        lines.append(
            ("read", f"{len(found)} message, envelope recipient {'found' if found[0].envelope_to else 'missing'}")
        )
    except Rejected as error:
        return [*lines, ("failed", str(error))]
    try:
        answer = post(installation, url, content_type, body)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        told, remedy = unreached(url, error, f"--url {here(installation.settings, hook)}")
        return [*lines, ("failed", f"{told}: {remedy}")]
    lines.append(("answer", f"{answer.status_code} from {url}"))
    if answer.status_code != PROVIDERS[hook.provider].CODES.ack:
        whole = "" if url.endswith(hook.path) else f"{url} is no whole endpoint, expected {hook.path} at its end"
        return [*lines, ("failed", whole or f"{answer.text[:200]}")]
    return [*lines, _effect(installation, whom)]


def here(settings: Settings, hook: Hook) -> str:
    """Return the endpoint's URL on this machine, for as long as DNS and proxy do not lead to it."""
    return f"http://{settings.http}{hook.path}"


def post(installation: Installation, url: str, content_type: str, body: bytes) -> httpx2.Response:
    """Post a sample to an endpoint, with a proof that lives a minute. Errors: httpx2.HTTPError, httpx2.InvalidURL."""
    headers = {"Content-Type": content_type, "Authorization": f"Bearer {installation.hooks.test_token()}"}
    with httpx2.Client(timeout=_TIMEOUT_S, follow_redirects=False) as client:
        return client.post(url, content=body, headers=headers)


def _effect(installation: Installation, whom: Tag) -> tuple[str, str]:
    deadline = time.monotonic() + _EFFECT_S
    started = time.monotonic()
    while time.monotonic() < deadline:
        if (row := installation.store.row(whom.sender, whom.group, whom.recipient)) and row.suppressed:
            return "effect", f"suppressed after {time.monotonic() - started:.1f} s, for a made-up sender {HOOK_TEST}"
        time.sleep(0.1)
    return "failed", f"no effect within {_EFFECT_S:g} s: it is accepted and waits, expected a worker: unsubd status"
