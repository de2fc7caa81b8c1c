"""One process works on a mailbox at a time; whoever lost the lease has no effect any more, and a restart waits for nobody."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import fakeredis
import pytest
import redis

from handlers.errors import QueueUnavailable
from tests.unit.house import client, decided, opened
from worker.fence import Fence, LeaseLost
from worker.installation import Installation
from worker.sources import lease as leases
from worker.sources import source_states
from worker.sources.imap import MailboxAddress
from worker.sources.lease import LIFE_S, Lease, LeaseTaken
from worker.sources.place import Place

NEWS = MailboxAddress.parse("imaps://unsub@mail.example.com/INBOX#news")


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def lease(server: fakeredis.FakeServer, tmp_path: Path) -> Callable[[str], Lease]:
    """Return a function that makes the lease of a process with a data folder of its own."""
    return lambda box: Lease(client(server), Place(tmp_path / box / "lease-news"), "imap:news", NEWS.identity())


@pytest.fixture
def installation(server: fakeredis.FakeServer) -> Iterator[Installation]:
    with opened(server) as found:
        yield found


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_LOOK_S", 0.001)


def _unheard(holder: str) -> None:
    raise AssertionError(f"{holder} has it")


def _key(server: fakeredis.FakeServer) -> bytes:
    (key,) = client(server).keys("unsubd:lease:*")
    return key


def _lose(server: fakeredis.FakeServer, to: str = "") -> None:
    """What another process sees after 20 s of silence: it is free; *to*: and taken."""
    key = _key(server)
    client(server).delete(key)
    if to:
        client(server).set(key, to)


def test_a_free_lease_is_taken_at_once_and_given_back(
    lease: Callable[[str], Lease], server: fakeredis.FakeServer
) -> None:
    one = lease("one")

    async def work() -> int:
        await one.require()
        return int(client(server).pttl(_key(server)))

    left_ms = asyncio.run(one.hold(work, _unheard, 0))

    assert 0 < left_ms <= LIFE_S * 1000
    assert client(server).keys("unsubd:lease:*") == []


def test_a_second_process_stands_by_until_the_first_gives_back(
    lease: Callable[[str], Lease], server: fakeredis.FakeServer
) -> None:
    order: list[str] = []
    heard: list[str] = []

    async def both() -> None:
        one, two, begun, waits = lease("one"), lease("two"), asyncio.Event(), asyncio.Event()

        async def first() -> None:
            order.append("one begins")
            begun.set()
            await waits.wait()
            assert await one.is_awaited()
            order.extend(each["state"] for each in source_states(client(server)))
            order.append("one ends")

        def tell(holder: str) -> None:
            heard.append(holder)
            waits.set()

        async def second() -> None:
            order.append("two begins")
            assert not await two.is_awaited()

        holding = asyncio.create_task(one.hold(first, _unheard))
        await begun.wait()
        await asyncio.gather(holding, two.hold(second, tell))

    asyncio.run(both())

    assert order == ["one begins", "standby", "one ends", "two begins"]
    assert heard == [leases.process_name()]
    assert source_states(client(server)) == []


def test_a_single_look_waits_for_a_living_holder_no_longer_than_a_dead_one_could_keep_it(
    lease: Callable[[str], Lease],
) -> None:
    async def both() -> None:
        await lease("one").hold(lambda: lease("two").hold(asyncio.Event().wait, lambda _: None, 0.01), _unheard)

    with pytest.raises(LeaseTaken):
        asyncio.run(both())


def test_whoever_lost_the_lease_is_stopped_and_told(
    lease: Callable[[str], Lease], server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_RENEW_S", 0.001)
    ended: list[str] = []

    async def work() -> None:
        _lose(server, to="- token another-7")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(LeaseLost):
        asyncio.run(lease("one").hold(work, _unheard))
    assert ended == ["cancelled"]
    assert client(server).get(_key(server)) == b"- token another-7"  # not given back: it is not ours


def test_in_doubt_redis_is_asked_before_an_effect(
    lease: Callable[[str], Lease], server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen and awake again: the clock says that the lease may be gone."""
    one, now = lease("one"), leases._now()

    async def work() -> None:
        monkeypatch.setattr(leases, "_now", lambda: now + 16)
        await one.require()  # it was not gone
        _lose(server)
        await one.require()  # and is surely ours for a while
        monkeypatch.setattr(leases, "_now", lambda: now + 32)
        with pytest.raises(LeaseLost):
            await one.require()

    asyncio.run(one.hold(work, _unheard))


