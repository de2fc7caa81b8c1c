"""One line of the doctor: what was looked at, how it is, and what to do about it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic

from handlers.errors import ConfigError, UnsubdError

LIMIT_S = 20.0  # for one look; every socket inside has a shorter time-out of its own


class Verdict(Enum):
    """How a layer is. FAIL: requests are lost or stand still, or will."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """Shape: detail: what was found, or what is wrong; remedy: what to do, "" where detail says it or nothing is."""

    layer: str
    verdict: Verdict
    detail: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Say whether nothing is broken; a warning is no failure."""
        return self.verdict is not Verdict.FAIL


def ok(layer: str, detail: str) -> Finding:
    """All is well."""
    return Finding(layer, Verdict.OK, detail)


def warn(layer: str, detail: str, remedy: str = "") -> Finding:
    """It works, and somebody should look."""
    return Finding(layer, Verdict.WARN, detail, remedy)


def fail(layer: str, detail: str, remedy: str = "") -> Finding:
    """It does not work."""
    return Finding(layer, Verdict.FAIL, detail, remedy)


Look = Callable[[], Iterable[Finding]]


class Started:
    """A look that runs in a thread of its own, so that one that hangs hides no other."""

    def __init__(self, layer: str, look: Look) -> None:
        self._layer = layer
        self._found: SimpleQueue[list[Finding] | BaseException] = SimpleQueue()
        self._deadline = monotonic() + LIMIT_S
        Thread(target=self._run, args=(look,), daemon=True).start()

    def _run(self, look: Look) -> None:
        try:
            self._found.put(list(look()))
        except BaseException as error:  # noqa: BLE001  raised again by whoever waits
            self._found.put(error)

    def findings(self) -> Iterator[Finding]:
        """Yield what it found, within the limit; what the look raises as `UnsubdError` or `ConfigError` is a FAIL."""
        try:
            found = self._found.get(timeout=max(0.0, self._deadline - monotonic()))
        except Empty:
            yield fail(
                self._layer, f"no answer within {LIMIT_S:g} s", "see whether what it asks hangs, then look again"
            )
            return
        if isinstance(found, UnsubdError | ConfigError):
            yield fail(self._layer, found.told, found.remedy)
        elif isinstance(found, BaseException):
            raise found
        else:
            yield from found
