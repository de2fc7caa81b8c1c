"""A whole house on redis-server and on Valkey against the model of `house_model`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import house_model
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS
from worker.installation import Installation, open_installation
from worker.settings import load_settings


@pytest.mark.parametrize("name", ["redis_server", "valkey_server"])
def test_house_and_model_agree_on_random_histories(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: RedisServer = request.getfixturevalue(name)
    given = {"UNSUBD_REDIS_URL": server.url, "UNSUBD_SECRET_KEYS": MASTERS[0], "UNSUBD_DATA_DIR": str(tmp_path)}

    @contextmanager
    def opened() -> Iterator[Installation]:
        server.empty()
        with open_installation(load_settings(given)) as house:
            yield house

    house_model.run_houses(opened, examples=12, steps=40)
