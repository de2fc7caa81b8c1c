"""/v1: people, groups, imports and exports, for a sender's own programs."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from handlers.errors import QueueUnavailable, StoreUnavailable
from handlers.request import Action, DecidedMessage, Outcome, Request, request_id
from tests.harness.service import until
from tests.harness.web import Answer, Web, ask, serving
from worker.forget import forget
from worker.posted_lists import PostedLists

_names = itertools.count(1)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, redis_server: object) -> Iterator[Web]:
    redis_server.empty()  # type: ignore[attr-defined]
    with serving(tmp_path_factory.mktemp("v1"), redis_server.url) as found:  # type: ignore[attr-defined]
        yield found


class Account:
    """A sender of its own for one test, and a key of it."""

    def __init__(self, web: Web) -> None:
        self.web, self.id = web, f"v{next(_names)}"
        self.accounts = web.installation.accounts
        self.accounts.add_sender(self.id)
        self.key = self.accounts.new_api_key(self.id, name="robot")
        self.group = self.accounts.add_group(self.id, "News").id

    def call(self, method: str, path: str, body: Any = None, key: str = "", **headers: str) -> Answer:
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return ask(self.web.port, method, f"/v1/{path}", raw, {"Authorization": f"Bearer {key or self.key}"} | headers)

    def people(self, what: str, *recipients: str, group: int | None = None) -> Answer:
        chosen = self.group if group is None else group
        return self.call("POST", what, {"group": chosen, "recipients": recipients, "reason": "she called"})

    def stored(self, group: int | None = None) -> list[str | None]:
        found = self.web.installation.store.listed(self.id, self.group if group is None else group)
        return sorted((recipient for recipient, _ in found), key=str)

    def imported(self, body: bytes, query: str = "") -> dict[str, Any]:
        taken = self.call("POST", f"imports?group={self.group}{query}", body)
        assert (taken.status, taken.json["state"]) == (202, "waiting")

        def state() -> dict[str, Any]:
            found: dict[str, Any] = self.call("GET", f"imports/{taken.json['id']}").json
            return found

        until(lambda: state()["state"] in ("done", "failed"), 20, "the import")
        return state()


@pytest.fixture
def acme(web: Web) -> Account:
    return Account(web)


# --- people


def test_each_address_has_its_answer(acme: Account) -> None:
    acme.people("suppress", "joe@example.org")

    answer = acme.people("suppress", "Jane@Example.com", "joe@example.org", "x", "jane@example.com")

    assert answer.status == 200
    assert [(each["recipient"], each["result"]) for each in answer.json] == [
        ("Jane@Example.com", "added"), ("joe@example.org", "already"), ("x", "invalid"), ("jane@example.com", "added"),
    ]  # fmt: skip
    assert answer.json[2]["reason"].endswith("expected local-part@domain")
    assert acme.stored() == ["jane@example.com", "joe@example.org"]


def test_a_missing_group_is_told_and_goes_to_the_global_list(acme: Account) -> None:
    other = Account(acme.web)

    [answer] = acme.people("suppress", "jane@example.com", group=other.group).json

    assert (answer["result"], str(other.group) in answer["reason"]) == ("redirected_to_global", True)
    assert (acme.stored(0), other.stored()) == (["jane@example.com"], [])


def test_who_comes_back_is_lifted_once(acme: Account) -> None:
    acme.people("suppress", "jane@example.com")

    answers = [acme.people("resubscribe", "JANE@example.com", "nobody@example.com", "x") for _ in range(2)]

    assert [[each["result"] for each in answer.json] for answer in answers] == [
        ["lifted", "not-lifted", "invalid"], ["not-lifted", "not-lifted", "invalid"],
    ]  # fmt: skip
    assert acme.stored() == []
    assert acme.people("resubscribe", "jane@example.com", group=Account(acme.web).group).status == 404


@pytest.mark.parametrize("what", ["suppress", "resubscribe"])
@pytest.mark.parametrize(
    "change", [{"group": -1}, {"group": "1"}, {"recipients": []}, {"recipients": [5]}, {"reason": ""}, {"reason": None}]
)
def test_another_shape_is_refused(acme: Account, what: str, change: dict[str, Any]) -> None:
    body = {"group": acme.group, "recipients": ["jane@example.com"], "reason": "x"} | change

    answer = acme.call("POST", what, body)

    assert (answer.status, answer.json["error"]) == (422, "invalid")
    assert acme.stored() == []


def test_the_story_of_one_recipient_is_told(acme: Account) -> None:
    acme.people("suppress", "jane@example.com")

    story = acme.call("POST", "evidence", {"recipient": "Jane@example.com"}).json

    [row], [record], [event] = story["rows"], story["records"].values(), story["events"]
    assert (row["group"], row["suppressed"], row["held"], row["source"]) == (acme.group, True, True, "api")
    assert (record["evidence"]["actor"], record["reason"]) == ("robot", "she called")
    assert "by robot" in event["what"]
    assert acme.call("POST", "evidence", {"recipient": "nobody@example.com"}).json["rows"] == []
    assert acme.call("POST", "evidence", {"recipient": "x"}).status == 422


def test_of_a_message_for_two_senders_each_reads_its_own_part(acme: Account) -> None:
    other, recipient, now_ms = Account(acme.web), "both@example.com", acme.web.installation.store.now_ms()
    wishes = tuple(
        Request(request_id("m" * 64, each.id, each.group, recipient, Action.UNSUBSCRIBE), Action.UNSUBSCRIBE, each.id,
                each.group, recipient, now_ms, "imap:INBOX", "m" * 64)
        for each in (acme, other)
    )  # fmt: skip
    acme.web.installation.intake.record(
        [DecidedMessage("m" * 64, "imap:INBOX", Outcome.HONOUR, "valid tag", now_ms, wishes)]
    )

    for mine, theirs in ((acme, other), (other, acme)):
        story = mine.call("POST", "evidence", {"recipient": recipient}).text
        assert f'"sender":"{mine.id}"' in story
        assert f'"{theirs.id}"' not in story
        assert f"group {theirs.group}" not in story


# --- groups


def test_groups_are_added_changed_archived_and_restored(acme: Account) -> None:
    made = acme.call("POST", "groups", {"name": "Bills", "essential": True, "id": 900_000 + acme.group})
    bills = made.json["id"]
    acme.people("suppress", "jane@example.com", group=bills)

    assert made.status == 201
    assert bills == 900_000 + acme.group
    changed = acme.call("PATCH", f"groups/{bills}", {"archived": True, "description": "x"}).json
    assert (changed["archived"], changed["essential"], changed["suppressed"]) == (True, True, 1)
    listed = acme.call("GET", "groups").json
    assert {(each["id"], each["archived"]) for each in listed} == {(acme.group, False), (bills, True)}
    assert acme.call("PATCH", f"groups/{bills}", {"archived": False}).json["archived"] is False


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "x" * 31}, {"name": "x", "id": 0}, []])
def test_a_group_that_cannot_be_is_not_added(acme: Account, body: Any) -> None:
    assert acme.call("POST", "groups", body).status == 422
    assert len(acme.call("GET", "groups").json) == 1


def test_what_is_taken_is_a_conflict(acme: Account) -> None:
    theirs = Account(acme.web).group
    acme.accounts.edit_sender(acme.id, max_groups=2)

    for body in ({"name": "News"}, {"name": "Offers", "id": acme.group}, {"name": "Offers", "id": theirs}):
        answer = acme.call("POST", "groups", body)
        assert (answer.status, answer.json["error"]) == (409, "conflict")
    acme.call("POST", "groups", {"name": "Offers"})
    assert acme.call("POST", "groups", {"name": "One too many"}).status == 409
    assert acme.call("PATCH", f"groups/{acme.group}", {"name": "Offers"}).status == 409


# --- lists


def test_a_posted_list_is_imported_and_comes_out_again(acme: Account) -> None:
    done = acme.imported(
        b"email,created\njane@example.com,2026-05-01\nx,\nJoe@example.org,\njoe@example.org,\n", "&name=old"
    )

    counts = {name: done[name] for name in ("state", "file", "rows", "added", "present", "stale", "rejected", "failed")}
    assert counts == {
        "state": "done", "file": "old", "rows": 4, "added": 2, "present": 1, "stale": 0, "rejected": 1, "failed": "",
    }  # fmt: skip
    assert acme.call("GET", "imports").json == [done]
    rejected = acme.call("GET", f"imports/{done['id']}/rejected")
    assert rejected.text.splitlines()[1].startswith("x,,")
    folder = acme.web.installation.settings.data_dir / "imports"
    until(lambda: not list(folder.glob("*.list")), 5, "the end of the list's copy")
    lines = [json.loads(each) for each in acme.call("GET", "export").text.splitlines()]
    assert sorted((each["email"], each["group"], each["source"]) for each in lines) == [
        ("jane@example.com", acme.group, "import"), ("joe@example.org", acme.group, "import"),
    ]  # fmt: skip
    again = acme.imported(acme.call("GET", "export?format=csv").body)
    assert again["present"] == 2
    assert acme.call("GET", f"imports/{again['id']}/rejected").text == ""


def test_an_export_may_be_of_one_group(acme: Account) -> None:
    acme.people("suppress", "jane@example.com")
    acme.people("suppress", "joe@example.org", group=0)

    assert json.loads(acme.call("GET", "export?group=0").text)["email"] == "joe@example.org"
    assert acme.call("GET", "export?group=0&format=csv").text.splitlines()[0] == "email,group,created,source,reason"
    assert acme.call("GET", f"export?group={Account(acme.web).group}").status == 404
    assert Account(acme.web).call("GET", "export?format=csv").text == "email,group,created,source,reason\n"


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("group=0", b"\0\0", 422),
        ("group=0", b"", 422),
        ("group=0", b"just,words\nand,more\n", 422),
        ("group=0&format=nonsense", b"email\njane@example.com\n", 422),
        ("group=4000000000", b"email\njane@example.com\n", 404),
        ("", b"email\njane@example.com\n", 422),
    ],
)
def test_what_is_no_list_leaves_no_import(acme: Account, query: str, body: bytes, status: int) -> None:
    assert acme.call("POST", f"imports?{query}", body).status == status

    assert acme.call("GET", "imports").json == []
    assert not list((acme.web.installation.settings.data_dir / "imports").glob("*.draft"))


def test_a_list_that_breaks_in_the_middle_says_so(acme: Account) -> None:
    good = b"email,note\n" + b"".join(b"p%d@example.com,x\n" % number for number in range(2000))

    done = acme.imported(good + b'jane@example.com,"' + b"x" * (1 << 21) + b'"\n')

    assert (done["state"], done["added"]) == ("failed", 2000)
    assert "expected CSV" in done["failed"]


def test_a_server_goes_on_with_what_another_left_and_waits_for_the_store(
    acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostedLists, "_hand_over", lambda *_: None)  # as if it were killed here
    taken = acme.call("POST", f"imports?group={acme.group}", b"email\njane@example.com\n").json
    monkeypatch.undo()
    outages = iter([QueueUnavailable("away")])
    run = PostedLists._run

    def flaky(self: PostedLists, *args: Any) -> None:
        if outage := next(outages, None):
            raise outage
        run(self, *args)

    monkeypatch.setattr(PostedLists, "_run", flaky)
    PostedLists(acme.web.installation)

    until(lambda: acme.call("GET", f"imports/{taken['id']}").json["state"] == "done", 20, "the import")
    assert acme.stored() == ["jane@example.com"]


def test_a_draft_that_goes_while_old_ones_are_swept_holds_up_no_list(acme: Account) -> None:
    """The server takes or refuses lists while its thread sweeps: a name it has listed may be no file any more."""
    folder = acme.web.installation.settings.data_dir / "imports"
    acme.imported(b"email\njoe@example.org\n")
    (gone := folder / "0.draft").symlink_to(folder / "renamed by now")

    acme.imported(b"email\njane@example.com\n")

    acme.imported(b"email\njim@example.com\n")  # 60 s later if the sweep gave up
    assert acme.stored() == ["jane@example.com", "jim@example.com", "joe@example.org"]
    gone.unlink()


def test_rejected_rows_of_a_forgotten_person_go(acme: Account) -> None:
    done = acme.imported(b"email,note\nx,ask jane@example.com\n")
    folder = acme.web.installation.settings.data_dir / "imports"

    (gone := folder / "0.rejected.csv").symlink_to(folder / "swept by now")

    forget(acme.web.installation, "other@example.com")
    gone.unlink()
    assert (folder / f"{done['id']}.rejected.csv").exists()
    forget(acme.web.installation, "jane@example.com")

    assert acme.call("GET", f"imports/{done['id']}/rejected").status == 404


def test_the_allowed_methods_are_all_told(acme: Account) -> None:
    answers = [acme.call("PUT", path) for path in ("groups", "imports", "groups/1", "check")]

    assert [(each.status, each.headers["allow"]) for each in answers] == [
        (405, "GET, POST"), (405, "GET, POST"), (405, "PATCH"), (405, "POST"),
    ]  # fmt: skip


# --- keys


def calls(acme: Account, import_id: str = "0" * 16) -> dict[str, tuple[str, str, Any]]:
    """Every endpoint, by its name: method, path and body, about what belongs to *acme*."""
    person = {"group": acme.group, "recipients": ["new@example.com"], "reason": "x"}
    return {
        "check": ("POST", "check", {"group": acme.group, "recipients": ["jane@example.com"]}),
        "suppress": ("POST", "suppress", person),
        "resubscribe": ("POST", "resubscribe", person),
        "evidence": ("POST", "evidence", {"recipient": "jane@example.com"}),
        "list groups": ("GET", "groups", None),
        "add group": ("POST", "groups", {"name": f"g{next(_names)}"}),
        "change group": ("PATCH", f"groups/{acme.group}", {"description": "theirs"}),
        "import": ("POST", f"imports?group={acme.group}", b"email\nnew@example.com\n"),
        "list imports": ("GET", "imports", None),
        "an import": ("GET", f"imports/{import_id}", None),
        "rejected": ("GET", f"imports/{import_id}/rejected", None),
        "export": ("GET", "export", None),
        "export group": ("GET", f"export?group={acme.group}", None),
    }


def test_one_senders_key_never_sees_or_changes_anothers(acme: Account) -> None:
    done = acme.imported(b"email\njane@example.com\nx\n")
    other = Account(acme.web)

    found = {name: other.call(*call) for name, call in calls(acme, done["id"]).items()}

    assert {name for name, each in found.items() if each.status == 404} == {
        "check", "resubscribe", "change group", "import", "an import", "rejected", "export group",
    }  # fmt: skip
    assert found["suppress"].json[0]["result"] == "redirected_to_global"
    assert found["evidence"].json["rows"] == found["list imports"].json == []
    assert [each["id"] for each in found["list groups"].json] == [other.group]
    assert "jane" not in found["export"].text
    assert acme.stored() == ["jane@example.com"]
    assert acme.accounts.group(acme.id, acme.group).description == ""


def test_nobody_without_a_key_or_its_scope_gets_anything(acme: Account) -> None:
    weak = acme.accounts.new_api_key(acme.id, scopes=["tracking_settings.subscription"])
    sending = {path: ("POST", path, {}) for path in ("headers", "stamp", "sent")}
    for name, (method, path, body) in (calls(acme) | sending).items():
        for key, status in (("SG.x.y", 401), (weak, 403)):
            assert acme.call(method, path, body, key=key).status == status, name
        child = {"On-Behalf-Of": Account(acme.web).id}
        assert acme.call(method, path, body, **child).status == 403, name
    assert acme.stored() == acme.stored(0) == []


def test_a_key_that_asks_too_often_waits(acme: Account) -> None:
    slow = acme.accounts.new_api_key(acme.id, per_minute=1)

    answers = [acme.call("GET", "groups", key=slow) for _ in range(4)]  # two of them at least within one minute

    assert (answers[-1].status, answers[-1].json["error"]) == (429, "too_many")
    assert answers[-1].headers["x-ratelimit-remaining"] == "0"


def test_a_store_that_is_away_is_503(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("the store is away")

    for name in ("rows", "asked", "groups", "counted", "now_ms", "listed"):
        monkeypatch.setattr(type(acme.web.installation.store), name, away)

    for name, call in calls(acme).items():
        if name not in ("add group", "import", "list imports", "an import", "rejected"):
            answer = acme.call(*call)
            assert (answer.status, answer.json["error"]) == (503, "unavailable"), name


def test_a_posted_lists_name_is_a_label_and_no_path(acme: Account) -> None:
    name = "../../../../evil.csv"

    done = acme.imported(b"email\njane@example.com\nno address\n", f"&name={name}")
    asked = [acme.call("GET", f"imports/{each}/rejected").status for each in ("..%2F..%2Fetc%2Fpasswd", "....", "%00")]

    assert done["state"] == "done"
    assert set(asked) == {404}
    folder = acme.web.installation.settings.data_dir
    assert [*folder.rglob("*evil*"), *(each for each in folder.parents if (each / "evil.csv").exists())] == []
