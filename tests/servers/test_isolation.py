"""One sender's key on another sender's things, by every route of /v1 and /v3 that the application has.

The routes are walked: a new one is asked here too, and one with a new kind of path stops the test until somebody says
what of the other sender's to put there.
"""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Route

from tests.harness.redis_server import RedisServer
from tests.harness.service import until
from tests.harness.web import Answer, Web, ask, serving
from worker.accounts.tracking import change_tracking
from worker.web import api, outgoing, sent, v1, v3
from worker.web.v3.account import METHODS

JANE, NOBODY, MARK = "jane@example.com", "nobody@example.com", "Zebrafish"
_numbers = itertools.count()
# What the poor key may read, what it is, and a route that does nothing.
SCOPELESS = {
    *(("GET", path) for path in ("/v1/groups", "/v3/asm/groups", "/v3/asm/groups/{group_id}", "/v3/scopes")),
    *((method, "/v3/mail/send") for method in METHODS),
}


def _routes(router: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for route in router.routes:
        if isinstance(route, Route):
            yield from ((method, prefix + route.path) for method in sorted(set(route.methods or ()) - {"HEAD"}))
        elif inner := getattr(route, "original_router", None):
            yield from _routes(inner, prefix + route.include_context.prefix)


ROUTES = sorted({each for part in (api, outgoing, sent, v1, v3) for each in _routes(part.router)})


class House:
    """Two senders; what *theirs* has says "Zebrafish" wherever a sender may write a text."""

    def __init__(self, web: Web) -> None:
        self.web, self.accounts = web, web.installation.accounts
        for sender in ("ours", "theirs"):
            self.accounts.add_sender(sender, name=MARK if sender == "theirs" else "Ours")
        self.group = self.accounts.add_group("theirs", f"{MARK} news", f"{MARK} weekly").id
        self.key, self.their_key = (self.accounts.new_api_key(each) for each in ("ours", "theirs"))
        self.poor_key = self.accounts.new_api_key("ours", scopes=["asm.groups.read"])
        self.import_id = self._imported()
        body = {"group": 0, "recipients": [JANE], "reason": MARK}
        assert self.call("POST", "/v1/suppress", body, key=self.their_key).status == 200
        change_tracking(web.installation.redis, "theirs", {"landing": MARK})

    def _imported(self) -> str:
        headers = {"Authorization": f"Bearer {self.their_key}"}
        place = f"/v1/imports?group={self.group}&name={MARK}"
        taken = ask(self.web.port, "POST", place, f"email\n{JANE}\nno address\n".encode(), headers)
        found = f"/v1/imports/{taken.json['id']}"
        until(lambda: self.call("GET", found, key=self.their_key).json["state"] == "done", 20, "the import")
        return str(taken.json["id"])

    def call(self, method: str, path: str, body: Any = None, *, key: str) -> Answer:
        raw = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        return ask(self.web.port, method, path, raw, headers)

    def asked(self, method: str, path: str, *, key: str, recipient: str = JANE) -> Answer:
        """Ask a route for the other sender's group, recipient and import, in path, query and body at once."""
        values = {"group_id": self.group, "email": recipient, "import_id": self.import_id}
        place = re.sub(r"{(\w+)(?::\w+)?}", lambda found: str(values[found[1]]), path)
        body = {
            "group": self.group, "group_id": self.group, "recipients": [recipient], "recipient": recipient, "reason": "x",
            "recipient_emails": [recipient], "name": f"mine {next(_numbers)}", "description": "mine", "archived": True,
            "message": "", "sent": [{"recipient": recipient, "group": self.group, "at": "2026-11-01"}], "landing": "mine",
        }  # fmt: skip
        given = None if method in ("GET", "DELETE", "OPTIONS") and "search" not in path else body
        return self.call(method, f"{place}?group={self.group}&email={recipient}&id={self.group}", given, key=key)

    def theirs(self) -> Any:
        """Everything of the other sender, as it lies in Redis."""
        client = self.web.installation.redis
        named = [key for key in client.keys("*") if b"theirs" in key and b"api-calls" not in key]
        tables = ("unsubd:senders", "unsubd:groups", "unsubd:imports", "unsubd:api-keys")
        return {key: client.dump(key) for key in named}, [
            row for table in tables for _, row in sorted(client.hgetall(table).items()) if b"theirs" in row
        ]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[House]:
    redis_server.empty()
    with serving(tmp_path_factory.mktemp("isolation"), redis_server.url) as web:
        yield House(web)


def test_the_routes_are_found() -> None:
    assert len(ROUTES) >= 30
    assert {path.split("/")[1] for _, path in ROUTES} == {"v1", "v3"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_key_changes_and_hears_nothing_of_another_sender(house: House, method: str, path: str) -> None:
    before = house.theirs()

    answer = house.asked(method, path, key=house.key)
    of_a_stranger = house.asked(method, path, key=house.key, recipient=NOBODY)

    assert house.theirs() == before
    assert MARK not in answer.text
    # Whoever the other sender stopped is answered for like somebody whom nobody knows.
    assert answer.status == of_a_stranger.status
    assert answer.status < 500


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_route_answers_without_a_key_or_beyond_its_scopes(house: House, method: str, path: str) -> None:
    nobody, wrong = (house.asked(method, path, key=key) for key in ("", f"{house.key}x"))
    poor = house.asked(method, path, key=house.poor_key)

    assert (nobody.status, wrong.status) == (401, 401)
    assert poor.status in (403, 405) or (method, path) in SCOPELESS
