"""What the store does by itself: buckets that split, and what the first version wrote, which moves to them. Ways as in `ways.py`.

Each has a sender of its own, so that what others ask for stays countable; and whoever asks meanwhile must hear what is so.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import redis

from tests.crash.house import House
from tests.crash.ways import Sent, Way
from tests.harness import first_layout
from worker.installation import Installation
from worker.store import layout
from worker.store.layout import LOAD

_FORMAT = "unsubd:store:format"
_MANY = LOAD * 5 // 2  # one bucket splits into two; as many again, and there are four or five
_SECOND, _MS = 1_700_000_000, 1_700_000_000_000


def _wrong(installation: Installation, sender: str, who: list[str]) -> Iterator[str]:
    """Say what of *who*, who are all suppressed of everything, is told wrongly, to whoever asks for one, all or a number."""
    store = installation.store
    if unheard := [each for each, row in zip(who, _rows(installation, sender, who), strict=True) if not row]:
        yield f"{sender}: {len(unheard)} of {len(who)} are not suppressed"
    if set(listed := Counter(each for each, _ in store.stopped(sender, 0))) != set(who):
        yield f"{sender}: {len(listed)} are listed, expected {len(who)}"
    if (counted := store.counted(sender, [0])) != [len(who)]:
        yield f"{sender}: {counted} are counted, expected {len(who)}"


def _rows(installation: Installation, sender: str, who: list[str]) -> list[bool]:
    return [bool(row and row.suppressed) for row in installation.store.rows([(sender, 0, each) for each in who])]


def grown(house: House, number: int) -> Sent:
    """A list that makes a bucket split, imported by an operator until it is done; a second one goes on where a kill left that."""
    sender, lists = f"grown{number}", [_list_of(house, f"{number}-{each}") for each in range(2)]
    with house.installation() as installation:
        installation.accounts.add_sender(sender)
    waiting = [path for path, _ in lists]

    def acked() -> bool:
        with house.installation() as installation:
            if installation.store_redis.exists(f"unsubd:growing:{{{sender}}}"):
                return False  # who made them split was killed: for 2 s nobody else does
        if waiting and house.command("import", sender, "0", str(waiting[0]), "--actor", "anna") == 0:
            waiting.pop(0)
        return not waiting

    def rest() -> list[str]:
        with house.installation() as installation:
            who = [each for _, some in lists for each in some]
            return [*_wrong(installation, sender, who), *_unsplit(installation, sender)]

    return Sent(acked, [], rest=rest, rows=0)


def _list_of(house: House, name: str) -> tuple[Path, list[str]]:
    path, who = house.folder / f"many-{name}.csv", [f"somebody.{name}.{each}@example.com" for each in range(_MANY)]
    path.write_text("\n".join(["email", *who]) + "\n")
    return path, who


def _unsplit(installation: Installation, sender: str) -> Iterator[str]:
    client = installation.store_redis
    if (count := int(client.hget(layout.directory_key(sender), "buckets") or 1)) < 3:
        yield f"{sender}: {count} buckets, expected 3 or more"
    heads = [client.hget(key, "") for key in client.scan_iter(f"unsubd:supp:{{{sender}:*}}", count=1000)]
    yield from (f"{sender}: a bucket has no head of its own: {each!r}" for each in heads if not each or b" f" in each)


def moved(house: House, number: int) -> Sent:
    """A store of the first version, which a reaper enters when it begins, and moves."""
    sender, gone = f"moved{number}", "gone@example.com"
    who = [f"somebody.{each}@example.com" for each in range(9)]
    with house.installation() as installation:
        name = installation.names(sender, gone)
        rows = {each: first_layout.packed(_SECOND, _MS, 1) for each in [*who, name]}
        first_layout.write(installation.store_redis, sender, {0: rows}, [name])
        installation.store_redis.delete(_FORMAT)
    house.restart("reaper")
    wrong: list[str] = []

    def acked() -> bool:
        url = house.service.env["UNSUBD_STORE_URL"]
        with redis.Redis.from_url(url) as client:  # no installation: it would enter the store, too
            return bool(client.exists(_FORMAT))

    def rest() -> list[str]:
        with house.installation() as installation:
            wrong.extend(_wrong(installation, sender, [*who, name]))  # at no moment, not only in the end
            wrong.extend(["nobody knows who is forgotten"] * (not installation.store.is_forgotten(sender, gone)))
            left = list(installation.store_redis.scan_iter(f"unsubd:first:{{{sender}}}*", count=1000))
        return [*wrong, *(f"{key!r} is left" for key in left)]

    return Sent(acked, [], rest=rest, rows=0)


SPLIT = ("store.fill", "store.leave", "store.open", "store.count")
MOVE = ("store.shut", "store.format", "store.move", "store.take-out", "store.unmark", "store.close")

BUCKETS = {
    "grown": Way(grown, {"import": SPLIT}),
    "moved": Way(moved, {"reaper": MOVE}),
}
