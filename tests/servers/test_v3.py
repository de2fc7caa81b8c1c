"""/v3 as the real `sendgrid` client drives it: every endpoint, its success and its failure."""

import itertools
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sendgrid import EventWebhook

from handlers.errors import QueueUnavailable, StoreUnavailable
from handlers.events import signature
from tests.harness.sendgrid_client import Heard, client, heard
from tests.harness.web import Web, ask, serving
from worker.check import check

_names = itertools.count(1)
RATE = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, redis_server: object) -> Iterator[Web]:
    redis_server.empty()  # type: ignore[attr-defined]
    with serving(tmp_path_factory.mktemp("v3"), redis_server.url) as found:  # type: ignore[attr-defined]
        yield found


class Account:
    """A sender of its own for one test, its client, and what the store knows of it."""

    def __init__(self, web: Web, **more: Any) -> None:
        self.web, self.id = web, f"s{next(_names)}"
        self.accounts = web.installation.accounts
        self.accounts.add_sender(self.id, **more)
        self.key = self.accounts.new_api_key(self.id, name="robot")
        self.api = client(web.port, self.key)

    def with_key(self, **more: Any) -> Any:
        return client(self.web.port, self.accounts.new_api_key(self.id, **more))

    def group(self, name: str = "News", **more: Any) -> int:
        return self.accounts.add_group(self.id, name, "About it", **more).id

    def suppressed(self, group: int, *recipients: str) -> list[str]:
        answers = check(self.web.installation, self.id, group, recipients)
        return [f"{each.recipient} {each.scope}" for each in answers if each.suppressed]

    def stored(self, group: int) -> list[str]:
        return sorted(recipient or "" for recipient, _ in self.web.installation.store.listed(self.id, group))


@pytest.fixture
def acme(web: Web) -> Account:
    return Account(web)


def emails(*addresses: Any) -> dict[str, list[Any]]:
    return {"recipient_emails": list(addresses)}


# --- groups


def test_a_group_lives_from_its_making_to_its_end(acme: Account) -> None:
    made = heard(acme.api.asm.groups.post, {"name": "Weekly", "description": "What happened"})
    group = acme.api.asm.groups._(made.body["id"])
    changed = heard(group.patch, {"id": 5, "name": "Monthly", "is_default": True})
    shown, listed, gone = heard(group.get), heard(acme.api.asm.groups.get), heard(group.delete)

    whole = {"id": made.body["id"], "name": "Monthly", "description": "What happened", "is_default": True}
    assert (made.status, made.body) == (201, whole | {"name": "Weekly", "is_default": False})
    assert (changed.status, changed.body) == (201, whole)
    assert (shown.status, shown.body) == (200, whole | {"unsubscribes": 0})
    assert (listed.status, listed.body) == (200, [whole | {"unsubscribes": 0}])
    assert (gone.status, gone.body) == (204, None)
    assert [heard(call).status for call in (group.get, group.delete)] == [404, 404]
    assert heard(group.patch, {"name": "Again"}).message == "group not found"
    assert heard(acme.api.asm.groups.get).body == []


def test_ids_filter_the_list_and_unknown_ones_are_left_out(acme: Account) -> None:
    first, _, third = acme.group("a"), acme.group("b"), acme.group("c")

    found = heard(acme.api.asm.groups.get, query_params={"id": [first, third, 999_999, 10**20]})

    assert sorted(each["id"] for each in found.body) == [first, third]
    assert heard(acme.api.asm.groups.get, query_params={"id": "x"}).fields == ["id"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"description": "x"}, "name"),
        ({"name": "", "description": "x"}, "name"),
        ({"name": "ü" * 31, "description": "x"}, "name"),
        ({"name": 5, "description": "x"}, "name"),
        ({"name": "\ud800", "description": "x"}, "name"),
        ({"name": "x"}, "description"),
        ({"name": "x", "description": "ü" * 101}, "description"),
        ({"name": "x", "description": "x", "is_default": "yes"}, "is_default"),
        ({"name": "News", "description": "x"}, "name"),
    ],
)
def test_a_group_that_cannot_be_names_the_field(acme: Account, body: dict[str, Any], field: str) -> None:
    acme.group("News")

    made = heard(acme.api.asm.groups.post, body)

    assert (made.status, made.fields) == (400, [field])
    assert len(acme.accounts.groups(acme.id)) == 1


def test_characters_are_counted_not_octets(acme: Account) -> None:
    assert heard(acme.api.asm.groups.post, {"name": "ü" * 30, "description": "ü" * 100}).status == 201


