"""Starts a part of unsubd, or a command, that kills itself at a point: `python -m tests.crash.launcher PLANS NAME …`.

A plan is a file in the folder PLANS, named POINT@MOMENT@PART, with who dies ("self", or "worker": the job's process and the
worker that forked it) and how often. PART is NAME, and NAME-job in what a worker forked. A plan that was carried out ends on
".hit". RQ's clocks are shortened here, so that a case takes seconds.
"""

import os
import signal
import sys
from pathlib import Path

from tests.harness import part
from worker import archiving, batch, begun, crew, forwarding, points, reaper, service

_SELF = os.getpid()


def _watch(plans: Path, name: str) -> None:
    def watch(point: str, moment: str) -> None:
        part = name if os.getpid() == _SELF else f"{name}-job"
        plan = plans / f"{point}@{moment}@{part}"
        if plan.exists():
            victim, count = plan.read_text().split()
            if count == "1":
                plan.rename(f"{plan}.hit")
            else:
                plan.write_text(f"{victim} {int(count) - 1}")
            if victim == "worker":
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    points.watch = watch


def _shorten_clocks() -> None:
    archiving._LEASE_S = 1
    batch.RETRY_AFTER_S[:] = [1, 1, 1]
    batch.OUTGOING_RETRY_AFTER_S[:] = [1] * 30
    batch.BATCH_RETRY_AFTER_S = 1
    begun._LEFT_AFTER_S = 2.0
    crew.HEARTBEAT_S = 1
    forwarding._LEASE_S = 2
    reaper.HEARTBEAT_S = 0.3  # type: ignore[assignment]
    reaper._DEAD_AFTER_S = 2.5  # type: ignore[assignment]
    service._ARCHIVE_EVERY_S = 0.3
    service._FAILED_EVERY_S = 0.5
    service._REAP_EVERY_S = 0.2


def main(plans: str, name: str, *words: str) -> int:
    """Run part *name* as the supervisor does, or command *name* with its *words*."""
    _shorten_clocks()
    _watch(Path(plans), name)
    if name in service.PARTS:
        part.main(name, *words)
        return 0
    from worker import cli

    sys.argv = ["unsubd", name, *words]
    cli.main()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
