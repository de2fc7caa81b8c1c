"""`unsubd anomaly`: bursts and shared tags, and the one action against each."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from handlers.anomaly import Anomaly
from worker.anomalies import described
from worker.anomaly_undo import undo
from worker.cli.output import Json, Login, login_name, own_settings, say, say_json
from worker.installation import open_installation
from worker.quarantine.shown import without_addresses

app = typer.Typer(help="What is odd: bursts of one source, tags that many people use.", no_args_is_help=True)
_Id = Annotated[str, typer.Argument(metavar="ID", help="As `anomaly list` prints it.")]
_Reason = Annotated[str, typer.Option(help="Why, for the ledger.")]


@app.command("list")
def anomaly_list(as_json: Json = False) -> None:
    """List them, newest first, settled ones too for 30 days."""
    with open_installation(own_settings()) as installation:
        for each in installation.intake.anomalies.every():
            if as_json:
                say_json(asdict(each))
            else:
                say(f"{each.id}  {each.state:9}  {_when(each)}  {described(each)}" + (each.said and f" ({each.said})"))


def _when(anomaly: Anomaly) -> str:
    return datetime.fromtimestamp(anomaly.from_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


@app.command("undo")
def anomaly_undo(anomaly_id: _Id, reason: _Reason = "", actor: Login = "", as_json: Json = False) -> None:
    """Resubscribe exactly those whom it stopped and whom nobody else has stopped since."""
    with open_installation(own_settings()) as installation:
        found = installation.intake.anomalies.find(anomaly_id)
        undone = undo(installation, found, actor=actor or login_name(), reason=reason)
    say_json(asdict(undone)) if as_json else say(str(undone))


@app.command("dismiss")
def anomaly_dismiss(anomaly_id: _Id, reason: _Reason = "", actor: Login = "") -> None:
    """It is none: say no more of it. Nothing is changed."""
    with open_installation(own_settings()) as installation:
        anomalies = installation.intake.anomalies
        anomalies.settle(
            anomalies.find(anomaly_id), "dismissed", f"{actor or login_name()}: {without_addresses(reason)}".strip(": ")
        )
    say("dismissed")