def test_without_redis_nothing_passes_once_it_is_in_doubt(
    lease: Callable[[str], Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, now = lease("one"), leases._now()

    async def work() -> None:
        with patch.object(one._redis, "eval", autospec=True, side_effect=redis.ConnectionError):
            await one.require()
            monkeypatch.setattr(leases, "_now", lambda: now + 16)
            with pytest.raises(QueueUnavailable):
                await one.require()

    asyncio.run(one.hold(work, _unheard))


def test_nothing_is_enqueued_under_a_lease_that_is_gone(
    lease: Callable[[str], Lease], server: fakeredis.FakeServer, installation: Installation
) -> None:
    one, queue = lease("one"), installation.queue

    async def work() -> None:
        (job,) = queue.enqueue([decided("k1"), decided("k2")], fence=one.fence)
        assert [each.id for each in queue.rq.jobs] == [job]
        assert [each["key"] for each in queue.rq.jobs[0].kwargs["batch"]] == ["k1", "k2"]
        keys = client(server).keys("rq:job:*")
        _lose(server, to="- token another-7")
        with pytest.raises(LeaseLost):
            queue.enqueue([decided("k3")], fence=one.fence)
        assert (queue.rq.count, client(server).keys("rq:job:*")) == (1, keys)

    asyncio.run(one.hold(work, _unheard))


def test_a_fenced_job_is_written_as_any_other(installation: Installation, server: fakeredis.FakeServer) -> None:
    """The script must put down what the pipeline would have: the same fields, of the same form."""
    client(server).set("lease", "ours")
    plain, fenced = (
        installation.queue.enqueue([decided()], fence=fence)[0] for fence in (None, Fence("lease", "ours"))
    )
    one, two = (client(server).hgetall(f"rq:job:{each}") for each in (plain, fenced))

    assert one.keys() == two.keys()
    differ = {name.decode() for name in one if one[name] != two[name]}
    assert differ <= {"created_at", "enqueued_at", "data"}


def test_no_fence_holds_what_nobody_took(installation: Installation, lease: Callable[[str], Lease]) -> None:
    with pytest.raises(LeaseLost):
        installation.queue.enqueue([decided()], fence=lease("one").fence)


# --- a kill -9 leaves the lease behind


async def _killed(one: Lease) -> None:
    """Take it, and end as by kill -9: the kernel closes our files, and nothing is given back."""
    await one._taken(_unheard, 0)
    os.close(one._place._file)


def test_a_restart_on_the_same_place_takes_it_over_at_once(
    lease: Callable[[str], Lease], server: fakeredis.FakeServer
) -> None:
    async def restarted() -> bytes:
        await _killed(lease("box"))
        before = client(server).get(_key(server))
        return await lease("box").hold(lambda: asyncio.sleep(0, before), _unheard, 0)

    assert asyncio.run(restarted())


def test_nobody_takes_over_from_one_that_lives_or_is_frozen_on_the_same_place(lease: Callable[[str], Lease]) -> None:
    async def both() -> None:
        await lease("box")._taken(_unheard, 0)  # it keeps its lock file open, as a frozen process does
        await lease("box")._taken(lambda _: None, 0.01)

    with pytest.raises(LeaseTaken):
        asyncio.run(both())


def test_a_copy_of_the_data_folder_is_another_place(lease: Callable[[str], Lease], tmp_path: Path) -> None:
    async def both() -> None:
        await _killed(lease("box"))
        shutil.copytree(tmp_path / "box", tmp_path / "copy")
        await lease("copy")._taken(lambda _: None, 0.01)

    with pytest.raises(LeaseTaken):
        asyncio.run(both())


def test_where_no_file_can_be_there_is_no_place_and_the_lease_is_waited_for(
    server: fakeredis.FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    without = [Lease(client(server), Place(tmp_path / "file" / "x"), "imap:news", NEWS.identity()) for _ in range(2)]

    async def both() -> None:
        await without[0]._taken(_unheard, 0)
        await without[1]._taken(lambda _: None, 0.01)

    with pytest.raises(LeaseTaken):
        asyncio.run(both())


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("imaps://unsub@MAIL.example.com/inbox#other_name", True),
        ("imaps://unsub@mail.example.com:993#x", True),
        ("imaps://unsub@mail.example.com/Done", False),
        ("imaps://other@mail.example.com/INBOX", False),
        ("imaps://unsub@mail.example.com:1993/INBOX", False),  # another server may be behind that port
    ],
)
def test_a_mailbox_is_known_by_where_it_is(url: str, same: bool) -> None:
    assert (MailboxAddress.parse(url).identity() == NEWS.identity()) is same


def test_a_junk_watch_is_no_mailbox_of_any_name() -> None:
    assert NEWS.identity("\\Junk") != MailboxAddress.parse("imaps://unsub@mail.example.com/Junk").identity()
