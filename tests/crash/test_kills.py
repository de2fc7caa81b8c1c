"""2,000 mixed mails while poller and workers are killed -9 at random: nothing is lost, nothing happens twice.

`UNSUBD_CRASH_SEED=… make crash` repeats the mails and the plan of the kills.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from tests.crash.killers import Scene, kill_at_random
from tests.crash.mixture import mixture
from tests.crash.processes import Part, Signs
from tests.crash.verdict import Verdict
from tests.harness.dovecot import Mailbox
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service
from worker.settings import Settings
from worker.store.tags import StoredTags

# Read here: tests get an environment without our names.
SEED = int(os.environ.get("UNSUBD_CRASH_SEED") or random.SystemRandom().randrange(2**32))
# Of ten fetches one job is made; here of each, or there are too few jobs to kill somebody with.
_SMALL_JOBS = "from worker.sources import look\nlook.TOGETHER = 25\n"
_SETTLED_S = 60.0  # a killed worker's job comes back within 20 s, a killed horse's after 10 s more


def _service(folder: Path, redis_url: str, dovecot: Mailbox, untagged: str) -> Service:
    (folder / "sitecustomize.py").write_text(_SMALL_JOBS)
    service = Service(
        folder, redis_url=redis_url, secret_keys=",".join(MASTERS), address="u+{tag}@unsub.example.com",
        imap_url=dovecot.url, imap_password=dovecot.password, imap_ca_file=str(dovecot.ca_file), imap_backlog="all",
        imap_untagged=untagged, workers="2",
    )  # fmt: skip
    service.env["PYTHONPATH"] = str(folder)
    return service


def _places(service: Service) -> list[tuple[str, int]]:
    """Register two senders and their groups."""
    for sender in ("acme", "beta"):
        service.last_line("sender", "add", sender)
    groups = [(sender, service.last_line("group", "add", sender, name)) for sender, name in
              (("acme", "Weekly news"), ("acme", "Offers"), ("beta", "Weekly news"))]  # fmt: skip
    return [(sender, int(group)) for sender, group in groups] + [("acme", 0), ("beta", 0)]


def _settled(verdict: Verdict, scene: Scene) -> float:
    """Let everything run undisturbed; return after how many seconds it was at rest (or the time was over)."""
    begun = time.monotonic()
    scene.poll.start()
    scene.work.start()
    while not verdict.settled() and time.monotonic() < begun + _SETTLED_S:
        time.sleep(0.3)
    return time.monotonic() - begun


@pytest.mark.timeout(300)
@pytest.mark.parametrize("untagged", get_args(Settings.model_fields["imap_untagged"].annotation))
def test_every_request_takes_effect_once_whoever_is_killed(
    tmp_path: Path, own_redis: Callable[..., RedisServer], dovecot: Mailbox, untagged: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with capsys.disabled():
        print(f"\nuntagged={untagged}, UNSUBD_CRASH_SEED={SEED}", flush=True)
    redis = own_redis()
    service = _service(tmp_path, redis.url, dovecot, untagged)
    mails = mixture(SEED, _places(service))
    StoredTags(redis.client()).keep(mails.stored)
    poll, work = Part(service, "poll"), Part(service, "work")
    scene = Scene(poll, work, Signs(redis.client(), dovecot), dovecot, redis.client(), SEED)
    verdict = Verdict(redis.client(), dovecot, mails.deliveries, leave=untagged == "leave")
    begun = time.monotonic()
    try:
        kill_at_random(scene, mails.deliveries)
        killed_s = time.monotonic() - begun
        settled_s = _settled(verdict, scene)
        problems = verdict.problems()
    finally:
        poll.end()
        work.end()
    with capsys.disabled():
        print(
            f"{len(mails.deliveries)} mails; killed for {killed_s:.0f} s, at rest {settled_s:.0f} s later: {scene.tally}"
        )
        print(f"counters: {verdict.counters()}", flush=True)

    assert scene.tally.lacking() == [], f"seed {SEED}: too few kills: {scene.tally}"
    assert not problems, "\n".join([f"seed {SEED}:", *problems])