def test_a_change_that_cannot_be_changes_nothing(acme: Account) -> None:
    acme.group("News")
    group = acme.api.asm.groups._(acme.group("Offers"))

    assert [heard(group.patch, body).fields for body in ({"name": "News"}, {"name": None}, {"is_default": 1})] == [
        ["name"], ["name"], ["is_default"],
    ]  # fmt: skip
    assert heard(group.get).body["name"] == "Offers"


def test_a_full_account_takes_no_group(web: Web) -> None:
    acme = Account(web, max_groups=1)
    acme.group("News")

    made = heard(acme.api.asm.groups.post, {"name": "Offers", "description": ""})

    assert (made.status, made.fields) == (400, ["name"])


def test_of_equal_names_at_once_one_is_taken(acme: Account) -> None:
    def add(_: int) -> int:
        return heard(client(acme.web.port, acme.key).asm.groups.post, {"name": "Same", "description": ""}).status

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(add, range(8))) == [201, *[400] * 7]


def test_a_deleted_group_is_gone_but_a_check_still_says_suppressed(acme: Account) -> None:
    group = acme.group()
    groups = acme.api.asm.groups._(group)
    heard(groups.suppressions.post, emails("jane@example.com"))

    heard(groups.delete)

    assert heard(acme.api.asm.suppressions._("jane@example.com").get).body == {"suppressions": []}
    assert heard(acme.api.asm.suppressions.get).body == []
    assert acme.suppressed(group, "jane@example.com") == ["jane@example.com group"]
    assert heard(acme.api.asm.groups.post, {"name": "News", "description": ""}).body["id"] > group


# --- suppressions of a group


def test_who_left_a_group_is_listed_searched_and_let_back(acme: Account) -> None:
    group = acme.group()
    api = acme.api.asm.groups._(group)
    given = ["Jane@EXAMPLE.com", "u+tag@example.com", "jane@example.com"]

    added = heard(api.suppressions.post, emails(*given))

    assert (added.status, added.body) == (201, emails(*given[:2]))
    listed = heard(api.suppressions.get)
    assert (listed.status, listed.body) == (200, ["jane@example.com", "u+tag@example.com"])
    assert heard(api.get).body["unsubscribes"] == 2
    assert heard(api.suppressions.search.post, emails("x@example.com", "JANE@example.com")).body == ["jane@example.com"]
    for _ in range(2):
        gone = heard(api.suppressions._("u+tag@example.com").delete)
        assert (gone.status, gone.body) == (204, None)
    assert heard(api.suppressions.get).body == ["jane@example.com"]
    assert heard(api.get).body["unsubscribes"] == 1
    assert acme.suppressed(group, *given[:2]) == ["jane@example.com group"]


def test_adding_twice_counts_once_and_keeps_the_first_time(acme: Account) -> None:
    api = acme.api.asm.groups._(acme.group())
    for _ in range(2):
        heard(api.suppressions.post, emails("jane@example.com"))

    assert heard(api.get).body["unsubscribes"] == 1
    assert len(heard(acme.api.asm.suppressions.get).body) == 1


@pytest.mark.parametrize("missing", ["0", "deleted", "never", "others", "99999999999999999999"])
def test_a_missing_group_sends_its_people_to_the_global_list(acme: Account, missing: str) -> None:
    group = {"deleted": acme.group(), "never": 4_000_000_000, "others": Account(acme.web).group()}.get(missing, missing)
    heard(acme.api.asm.groups._(group).suppressions.post, emails("joe@example.com"))
    if missing == "deleted":
        heard(acme.api.asm.groups._(group).delete)
    path = acme.api.asm.groups._(str(group)).suppressions

    added = heard(path.post, emails("joe@example.com", "jane@example.com"))

    assert (added.status, added.body) == (201, emails("joe@example.com", "jane@example.com"))
    assert acme.stored(0) == ["jane@example.com", "joe@example.com"]
    assert [heard(path.get).status, heard(path.search.post, emails("jane@example.com")).status] == [404, 404]
    assert heard(path._("jane@example.com").delete).status == 404
    assert acme.stored(0) == ["jane@example.com", "joe@example.com"]


