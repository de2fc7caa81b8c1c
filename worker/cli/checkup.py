"""How the doctor's findings are said: a line each, the remedy below it, coloured on a terminal."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shutil import get_terminal_size
from urllib.parse import quote

import typer

from worker.cli.output import say_json
from worker.cli.progress import bar
from worker.doctor import Finding, Verdict, examine
from worker.installation import open_installation
from worker.quarantine.shown import printable
from worker.settings import Settings

_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}
_INDENT = " " * 16
_ASKED = """unsubd: UNSUBD_CANARY_SMTP_URL is not set, so send this mail yourself, now, from any account:
  link     mailto:{link}?subject=unsubscribe
  To       {address}
  Subject  unsubscribe
"""


def say_findings(settings: Settings, *, as_json: bool) -> bool:
    """Print every finding as it comes; return whether nothing is broken."""
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        _say_json(finding) if as_json else _say(finding)
    if not as_json:
        counts = {verdict: sum(each.verdict is verdict for each in findings) for verdict in Verdict}
        typer.echo(", ".join(f"{count} {verdict.value}" for verdict, count in counts.items()))
    return all(each.ok for each in findings)


def say_canary(settings: Settings, limit_s: float, *, as_json: bool) -> bool:
    """Send the canaries and print what became of each; return whether all arrived."""
    from worker.doctor.canary import fly

    def ask(address: str) -> None:
        sys.stderr.write(_ASKED.format(link=quote(address, safe="@"), address=address))

    @contextmanager
    def watch(way: str) -> Iterator[Callable[[float], None]]:
        with bar(f"canary by {way}", round(limit_s)) as moved:
            yield lambda waited_s: moved(round(waited_s), f"{waited_s:.0f} of {limit_s:g} s at most")

    well = True
    sys.stderr.write(f"unsubd: canaries are sent, then waited for: {limit_s:g} s at most (--limit SECONDS)\n")
    with open_installation(settings) as installation:
        for finding in fly(installation, limit_s, ask, watch):
            well &= finding.ok
            _say_json(finding) if as_json else _say(finding)
    return well


def _say_json(finding: Finding) -> None:
    row = {"layer": finding.layer, "ok": finding.ok, "verdict": finding.verdict.value, "detail": finding.detail}
    say_json(row | {"remedy": finding.remedy})


def _say(finding: Finding) -> None:
    mark = typer.style(f"{finding.verdict.value:4}", fg=_COLOURS[finding.verdict], bold=True)
    first, *rest = _wrapped(finding.detail)
    typer.echo(f"{mark}  {finding.layer:8}  {first}")
    for line in rest:
        typer.echo(f"{_INDENT}{line}")
    for number, line in enumerate(_wrapped(finding.remedy) if finding.remedy else ()):
        typer.echo(f"{_INDENT}{'   ' if number else '-> '}{line}")


def _wrapped(text: str) -> list[str]:
    """The text in lines that fit the terminal; whole where nobody looks, so that scripts find it in one line."""
    text = printable(" ".join(text.split("\n")))
    if not sys.stdout.isatty():
        return [text]
    width = max(40, min(get_terminal_size().columns, 140)) - len(_INDENT) - 3
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
