"""The store on fakeredis: every rule by name, and random histories against the model. `servers/test_store_real.py` runs
the same on real servers, because a fake is trusted only so far."""

import pytest

from tests import store_model

pytest.register_assert_rewrite("tests.store_rules")
from tests.store_rules import LedgerRules, NeighbourRules, RegisterRules  # noqa: E402
from worker.store import Store  # noqa: E402


class TestRegister(RegisterRules):
    pass


class TestNeighbours(NeighbourRules):
    pass


class TestLedger(LedgerRules):
    pass


def test_store_and_model_agree_on_random_histories(store: Store) -> None:
    store_model.run_histories(store, examples=60, steps=30)


def test_repeating_everything_in_any_order_flips_no_state(store: Store) -> None:
    store_model.run_repeats(store, examples=100)
