"""The forwarders as status, console, alarms and metrics show them: what waits, for how long, and how fast they were so far."""

import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from worker import clock
from worker.forwarding import owing
from worker.installation import Installation
from worker.owed import LEVELS, level_of


def forwards_state(installation: Installation) -> list[dict[str, Any]]:
    """Return what each target is owed, the oldest first.

    Shape:   as `owing.Owing`, with `age_s` of the oldest change, its `level`, and `told`: changes that the provider was told
             of since the beginning, by the level of their age from the event to that.
    Errors:  QueueUnavailable  Redis is away.    temporary
    """
    now_ms, told = time.time_ns() // 1_000_000, told_by_level(clock.totals(installation.redis, clock.FORWARD))
    found = []
    for each in owing.every(installation.redis):
        age_s = max(0.0, (now_ms - each.oldest_ms) / 1000) if each.changes else 0.0
        counts = {level: told[each.target, level] for level in LEVELS}
        found.append({**asdict(each), "age_s": round(age_s, 1), "level": level_of(age_s), "told": counts})
    return sorted(found, key=lambda each: -each["age_s"])


def told_by_level(counts: dict[tuple[str, str], int]) -> Counter[tuple[str, str]]:
    """Return the counts of the clock's steps by target and level.

    Example:
        >>> sorted(told_by_level({("t", "0"): 3, ("t", "4"): 1, ("t", "sum"): 99}).items())
        [(('t', 'good'), 3), (('t', 'late'), 1)]
    """
    found: Counter[tuple[str, str]] = Counter()
    for (target, step), count in counts.items():
        if step != "sum":
            found[target, level_of((0, *clock.LEVELS_S)[int(step)])] += count
    return found
