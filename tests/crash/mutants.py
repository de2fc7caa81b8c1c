"""Breaks each promise on purpose, in a copy, and sees that a test fails: `python -m tests.crash.mutants`. Takes 6 minutes."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.crash.points import ROOT

_MATRIX = "tests/crash/test_matrix.py::test_a_kill_loses_nothing_and_repeats_nothing"


@dataclass(frozen=True)
class Mutant:
    """One broken promise. Shape: test: what must fail, once *old* in *path* is *new*."""

    name: str
    path: str
    old: str
    new: str
    test: str


MUTANTS = [
    Mutant(
        "acknowledge before enqueue", "worker/sources/mailbox.py",
        "        accepted = await asyncio.to_thread(\n",
        "        await connection.mark_done(list(messages), DONE)\n        accepted = await asyncio.to_thread(\n",
        f"{_MATRIX}[imap-queue.enqueue-before-poll-self]",
    ),
    Mutant(
        "drop on a full queue", "worker/queue.py",
        "                self.require_room()\n            pipeline",
        "                if int(self._redis.llen(self.rq.key)) >= self._limit:\n"
        "                    return []\n            pipeline",
        "tests/unit/test_queue.py::test_a_full_queue_is_unavailable_and_takes_nothing",
    ),
    Mutant(
        "no retry of a request", "worker/batch.py",
        "retry=Retry(max=TRIES, interval=RETRY_AFTER_S if len(batch) == 1 else [BATCH_RETRY_AFTER_S]),", "retry=None,",
        f"{_MATRIX}[webhook-store.apply-before-worker-job-self]",
    ),
    Mutant(
        "no look at fsync", "worker/server.py",
        '    if config.get("appendfsync") not in ("always", None):', "    if False:",
        "tests/unit/test_durability.py",
    ),
    Mutant(
        "no look at WAIT", "worker/queue.py",
        "                check_confirmed(replies, self._min_replicas, QueueUnavailable)\n", "                pass\n",
        "tests/unit/test_queue.py::test_too_few_replicas_are_unavailable",
    ),
    Mutant(
        "no WAIT for an account", "worker/server.py",
        "            confirm(pipeline, self._min_replicas)\n            return check_confirmed(pipeline.execute(), "
        "self._min_replicas, self._error_type)[0]\n",
        "            return pipeline.execute()[0]\n",
        "tests/unit/test_confirmed.py",
    ),
    Mutant(
        "no WAIT for a record", "worker/store/ledger.py",
        "        check_confirmed(replies, self._min_replicas, StoreUnavailable)\n\n    def refer", "\n    def refer",
        "tests/servers/test_replicas.py::test_what_people_are_told_is_kept_a_replica_has",
    ),
    Mutant(
        "WAIT within the MULTI that RQ opens", "worker/server.py",
        "        pipeline.explicit_transaction = False\n", "",
        "tests/unit/test_queue.py::test_wait_runs_outside_of_the_multi_that_rq_opens",
    ),
    Mutant(
        "a MAC compared up to its first difference", "handlers/tag.py",
        "if hmac.compare_digest(mac.encode(), _mac(key, tag)[: len(mac)].encode()):",
        "if mac.encode() == _mac(key, tag)[: len(mac)].encode():",
        "tests/unit/test_constant_time.py",
    ),
    Mutant(
        "what is begun at once is not kept", "worker/intake.py",
        "        with self.begun.kept(messages):\n            return self.record(messages)\n",
        "        return self.record([message])[0]\n",
        f"{_MATRIX}[one-click-once-events.enqueue-before-web-self]",
    ),
    Mutant(
        "an effect without a point", "worker/queue.py",
        '            with point("queue.enqueue"):\n                replies', "            if True:\n                replies",
        "tests/unit/test_points.py",
    ),
    Mutant(
        "a recipient's page carries everybody's records", "worker/store/ledger.py",
        "local meant = #ARGV == 3 or", "local meant = true or",
        "tests/servers/test_full_store.py",
    ),
    Mutant(
        "an unknown digest is looked for in every record", "worker/store/ledger.py",
        "self._newest(None if whole else _MOST)", "self._newest(None)",
        "tests/servers/test_full_store.py",
    ),
    Mutant(
        "a list of the quarantine carries every id", "worker/quarantine/__init__.py",
        "window: dict[str, Any] = {} if limit is None else {", "window: dict[str, Any] = {} if True else {",
        "tests/servers/test_full_store.py",
    ),
    Mutant(
        "a message is looked for among all", "worker/quarantine/rack.py",
        "hscan_iter(drawer_of(word), match=f\"{catalogue.beginning(word)}*\", count=_SCAN)",
        'hscan_iter(ENTRIES, match=f"{word}*", count=100)',
        "tests/servers/test_full_store.py",
    ),
]  # fmt: skip


def survives(mutant: Mutant, folder: Path) -> str:
    """Return why *mutant* counts as alive, "" when its test failed as it must."""
    path = folder / mutant.path
    sound = path.read_text("utf-8")
    assert sound.count(mutant.old) == 1, f"{mutant.name}: expected its text once in {mutant.path}"
    path.write_text(sound.replace(mutant.old, mutant.new), "utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", mutant.test, "-q", "-x", "--override-ini=addopts=-p no:schemathesis"],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        path.write_text(sound, "utf-8")
    said = [line for line in done.stdout.splitlines() if line.startswith(("E  ", "FAILED"))]
    print(f"{mutant.name}: {'killed' if done.returncode == 1 else 'ALIVE'} by {mutant.test}")
    print("\n".join(f"    {line[:160]}" for line in said[:3]), flush=True)
    return (
        ""
        if done.returncode == 1
        else f"{mutant.name}: {mutant.test} ended with {done.returncode}\n{done.stdout[-800:]}"
    )


def main(*names: str) -> int:
    """Try every mutant, or those whose name holds one of *names*."""
    chosen = [each for each in MUTANTS if not names or any(name in each.name for name in names)]
    with tempfile.TemporaryDirectory(prefix="unsubd-mutants-") as folder:
        copy = Path(folder) / "main"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__")
        )
        alive = [why for each in chosen if (why := survives(each, copy))]
    print("\n".join(alive) or f"{len(chosen)} mutants, all killed")
    return len(alive)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
