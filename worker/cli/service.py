"""`unsubd run` and its parts, and what ops ask: status, doctor, config, demo."""

import sys
import time
import urllib.error
import urllib.request
from typing import Annotated

import typer

from handlers.errors import EX_UNAVAILABLE
from worker import service
from worker.cli.output import Json, own_settings, say, say_json
from worker.doctor import examine
from worker.installation import Installation, open_installation
from worker.settings import Settings, load_settings, setting_name, shown
from worker.status import status as state_of
from worker.web.ops.session import new_login_link

_READY_S = 30.0


def run(
    demo: Annotated[bool, typer.Option("--demo", help="Put three demo mails into the drop folder first.")] = False,
) -> None:
    """Run everything in one process group: web, mailboxes, workers; the embedded Valkey when UNSUBD_REDIS_URL is not set."""
    from worker.web.app import listen

    settings = own_settings()
    parts = service.parts_of(settings)
    listen(settings.http).close()  # a taken port is said now, in one line
    with open_installation(settings) as installation:
        landing = _demo_landing(installation) if demo else ""
        code = service.supervise(parts, lambda: _welcome(installation, landing))
    if code:
        raise SystemExit(code)


def _demo_landing(installation: Installation) -> str:
    from worker.demo import first_mails

    return first_mails(installation)


def _welcome(installation: Installation, landing: str) -> None:
    """End the start with three links."""
    settings = installation.settings
    base = f"http://{settings.http}"
    _wait_ready(f"{base}/readyz")
    if (path := service.maildir_path(settings)) is not None:
        say(f"drop folder   {path}/new")
    for url in settings.imap_url.split():
        say(f"mailbox       {url}")
    if settings.embedded:
        say(f"console       {base}{new_login_link(installation.redis)}  (once, within 15 minutes)")
    else:
        say(f"console       {base}/ops  (log in with UNSUBD_ADMIN_TOKEN)")
    say(f"landing page  {base}/u/{landing or 'TAG'}")
    say(f"API           {base}/docs")
    sys.stdout.flush()


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    say(f"the web server is not ready after {_READY_S:.0f} s; see the lines above")


def poll(once: Annotated[bool, typer.Option("--once", help="One look at everything, then exit.")] = False) -> None:
    """Poll the mailboxes and the Maildir. Exits 78 when a mailbox refuses us at the start, 75 when it does not answer."""
    settings = own_settings()
    service.parts_of(settings)
    service.run_poll(settings, once=once, strict=True)


def work() -> None:
    """Work on the queue: UNSUBD_WORKERS processes and the reaper."""
    settings = own_settings()
    with open_installation(settings):
        if code := service.supervise(["reaper", *["worker"] * settings.workers]):
            raise SystemExit(code)


def web() -> None:
    """Serve pages, webhooks, API and console."""
    service.run_web(own_settings())


def status(as_json: Json = False) -> None:
    """Say what the installation is doing now."""
    with open_installation(own_settings()) as installation:
        state = state_of(installation)
    if as_json:
        say_json(state)
        return
    queue = state["queue"]
    counts = ", ".join(f"{queue[name]} {name}" for name in ("queued", "started", "scheduled", "failed", "finished"))
    say(f"queue       {counts}; oldest waits {queue['oldest_s']} s")
    for worker in state["workers"] or [None]:
        beat = (
            f"{worker['name']}  {worker['state']}, heartbeat {worker['heartbeat_s']} s ago" if worker else "none alive"
        )
        say(f"worker      {beat}")
    for source in state["sources"]:
        say(f"source      {source['name']}  {source['state']}, {source['messages']} messages. {source['detail']}")
    say(f"quarantine  {state['quarantine']['total']}  {state['quarantine']['by_reason'] or ''}")
    say(f"clock       {state['clock']['skew_ms']} ms from the server's; {state['durability']}")


def doctor(as_json: Json = False) -> None:
    """Look at settings, Redis, keys, mailbox and worker; exit 69 when one of them is not well."""
    well = True
    for finding in examine(own_settings()):
        well &= finding.ok
        row = {"layer": finding.layer, "ok": finding.ok, "detail": finding.detail}
        say_json(row) if as_json else say(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.layer:9} {finding.detail}")
    if not well:
        raise SystemExit(EX_UNAVAILABLE)


def config(as_json: Json = False) -> None:
    """Print every setting, its value (secrets hidden) and what it is for."""
    settings = load_settings()
    for name, field in Settings.model_fields.items():
        origin = "environment" if name in settings.model_fields_set else "default"
        value = shown(getattr(settings, name))
        row = {"name": setting_name(name), "value": value, "from": origin, "is": field.description}
        say_json(row) if as_json else say(f"{row['name']:28}  {row['value'] or '-':40}  {field.description}")


def demo(count: Annotated[int, typer.Option(min=3, max=2000, help="Recipients in the made-up audience.")] = 60) -> None:
    """Show the whole path in a throw-away folder: mint, mail, decide, suppress, check; with the time each took."""
    from worker.demo import show

    show(count)


COMMANDS = (run, poll, work, web, status, doctor, config, demo)