@pytest.mark.parametrize("group", ["x", "-1", "1.5", "\u0661"])
def test_what_is_no_number_is_no_group_and_nothing_is_written(acme: Account, group: str) -> None:
    answer = acme.web.post(
        f"/v3/asm/groups/{group.encode().decode('latin-1')}/suppressions" if group.isascii() else
        "/v3/asm/groups/%D9%A1/suppressions", b'{"recipient_emails":["a@example.com"]}', bearer(acme.key),
    )  # fmt: skip

    assert answer.status == 404
    assert acme.stored(0) == []


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        ({}, 400, ["recipient_emails"]),
        ({"recipient_emails": "jane@example.com"}, 400, ["recipient_emails"]),
        (emails(), 400, ["recipient_emails"]),
        (
            emails("jane@example.com", "x", "joe@example.org", 5, None),
            400,
            [f"recipient_emails.{n}" for n in (1, 3, 4)],
        ),
        (emails("a" * 65 + "@example.com"), 400, ["recipient_emails.0"]),
        (emails("jane@" + "a." * 120 + "example.com"), 400, ["recipient_emails.0"]),
        (emails("a@x.com,b@y.org"), 400, ["recipient_emails.0"]),
        (emails(*[f"{n}@example.com" for n in range(10_001)]), 413, ["recipient_emails"]),
        ([], 400, [None]),
    ],
)
def test_a_bad_list_is_refused_whole(acme: Account, body: Any, status: int, fields: list[str | None]) -> None:
    api = acme.api.asm.groups._(acme.group())

    for call in (api.suppressions.post, api.suppressions.search.post, acme.api.asm.suppressions._("global").post):
        answer = heard(call, body)
        assert (answer.status, answer.fields) == (status, fields)
    assert heard(api.suppressions.get).body == []
    assert acme.stored(0) == []


def test_a_thousand_addresses_are_taken_at_once(acme: Account) -> None:
    api = acme.api.asm.groups._(acme.group())

    assert heard(api.suppressions.post, emails(*[f"p{n}@example.com" for n in range(1000)])).status == 201

    assert heard(api.get).body["unsubscribes"] == len(heard(api.suppressions.get).body) == 1000


# --- the global list


def test_the_global_list_is_apart_from_groups(acme: Account) -> None:
    group = acme.group()
    everything, own = acme.api.asm.suppressions._("global"), acme.api.asm.groups._(group).suppressions
    added = heard(everything.post, emails("Jane@example.com"))
    heard(own.post, emails("jane@example.com"))

    assert (added.status, added.body) == (201, emails("Jane@example.com"))
    assert heard(everything._("JANE@example.com").get).body == {"recipient_email": "jane@example.com"}
    assert [heard(everything._("jane@example.com").delete).status for _ in range(2)] == [204, 204]
    absent = heard(everything._("jane@example.com").get)
    assert (absent.status, absent.body) == (200, {})
    assert heard(own.get).body == ["jane@example.com"]


ODD = ["u+tag@example.com", "o'brien@example.com", "50%off@example.com", "{b}@example.com", '"q"@example.com',
       "a/b@example.com", "search@example.com", "global@example.com", "a%2fb@example.com"]  # fmt: skip


@pytest.mark.parametrize("address", ODD[:-1])
def test_an_address_may_be_odd(acme: Account, address: str) -> None:
    everything, own = acme.api.asm.suppressions._("global"), acme.api.asm.groups._(acme.group()).suppressions
    assert heard(everything.post, emails(address)).status == heard(own.post, emails(address)).status == 201

    assert heard(everything._(address).get).body == {"recipient_email": address}
    assert heard(acme.api.asm.suppressions._(address).get).body["suppressions"][0]["suppressed"] is True
    assert heard(everything._(address).delete).status == heard(own._(address).delete).status == 204
    assert (acme.stored(0), heard(own.get).body) == ([], [])


@pytest.mark.parametrize("path", ["a%2Fb%2Btag%40example.com", "a/b+tag@example.com", "A%2fB+TAG%40EXAMPLE.com"])
def test_both_spellings_name_the_same_address(acme: Account, path: str) -> None:
    heard(acme.api.asm.suppressions._("global").post, emails("a/b+tag@example.com"))

    assert acme.web.get(f"/v3/asm/suppressions/global/{path}", bearer(acme.key)).json == {
        "recipient_email": "a/b+tag@example.com"
    }


@pytest.mark.parametrize(
    "path", ["a?b@example.com", "a", "a%00@example.com", "a%FF@example.com", "%20", "a@b@example.com"]
)
def test_what_is_no_address_touches_nothing(acme: Account, path: str) -> None:
    heard(acme.api.asm.suppressions._("global").post, emails("a@example.com", "b@example.com"))
    group = acme.group()

    for method, where in (
        ("DELETE", "asm/suppressions/global"), ("GET", "asm/suppressions/global"), ("GET", "asm/suppressions"),
        ("DELETE", f"asm/groups/{group}/suppressions"),
    ):  # fmt: skip
        answer = raw(acme, method, f"/v3/{where}/{path}")
        assert (answer.status, answer.json["errors"][0]["field"]) == (400, "email")
    assert acme.stored(0) == ["a@example.com", "b@example.com"]


