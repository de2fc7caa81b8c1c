"""Events out by the real workers: a receiver that fails, and a worker that is killed in mid-post."""

import json
import os
import signal
from pathlib import Path

import pytest
from redis import Redis

from tests.harness.mails import address, mail, recipient
from tests.harness.receiver import Receiver, receiving
from tests.harness.service import MASTERS, Service, children, until
from worker.crew import EVENTS, workers


def _told(receiver: Receiver) -> set[str]:
    return {each["email"] for _, body in receiver.got for each in json.loads(body)}


@pytest.mark.fault
@pytest.mark.timeout(240)
def test_an_event_survives_its_receiver_and_its_worker(tmp_path: Path, redis_url: str) -> None:
    service = Service(tmp_path, redis_url=redis_url, secret_keys=",".join(MASTERS), in_relay="bearer:t")
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "Weekly news")
    with receiving() as receiver, service.running("run"), Redis.from_url(redis_url) as client:
        service.last_line("sender", "events", "acme", "--url", receiver.url)
        receiver.status = 503
        assert service.post("/in/relay", mail(address(1), "one"), authorization="Bearer t") == 204
        until(lambda: receiver.got, 30, "the first post")
        receiver.status, receiver.got = 200, []
        until(
            lambda: _told(receiver) == {recipient(1)}, 90, "the second try"
        )  # 10 s later; 40 if that one came too soon

        receiver.wait_s, receiver.got = 15.0, []
        assert service.post("/in/relay", mail(address(2), "two"), authorization="Bearer t") == 204
        until(lambda: receiver.got, 30, "the post")
        (worker,) = [each for each in workers(client) if EVENTS in each["queues"]]
        pid = int(worker["name"].rpartition("-")[2])
        for each in (pid, *children(pid)):  # the job's own process would else go on and succeed
            os.kill(each, signal.SIGKILL)
        receiver.wait_s, receiver.got = 0.0, []
        until(lambda: _told(receiver) == {recipient(2)}, 60, "the post again")
