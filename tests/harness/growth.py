"""Buckets that split although they are not full: how a large sender looks, without its people."""

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

from worker.store import growth
from worker.store.forgotten import ForgottenNames


def grow(
    send: Callable[[Sequence[tuple[Any, ...]]], list[Any]], names: ForgottenNames, sender: str, buckets: int
) -> int:
    """Split until there are so many, and return how many there are."""
    with patch.object(growth, "_are_full", return_value=True):
        return growth.Growth(send, names, lambda commands: send(list(commands))).grow(sender, buckets)
