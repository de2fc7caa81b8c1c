"""The points of the path: each effect that a crash may come before or after has a name.

`make crash` kills real processes at every point in turn, and finds the points by reading the code; `tests/unit/test_points.py`
fails when an effect of the path has none. Nothing here can be switched on from outside: a test sets `watch` in the process
that it started.
"""

from collections.abc import Callable

watch: Callable[[str, str], None] | None = None
"""Called with the name of a point and "before" or "after". Always None in production."""


class point:
    """The one effect that the block has. The end of a block that raises is no "after": its effect is in doubt."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        if watch is not None:
            watch(self._name, "before")

    def __exit__(self, kind: object, *_: object) -> None:
        if watch is not None and kind is None:
            watch(self._name, "after")
