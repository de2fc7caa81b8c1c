"""One call to a provider's API."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One call. Shape: content: the JSON body. also: statuses besides 2xx that mean "it is so already"."""

    method: str
    path: str
    content: Any = None
    also: tuple[int, ...] = ()
