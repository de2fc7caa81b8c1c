"""What a provider tells of its own lists: somebody stopped, complained, or came back there."""

import math
from dataclasses import dataclass
from typing import Any

from handlers.request import Action


@dataclass(frozen=True, slots=True)
class Told:
    """One change at a provider.

    Shape:   id: the provider's, the same on every repeat. place: as `forward add` names it; "" is everything.
    Units:   at_ms: when it happened there, ms UTC.
    """

    id: str
    recipient: str
    place: str
    action: Action
    at_ms: int


def time_ms(at_s: Any) -> int | None:
    """Return a time as a provider's JSON has it, a number of seconds, in ms UTC; None for anything else, infinity among it.

    Example:
        >>> time_ms(1760000000.5), time_ms("now"), time_ms(float("inf"))
        (1760000000500, None, None)
    """
    if isinstance(at_s, int):
        return at_s * 1000
    return int(at_s * 1000) if isinstance(at_s, float) and math.isfinite(at_s) else None
