"""What several files of unit tests begin with; a file that needs another `acme` has its own."""

from collections.abc import Iterator

import fakeredis
import pytest
import redis

from tests.harness.far_side import FarSide, far_side
from tests.harness.names import NAMES
from tests.unit import house
from worker import jobs
from worker.installation import Installation
from worker.store import Store


@pytest.fixture
def client() -> redis.Redis:
    """A server that is empty."""
    return fakeredis.FakeRedis()


@pytest.fixture
def store(client: redis.Redis) -> Store:
    """The suppressions on it."""
    return Store(client, NAMES)


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An installation with a sender and group 12, and jobs that run in this process."""
    with house.opened(fakeredis.FakeServer()) as found:
        found.accounts.add_sender("acme")
        found.accounts.add_group("acme", "Weekly news", "", 12)
        monkeypatch.setattr(jobs, "_settings", found.settings)
        yield found


@pytest.fixture
def far() -> Iterator[FarSide]:
    """SendGrid's own lists."""
    with far_side("sendgrid") as server:
        yield server