def test_what_api_and_import_hold_is_lifted_by_the_api(acme: Account) -> None:
    everything = acme.api.asm.suppressions._("global")
    for _ in range(3):
        heard(everything.post, emails("jane@example.com"))
        assert acme.suppressed(0, "jane@example.com") == ["jane@example.com global"]
        heard(everything._("jane@example.com").delete)
        assert acme.suppressed(0, "jane@example.com") == []


def test_the_ledger_names_the_key(acme: Account) -> None:
    heard(acme.api.asm.groups._(4_000_000_000).suppressions.post, emails("jane@example.com"))

    [record] = [each for each in acme.web.records() if each["requests"][0]["sender"] == acme.id]
    assert record["source"] == "api"
    assert record["evidence"] == {"actor": "robot", "redirected_from": "4000000000"}


# --- pages


@pytest.fixture(scope="module")
def many(web: Web) -> Account:
    """1,200 global entries in three calls, so of at most a few seconds."""
    acme = Account(web)
    for part in range(3):
        people = [f"p{n:04}@example.com" for n in range(part * 400, part * 400 + 400)]
        assert heard(acme.api.asm.suppressions._("global").post, emails(*people)).status == 201
    heard(acme.api.asm.groups._(acme.group()).suppressions.post, emails("only.group@example.com"))
    return acme


def unsubscribes(acme: Account, **query: Any) -> Heard:
    return heard(acme.api.suppression.unsubscribes.get, query_params=query)


def test_pages_are_newest_first_and_neither_overlap_nor_skip(many: Account) -> None:
    pages = [
        unsubscribes(many, limit=limit, offset=offset).body for limit, offset in ((500, 0), (500, 500), (500, 1000))
    ]
    found = [each for page in pages for each in page]

    assert [len(page) for page in pages] == [500, 500, 200]
    assert [each["email"] for each in sorted(found, key=lambda each: (-each["created"], each["email"]))] == [
        each["email"] for each in found
    ]
    assert {each["email"] for each in found} == {f"p{n:04}@example.com" for n in range(1200)}
    assert unsubscribes(many).body == pages[0]
    assert unsubscribes(many, offset=5000).body == []


def test_filters_combine(many: Account) -> None:
    newest = unsubscribes(many, limit=1).body[0]["created"]

    assert len(unsubscribes(many, email="P000", limit=500).body) == 10
    assert [each["email"] for each in unsubscribes(many, email="%99%le", limit=2, offset=1).body] != []
    assert unsubscribes(many, email="p_001").body == unsubscribes(many, email="0001").body == []
    assert unsubscribes(many, start_time=newest + 1).body == []
    assert {each["created"] for each in unsubscribes(many, start_time=newest, end_time=newest).body} == {newest}
    assert unsubscribes(many, end_time=0).body == []
    assert [each["email"] for each in unsubscribes(many, email="p0001@example.com").body] == ["p0001@example.com"]


def test_a_filter_knows_an_address_by_each_of_its_spellings(acme: Account) -> None:
    heard(acme.api.asm.suppressions._("global").post, emails("j\u00f6rg@b\u00fccher.example", "ok@example.com"))

    for spelled in ("J\u00d6RG@B\u00dcCHER.example", "jo\u0308rg@b\u00fccher.example.", "JO\u0308RG@", "%\u00f6r%xn--"):
        found = unsubscribes(acme, email=spelled).body
        assert [each["email"] for each in found] == ["j\u00f6rg@xn--bcher-kva.example"], spelled
    assert [each["email"] for each in unsubscribes(acme, email="ok@example.com.").body] == ["ok@example.com"]
    assert unsubscribes(acme, email="ok@example.co.").body == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", 0), ("limit", 501), ("limit", "x"), ("limit", ""), ("offset", -1), ("offset", "1.5"),
     ("start_time", "now"), ("end_time", -1)],
)  # fmt: skip
def test_a_bad_number_is_named(many: Account, name: str, value: Any) -> None:
    answer = unsubscribes(many, **{name: value})

    assert (answer.status, answer.fields) == (400, [name])


