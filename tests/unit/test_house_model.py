"""A whole house on fakeredis against the model; `servers/test_house_real.py` runs the same on real servers."""

import fakeredis

from tests import house_model
from tests.unit.house import opened


def test_house_and_model_agree_on_random_histories() -> None:
    house_model.run_houses(lambda: opened(fakeredis.FakeServer()), examples=60, steps=40)
