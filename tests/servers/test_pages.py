"""Pages, console and check over HTTP, on a real Redis: what a recipient, an operator and a sender get to see."""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from redis import Redis

from handlers import message, undo
from handlers.request import Action, Request
from handlers.tag import Tag, mint
from tests.harness.mails import NEW, TEMPLATE, recipient
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service, until
from tests.harness.web import Answer, Web, ask, serving
from tests.unit.house import decided
from worker import clock, habits
from worker.owed import owed
from worker.report import report
from worker.status import status
from worker.store import Store
from worker.web import guesses, one_click
from worker.web.metrics import ALL
from worker.web.ops import session

KEYS = {"secret_keys": ",".join(MASTERS), "address": "u+{tag}@unsub.example.com"}
LONG = "long." * 12 + "person@example.com"
ONE_CLICK = b"List-Unsubscribe=One-Click"
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
}


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Web]:
    with serving(tmp_path_factory.mktemp("web"), redis_server.url, admin_token="t0ken") as running:
        yield running


@pytest.fixture
def web(_running: Web, redis_url: str) -> Web:
    """The running application, with the sender acme and its group 1 and nothing else."""
    return _registered(_running)


def _registered(web: Web) -> Web:
    web.installation.accounts.add_sender("acme", "Acme & Sons")
    web.installation.accounts.add_group("acme", "Weekly news", "What is new, every <Tuesday>")
    return web


def _path(number: int = 1, group: int = 1, sender: str = "acme") -> str:
    return "/u/" + mint(NEW, Tag(sender, group, recipient(number)), TEMPLATE).tag


def _press(web: Web, page: Answer) -> Answer:
    """Press the button of *page*: send its form as a browser does."""
    [action] = re.findall(r'<form method="post" action="([^"]+)"', page.text)
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="(\w*)"', page.text)
    return web.post(unescape(action), urlencode(fields).encode(), {"Content-Type": "application/x-www-form-urlencoded"})


def _title(page: Answer) -> str:
    [title] = re.findall(r"<h1[^>]*>(.*?)</h1>", page.text)
    return unescape(re.sub(r"</?(?:bdi|strong)[^>]*>", "", title))


def _sources(web: Web, number: int = 1, group: int = 1) -> list[str]:
    row = web.installation.store.row("acme", group, recipient(number))
    return [row.source] if row and row.suppressed else []


def _everything(client: Redis) -> dict[bytes, Any]:
    return {key: client.dump(key) for key in client.keys()}  # noqa: SIM118  no dictionary


# -- the recipient's page


def test_looking_changes_nothing(web: Web) -> None:
    before = _everything(web.installation.redis)

    answers = [ask(web.port, method, _path()) for method in ("GET", "HEAD")]

    assert [(answer.status, bool(answer.body)) for answer in answers] == [(200, True), (200, False)]
    assert _everything(web.installation.redis) == before


def test_the_page_names_what_stops_and_masks_the_address(web: Web) -> None:
    page = web.get(_path())

    assert _title(page) == "Stop “Weekly news” from Acme & Sons?"
    assert "What is new, every &lt;Tuesday&gt;" in page.text
    assert "p···1@example.com" in page.text
    assert recipient(1) not in page.text
    assert page.text.count("<button") == 1


@pytest.mark.parametrize(
    ("group", "sender", "title"),
    [
        (0, "acme", "Stop all mail from Acme & Sons?"),
        (7, "acme", "Stop all mail from Acme & Sons?"),  # a group that is gone: what the tag does is what the page says
        (7, "nobody", "Stop these mails from nobody?"),
    ],
)
def test_whatever_is_not_registered_has_a_page_too(web: Web, group: int, sender: str, title: str) -> None:
    page = web.get(_path(1, group, sender))

    assert (page.status, _title(page)) == (200, title)
    assert _press(web, page).status == 200


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", ONE_CLICK),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=List-Unsubscribe\r\n\r\nOne-Click"),
        ("", b""),
    ],
)  # fmt: skip
def test_one_click_stops_the_mail(web: Web, kind: str, body: bytes) -> None:
    answer = web.post(_path(), body, {"Content-Type": kind})

    assert (answer.status, _sources(web)) == (200, ["one-click"])
    assert _sources(web, 2) == _sources(web, group=0) == []


def test_the_button_stops_the_mail(web: Web) -> None:
    done = _press(web, web.get(_path()))

    assert (done.status, _title(done)) == (200, "Done: no more “Weekly news” from Acme & Sons")
    assert _sources(web) == ["page"]
    assert recipient(1) not in done.text


def test_pressing_the_same_button_twice_is_one_request(web: Web) -> None:
    page = web.get(_path())

    answers = [_title(_press(web, page)) for _ in range(2)]

    assert answers == ["Done: no more “Weekly news” from Acme & Sons"] * 2
    assert len(web.records()) == 1


def test_a_page_opened_again_says_so_as_good_news(web: Web) -> None:
    for _ in range(2):
        done = _press(web, web.get(_path()))

    assert _title(done) == "You had stopped this already"
    assert "Good news" in done.text


def test_who_came_back_can_leave_again_by_the_same_link(web: Web) -> None:
    store = web.installation.store
    _press(web, web.get(_path()))
    row = store.row("acme", 1, recipient(1))
    assert row is not None
    back = Request("0" * 32, Action.RESUBSCRIBE, "acme", 1, recipient(1), row.time_ms + 1, "page", "x",
                   seen_version=row.version.hex())  # fmt: skip
    store.apply([back])
    assert _sources(web) == []

    assert _title(_press(web, web.get(_path()))).startswith("Done")
    assert _sources(web) == ["page"]