def test_every_change_shows_on_the_next_page(acme: Account) -> None:
    everything = acme.api.asm.suppressions._("global")
    seen = []
    for address in ("a@example.com", "b@example.com"):
        heard(everything.post, emails(address))
        seen.append(sorted(each["email"] for each in unsubscribes(acme).body))
    heard(everything._("a@example.com").delete)

    assert seen == [["a@example.com"], ["a@example.com", "b@example.com"]]
    assert [each["email"] for each in unsubscribes(acme).body] == ["b@example.com"]


# --- across groups


def test_all_groups_are_listed_and_paged(acme: Account) -> None:
    first, second = acme.group("a"), acme.group("b", is_default=True)
    for group in (first, second):
        heard(acme.api.asm.groups._(group).suppressions.post, emails("jane@example.com", "joe@example.com"))
    heard(acme.api.asm.suppressions._("global").post, emails("only.global@example.com"))
    heard(acme.api.asm.groups._(first).patch, {"name": "renamed"})

    found = heard(acme.api.asm.suppressions.get).body

    assert [(each["email"], each["group_id"], each["group_name"]) for each in found] == [
        ("jane@example.com", first, "renamed"), ("joe@example.com", first, "renamed"),
        ("jane@example.com", second, "b"), ("joe@example.com", second, "b"),
    ]  # fmt: skip
    assert {type(each["created_at"]) for each in found} == {int}
    pages = [heard(acme.api.asm.suppressions.get, query_params={"limit": 3, "offset": at}).body for at in (0, 1, 3, 9)]
    assert pages == [found[:3], found[1:4], found[3:], []]
    assert heard(acme.api.asm.suppressions.get, query_params={"limit": 0}).fields == ["limit"]


def test_a_recipients_groups_are_all_shown_with_a_flag(acme: Account) -> None:
    left, kept = acme.group("Left"), acme.group("Kept", is_default=True)
    heard(acme.api.asm.groups._(left).suppressions.post, emails("jane@example.com"))
    heard(acme.api.asm.suppressions._("global").post, emails("jane@example.com"))

    found = heard(acme.api.asm.suppressions._("jane@example.com").get).body["suppressions"]

    assert {each["id"]: each for each in found} == {
        left: {"id": left, "name": "Left", "description": "About it", "is_default": False, "suppressed": True},
        kept: {"id": kept, "name": "Kept", "description": "About it", "is_default": True, "suppressed": False},
    }
    unknown = heard(acme.api.asm.suppressions._("nobody@example.com").get).body["suppressions"]
    assert [each["suppressed"] for each in unknown] == [False, False]


# --- the account


def test_tracking_settings_are_merged_and_kept_byte_for_byte(acme: Account) -> None:
    api = acme.api.tracking_settings.subscription
    text = '<p>\u00fc <% click here %> & "x"</p>\r\n'

    assert heard(api.get).body == {
        "enabled": False, "html_content": "", "plain_content": "", "landing": "", "url": "", "replace": "",
    }  # fmt: skip
    heard(api.patch, {"enabled": True, "html_content": text})
    changed = heard(api.patch, {"replace": "[unsubscribe]", "unknown": 1})

    assert (changed.status, changed.body) == (200, heard(api.get).body)
    assert (changed.body["enabled"], changed.body["html_content"], changed.body["replace"]) == (
        True,
        text,
        "[unsubscribe]",
    )


@pytest.mark.parametrize(("name", "value"), [("enabled", "true"), ("enabled", None), ("url", 5), ("landing", "\ud800")])
def test_a_bad_setting_is_named_and_changes_nothing(acme: Account, name: str, value: Any) -> None:
    api = acme.api.tracking_settings.subscription

    answer = heard(api.patch, {"replace": "x", name: value})

    assert (answer.status, answer.fields) == (400, [name])
    assert heard(api.get).body["replace"] == ""


def test_a_key_tells_its_scopes(acme: Account) -> None:
    assert len(set(heard(acme.api.scopes.get).body["scopes"])) == 24
    assert heard(acme.with_key(scopes=["asm.groups.read"]).scopes.get).body == {"scopes": ["asm.groups.read"]}


def test_the_key_of_the_events_verifies_what_is_posted(acme: Account) -> None:
    api = acme.api.user.webhooks.event.settings.signed
    assert [heard(api.get).status, heard(api.patch, {"enabled": True}).status] == [404, 404]
    hook = acme.web.installation.events.configure(acme.id, "http://127.0.0.1:1/events")

    told = heard(api.get).body
    signed = signature(hook.key, "1700000000", b"[]")

    verifier = EventWebhook(told["public_key"])
    assert verifier.verify_signature("[]", signed, "1700000000")
    assert not verifier.verify_signature("[ ]", signed, "1700000000")
    assert heard(api.patch, {"enabled": True}).body == told == {"public_key": hook.public_key}
    for body in ({"enabled": False}, {}, {"enabled": "yes"}):
        refused = heard(api.patch, body)
        assert (refused.status, refused.fields) == (400, ["enabled"]), body


