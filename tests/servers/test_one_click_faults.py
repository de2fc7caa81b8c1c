"""kill -9 of the store in the middle of one-click posts: what was answered 200 is in effect, none of it lost.

With a queue of its own every post is answered 200, those to stored tags as well; on one Redis some are told "not done".
"""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from handlers.tag import Tag, mint
from tests.harness.mails import NEW, TEMPLATE
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from worker.installation import Installation, open_installation
from worker.settings import load_settings

pytestmark = pytest.mark.fault
POSTS, STORED_EVERY, AWAY_S = 600, 3, 3.0


def _recipient(number: int) -> str:
    return f"{'long.' * 12 if number % STORED_EVERY == 0 else ''}person.{number}@example.com"


def _paths(installation: Installation) -> list[str]:
    tags = [Tag("acme", 1, _recipient(number)) for number in range(POSTS)]
    minted = [mint(NEW, tag, TEMPLATE) for tag in tags]
    installation.tags.keep([(each, tag) for each, tag in zip(minted, tags, strict=True) if each.stored])
    assert sum(each.stored for each in minted) == POSTS // STORED_EVERY
    return [f"/u/{each.tag}" for each in minted]


def _post(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    try:
        connection.request("POST", path, b"List-Unsubscribe=One-Click", kind)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("apart", [True, False], ids=["queue-apart", "one-redis"])
def test_a_kill_of_the_store_loses_no_one_click(
    tmp_path: Path, own_redis: Callable[..., RedisServer], apart: bool
) -> None:
    store = own_redis()
    queue = own_redis() if apart else store
    urls = {"redis_url": queue.url, "store_url": store.url, "secret_keys": ",".join(MASTERS)}
    service = Service(tmp_path, address="u+{tag}@unsub.example.com", **urls)
    service.last_line("sender", "add", "acme")
    service.last_line("group", "add", "acme", "Weekly news")
    given = {f"UNSUBD_{name.upper()}": value for name, value in urls.items()}
    with open_installation(load_settings(given)) as installation, service.running("run"):
        paths, statuses = _paths(installation), {}

        def post(number: int) -> None:
            statuses[number] = _post(service.port, paths[number])
            time.sleep(0.02)

        def away() -> None:
            until(lambda: len(statuses) > POSTS // 6, 60, "a sixth of the posts")
            store.kill()
            time.sleep(AWAY_S)
            store.restart()

        killer = threading.Thread(target=away)
        killer.start()
        with ThreadPoolExecutor(8) as crowd:
            list(crowd.map(post, range(POSTS)))
        killer.join()
        first = Counter(statuses.values())
        print(f"{POSTS} one-click posts, {'store' if apart else 'Redis'} killed for {AWAY_S:g} s: {dict(first)}")
        assert set(first) <= ({200} if apart else {200, 503})
        accepted = [number for number, status in statuses.items() if status == 200]
        _all_in_effect(installation, accepted)

        refused = sorted(set(range(POSTS)) - set(accepted))
        assert bool(refused) is not apart, "the store was away for somebody"
        assert {_post(service.port, paths[number]) for number in refused} <= {200}
        _all_in_effect(installation, list(range(POSTS)))
        assert installation.quarantine.counts() == {}


def _all_in_effect(installation: Installation, numbers: list[int]) -> None:
    names = [("acme", 1, _recipient(number)) for number in numbers]
    until(lambda: all(row and row.suppressed for row in installation.store.rows(names)), 90, "every effect")
