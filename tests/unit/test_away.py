"""What is said instead of redis-py's errors: away and try again, a setting that does not fit, or nothing, for it is a bug."""

import pytest
import redis
from redis.cluster import ClusterError
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    MaxConnectionsError,
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
    SlotNotCoveredError,
)
from redis.sentinel import MasterNotFoundError

from handlers.errors import ConfigError, StoreUnavailable
from worker.server import away_as

SETTING = "UNSUBD_STORE_URL"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (redis.ConnectionError("gone"), r"does not answer \(ConnectionError\)"),
        (redis.TimeoutError("late"), r"does not answer \(TimeoutError\)"),
        (MaxConnectionsError("Too many connections"), r"does not answer \(MaxConnectionsError\)"),
        (RedisClusterException("cannot be connected"), r"does not answer \(RedisClusterException\)"),
        (SlotNotCoveredError("no node"), r"does not answer \(SlotNotCoveredError\)"),
        (MasterNotFoundError("no primary"), "no Sentinel that answers us"),
        (AskError("1 10.0.0.1:1"), "a slot moved"),
        (ReadOnlyError("You can't write", status_code="READONLY"), r"cannot write now \(READONLY\)"),
        (redis.ResponseError("OOM command not allowed"), r"cannot write now \(OOM\)"),
    ],
)
def test_away_is_said_with_the_setting(error: Exception, said: str) -> None:
    with (
        pytest.raises(StoreUnavailable, match=f"^{SETTING}: .*{said}") as told,
        away_as(StoreUnavailable, SETTING),
    ):
        raise error

    assert told.value.__cause__ is error


@pytest.mark.parametrize("error", [NoPermissionError("no rights"), ClusterCrossSlotError("two slots")])
def test_a_setting_that_does_not_fit_is_no_outage(error: Exception) -> None:
    with pytest.raises(ConfigError, match=f"^{SETTING}: "), away_as(StoreUnavailable, SETTING):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        redis.ResponseError("WRONGTYPE"),
        ValueError("ours"),
        KeyboardInterrupt(),
        ClusterError("unknown"),
        redis.DataError("x"),
    ],
)
def test_a_bug_and_a_signal_stay_what_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as told, away_as(StoreUnavailable, SETTING):
        raise error

    assert told.value is error
