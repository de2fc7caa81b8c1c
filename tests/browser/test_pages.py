"""A recipient's pages in a real Chromium: on a phone and on a desk, scripts on and off, in several languages, light and dark.

UNSUBD_PAGE_PICTURES=FOLDER keeps a picture of every page in every dress, for people to look at.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from handlers.errors import QueueUnavailable
from handlers.request import Action
from handlers.tag import Tag, mint
from tests.harness import processes
from tests.harness.mails import NEW, TEMPLATE
from tests.harness.redis_server import RedisServer
from tests.harness.web import Web, serving
from worker.by_hand import enter
from worker.web.wishes import Wishes

pytestmark = pytest.mark.needs("chromium")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
_ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
_PICTURES = os.environ.get("UNSUBD_PAGE_PICTURES", "")
_LOGO = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 150 40" width="150" height="40">
<circle cx="20" cy="20" r="18" fill="#0b7a4b"/><path d="M12 26l8-14 8 14z" fill="#fff"/>
<rect x="50" y="12" width="92" height="6" rx="3" fill="#222"/>
<rect x="50" y="24" width="60" height="5" rx="2" fill="#888"/></svg>"""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Web]:
    redis_server.empty()
    with serving(tmp_path_factory.mktemp("pages"), redis_server.url) as running:
        accounts = running.installation.accounts
        accounts.add_sender("acme", "Acme Garden")
        accounts.add_group("acme", "Weekly news", "What grows this week, every Tuesday", 1)
        accounts.add_group("acme", "Offers", "Discounts and new tools, twice a month", 2)
        accounts.add_group("acme", "Events near you", "Markets and workshops in your town", 3)
        accounts.add_group("acme", "Receipts", "", 4, essential=True)
        accounts.add_sender("plain", "Plain Post")
        running.installation.looks.change("acme", colour="#0b7a4b", contact="hello@acme.example", logo=_LOGO)
        yield running


@pytest.fixture(scope="module")
def _browser() -> Iterator[Browser]:
    binary = processes.require("chromium", processes.PACKAGES["chromium"])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=_ARGUMENTS)
        yield browser
        browser.close()


Visitor = Callable[..., Any]


@pytest.fixture
def visitor(_browser: Browser, web: Web) -> Visitor:
    """Return a function that opens a browser window of a new person, and at its end says what the browser complained of."""

    @contextmanager
    def visiting(viewport: Any = PHONE, **options: Any) -> Iterator[Page]:
        context = _browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(20_000)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
        page.on("request", lambda asked: asked.url.startswith(_base(web)) or complaints.append(asked.url))
        try:
            yield page
            assert [each for each in complaints if "status of 4" not in each and "status of 503" not in each] == []
            assert context.cookies() == []
        finally:
            context.close()

    return visiting


def _base(web: Web) -> str:
    return f"http://127.0.0.1:{web.port}"


def _link(web: Web, name: str, path: str = "u", group: int = 1, sender: str = "acme") -> str:
    return f"{_base(web)}/{path}/{mint(NEW, Tag(sender, group, f'{name}@example.com'), TEMPLATE).tag}"


def _states(web: Web, page: Page, who: str) -> Iterator[str]:
    """Go through every page that a recipient may see, in the order of one life, and stop at each."""
    page.goto(_link(web, who))
    yield "landing"
    _follow(page, "form[action*='/u/'] button")
    yield "done"
    _follow(page, "button[value=too_many]")
    yield "thanks"
    page.goto(_link(web, who))
    _follow(page, "form[action*='/u/'] button")
    yield "already"
    _follow(page, "nav a")
    yield "preferences"
    page.locator("#g1").click()
    page.locator("#g2").click()
    _follow(page, ".choices ~ button")
    yield "saved"
    _follow(page, "form[action$='/undo'] button")
    yield "undone"
    enter(
        web.installation, Action.UNSUBSCRIBE, "acme", 3, [f"{who}@example.com"], actor="test", reason="asked by phone"
    )
    page.goto(_link(web, who, "p"))
    yield "held"
    _follow(page, ".apart button")
    yield "everything"
    _follow(page, "nav a")
    yield "all-stopped"
    page.goto(f"{_base(web)}/u/broken")
    yield "bad-link"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Wishes, "make", _away)
        page.goto(_link(web, who))
        _follow(page, "form[action*='/u/'] button")
        yield "away"
    page.goto(_link(web, who, "u", 0, "plain"))
    yield "landing-all"