def test_the_recipient_reads_the_tag_in_any_spelling(web: Web) -> None:
    path = _path()
    for spelling in (
        path.upper().replace("/U/", "/u/"),
        f"{path}=",
        "/u/%3C" + path[3:] + "%3E",
        f"{path}%3Fsubject=x",
    ):
        page = web.get(spelling)
        assert _title(page).startswith("Stop “Weekly news”"), spelling
        assert _press(web, page).status == 200


_BAD_TAGS = [
    "", "x", "%ff%00", "a" * 5000, "h" + "a" * 26, "..%2f..%2fetc", "%7B%7B7*7%7D%7D",
    "<script>alert(1)<%2fscript>",
    "aaaaaaaaaaaaaa-acme-1-person.1_example.com", "a/b", "%ED%A0%80",
]  # fmt: skip


@pytest.mark.parametrize("tag", _BAD_TAGS)
def test_a_bad_link_is_a_page_that_helps(web: Web, tag: str) -> None:
    for answer in (web.get(f"/u/{tag}"), web.post(f"/u/{tag}", ONE_CLICK)):
        assert (answer.status, _title(answer)) == (404, "This link is incomplete or was changed")
        assert "script" not in answer.text


def test_a_bad_link_never_tells_whether_an_address_is_known(web: Web) -> None:
    web.post(_path(), ONE_CLICK)
    known, unknown = (_path(number)[:-3] + "org" for number in (1, 2))
    strangers = _path().replace("-acme-", "-nobody-")

    pages = [web.get(path).body for path in (known, unknown, strangers, known.replace("-1-", "-999-"))]

    assert pages == pages[:1] * 4
    assert _sources(web, 2) == []


@pytest.mark.parametrize("body", [b"x" * 5_000_000, ONE_CLICK + b"&x=" + b"&" * 1_000_000, b"--b\r\n" * 10_000])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
def test_a_form_that_is_too_long_is_ignored_and_the_tag_counts(web: Web, kind: str, body: bytes) -> None:
    answer = web.post(_path(), body, {"Content-Type": kind})

    assert (answer.status, _sources(web)) == (200, ["one-click"])


# -- what its reader finds there


def _press_form(web: Web, page: Answer, ending: str, **more: str) -> Answer:
    """Send the form of *page* whose action ends so, as a browser does, with what a person filled in."""
    [(action, inside)] = [
        found for found in re.findall(r'<form method="post" action="([^"]+)"[^>]*>(.*?)</form>', page.text, re.S)
        if found[0].endswith(ending) and all(f'value="{each}"' in found[1] for each in more.values())
    ][:1]  # fmt: skip
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', inside)
    fields += re.findall(r'<input type="checkbox"[^>]* name="(on)" value="(\d+)" checked>', inside)
    return web.post(unescape(action), urlencode(list(dict.fromkeys([*fields, *more.items()]))).encode())


def _choices(web: Web, number: int = 1) -> dict[str, str]:
    """Each group's name on the page of preferences: on, off, and whether it can be changed."""
    page = web.get(_path(number).replace("/u/", "/p/"))
    rows = re.findall(r'class="name">(.*?)</span>.*?<input type="checkbox"([^>]*)>', page.text, re.S)
    return {re.sub("<[^>]*>", "", name): _state(attributes) for name, attributes in rows}


def _state(attributes: str) -> str:
    return ("on" if " checked" in attributes else "off") + (" fixed" if " disabled" in attributes else "")


def _stopped(web: Web, number: int = 1) -> list[int]:
    rows = web.installation.store.rows([("acme", each, recipient(number)) for each in range(5)])
    return [group for group, row in enumerate(rows) if row and row.suppressed]


@pytest.fixture
def shop(web: Web) -> Web:
    """The sender acme with more groups: 2 to choose, 3 essential, 4 archived."""
    accounts = web.installation.accounts
    accounts.add_group("acme", "Offers", "Twice a month")
    accounts.add_group("acme", "Receipts", essential=True)
    accounts.add_group("acme", "Old news")
    accounts.edit_group("acme", 4, archived=True)
    return web


def _enter(web: Web, action: Action, source: str, group: int = 1, number: int = 1) -> None:
    row = web.installation.store.row("acme", group, recipient(number))
    at_ms = time.time_ns() // 1_000_000
    wish = Request(secrets.token_hex(16), action, "acme", group, recipient(number), at_ms, source, "x",
                   seen_version=row.version.hex() if row else "")  # fmt: skip
    web.installation.store.apply([wish])


def test_the_languages_are_the_browsers(web: Web) -> None:
    pages = {wish: web.get(_path(), {"Accept-Language": wish}) for wish in ("de-AT,en;q=0.5", "xx", "ja")}

    assert [_title(each) for each in pages.values()] == [
        "„Weekly news“ von Acme & Sons abbestellen?", "Stop “Weekly news” from Acme & Sons?",
        "Acme & Sons の「Weekly news」の配信を停止しますか？",
    ]  # fmt: skip
    assert [re.findall('<html lang="(..)" dir="ltr">', each.text) for each in pages.values()] == [
        ["de"],
        ["en"],
        ["ja"],
    ]
    assert _title(web.get("/u/x", {"Accept-Language": "fr"})) == "Ce lien est incomplet ou a été modifié"


def test_the_choices_are_the_groups_that_people_may_see(shop: Web) -> None:
    before = _everything(shop.installation.redis)

    assert _choices(shop) == {"Weekly news": "on", "Offers": "on"}
    assert _everything(shop.installation.redis) == before