def test_we_send_no_mail(acme: Account) -> None:
    answer = heard(acme.api.mail.send.post, {"personalizations": []})

    assert (answer.status, answer.message) == (404, "unsubd does not send; keep a second client for mail")


# --- keys


def calls(api: Any, group: int) -> dict[str, Any]:
    """Every endpoint, by the scope that it needs; each call would succeed with that scope."""
    person = emails("jane@example.com")
    own, everything = api.asm.groups._(group), api.asm.suppressions._("global")
    return {
        "asm.groups.create": lambda: api.asm.groups.post({"name": f"g{next(_names)}", "description": ""}),
        "asm.groups.read": api.asm.groups.get,
        "asm.groups.read of one": own.get,
        "asm.groups.update": lambda: own.patch({}),
        "asm.groups.suppressions.create": lambda: own.suppressions.post(person),
        "asm.groups.suppressions.read": own.suppressions.get,
        "asm.groups.suppressions.read by search": lambda: own.suppressions.search.post(person),
        "asm.groups.suppressions.read of all": api.asm.suppressions.get,
        "asm.groups.suppressions.read of one": api.asm.suppressions._("jane@example.com").get,
        "asm.groups.suppressions.delete": own.suppressions._("jane@example.com").delete,
        "asm.suppressions.global.create": lambda: everything.post(person),
        "asm.suppressions.global.read": everything._("jane@example.com").get,
        "asm.suppressions.global.delete": everything._("jane@example.com").delete,
        "suppression.unsubscribes.read": api.suppression.unsubscribes.get,
        "tracking_settings.subscription.read": api.tracking_settings.subscription.get,
        "tracking_settings.subscription.update": lambda: api.tracking_settings.subscription.patch({"enabled": True}),
        "user.webhooks.event.settings.read": api.user.webhooks.event.settings.signed.get,
        "user.webhooks.event.settings.update": lambda: api.user.webhooks.event.settings.signed.patch({"enabled": True}),
        "asm.groups.delete": own.delete,
    }


def test_each_endpoint_asks_for_its_scope_and_no_other(acme: Account) -> None:
    group = acme.group()
    acme.web.installation.events.configure(acme.id, "http://127.0.0.1:1/events")
    for name in calls(acme.api, group):
        scope = name.partition(" ")[0]
        allowed, others = acme.with_key(scopes=[scope]), acme.with_key(scopes=[each for each in ALL if each != scope])

        refused = heard(calls(others, group)[name])

        assert (refused.status, refused.body) == (403, {"errors": [{"field": None, "message": "access forbidden"}]}), (
            name
        )
        assert heard(calls(allowed, group)[name]).status in (200, 201, 204), name


ALL = [
    f"{subject}.{verb}"
    for subject in ("asm.groups", "asm.groups.suppressions", "asm.suppressions.global", "suppression.unsubscribes",
                    "tracking_settings.subscription", "user.webhooks.event.settings")
    for verb in ("create", "read", "update", "delete")
]  # fmt: skip


def test_nobody_without_a_key_gets_anything(acme: Account) -> None:
    group = acme.group()
    [known] = acme.accounts.keys.of(acme.id)
    acme.accounts.keys.revoke(acme.id, known.id)

    for key in (acme.key, "SG.x.y"):
        for name, call in calls(client(acme.web.port, key), group).items():
            answer = heard(call)
            assert (answer.status, answer.message, answer.fields) == (401, "authorization required", [None]), name
            assert set(answer.headers) >= RATE
    for headers in (
        {},
        {"Authorization": acme.key},
        {"Authorization": f"Basic {acme.key}"},
        {"Authorization": "Bearer"},
    ):
        assert acme.web.get("/v3/scopes", headers).status == 401
    assert acme.stored(group) == acme.stored(0) == []


