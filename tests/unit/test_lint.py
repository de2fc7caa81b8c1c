"""Lint: each thing that keeps a button away is named, and a good mail has none of them."""

from collections.abc import Iterator
from pathlib import Path

import fakeredis
import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlers import stamping
from handlers import tag as tags
from handlers.errors import ConfigError, Rejected
from handlers.headers import unsubscribe_headers
from handlers.lint import Lint
from handlers.stamping import Link
from handlers.tag import Tag
from tests.unit import house
from tests.unit.letters import JANE, KEYS, TEMPLATE, rows, tagged
from worker.installation import Installation
from worker.linting import lint
from worker.settings import load_settings

TAG = tags.mint(KEYS, JANE, TEMPLATE).tag
URL = f"https://unsub.example.com/u/{TAG}"
HEAD = (
    f"From: News <news@acme.example>\r\nTo: jane@example.com\r\nList-Unsubscribe: <mailto:{tagged()}>,\r\n <{URL}>\r\n"
)
POST = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
SIGNED = "DKIM-Signature: v=1; d=acme.example; h=From:To:\r\n\tlist-unsubscribe : List-Unsubscribe-Post; b=x\r\n"
BODY = f"\r\nHello\r\nStop: {URL}\r\n"
GOOD = SIGNED + HEAD + POST + BODY


def codes(raw: str | bytes) -> list[str]:
    octets = raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else raw
    return [each.code for each in Lint(octets).findings(KEYS, {})]


