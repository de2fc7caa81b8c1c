"""`unsubd run` and its parts, and what ops ask: status, doctor, config, demo."""

import os
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Annotated

import typer

from handlers.errors import EX_UNAVAILABLE, QueueUnavailable, Unavailable
from worker import service, supervisor
from worker.cli.output import Json, own_settings, say, say_json
from worker.installation import Installation, open_installation
from worker.reconcile.pulse import ended_well
from worker.server import away_as
from worker.settings import Settings, load_settings, setting_name, shown, unknown_names
from worker.status import status as state_of
from worker.web.ops.session import new_login_link

_ASK_EVERY_S = 0.3
_WATCH_EVERY_S = 2.0


def run(
    demo: Annotated[bool, typer.Option("--demo", help="Put demo mails into the drop folder first, once.")] = False,
) -> None:
    """Run everything in one process group: web, mailboxes, workers; the embedded Valkey when UNSUBD_REDIS_URL is not set."""
    from worker.listening import listening
    from worker.web.doors import listeners

    settings = _service_settings()
    parts = service.parts_of(settings)
    for listener in listeners(settings):
        listener.close()  # a taken port is said now, in one line
    for part, address in settings.listens.items():
        with listening(address, setting_name(part)):
            pass
    with open_installation(settings) as installation:
        landing = _demo_landing(installation) if demo else ""
        revive, welcome = supervisor.reviver(settings), _Welcome(installation, landing)

        def tend() -> None:
            revive()
            welcome.when_ready()

        begun_s = time.time()
        code = supervisor.supervise(settings, parts, tend, lambda: welcome.said)
        ended_well(installation, begun_s)
    if code:
        raise SystemExit(code)


def _demo_landing(installation: Installation) -> str:
    from worker.demo import first_mails

    return first_mails(installation)


class _Welcome:
    """The end of the start: three links, said once, when the web server answers."""

    def __init__(self, installation: Installation, landing: str) -> None:
        self._installation = installation
        self._landing = landing
        self._base = f"http://{installation.settings.http}"
        self._ops = f"http://{installation.settings.ops_http or installation.settings.http}"
        self.said = False
        self._asked_at = 0.0

    def when_ready(self) -> None:
        """Print the links if they work by now. Repeat: prints once."""
        if not self.said and time.monotonic() - self._asked_at > _ASK_EVERY_S:
            self._asked_at = time.monotonic()
            if self._answers():
                # It answered and went away, or stdout is full: the next look will tell.
                with suppress(Unavailable, OSError):
                    self._say()
                    self.said = True

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._base}/readyz", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _say(self) -> None:
        settings = self._installation.settings
        login = self._login()
        if (path := service.maildir_path(settings)) is not None:
            say(f"drop folder   {path}/new")
        for url in settings.imap_url.split():
            say(f"mailbox       {url}")
        if settings.ses_queue_url:
            say(f"SES queue     {settings.ses_queue_url}")
        for part, address in settings.listens.items():
            say(f"{part:13} {address}")
        say(f"console       {self._ops}{login}")
        say(f"landing page  {self._base}/u/{self._landing or 'TAG'}")
        say(f"API           {self._ops}/docs")
        sys.stdout.flush()

    def _login(self) -> str:
        if not self._installation.settings.embedded:
            return "/ops  (log in with UNSUBD_ADMIN_TOKEN)"
        with away_as(QueueUnavailable, "UNSUBD_REDIS_URL"):
            return f"{new_login_link(self._installation.redis)}  (once, within 15 minutes)"


def _service_settings() -> Settings:
    """The settings of a service: what nobody claims is said at the start, not only by the doctor."""
    for name in unknown_names(os.environ):
        sys.stderr.write(f"unsubd: {name}: no such setting, it has no effect: see unsubd config\n")
    return own_settings()


def poll(
    once: Annotated[bool, typer.Option("--once", help="One look at everything, then exit.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done; mark, move, write nothing.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="With --dry-run: how many of the newest messages.")] = 50,
) -> None:
    """Poll mailboxes, Maildir and SES queue. Exits 78 when a mailbox refuses us at the start, 75 when it does not answer.

    Of several pollers one works on each mailbox; the others stand by. --once waits up to 25 s for its turn, then exits 75.
    --dry-run reads beside whoever works.
    """
    if dry_run:
        from worker.cli.survey import dry_run as print_plan

        print_plan(own_settings(make=False), limit)
        return
    settings = _service_settings()
    service.parts_of(settings)
    service.run_poll(settings, once=once, strict=True)


def lmtp() -> None:
    """Take mail that a mail server on this machine hands over by LMTP, at UNSUBD_LMTP."""
    service.run_lmtp(_service_settings())


def policy() -> None:
    """Tell Postfix before each recipient whether the mail may go (check_policy_service), at UNSUBD_POLICY."""
    service.run_policy(_service_settings())


def milter() -> None:
    """Stamp the headers into mail that a mail server sends, and drop suppressed recipients, at UNSUBD_MILTER."""
    service.run_milter(_service_settings())


def work() -> None:
    """Work on the queue: UNSUBD_WORKERS processes, what goes out, and the reaper."""
    settings = _service_settings()
    with open_installation(settings) as installation:
        begun_s = time.time()
        parts = ["events", "reaper", *["worker"] * settings.workers]
        code = supervisor.supervise(settings, parts, supervisor.reviver(settings))
        ended_well(installation, begun_s)
    if code:
        raise SystemExit(code)


def web() -> None:
    """Serve pages, webhooks, API and console."""
    service.run_web(_service_settings())


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Again every 2 s, until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Say what the installation is doing now, on one screen."""
    with open_installation(own_settings()) as installation:
        if as_json:
            say_json(state_of(installation))
        elif watch:
            _watch(installation)
        else:
            from rich.console import Console

            from worker.cli.screen import screen

            Console().print(screen(state_of(installation), time.time()))


def _watch(installation: Installation) -> None:
    """Show the screen until Ctrl-C; an outage of Redis is said on it, and ends when Redis does come back."""
    from rich.live import Live
    from rich.text import Text

    from worker.cli.screen import screen

    with Live(screen=sys.stdout.isatty(), auto_refresh=False) as live:
        try:
            while True:
                try:
                    live.update(screen(state_of(installation), time.time()), refresh=True)
                except Unavailable as error:
                    live.update(Text(f"{error}. Asking again.", "red"), refresh=True)
                time.sleep(_WATCH_EVERY_S)
        except KeyboardInterrupt:
            return


def doctor(
    canary: Annotated[
        bool, typer.Option("--canary", help="Also send a tagged message through every source, and time it.")
    ] = False,
    limit_s: Annotated[float, typer.Option("--limit", min=1, help="Seconds that a canary may take to arrive.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Look at everything that must hold, one line a layer with the remedy; exit 69 when something is broken."""

    from worker.cli.checkup import say_canary, say_findings

    settings = own_settings()
    well = say_findings(settings, as_json=as_json)
    if canary:
        well &= say_canary(settings, limit_s, as_json=as_json)
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


COMMANDS = (run, poll, lmtp, policy, milter, work, web, status, doctor, config, demo)