def test_one_senders_key_never_sees_or_changes_anothers(acme: Account) -> None:
    other = Account(acme.web)
    group = acme.group("Theirs")
    heard(acme.api.asm.groups._(group).suppressions.post, emails("jane@example.com"))
    heard(acme.api.asm.suppressions._("global").post, emails("jane@example.com"))
    heard(acme.api.tracking_settings.subscription.patch, {"enabled": True, "replace": "secret"})
    acme.web.installation.events.configure(acme.id, "http://127.0.0.1:1/events")
    before = (acme.stored(0), acme.stored(group), acme.accounts.groups(acme.id), heard(acme.api.scopes.get).body)

    found = {name: heard(call) for name, call in calls(other.api, group).items()}

    missing = {name for name, each in found.items() if each.status == 404}
    assert missing == {
        "asm.groups.read of one", "asm.groups.update", "asm.groups.delete", "asm.groups.suppressions.read",
        "asm.groups.suppressions.read by search", "asm.groups.suppressions.delete",
        "user.webhooks.event.settings.read", "user.webhooks.event.settings.update",
    }  # fmt: skip
    seen = str([each.body for name, each in found.items() if not name.endswith(".create")])
    assert "Theirs" not in seen
    assert "secret" not in seen
    assert found["asm.groups.read"].body[0]["id"] != group
    assert found["asm.groups.suppressions.read of all"].body == []
    assert before == (
        acme.stored(0),
        acme.stored(group),
        acme.accounts.groups(acme.id),
        heard(acme.api.scopes.get).body,
    )
    assert heard(acme.api.tracking_settings.subscription.get).body["replace"] == "secret"


def test_a_parents_key_acts_for_its_child_and_for_nobody_else(acme: Account) -> None:
    child, stranger = Account(acme.web, parent=acme.id), Account(acme.web)
    for name in (child.id, f"account-id {child.id}"):
        api = client(acme.web.port, acme.key, name)
        assert heard(api.asm.suppressions._("global").post, emails("jane@example.com")).status == 201

    assert (child.stored(0), acme.stored(0)) == (["jane@example.com"], [])
    for key, name in ((acme.key, stranger.id), (acme.key, "nobody"), (acme.key, "account-id"), (child.key, acme.id)):
        answer = heard(client(acme.web.port, key, name).asm.suppressions._("global").post, emails("joe@example.com"))
        assert (answer.status, answer.message) == (403, "access forbidden")
    both = {"On-Behalf-Of": [child.id, stranger.id]}
    assert acme.web.get("/v3/scopes", bearer(acme.key) | both).status == 403
    assert acme.web.get("/v3/scopes", bearer(acme.key) | {"On-Behalf-Of": ""}).status == 403
    assert stranger.stored(0) == acme.stored(0) == []


# --- the wire


def bearer(key: str, **more: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in more.items()}


def raw(acme: Account, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return ask(acme.web.port, method, path, body, bearer(acme.key, **headers))


def test_every_answer_tells_of_the_limit(acme: Account) -> None:
    answers = [
        raw(acme, "GET", "/v3/scopes"), raw(acme, "GET", "/v3/nothing"), raw(acme, "PUT", "/v3/scopes"),
        raw(acme, "DELETE", "/v3/asm/suppressions/global/a@example.com"), acme.web.get("/v3/scopes"),
    ]  # fmt: skip

    assert [each.status for each in answers] == [200, 404, 405, 204, 401]
    for each in answers:
        assert set(each.headers) >= RATE
        assert 0 <= int(each.headers["x-ratelimit-remaining"]) <= int(each.headers["x-ratelimit-limit"])
    remaining = [int(each.headers["x-ratelimit-remaining"]) for each in answers[:4]]
    assert sorted(set(remaining), reverse=True) == remaining or max(remaining) == remaining[-1]  # or a minute ended


def test_a_key_that_asks_too_often_waits_and_others_do_not(acme: Account) -> None:
    slow = acme.with_key(per_minute=2)

    answers = [heard(slow.scopes.get) for _ in range(6)]  # at least three of them within one minute

    last = answers[-1]
    assert (last.status, last.body) == (429, {"errors": [{"field": None, "message": "too many requests"}]})
    assert (last.headers["x-ratelimit-limit"], last.headers["x-ratelimit-remaining"]) == ("2", "0")
    assert heard(acme.api.scopes.get).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v3", 404, None),
        ("GET", "/v3/", 404, None),
        ("GET", "/v3/asm/nothing", 404, None),
        ("GET", "/v3/asm/groups/", 404, None),
        ("DELETE", "/v3/asm/suppressions/global/", 404, None),
        ("POST", "/v3/asm/suppressions/global/", 404, None),
        ("GET", "/v3/asm/groups/suppressions", 404, None),
        ("POST", "/v3/asm/groups/suppressions", 405, "DELETE, GET, PATCH"),
        ("PUT", "/v3/asm/groups", 405, "GET, POST"),
        ("HEAD", "/v3/asm/groups", 405, "GET, POST"),
        ("OPTIONS", "/v3/asm/groups/1", 405, "DELETE, GET, PATCH"),
        ("GET", "/v3/asm/suppressions/global", 405, "POST"),
        ("DELETE", "/v3/asm/suppressions/global", 405, "POST"),
        ("POST", "/v3/asm/suppressions/global/a@example.com", 405, "DELETE, GET"),
        ("DELETE", "/v3/asm/groups/1/suppressions/search", 405, "POST"),
        ("GET", "/v3/asm/groups/1/suppressions/a@example.com", 405, "DELETE"),
        ("GET", "/v3/mail/send", 404, None),
    ],
)
def test_unknown_paths_and_methods_have_the_shape(
    acme: Account, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = raw(acme, method, path)

    assert (answer.status, answer.headers.get("allow")) == (status, allow)
    assert answer.headers["content-type"] == "application/json"
    if method != "HEAD":
        assert answer.json["errors"][0]["message"]
    assert "location" not in answer.headers


def test_a_host_that_ends_in_a_slash_is_served(acme: Account) -> None:
    assert raw(acme, "GET", "//v3/scopes").status == 200
    assert acme.web.get("//v3/scopes").status == 401


BODY = b'{"name":"Weekly","description":""}'


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (BODY, "", 201),
        (BODY, "application/json; charset=utf-8", 201),
        (BODY, "text/plain", 415),
        (BODY, "application/x-www-form-urlencoded", 415),
        (b"", "application/json", 400),
        (b"", "text/plain", 400),
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'"text"', "application/json", 400),
        (b'{"name":"\xff","description":""}', "application/json", 400),
        (BODY.decode().encode("utf-16"), "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"name":"' + b"x" * (4 << 20) + b'"}', "application/json", 413),
    ],
)
def test_a_body_is_json_in_utf_8(acme: Account, body: bytes, kind: str, status: int) -> None:
    answer = raw(acme, "POST", "/v3/asm/groups", body, **({"Content_Type": kind} if kind else {}))

    assert answer.status == status
    assert answer.json.get("errors", [{}])[0].get("field", None) is None


