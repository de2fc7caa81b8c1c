"""One call to a provider's API."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Shape:   content: the JSON body. also: statuses besides 2xx that mean "it is so already". then: the calls that follow, by
             the status and JSON of the answer.
    """

    method: str
    path: str
    content: Any = None
    also: tuple[int, ...] = ()
    then: Callable[[int, Any], Sequence["Call"]] | None = None