def _follow(page: Page, selector: str) -> None:
    """Click, and wait for the page that comes, with its stylesheets: a click returns before they are there."""
    with page.expect_navigation(wait_until="load"):
        page.locator(selector).click()


def _away(*_: object) -> None:
    raise QueueUnavailable("UNSUBD_REDIS_URL: away")


def _sideways(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def _serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("language", ["en", "de", "ja"])
def test_every_page_fits_and_axe_finds_nothing_serious(
    web: Web, visitor: Visitor, viewport: dict[str, int], scheme: str, language: str
) -> None:
    who = f"j.{language}{scheme}{viewport['width']}.e"
    with visitor(viewport, color_scheme=scheme, locale=language) as page:
        for state in _states(web, page, who):
            if _PICTURES:
                name = f"{language}-{scheme}-{viewport['width']}-{state}.png"
                page.screenshot(path=Path(_PICTURES) / name, full_page=True)
            assert page.locator("html").get_attribute("lang") == language
            assert _serious(page) == [], state
            assert not _sideways(page), state
            boxes = [each.bounding_box() for each in page.locator("button:visible, a:visible, input:visible").all()]
            assert [box for box in boxes if box is None or min(box["width"], box["height"]) < 43.9] == [], state


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_a_person_stops_undoes_and_chooses(web: Web, visitor: Visitor, viewport: dict[str, int], scripts: bool) -> None:
    who = f"life{zlib.crc32(repr((viewport, scripts)).encode())}"

    def stopped() -> list[int]:
        rows = web.installation.store.rows([("acme", each, f"{who}@example.com") for each in range(4)])
        return [group for group, row in enumerate(rows) if row and row.suppressed]

    with visitor(viewport, java_script_enabled=scripts) as page:
        page.goto(_link(web, who))
        button = page.get_by_role("button")
        expect(button).to_be_in_viewport(ratio=1)
        button.click()
        expect(page.locator("h1")).to_have_text("Done: no more “Weekly news” from Acme Garden")
        assert stopped() == [1]

        page.get_by_role("button", name="Undo").click()
        expect(page.locator("h1")).to_have_text("Undone")
        assert stopped() == []

        page.get_by_role("link", name="Choose what you get").click()
        page.get_by_role("switch", name="Offers").uncheck()
        page.get_by_role("switch", name="Events near you").uncheck()
        page.get_by_role("button", name="Save").click()
        expect(page.locator("ul")).to_contain_text("Offers")
        assert stopped() == [2, 3]

        page.get_by_role("link", name="Back to your choices").click()
        page.get_by_role("button", name="Stop everything from Acme Garden").click()
        expect(page.locator("h1")).to_have_text("Done: no more mail from Acme Garden")
        assert stopped() == [0, 2, 3]

        page.get_by_role("link", name="Choose what you get").click()
        expect(page.get_by_role("switch", name="Weekly news")).to_be_disabled()
        page.get_by_role("button", name="Allow mail from Acme Garden again").click()
        expect(page.locator("h1")).to_have_text("Saved")
        assert stopped() == [2, 3]


def test_the_keyboard_alone_changes_a_choice(web: Web, visitor: Visitor) -> None:
    with visitor() as page:
        page.goto(_link(web, "keys", "p"))
        page.keyboard.press("Tab")
        expect(page.get_by_role("switch", name="Weekly news")).to_be_focused()
        page.keyboard.press("Space")
        page.get_by_role("button", name="Save").press("Enter")

        expect(page.locator("h1")).to_have_text("Saved")
        row = web.installation.store.row("acme", 1, "keys@example.com")
        assert row is not None
        assert row.suppressed


def test_a_language_from_right_to_left_fits_too(web: Web, visitor: Visitor) -> None:
    from handlers.texts import built_in

    words = {name: f"ابجد {text}" for name, text in built_in()["en"].items()}
    web.installation.looks.change("acme", texts={"ar": words})
    with visitor(locale="ar") as page:
        for path in ("u", "p"):
            page.goto(_link(web, "rtl", path))
            assert page.locator("html").get_attribute("dir") == "rtl"
            assert (_sideways(page), _serious(page)) == (False, [])
            if _PICTURES:
                page.screenshot(path=Path(_PICTURES) / f"ar-{path}.png", full_page=True)
    web.installation.looks.change("acme", texts={})
