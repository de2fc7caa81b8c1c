"""Which format the store's keys are in: no program reads what it does not know, none that is older reads what it would misread.

| key                   | type   | holds                                                                   | lives    |
|-----------------------|--------|-------------------------------------------------------------------------|----------|
| `unsubd:store:format` | STRING | the newest format that a program brought here: 2 = buckets (`layout.py`) | for good |

A change that an older program would misread gets the next number: every program looks here at its start, and the part that
reaps looks again every few seconds and ends the service. Programs of the first layout do not look: `FirstLayout.shut`.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import redis

from handlers.errors import ConfigError, StoreUnavailable
from worker.points import point
from worker.server import away_as, check_confirmed, confirmation
from worker.store.first_layout import FirstLayout
from worker.store.script import Script, send

FORMAT = 2
OF_STORE = (
    "unsubd:supp:", "unsubd:buckets:", "unsubd:store:", "unsubd:first:", "unsubd:counts:", "unsubd:forgotten:", "unsubd:tag:",
    "unsubd:ledger:", "unsubd:masters", "unsubd:pseudonym-key", "unsubd:parked",
)  # fmt: skip
"""How the keys begin that lie on the store's server; all others lie with the queue."""
_KEY = "unsubd:store:format"
_SETTING = "UNSUBD_STORE_URL"
# Two programs may begin at once, and the older one must not win.
_RAISE = Script("""
local known = tonumber(redis.call('GET', KEYS[1]) or '1')
if known < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return known
""")


class NewerStore(ConfigError):
    """A newer unsubd works on this store: this one must end, whatever it does just now."""


class State(NamedTuple):
    """Shape:   format: the store's. waiting: sender -> rows of an older format, which `Store.migrate` moves."""

    format: int
    waiting: dict[str, int]


def require_known(client: redis.Redis) -> int:
    """Return the store's format.

    Errors:  NewerStore        it is newer than this program.
             StoreUnavailable  the server is away.    temporary
    """
    with away_as(StoreUnavailable, _SETTING):
        found = int(client.get(_KEY) or 1)
    _refuse_newer(found)
    return found


def state(client: redis.Redis) -> State:
    """Return how the store is, and write nothing. Errors: as `require_known`."""
    found = require_known(client)
    with away_as(StoreUnavailable, _SETTING):
        return State(found, FirstLayout(client).waiting())


def enter(client: redis.Redis, senders: Callable[[], Iterable[str]], *, min_replicas: int = 0) -> None:
    """Check the store's format; an older one becomes ours, which older programs, if any still run, fail on.

    Shape:   senders: the registered ones, asked for when the format is the first.
    Errors:  as `require_known`.
    Repeat:  safe; what a kill left is done at the next start.
    """
    if require_known(client) == FORMAT:
        return
    with away_as(StoreUnavailable, _SETTING):
        FirstLayout(client).shut(senders(), min_replicas=min_replicas)
        with point("store.format"):
            replies = send(client, [_RAISE(_KEY, FORMAT)], confirmation(min_replicas))
            [found] = check_confirmed(replies, min_replicas, StoreUnavailable)
    _refuse_newer(found)


def _refuse_newer(found: int) -> None:
    if found > FORMAT:
        raise NewerStore(
            f"{_SETTING}: the store has format {found}, and this unsubd knows {FORMAT} and older: a newer unsubd works here,"
            " expected this one to be as new: upgrade it, or restore a backup from before"
        )