def test_a_good_mail_has_no_findings() -> None:
    assert codes(GOOD) == []
    assert codes("Received: from x by y; today\r\n" + GOOD.replace("\r\n", "\n")) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (HEAD, "From: a@b.c\r\n", ["no-header"]),
        (POST, POST + f"List-Unsubscribe: <mailto:{tagged()}>\r\n", ["two-headers", "two-mailtos"]),
        (POST, "", ["no-post"]),
        (POST, POST * 2, ["wrong-post"]),
        ("=One-Click", "=one-click", ["wrong-post"]),
        (f"<mailto:{tagged()}>,\r\n ", "", ["no-mailto"]),
        (f"<mailto:{tagged()}>", "<mailto:x@y.example>", ["no-mailto"]),
        (f"<mailto:{tagged()}>", f"<mailto:{tagged().replace('-12-', '-13-')}>", ["bad-tag", "no-mailto"]),
        (f"<mailto:{tagged()}>", f"<mailto:{tagged()}>, <mailto:{tagged(Tag('acme', 0, 'jane@example.com'))}>",
         ["two-mailtos", "two-tags"]),
        (f"<mailto:{tagged()}>", f"<mailto:{tagged()}>, <mailto:{'x' * 65}@y.example>", ["long-local-part"]),
        (f"<mailto:{tagged()}>", f"<mailto:{tagged(Tag('acme', 12, 'jo@example.com'))}>", ["two-tags"]),
        (f",\r\n <{URL}>", "", ["no-https"]),
        (f" <{URL}>", f" <{URL.replace('https', 'http')}>", ["http-link", "no-https"]),
        (f" <{URL}>", " <https://acme.example/leave>", ["own-link"]),
        (f" <{URL}>", f" <{URL[:30]}\r\n {URL[30:]}>", ["broken-uri", "own-link"]),
        (f" <{URL}>", f" <{URL}?x=%2520>", ["encoded-twice"]),
        (f" <{URL}>", f" =?utf-8?q?<{URL}>?=", ["encoded"]),
        (f" <{URL}>", f" <{URL}>, <https://ä.example>", ["encoded"]),
        (SIGNED, "", ["not-signed"]),
        ("list-unsubscribe : ", "", ["not-covered"]),
        (":\r\n\tlist-unsubscribe : List-Unsubscribe-Post", "", ["not-covered"]),
        (f"Stop: {URL}", "Bye", ["no-body-link"]),
        ("Hello", "Hello [unsubscribe]", ["tag-left"]),
        ("news@acme.example", tagged(), ["answers-come-back"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(before: str, after: str, expected: list[str]) -> None:
    assert before in GOOD
    assert codes(GOOD.replace(before, after, 1)) == expected


@pytest.mark.parametrize(
    ("text", "markup", "expected"),
    [
        (f"Stop: {URL}", f'<a href="{URL}">Stop</a>', []),
        (f"Stop: {URL}", "<p>Hi</p>", ["part-without-link"]),
        ("Hi", f'<a href="{URL.replace("/u/", "/p/")}">', ["part-without-link"]),
        ("Hi", "<p>Hi</p>", ["no-body-link"]),
        (f"mailto:{tagged()}", f'<a href="mailto:{tagged().replace("+", "%2B")}">', []),
    ],
)  # fmt: skip
def test_each_kind_of_text_wants_a_link(text: str, markup: str, expected: list[str]) -> None:
    kind = "Content-Type: multipart/alternative; boundary=b\r\n\r\n"
    parts = f"--b\r\n\r\n{text}\r\n--b\r\nContent-Type: text/html\r\n\r\n{markup}\r\n--b--\r\n"

    assert codes(SIGNED + HEAD + POST + kind + parts) == expected


def test_notes_are_no_problems() -> None:
    found = Lint(GOOD.replace(SIGNED, "").encode()).findings(KEYS, {})

    assert [(each.code, each.is_problem) for each in found] == [("not-signed", False)]


def test_what_was_stamped_is_good() -> None:
    minted = tags.mint(KEYS, JANE, TEMPLATE)
    draft = stamping.draft(b"From: a@b.c\r\nTo: jane@example.com\r\n\r\nStop: [unsubscribe]\r\n")
    done = draft.stamped(unsubscribe_headers(minted, URL), {Link.OWN: URL})

    assert codes(done.raw) == ["not-signed"]


@example(b"\x80@>")
@given(st.binary(max_size=300))
def test_no_octets_break_it(octets: bytes) -> None:
    Lint(octets).findings(KEYS, {})
    Lint(f"List-Unsubscribe: <mailto:{tagged()}".encode() + octets).findings(KEYS, {})


# --- what must be looked up and tried


@pytest.fixture
def acme() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        yield installation


def posted(raw: str, installation: Installation, status: int = 200) -> tuple[list[str], list[httpx2.Request]]:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(status, headers={"Location": "https://elsewhere.example/"})

    found = lint(installation.settings, raw.encode(), try_link=True, network=httpx2.MockTransport(answer))
    return [each.code for each in found], seen


def test_a_stored_tag_is_looked_up(acme: Installation) -> None:
    stored = tags.mint(KEYS, JANE, TEMPLATE, opaque=True)
    raw = GOOD.replace(TAG, stored.tag).encode()

    assert [each.code for each in lint(acme.settings, raw)] == ["bad-tag", "no-mailto", "own-link"]
    acme.tags.keep([(stored, JANE)])
    assert lint(acme.settings, raw) == []
    assert Lint(raw).findings(KEYS, rows(JANE)) == []


def test_a_try_posts_one_click_with_a_tag_of_nobody(acme: Installation) -> None:
    found, [request] = posted(GOOD, acme)

    assert found == ["one-click-works"]
    assert (request.method, request.content) == ("POST", b"List-Unsubscribe=One-Click")
    assert tags.read(request.url.path.removeprefix("/u/"), KEYS).tag == Tag("acme", 12, "canary@unsubd.invalid")


@pytest.mark.parametrize("status", [302, 404, 405, 500])
def test_a_try_that_is_refused_is_a_problem(acme: Installation, status: int) -> None:
    found, requests = posted(GOOD, acme, status)

    assert (found, len(requests)) == (["one-click-failed"], 1)


def test_without_a_link_of_ours_nothing_is_tried(acme: Installation) -> None:
    with pytest.raises(Rejected, match="no https link with a tag of ours"):
        posted(GOOD.replace(f" <{URL}>", " <https://acme.example/leave>"), acme)


def test_without_a_key_nothing_can_be_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="UNSUBD_SECRET_KEYS: no key"):
        lint(load_settings({"UNSUBD_DATA_DIR": str(tmp_path)}), GOOD.encode())