def test_one_save_changes_what_was_changed_and_says_so(shop: Web) -> None:
    _press(shop, shop.get(_path()))
    page = shop.get(_path().replace("/u/", "/p/"))
    saved = _press_form(shop, Answer(200, {}, page.body.replace(b'value="2" checked', b'value="2"')
                                     .replace(b'name="on" value="1"', b'name="on" value="1" checked')), "")  # fmt: skip

    assert _title(saved) == "Saved"
    summary = re.sub("<[^>]*>", "", saved.text.partition("</h1>")[2].partition("<form")[0]).split("\n")
    assert [each for each in summary if each] == ["You no longer get", "Offers", "You get again", "Weekly news"]
    assert _stopped(shop) == [2]
    assert _choices(shop) == {"Weekly news": "on", "Offers": "off"}

    undone = _press_form(shop, saved, "/undo")
    assert (_title(undone), _stopped(shop)) == ("Undone", [1])


def test_of_a_sender_nobody_registered_the_tag_alone_can_be_chosen(web: Web) -> None:
    path = _path(1, 7, "nobody").replace("/u/", "/p/")
    saved = web.post(path, b"do=save&seen=7:1:00000000&seen=8:1:00000000")

    assert 'name="on" value="7" checked' in web.get(_path(2, 7, "nobody").replace("/u/", "/p/")).text
    assert (_title(saved), web.installation.store.groups("nobody")) == ("Saved", [7])


def test_of_somebody_forgotten_no_page_shows_a_name(web: Web) -> None:
    minted, name = mint(NEW, Tag("acme", 1, LONG), TEMPLATE), web.installation.names("acme", LONG)
    web.installation.tags.keep([(minted, Tag("acme", 1, name))])
    pages = [web.get(f"/u/{minted.tag}"), web.get(f"/p/{minted.tag}"), web.post(f"/u/{minted.tag}", ONE_CLICK)]

    assert [each.status for each in pages] == [200] * 3
    assert not any(name in each.text for each in pages)
    assert '<bdi dir="ltr">···</bdi>' in pages[0].text


def test_saving_nothing_changes_nothing(shop: Web) -> None:
    page = shop.get(_path().replace("/u/", "/p/"))

    assert _title(_press_form(shop, page, "", do="save")) == "Nothing was changed"
    assert shop.records() == []


def test_an_undo_brings_back_what_was_stopped_just_now(shop: Web) -> None:
    done = _press(shop, shop.get(_path()))
    answers = [_press_form(shop, done, "/undo") for _ in range(2)]

    assert [(each.status, _title(each)) for each in answers] == [(200, "Undone")] * 2
    assert _stopped(shop) == []
    assert len(shop.records()) == 2


