"""Failed jobs that a person tries again or deletes: all of it or nothing, whatever ends the process."""

from collections.abc import Callable, Iterator

import fakeredis
import pytest

from tests.unit.house import decided, opened
from worker import joblist, points
from worker.batch import UnsubdJob, new_job
from worker.installation import Installation


class Killed(BaseException):
    """Stands for kill -9: nobody catches it."""


@pytest.fixture
def here() -> Iterator[Installation]:
    with opened(fakeredis.FakeServer()) as found:
        yield found


@pytest.fixture
def job(here: Installation) -> UnsubdJob:
    """A job that ran out of tries."""
    found = new_job(here.queue.rq, [decided().as_wire()])
    pipeline = here.redis.pipeline(transaction=True)
    found.save(pipeline=pipeline)
    here.queue.reaper._fail(found.id, found, "a test", pipeline)
    pipeline.execute()
    return found


def _books(here: Installation) -> tuple[list[str], list[str]]:
    """Which jobs have failed, and which wait."""
    return here.queue.rq.failed_job_registry.get_job_ids(cleanup=False), here.queue.rq.get_job_ids()


def _killed(_: str, __: str) -> None:
    raise Killed


def test_a_failed_job_is_tried_again_once(here: Installation, job: UnsubdJob) -> None:
    assert [joblist.requeue(here, job.id) for _ in range(2)] == [True, False]

    assert _books(here) == ([], [job.id])
    [waiting] = here.queue.rq.get_jobs()
    assert waiting.kwargs["batch"][0]["key"] == "k1"


@pytest.mark.parametrize("act", [joblist.requeue, joblist.drop])
def test_a_kill_before_it_leaves_it_as_it_was(
    here: Installation, job: UnsubdJob, act: Callable[[Installation, str], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    job.meta["kept"] = True
    job.save_meta()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(points, "watch", _killed)

    with pytest.raises(Killed):
        act(here, job.id)

    assert _books(here) == ([job.id], [])
    assert here.redis.exists(job.key)


def test_who_is_second_at_the_same_moment_queues_it_not_again(
    here: Installation, job: UnsubdJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def somebody(_: str, moment: str) -> None:
        monkeypatch.undo()
        assert joblist.requeue(here, job.id)

    monkeypatch.setattr(points, "watch", somebody)

    assert not joblist.requeue(here, job.id)
    assert _books(here) == ([], [job.id])


def test_a_deleted_job_leaves_nothing_but_its_request_in_quarantine(here: Installation, job: UnsubdJob) -> None:
    assert [joblist.drop(here, job.id) for _ in range(2)] == [True, False]

    assert not list(here.redis.scan_iter(f"*{job.id}*"))
    assert _books(here) == ([], [])
    assert here.quarantine.counts() == {"failed": 1}
