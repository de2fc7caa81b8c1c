"""Promise 1 rests on the server's persistence: each setting that weakens it provably is refused, or told where it is allowed."""

from unittest.mock import Mock

import pytest
import redis

from handlers.errors import ConfigError
from worker.server import require_durable, weakness

SOUND = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no", "maxmemory": "0",
         "maxmemory-policy": "allkeys-lru"}  # fmt: skip


def _server(**settings: str) -> Mock:
    return Mock(config_get=Mock(return_value=SOUND | {name.replace("_", "-"): each for name, each in settings.items()}))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"appendonly": "no"}, "appendonly is no"),
        ({"appendfsync": "everysec"}, "appendfsync is everysec"),
        ({"appendfsync": "no"}, "appendfsync is no"),
        ({"no_appendfsync_on_rewrite": "yes"}, "no-appendfsync-on-rewrite is yes"),
        ({"maxmemory": "1000000"}, "maxmemory-policy is allkeys-lru"),
    ],
)
def test_provably_weak_persistence_is_refused_unless_allowed(settings: dict[str, str], why: str) -> None:
    server = _server(**settings)

    with pytest.raises(ConfigError, match=f"^UNSUBD_REDIS_URL: {why}"):
        require_durable(server, "UNSUBD_REDIS_URL", allow_weak=False)
    assert require_durable(server, "UNSUBD_REDIS_URL", allow_weak=True).startswith(why)


@pytest.mark.parametrize("settings", [{}, {"maxmemory": "1000000", "maxmemory_policy": "noeviction"}])
def test_sound_persistence_is_taken(settings: dict[str, str]) -> None:
    assert require_durable(_server(**settings), "UNSUBD_REDIS_URL", allow_weak=False) == ""


def test_a_server_that_does_not_tell_is_not_refused() -> None:
    assert weakness(Mock(config_get=Mock(side_effect=redis.ResponseError("unknown command 'CONFIG'")))) == ""
