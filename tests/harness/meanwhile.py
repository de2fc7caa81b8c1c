"""Something that happens beside a test."""

import threading
from collections.abc import Callable


class Meanwhile:
    """*act* in a thread of its own; `join` waits for it and raises what it raised."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001  told by `join`
            self._error = error

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(120)
        assert not self._thread.is_alive()
        if self._error:
            raise self._error
