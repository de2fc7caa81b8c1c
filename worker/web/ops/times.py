"""Times as a page shows them: how long ago, and the exact time for whoever points at it."""

import time
from datetime import UTC, datetime

from markupsafe import Markup

from worker.ages import spell


def ago(at_ms: float) -> Markup:
    """Return a `<time>`: "12 s ago", its title the exact time; for 0 and what no calendar has, a dash."""
    try:
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return Markup("–")
    if at_ms <= 0:
        return Markup("–")
    exact = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    away_s = round(time.time() - at_ms / 1000)
    words = f"in {spell(-away_s)}" if away_s < -60 else f"{spell(max(0, away_s))} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(), exact, words)
