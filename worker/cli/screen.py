"""`unsubd status` on one screen: what waits, who works, what each source says, what is in quarantine; with ages."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from worker.ages import spell
from worker.quarantine.shown import printable

_STATES = {
    "idle": "green",
    "working": "green",
    "connecting": "yellow",
    "waiting": "yellow",
    "standby": "dim",
    "busy": "green",
    "listening": "green",
}
_LEVELS = {"good": "green", "late": "yellow", "alarm": "red", "page": "red", "red": "red"}
_HEADS = {"queued": "waiting", "started": "in hand", "scheduled": "to repeat", "failed": "failed", "finished": "done"}


def age(seconds: float) -> str:
    """Return an age in the unit that people think in.

    Example:
        >>> [age(each) for each in (0.4, 75, 7300, 200000)]
        ['0 s', '1 min', '2 h 1 min', '2 d 7 h']
    """
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 1:
        return f"{max(0, int(seconds))} s"
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days < 1 else f"{days} d {hours % 24} h"


def screen(state: dict[str, Any], now_s: float) -> Group:
    """Return the screen. Shape: state: of `worker.status.status`."""
    return Group(
        *_owed(state["owed"], state["ages_s"]),
        _queue(state["queue"]),
        _outgoing(state["outgoing"]),
        _workers(state["workers"]),
        _sources(state["sources"], now_s),
        _quarantine(state["quarantine"]),
        _clock(state),
    )


def _owed(owed: dict[str, Any], ages: dict[str, Any]) -> list[Text]:
    """The one sentence first, then what is wrong and the remedy, then how fast."""
    lines = [_text(owed["text"], f"bold {_LEVELS[owed['level']]}")]
    lines += [
        _text(f"{each['level']}: {each['what']} -> {each['remedy']}", _LEVELS[each["level"]]) for each in owed["alarms"]
    ]
    spoken = (
        f"p50 {spell(ages['p50'])}, p99 {spell(ages['p99'])}, longest {spell(ages['max'])}" if ages["count"] else "none"
    )
    return [*lines, _text(f"{ages['count']:,} requests in 24 h, from event to effect: {spoken}"), Text()]


def _outgoing(outgoing: dict[str, Any]) -> Text:
    """Events and forwarders, where there are any."""
    counts = ", ".join(f"{outgoing[each]:,} {name}" for each, name in _HEADS.items() if outgoing[each])
    return _text(f"What goes out: {counts or 'nothing'}", "red" if outgoing["failed"] else "")


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold", header_style="dim")
    return table


def _text(value: object, style: str = "") -> Text:
    return Text(printable(str(value)), style)


def _queue(queue: dict[str, Any]) -> Table:
    table = _table("Queue", "", *_HEADS.values(), "oldest waits")
    for name in ("requests", "messages"):
        counts = [_text(f"{queue[name][each]:,}", _mark(each, queue[name][each])) for each in _HEADS]
        table.add_row(_text(name), *counts, _text(age(queue["oldest_s"]), "yellow" if queue["oldest_s"] > 60 else ""))
    return table


def _mark(state: str, count: int) -> str:
    return "red" if state == "failed" and count else ""


def _workers(workers: list[dict[str, Any]]) -> Table:
    table = _table("Workers", "name", "state", "heartbeat", "queue", "")
    for each in workers:
        faults = "; ".join(each["faults"])
        style = "red" if faults else _STATES.get(each["state"], "")
        table.add_row(_text(each["name"]), _text(each["state"], style), _text(f"{age(each['heartbeat_s'])} ago"),
                      _text(", ".join(each["queues"])), _text(faults or each["job"], "red" if faults else ""))  # fmt: skip
    if not workers:
        table.add_row(_text("none is alive: start unsubd run, or unsubd work", "red"))
    return table


def _sources(sources: list[dict[str, Any]], now_s: float) -> Table:
    table = _table("Sources", "name", "state", "messages", "last one", "held", "says")
    for each in sources:
        last = f"{age(now_s - each['last_ms'] / 1000)} ago" if each["last_ms"] else "never"
        state = _text(each["state"], _STATES.get(each["state"], "red"))
        if each["age_s"]:
            state.append(f" {age(each['age_s'])}", "dim")
        table.add_row(_text(each["name"]), state, _text(f"{each['messages']:,}"), _text(last),
                      _text(f"{each.get('held', 0):,}"), _text(each["detail"]))  # fmt: skip
    if not sources:
        table.add_row(_text("none has worked yet"))
    return table


def _quarantine(quarantine: dict[str, Any]) -> Table:
    table = _table("Quarantine", "reason", "messages")
    for reason, count in sorted(quarantine["by_reason"].items(), key=lambda each: -each[1]):
        table.add_row(_text(reason), _text(f"{count:,}", "yellow"))
    if not quarantine["total"]:
        table.add_row(_text("empty"))
    return table


def _clock(state: dict[str, Any]) -> Table:
    table = _table("Server", "")
    table.show_header = False
    table.add_row(_text(f"clock {state['clock']['skew_ms']:+} ms from ours, {state['durability']}"))
    return table