@pytest.mark.parametrize(("key", "status"), [("", 413), ("SG.x.y", 401)])
def test_a_refusal_is_heard_however_much_was_sent(acme: Account, key: str, status: int) -> None:
    """The client closes each connection, and a server that does so first takes its answer back."""
    api = client(acme.web.port, key or acme.key)

    assert heard(api.asm.suppressions._("global").post, {"recipient_emails": ["x" * (12 << 20)]}).status == status


def test_who_asks_before_he_sends_is_told_at_once(acme: Account) -> None:
    with socket.create_connection(("127.0.0.1", acme.web.port), timeout=30) as asking:
        asking.sendall(
            b"POST /v3/asm/groups HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert asking.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_a_content_type_without_a_body_is_nothing(acme: Account) -> None:
    for method, path, status in (
        ("GET", "/v3/asm/groups", 200),
        ("DELETE", "/v3/asm/suppressions/global/a@x.com", 204),
    ):
        assert raw(acme, method, path, Content_Type="application/json").status == status


def test_a_store_that_is_away_is_503_and_a_bug_500(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    group = acme.group()
    for error, status in ((StoreUnavailable("the store is away"), 503), (RuntimeError("jane@example.com"), 500)):

        def broken(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        for name in ("rows", "row", "apply", "counted", "changes", "now_ms"):
            monkeypatch.setattr(type(acme.web.installation.store), name, broken)
        for name, call in calls(acme.api, group).items():
            if name.startswith(("tracking", "user.", "asm.groups.create", "asm.groups.update", "asm.groups.delete")):
                continue  # accounts alone
            answer = heard(call)
            assert (answer.status, answer.fields) == (status, [None]), name
            assert set(answer.headers) >= RATE
            assert "jane" not in answer.message
        monkeypatch.undo()
    assert acme.stored(0) == acme.stored(group) == []


def test_accounts_that_are_away_are_503(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise QueueUnavailable("UNSUBD_REDIS_URL: the server does not answer")

    monkeypatch.setattr(type(acme.accounts.keys), "found", away)

    for name, call in calls(acme.api, 1).items():
        answer = heard(call)
        assert (answer.status, set(answer.headers) >= RATE) == (503, True), name


def test_an_effect_that_is_missing_is_no_success(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(acme.web.installation.intake), "record", lambda *_: [[]])

    answer = heard(acme.api.asm.suppressions._("global").post, emails("jane@example.com"))

    assert answer.status == 503