def test_an_undo_is_for_its_own_link_and_its_own_day(shop: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    done = _press(shop, shop.get(_path(1)))
    _press(shop, shop.get(_path(2)))
    others = Answer(200, {}, done.body.replace(_path(1)[3:].encode(), _path(2)[3:].encode()))
    stolen = _press_form(shop, others, "/undo")
    monkeypatch.setattr("handlers.undo.OPEN_MS", -1)
    late = _press_form(shop, done, "/undo")

    assert [(each.status, _title(each)) for each in (stolen, late)] == [(410, "This can no longer be undone here")] * 2
    assert (_stopped(shop, 1), _stopped(shop, 2)) == ([1], [1])


def test_an_undo_never_undoes_a_later_wish(shop: Web) -> None:
    done = _press(shop, shop.get(_path()))
    time.sleep(0.002)
    shop.post(_path(), ONE_CLICK)

    assert _press_form(shop, done, "/undo").status == 409
    assert _stopped(shop) == [1]


def test_an_undo_of_two_changes_says_which_one_stayed(shop: Web) -> None:
    page = shop.get(_path().replace("/u/", "/p/"))
    none = Answer(200, {}, page.body.replace(b" checked>", b">"))
    saved = _press_form(shop, none, "", do="save")
    _enter(shop, Action.UNSUBSCRIBE, "operator", 2)

    undone = _press_form(shop, saved, "/undo")
    assert (undone.status, _title(undone), _stopped(shop)) == (200, "Saved", [2])
    assert "Not changed" in undone.text


@pytest.mark.parametrize(
    ("action", "source", "words"),
    [
        (Action.COMPLAINT, "imap:fbl", "reported as spam"), (Action.UNSUBSCRIBE, "import", "at the request of"),
        (Action.UNSUBSCRIBE, "api", "at the request of"), (Action.UNSUBSCRIBE, "operator", "at the request of"),
    ],
)  # fmt: skip
def test_what_others_stopped_no_tag_lifts(shop: Web, action: Action, source: str, words: str) -> None:
    stale = shop.get(_path().replace("/u/", "/p/"))
    _press(shop, shop.get(_path()))
    off = shop.get(_path().replace("/u/", "/p/"))
    _enter(shop, action, source)
    forced = Answer(200, {}, off.body.replace(b'name="on" value="1"', b'name="on" value="1" checked'))
    answers = [_press_form(shop, each, "", do="save") for each in (stale, forced)]

    page = shop.get(_path().replace("/u/", "/p/"))
    row = shop.installation.store.row("acme", 1, recipient(1))
    assert row
    version = undo.version_of(row.version)
    raw = shop.post(_path().replace("/u/", "/p/"), f"do=save&on=1&seen=1:0:{version}".encode())

    assert _choices(shop)["Weekly news"] == "off fixed"
    assert words in page.text
    assert [_title(each) for each in (*answers, raw)] == ["Nothing was changed"] * 3
    assert _stopped(shop) == [1]


def test_whoever_stopped_everything_may_allow_it_again(shop: Web) -> None:
    done = _press_form(shop, shop.get(_path().replace("/u/", "/p/")), "", do="everything")
    assert (_title(done), _stopped(shop)) == ("Done: no more mail from Acme & Sons", [0])
    assert "Receipts and notices" in done.text
    assert _choices(shop) == {"Weekly news": "on fixed", "Offers": "on fixed"}

    saved = _press_form(shop, shop.get(_path().replace("/u/", "/p/")), "", do="resume")
    assert (_title(saved), _stopped(shop)) == ("Saved", [])
    assert "Everything from <bdi>Acme &amp; Sons</bdi>" in saved.text


def test_everything_that_an_operator_stopped_stays_so(shop: Web) -> None:
    _enter(shop, Action.UNSUBSCRIBE, "operator", 0)
    page = shop.get(_path().replace("/u/", "/p/"))
    row = shop.installation.store.row("acme", 0, recipient(1))
    assert row
    forced = shop.post(_path().replace("/u/", "/p/"), f"do=resume&seen=0:0:{undo.version_of(row.version)}".encode())

    assert 'value="resume"' not in page.text
    assert (_title(forced), _stopped(shop)) == ("Nothing was changed", [0])


def test_a_form_cannot_reach_what_its_tag_does_not_name(shop: Web) -> None:
    """CSRF: nothing but the tag in the path opens anything; another site that has none can send what it likes."""
    _press(shop, shop.get(_path()))
    row = shop.installation.store.row("acme", 1, recipient(1))
    assert row
    form = f"do=save&on=1&seen=1:0:{undo.version_of(row.version)}&sender=acme&recipient={recipient(1)}".encode()
    cross = {"Origin": "https://evil.example", "Cookie": "unsubd_session=x", "Referer": "https://evil.example/"}
    answers = [
        shop.post(path, form, cross)
        for path in ("/p/", "/p/x", "/p/x/undo", "/p/x/reason", _path(2).replace("/u/", "/p/"))
    ]

    assert [each.status for each in answers] == [404, 404, 404, 404, 200]
    assert _title(answers[-1]) == "Nothing was changed"
    assert (_stopped(shop, 1), _stopped(shop, 2)) == ([1], [])
    assert not any("set-cookie" in each.headers for each in answers)


@pytest.mark.parametrize(
    "form",
    [
        "do=save&seen=1:1:00000000&seen=x&seen=:::&seen=99999999999:1:0&seen=-1:1:0&seen=%EF%BC%91:1:0", "do=everything",
        "do=nonsense&on=1", "do=save&" + "&".join(f"seen={n}:1:0" for n in range(400)), "do=resume&seen=0:0:zz", "&=&&;",
    ],
)  # fmt: skip
def test_any_form_has_an_answer(shop: Web, form: str) -> None:
    assert shop.post(_path().replace("/u/", "/p/"), form.encode()).status == 200
    assert _stopped(shop, 2) == []


def test_no_form_names_a_group_that_is_on_no_page(shop: Web) -> None:
    shop.post(_path().replace("/u/", "/p/"), b"do=save&seen=3:1:00000000&seen=4:1:00000000&seen=9:1:00000000")

    assert _stopped(shop) == []  # essential, archived, nobody's: each would stop everything


def test_a_reason_is_counted_once_it_is_one_of_ours(shop: Web) -> None:
    done = _press(shop, shop.get(_path()))
    thanks = [_press_form(shop, done, "/reason", reason=each) for each in ("too_many",)]
    thanks.append(shop.post(_path().replace("/u/", "/p/") + "/reason", b"reason=" + b"x" * 2000))

    assert [_title(each) for each in thanks] == ["Thank you"] * 2
    assert shop.installation.looks.reasons("acme") == {"too_many": 1, "not_interested": 0, "never_asked": 0, "other": 0}


EVIL = "<script>alert(1)</script>\"'{{7*7}}"


def test_what_a_sender_writes_is_shown_as_text(shop: Web) -> None:
    accounts = shop.installation.accounts
    accounts.edit_sender("acme", name=EVIL)
    accounts.edit_group("acme", 1, name="<img src=x onerror=a>", description=EVIL)
    shop.installation.looks.change("acme", texts={"en": {"stop": EVIL, "choices": f"{EVIL} {{address}}"}})
    pages = [shop.get(_path()), shop.get(_path().replace("/u/", "/p/")), _press(shop, shop.get(_path()))]
    pages.append(_press_form(shop, pages[1], "", do="save"))

    for page in pages:
        assert page.status == 200
        assert re.findall(r"<script|<img src=x|onerror=a>", page.text) == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;{{7*7}}" in pages[0].text


def test_a_senders_look_comes_from_us(shop: Web) -> None:
    looks = shop.installation.looks
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"></svg>'
    looks.change("acme", colour="#ffe000", contact="hello@acme.example", logo=svg, texts={"en": {"stop": "No more"}})
    page, style, logo = shop.get(_path()), shop.get("/look/acme.css"), shop.get("/look/acme/logo")

    assert ">No more</button>" in page.text
    assert 'href="/look/acme.css"' in page.text
    assert '<img class="logo" src="/look/acme/logo" alt="Acme &amp; Sons">' in page.text
    assert style.headers["content-type"].startswith("text/css")
    assert "--on-button:#000000" in style.text
    assert (logo.headers["content-type"], logo.body) == ("image/svg+xml", svg)
    assert "sandbox" in logo.headers["content-security-policy"]
    assert (shop.get("/look/nobody.css").text, shop.get("/look/nobody/logo").status) == ("", 404)
    assert 'href="mailto:hello%40acme.example"' in shop.get(_path().replace("/u/", "/p/")).text


def test_looking_with_any_method_changes_nothing(shop: Web) -> None:
    before = _everything(shop.installation.redis)
    paths = [_path(), _path().replace("/u/", "/p/"), _path().replace("/u/", "/p/") + "/undo"]

    answers = [ask(shop.port, method, path) for path in paths for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")]

    assert {each.status for each in answers} == {200, 405}
    assert not any("location" in each.headers or "set-cookie" in each.headers for each in answers)
    assert _everything(shop.installation.redis) == before


def test_guesses_are_slowed_by_source_and_a_valid_link_always_passes(
    shop: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "MAX_FAILURES", 5)
    answers = [shop.post(f"/u/x{number}", ONE_CLICK) for number in range(40)]

    assert [each.status for each in answers][-5:] == [429] * 5
    assert answers[-1].headers["retry-after"] == "60"
    assert _title(answers[-1]) == "This link is incomplete or was changed"
    assert (shop.post(_path(), ONE_CLICK).status, _stopped(shop)) == (200, [1])
    assert shop.get(_path().replace("/u/", "/p/")).status == 200


def test_the_journal_names_nobody(shop: Web) -> None:
    done = _press(shop, shop.get(_path()))
    _press_form(shop, done, "/undo")
    shop.post(_path()[:-3], ONE_CLICK)

    journal = json.dumps(shop.journal())
    assert '"effect": "lifted"' in journal
    assert not any(each in journal for each in ("person.1", _path()[3:20]))


@pytest.mark.fault
def test_the_command_shows_and_changes_a_look(web: Web, redis_url: str, tmp_path: Path) -> None:
    service = Service(tmp_path, redis_url=redis_url, **KEYS)
    (tmp_path / "texts.json").write_text('{"de": {"stop": "Schluss"}}')
    (tmp_path / "logo.svg").write_bytes(b"<svg><script/></svg>")
    [row] = service.rows("sender", "look", "acme", "--colour", "#0b7a4b", "--texts", str(tmp_path / "texts.json"))
    refused = service.command("sender", "look", "acme", "--logo", str(tmp_path / "logo.svg"))

    assert row == {"colour": "#0b7a4b", "contact": "", "logo": "", "texts": {"de": {"stop": "Schluss"}}}
    assert ">Schluss</button>" in web.get(_path(), {"Accept-Language": "de"}).text
    assert (refused.returncode, "an SVG with scripts" in refused.stderr) == (65, True)
    web.installation.looks.count_reason("acme", "other")
    assert service.rows("sender", "reasons", "acme") == [
        {"too_many": 0, "not_interested": 0, "never_asked": 0, "other": 1}
    ]


# -- when servers are away


@pytest.mark.fault
def test_with_the_store_away_a_request_is_queued_and_takes_effect_later(
    tmp_path: Path, redis_url: str, own_redis: Callable[..., RedisServer]
) -> None:
    store = own_redis()
    settings = {"redis_url": redis_url, "store_url": store.url}
    worker = Service(tmp_path, **settings, **KEYS).running("work", ready=False)
    with worker, serving(tmp_path, **settings) as web:
        until(lambda: web.installation.queue.workers(), what="a worker")
        stored, lost = (mint(NEW, Tag("acme", group, LONG), TEMPLATE) for group in (1, 2))
        web.installation.tags.keep([(stored, Tag("acme", 1, LONG))])
        store.stop()
        paths = {"tag": _path(), "stored": f"/u/{stored.tag}", "guess": f"/u/{lost.tag}"}
        answers = {name: web.post(path, ONE_CLICK) for name, path in paths.items()}
        answers["choice"] = web.post(_path(2).replace("/u/", "/p/"), b"do=save&seen=1:1:00000000")
        refused = web.post(_path(3).replace("/u/", "/p/"), b"do=save&on=1&seen=1:0:00000000")
        store.start()

        assert {name: (each.status, _title(each)) for name, each in answers.items()} == {
            "tag": (200, "Done: no more of these mails from acme"), "stored": (200, "Saved"), "guess": (200, "Saved"),
            "choice": (200, "Saved"),
        }  # fmt: skip
        assert (refused.status, _title(refused)) == (503, "Not done yet")
        assert 'name="seen" value="1:0:00000000"' in refused.text  # the button asks for the same again
        assert "/undo" not in "".join(each.text for each in answers.values())
        until(lambda: _sources(web) == ["one-click"] and _sources(web, 2) == ["page"], 30, "the effects")
        row = until(lambda: web.installation.store.row("acme", 1, LONG), 30, "the stored tag's effect")
        assert row.source == "one-click"
        until(lambda: web.installation.quarantine.counts() == {"quarantine:bad-tag": 1}, 30, "the guess")
        web.installation.tags.keep([(lost, Tag("acme", 2, LONG))])  # somebody brings back a backup, and replays
        [mail] = [message.read(raw, source="replay") for raw in web.quarantined()]
        [decided] = web.installation.intake.decide([mail], remember=False)
        assert [(each.group, each.recipient) for each in decided.requests] == [(2, LONG)]
        assert stored.tag not in json.dumps(web.journal())


def test_a_guess_that_nobody_can_look_up_does_not_fill_the_queue(
    tmp_path: Path, redis_url: str, own_redis: Callable[..., RedisServer]
) -> None:
    store = own_redis()
    with serving(tmp_path, redis_url, store_url=store.url, queue_limit="1") as web:
        store.stop()
        answers = [web.post("/u/h" + "a" * 25 + last, ONE_CLICK).status for last in "abc"]
        valid = web.post(_path(), ONE_CLICK).status
        store.start()

    assert (answers, valid) == ([200, 503, 503], 200)


def test_with_both_away_the_page_says_so_and_keeps_the_button(
    tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    with serving(tmp_path, redis.url) as web:
        _registered(web)
        page = web.get(_path())
        redis.stop()
        looked, pressed = web.get(_path()), _press(web, page)
        assert [(each.status, _title(each)) for each in (looked, pressed)] == [
            (503, "We cannot look this up just now"),
            (503, "Not done yet"),
        ]
        redis.start()
        again = [_press(web, each) for each in (pressed, page, looked)]

        assert [_title(each) for each in again] == [*["Done: no more “Weekly news” from Acme & Sons"] * 2,
                                                    "You had stopped this already"]  # fmt: skip
        assert len(web.records()) == 2


def test_a_bug_is_a_page_that_keeps_the_button_and_a_line_without_the_address(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError(recipient(1))

    monkeypatch.setattr(one_click, "_stop", broken)
    answer = web.post(_path(), ONE_CLICK)

    assert (answer.status, _title(answer)) == (500, "Not done yet")
    assert web.journal()[0]["detail"].startswith("ValueError at test_pages.py:")
    assert "person.1" not in json.dumps(web.journal())


def test_a_stop_that_breaks_waits_for_a_person_and_is_not_called_old(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError(recipient(1))

    monkeypatch.setattr(Store, "apply", broken)
    answer = web.post(_path(), ONE_CLICK)

    assert (answer.status, "is safe with us" in answer.text) == (200, True)
    assert web.installation.quarantine.counts() == {"failed": 1}


def test_readiness_follows_redis_and_health_does_not(tmp_path: Path, own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()
    with serving(tmp_path, redis.url, admin_token="t0ken") as web:
        paths = ("/healthz", "/readyz", "/metrics")
        up = [web.get(path).status for path in paths]
        cookie = _log_in(web).cookie
        redis.stop()
        down = [web.get(path) for path in paths]
        console = web.get("/ops", {"Cookie": cookie})
        logins = [_log_in(web), web.get("/ops/login?once=x"), web.post("/ops/logout", b"", {"Cookie": cookie})]
        redis.start()

        away = "The console cannot be shown just now"
        assert (up, [each.status for each in down]) == ([200] * 3, [200, 503, 503])
        assert [(each.status, _title(each)) for each in (console, *logins)] == [(503, away)] * 4
        assert web.get("/readyz").status == 200


# -- what every answer has


def test_every_answer_has_the_security_headers(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError

    answers = {
        "page": web.get(_path()), "bad link": web.get("/u/x"), "done": web.post(_path(), ONE_CLICK),
        "style": web.get("/static/style.css"), "no file": web.get("/static/none.css"), "nothing": web.get("/none"),
        "wrong method": ask(web.port, "DELETE", "/u/x"), "redirect": web.get("/ops"), "root": web.get("/"),
        "login": web.get("/ops/login"), "docs": web.get("/docs"), "schema": web.get("/openapi.json"),
        "metrics": web.get("/metrics"), "webhook": web.post("/in/relay"), "probe": web.get("/in/relay"),
        "check": web.post("/v1/check", b"{}"), "health": web.get("/healthz"), "ready": web.get("/readyz"),
        "slash": web.get("/docs/"),
    }  # fmt: skip
    monkeypatch.setattr(one_click, "_stop", broken)
    answers["bug"] = web.post(_path(), ONE_CLICK)

    console = HEADERS | {"referrer-policy": "same-origin"}  # else a browser hides the Origin of its own forms
    wanted = {"redirect": console, "login": console}
    lacking = {what for what, each in answers.items() if not wanted.get(what, HEADERS).items() <= each.headers.items()}
    assert lacking == set()
    assert answers["no file"].status == answers["nothing"].status == 404
    assert not any("server" in each.headers for each in answers.values())


def test_what_is_not_there_is_said_in_one_shape(web: Web) -> None:
    answers = [web.get("/none"), web.get("/static/none"), ask(web.port, "PUT", "/metrics")]

    assert [set(answer.json) for answer in answers] == [{"error", "detail"}] * 3
    assert [answer.status for answer in answers] == [404, 404, 405]
    assert answers[2].headers["allow"] == "GET"


def test_no_page_asks_anything_of_another_server(web: Web) -> None:
    cookie = {"Cookie": _log_in(web).cookie}
    pages = [web.get(path, cookie) for path in (_path(), "/u/x", "/docs", "/ops", "/ops/login", "/static/style.css")]

    for page in pages:
        assert re.findall(r"(?:src|href|action)=\"(?![/#])|url\(|@import|https?:|<script>|style=", page.text) == []


def test_the_docs_list_every_operation(web: Web) -> None:
    schema, page = web.get("/openapi.json").json, web.get("/docs").text

    operations = [(path, method.upper()) for path, methods in schema["paths"].items() for method in methods]
    shown = re.findall(r'<span class="verb">(\w+)</span> <code>([^<]+)</code>', page)
    assert sorted(operations) == sorted((path, method) for method, path in shown)
    assert {("/v1/check", "POST"), ("/u/{text}", "POST"), ("/in/{provider}", "POST")} <= set(operations)
    assert {"401", "404", "422", "503"} <= set(schema["paths"]["/v1/check"]["post"]["responses"])


def test_the_metrics_have_their_names_and_count(web: Web) -> None:
    web.post(_path(), ONE_CLICK)
    web.post("/in/relay")

    lines = web.get("/metrics").text.splitlines()

    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == set(ALL)
    assert 'unsubd_messages_total{outcome="honour"} 1.0' in lines
    assert 'unsubd_requests_total{effect="added"} 1.0' in lines
    assert 'unsubd_webhook_answers_total{answer="relay:signature_invalid"} 1.0' in lines
    assert 'unsubd_queue_jobs{state="queued"} 0.0' in lines
    assert 'unsubd_source_messages_total{outcome="honour",source="one-click"} 1.0' in lines
    assert 'unsubd_sender_requests_total{effect="added",sender="acme"} 1.0' in lines
    assert 'unsubd_request_age_seconds_bucket{le="1",source="one-click"} 1.0' in lines
    assert 'unsubd_request_age_seconds_count{source="one-click"} 1.0' in lines
    assert "unsubd_workers 0.0" in lines


def test_a_sender_who_reports_what_it_sent_hears_whom_it_should_not_have_mailed(web: Web) -> None:
    key = {"Authorization": f"Bearer {web.installation.accounts.new_api_key('acme')}"}
    at_ms = round((time.time() - 7 * 3600) * 1000)
    web.installation.intake.record([decided("k1", group=1, recipient=recipient(1), received_ms=at_ms)])
    mails = [{"recipient": recipient(number), "group": 1, "at": round(time.time())} for number in (1, 2)]
    mails.append({"recipient": recipient(1), "group": 1, "at": "2020-01-01T00:00:00Z"})

    answer = web.post("/v1/sent", json.dumps({"sent": mails}).encode(), key)

    assert (answer.status, answer.json["compared"]) == (200, 3)
    assert [(each["number"], each["recipient"], each["scope"]) for each in answer.json["violations"]] == [
        (0, recipient(1), "group")
    ]
    assert 'unsubd_mailed_after_total{sender="acme"} 1.0' in web.get("/metrics").text.splitlines()
    refused = [
        web.post("/v1/sent", body, headers).status
        for body, headers in [
            (b"{}", {}), (b"{}", key), (b'{"sent": []}', key), (json.dumps({"sent": mails * 4000}).encode(), key),
            (json.dumps({"sent": [mails[0] | {"group": 77}]}).encode(), key),
            (json.dumps({"sent": [mails[0] | {"at": "soon"}]}).encode(), key),
            (json.dumps({"sent": [mails[0] | {"at": time.time() + 9e4}]}).encode(), key),
        ]
    ]  # fmt: skip
    assert refused == [401, 422, 422, 422, 404, 422, 422]


def test_readiness_is_durability_too(web: Web) -> None:
    web.installation.redis.config_set("appendfsync", "everysec")
    try:
        weak = web.get("/readyz")
    finally:
        web.installation.redis.config_set("appendfsync", "always")

    assert (weak.status, weak.text) == (
        503, "UNSUBD_REDIS_URL: appendfsync is everysec, expected appendonly yes and appendfsync always\n",
    )  # fmt: skip
    assert (web.get("/readyz").status, web.get("/healthz").status) == (200, 200)


def test_clock_habits_and_report_on_a_real_redis(web: Web) -> None:
    start_ms = round((time.time() - 40 * 3600) * 1000)
    mails = [
        decided(f"{each:064x}", group=1, source="imap:news", received_ms=start_ms + each * 60_000) for each in range(60)
    ]
    web.installation.intake.record(mails[:30], queued_ms=start_ms + 1_900_000)
    web.installation.intake.record(mails, queued_ms=start_ms + 4_000_000)

    client, month = web.installation.redis, clock.month_of(start_ms)
    assert clock.total(client, 0).count == clock.hours(client, 1)[0].honoured == 60
    assert clock.hours(client, 1)[0].max_s == pytest.approx(40 * 3600, abs=10)
    habit = habits.habits(client)["imap:news"]
    assert (habit.count, round(habit.usual_s)) == (60, 60)
    assert 'unsubd_hop_seconds_count{hop="arrival"} 60.0' in web.get("/metrics").text.splitlines()
    found = report(web.installation, month)
    assert (found.received, found.ages.count, len(found.worst)) == (60, 60, 20)
    assert "No worker is alive" in [each.what for each in owed(web.installation, status(web.installation)).alarms]


def test_a_forged_post_is_counted_for_its_endpoint_alone(web: Web) -> None:
    for path in ("/in/relay", "/in/relay/stranger@example.com"):
        web.post(path)

    assert habits.unproved_posts(web.installation.redis) == {"relay:?": 2}


# -- the console


def _log_in(web: Web, token: str = "t0ken") -> Answer:
    return web.post("/ops/login", urlencode({"token": token}).encode())


def _is_open(web: Web, cookie: str) -> bool:
    return web.get("/ops", {"Cookie": cookie}).status == 200


@pytest.mark.parametrize("cookie", ["", "unsubd_session=", "unsubd_session=guess", "unsubd_session=\xe9; other=1"])
def test_the_console_asks_who_comes_without_a_session(web: Web, cookie: str) -> None:
    for path in ("/ops", "/ops/live"):
        answer = web.get(path, {"Cookie": cookie})

        assert (answer.status, answer.headers["location"]) == (303, "/ops/login")
    assert 'name="token"' in web.get("/ops/login").text


@pytest.mark.parametrize("token", ["", "t0ken2", "t\xf6ken\ud800"])
def test_a_wrong_token_opens_nothing(web: Web, token: str) -> None:
    answer = web.post("/ops/login", b"token=" + token.encode("utf-8", "surrogatepass"))

    assert (answer.status, "set-cookie" in answer.headers) == (403, False)
    assert "That is not the token." in answer.text


def test_the_token_opens_a_session_of_the_console_alone(web: Web) -> None:
    answer = _log_in(web)

    assert (answer.status, answer.headers["location"]) == (303, "/ops")
    flags = {word.strip().lower() for word in answer.headers["set-cookie"].split(";")[1:]}
    assert flags == {"httponly", "max-age=43200", "path=/ops", "samesite=lax"}
    assert _is_open(web, answer.cookie)
    assert "t0ken" not in answer.headers["set-cookie"]
    [key] = web.installation.redis.keys("unsubd:session:*")
    assert answer.cookie.partition("=")[2].encode() not in key  # whoever reads Redis gets no session
    assert 0 < web.installation.redis.ttl(key) <= 43200


def test_behind_https_the_cookie_stays_on_https(tmp_path: Path, redis_url: str) -> None:
    with serving(tmp_path, redis_url, admin_token="t0ken", public_url="https://unsub.example.com") as web:
        assert "; Secure" in _log_in(web).headers["set-cookie"]


def test_a_login_link_opens_one_session_once(web: Web) -> None:
    link = session.new_login_link(web.installation.redis)
    [key] = web.installation.redis.keys("unsubd:once:*")
    assert 0 < web.installation.redis.ttl(key) <= 900

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: web.get(link), range(8)))

    opened = [answer for answer in answers if answer.status == 303]
    assert len(opened) == 1
    assert _is_open(web, opened[0].cookie)
    assert "This link was used already" in web.get(link).text


def test_without_a_token_the_console_is_closed(tmp_path: Path, redis_url: str) -> None:
    with serving(tmp_path, redis_url) as web:
        answers = [_log_in(web, ""), _log_in(web, "None")]

        assert [(answer.status, "set-cookie" in answer.headers) for answer in answers] == [(403, False)] * 2
        assert "The console is closed" in web.get("/ops/login").text
        assert "<form" not in web.get("/ops/login").text


def test_logging_out_ends_the_session(web: Web) -> None:
    cookie, other = _log_in(web).cookie, _log_in(web).cookie
    assert _is_open(web, cookie)

    answer = web.post("/ops/logout", b"", {"Cookie": cookie})

    assert (answer.status, answer.headers["location"]) == (303, "/ops/login")
    assert (_is_open(web, cookie), _is_open(web, other)) == (False, True)


def test_an_overlong_login_is_refused(web: Web) -> None:
    assert _log_in(web, "x" * 5000).status == 422


def test_what_others_wrote_is_shown_as_text(web: Web) -> None:
    web.installation.journal.failed("job", "<script>alert(1)</script>")

    page = web.get("/ops", {"Cookie": _log_in(web).cookie}).text

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script") == 1  # our own


# -- the check


def _check(web: Web, key: str, group: Any = 1, recipients: Any = None) -> Answer:
    body = json.dumps({"group": group, "recipients": [recipient(1)] if recipients is None else recipients}).encode()
    return web.post("/v1/check", body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})


def test_the_check_answers_in_order_and_in_any_spelling(web: Web) -> None:
    key = web.installation.accounts.new_api_key("acme")
    web.post(_path(1), ONE_CLICK)
    web.post(_path(2, group=0), ONE_CLICK)

    answer = _check(web, key, 1, ["Person.1@EXAMPLE.com", recipient(2), recipient(3), recipient(1)])

    assert answer.status == 200
    assert [(each["recipient"], each["suppressed"], each["scope"], each["source"]) for each in answer.json] == [
        (recipient(1), True, "group", "one-click"),
        (recipient(2), True, "global", "one-click"),
        (recipient(3), False, None, None),
        (recipient(1), True, "group", "one-click"),
    ]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer.json[0]["since"])
    assert [each["suppressed"] for each in _check(web, key, 0, [recipient(1), recipient(2)]).json] == [False, True]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Bearer SG.x.y", "Basic KEY", "KEY", "Bearer \xe9"])
def test_the_check_asks_for_a_key(web: Web, authorization: str) -> None:
    key = web.installation.accounts.new_api_key("acme")
    headers = {"Authorization": authorization.replace("KEY", key)}

    answer = web.post("/v1/check", json.dumps({"group": 1, "recipients": [recipient(1)]}).encode(), headers)

    assert (answer.status, answer.json["error"]) == (401, "unauthorized")


def test_a_key_opens_its_own_sender_only(web: Web) -> None:
    web.installation.accounts.add_sender("other")
    key = web.installation.accounts.new_api_key("other")
    web.post(_path(1, group=0), ONE_CLICK)

    assert _check(web, key, 1).status == 404
    assert _check(web, key, 0).json[0]["suppressed"] is False


@pytest.mark.parametrize(
    ("group", "recipients", "status", "error"),
    [
        (99, [recipient(1)], 404, "unknown"),
        (1, ["no address"], 422, "invalid"),
        (1, [recipient(1), "a@b@"], 422, "invalid"),
        (1, ["\ud800@example.com"], 422, "invalid"),
        (1, [], 422, "invalid"),
        (1, recipient(1), 422, "invalid"),
        (1, [None], 422, "invalid"),
        (-1, [recipient(1)], 422, "invalid"),
        (2**40, [recipient(1)], 422, "invalid"),
        ("news", [recipient(1)], 422, "invalid"),
        (1, [recipient(1)] * 10_001, 422, "invalid"),
    ],
)
def test_a_question_that_cannot_be_answered_is_never_allowed(
    web: Web, group: Any, recipients: Any, status: int, error: str
) -> None:
    answer = _check(web, web.installation.accounts.new_api_key("acme"), group, recipients)

    assert (answer.status, answer.json["error"], set(answer.json)) == (status, error, {"error", "detail"})
    assert "person.1" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_question_is_invalid(web: Web, body: bytes) -> None:
    key = web.installation.accounts.new_api_key("acme")

    answer = web.post("/v1/check", body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})

    assert (answer.status, set(answer.json)) == (422, {"error", "detail"})


def test_a_check_without_store_or_accounts_is_unknown(
    tmp_path: Path, redis_url: str, own_redis: Callable[..., RedisServer]
) -> None:
    store, queue = own_redis(), own_redis()
    with serving(tmp_path, queue.url, store_url=store.url) as web:
        key = _registered(web).installation.accounts.new_api_key("acme")
        store.stop()
        without_store = _check(web, key)
        store.start()
        queue.stop()
        without_accounts = _check(web, key)
        queue.start()

        assert _check(web, key).status == 200
    assert [(each.status, each.json["error"]) for each in (without_store, without_accounts)] == [
        (503, "unavailable")
    ] * 2
