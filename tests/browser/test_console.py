"""The pages in a real Chromium, on a running `unsubd run --demo`: what a person sees, on a desk and on a phone."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright
from redis import Redis

from tests.browser import scene
from tests.harness import processes
from tests.harness.mails import mail
from tests.harness.service import Service, until
from worker.check import check
from worker.demo import drop
from worker.installation import Installation, open_installation, with_embedded_secrets
from worker.settings import load_settings
from worker.web.ops.session import new_login_link

pytestmark = pytest.mark.needs("chromium")
expect.set_options(timeout=20_000)

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
_ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# The contrast of each element's text with the first opaque background behind it, WCAG 2.1.
_CONTRAST = """elements => {
  const rgba = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => rgba(text).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((rgba(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  return elements.map(element => {
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
}"""


@dataclass
class Visit:
    """One person's browser: its page, and what went wrong behind it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note every request and every complaint of the browser."""
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))


Visitor = Callable[..., AbstractContextManager[Visit]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`unsubd run --demo`, its three links printed and its first mails handled."""
    running = Service(tmp_path_factory.mktemp("demo"))
    with running.running("run", "--demo"):
        until(lambda: "/docs" in running.log.read_text(), what="the links")
        until(lambda: running.log.read_text().count("event=quarantine:") == 2, what="the demo mails")
        with _installation(running) as installation:
            scene.furnish(installation)
            scene.key_was_missing(installation, 12)
        yield running


def _choice(page: Page, beginning: str) -> str:
    """The option that begins so: it ends in the version of the row that the page shows."""
    return str(page.locator(f'option[value^="{beginning}"]').get_attribute("value"))


def _installation(service: Service) -> AbstractContextManager[Installation]:
    environ = {"UNSUBD_DATA_DIR": str(service.folder / "data")}
    return open_installation(with_embedded_secrets(load_settings(environ)))


@pytest.fixture(scope="module")
def _browser() -> Iterator[Browser]:
    binary = processes.require("chromium", processes.PACKAGES["chromium"])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visitor(_browser: Browser) -> Visitor:
    """Return a function that opens a browser window of a new person."""

    @contextmanager
    def visiting(viewport: Any = DESK, **options: Any) -> Iterator[Visit]:
        context = _browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(20_000)
        visit = Visit(context.new_page())
        visit.watch()
        try:
            yield visit
        finally:
            context.close()

    return visiting


def _link(service: Service, name: str) -> str:
    found = re.search(rf"^{name} +(\S+)", service.log.read_text(), re.M)
    assert found is not None
    return found[1]


def _redis(service: Service) -> Redis:
    return Redis.from_url(f"unix://{service.folder}/data/valkey.sock")


def _log_in(service: Service, page: Page) -> None:
    with _redis(service) as client:
        page.goto(service.url + new_login_link(client))


def _number(page: Page, name: str) -> Locator:
    return page.locator(f".counts dt:text-is('{name}') + dd")


def _waiting(page: Page, reason: str = "quarantine:no-tag") -> Locator:
    return page.locator(f"[data-count='{reason}']")


def _count(page: Page) -> int:
    return int(_waiting(page).inner_text())


def _panel(page: Page, title: str) -> Locator:
    return page.locator(".panel").filter(has=page.locator(f"h2:has-text('{title}')"))


def _keep_picture(page: Page, path: Path) -> None:
    with suppress(Error):  # for people to look at; on a busy machine Chromium sometimes takes none
        page.screenshot(path=path, full_page=True)


def _what_scrolls_sideways(page: Page) -> list[str]:
    found: list[str] = page.locator("html, .panel, main").evaluate_all(
        "all => all.filter(each => each.scrollWidth > each.clientWidth).map(each => each.innerText.slice(0, 40))"
    )
    return found


# -- the console


def test_the_printed_link_opens_the_console_and_shows_everything(
    service: Service, visitor: Visitor, tmp_path: Path
) -> None:
    with visitor() as visit:
        page = visit.page
        page.goto(_link(service, "console"))

        assert page.url == f"{service.url}/ops"
        expect(page.locator("h1")).to_have_text(re.compile(r"^\d+ requests wait since .*\.$"))
        for name in ("queued", "started", "scheduled"):
            expect(_number(page, name)).to_have_text("0")
        assert _count(page) >= 1
        for chart in page.locator("svg.chart").all():
            assert chart.locator("rect").count() > 0
        _keep_picture(page, tmp_path / "console.png")
        expect(_panel(page, "Workers").locator("tbody tr")).not_to_have_count(0)
        expect(_panel(page, "Sources").locator("tbody")).to_contain_text("maildir:default")
        expect(_panel(page, "Journal").locator("tbody tr").filter(has_text="effect=added")).not_to_have_count(0)
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith(service.url)] == []


def test_a_number_changes_without_a_reload(service: Service, visitor: Visitor) -> None:
    with visitor() as visit:
        page = visit.page
        _log_in(service, page)
        page.evaluate("document.documentElement.dataset.mark = 'the same page'")
        before = _count(page)

        drop(service.folder / "data/maildir", mail("nobody@elsewhere.example", f"live-{time.time_ns()}"))

        expect(_waiting(page)).to_have_text(str(before + 1))
        assert page.evaluate("document.documentElement.dataset.mark") == "the same page"
        assert visit.complaints == []


def test_a_server_out_of_reach_is_said_and_an_ended_session_asks_again(service: Service, visitor: Visitor) -> None:
    with visitor() as visit, _redis(service) as client:
        page = visit.page
        page.clock.install()
        _log_in(service, page)
        lost = page.locator("#lost")
        expect(lost).to_be_hidden()

        page.context.set_offline(True)
        page.clock.run_for(3100)
        expect(lost).to_be_visible()
        expect(page.locator("h1")).to_be_visible()  # the last numbers stay

        page.context.set_offline(False)
        page.clock.run_for(3100)
        expect(lost).to_be_hidden()

        client.delete(*client.keys("unsubd:session:*"))
        page.clock.run_for(3100)
        expect(page.get_by_label("Admin token")).to_be_visible()


def test_the_token_opens_the_console_and_log_out_closes_it(service: Service, visitor: Visitor) -> None:
    with visitor(PHONE) as visit:
        page = visit.page
        page.goto(f"{service.url}/ops")
        page.get_by_label("Admin token").fill((service.folder / "data/admin_token").read_text().strip())
        page.keyboard.press("Enter")
        expect(page.locator(".verdict h1")).to_be_visible()

        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Admin token")).to_be_visible()
        page.goto(f"{service.url}/ops")

        assert page.url == f"{service.url}/ops/login"
        assert visit.complaints == []


@pytest.mark.parametrize("scripts", [True, False])
def test_an_operator_walks_from_login_to_logout(
    service: Service, visitor: Visitor, tmp_path: Path, scripts: bool
) -> None:
    with visitor(java_script_enabled=scripts) as visit, _installation(service) as installation:
        page = visit.page
        name = "anna" if scripts else "berta"
        # log in
        page.goto(f"{service.url}/ops")
        page.get_by_label("Your name").fill(name)
        page.get_by_label("Admin token").fill((service.folder / "data/admin_token").read_text().strip())
        page.get_by_role("button", name="Log in").click()
        expect(page.locator(".bar")).to_contain_text(f"{name} operator")

        # see live traffic
        before = _count(page)
        drop(service.folder / "data/maildir", mail("nobody@elsewhere.example", f"walk-{time.time_ns()}"))
        if scripts:
            expect(_waiting(page)).to_have_text(str(before + 1))

        # why was a message quarantined?
        page.get_by_role("link", name="Quarantine", exact=True).click()
        page.get_by_role("link", name="Only what has a suggestion").click()
        page.locator("tr").filter(has_text="Unsubscribe me please").locator("a").first.click()
        expect(page.get_by_label("Why it is here")).to_contain_text("no address carries a tag")
        expect(page.get_by_label("The message", exact=True)).to_contain_text("please take me off your list")
        whom = page.get_by_label("Recipient").get_attribute("placeholder")
        _keep_picture(page, tmp_path / "entry.png")

        # resolve it: the next one opens
        here = page.url
        page.get_by_label(re.compile("^Why for the ledger")).fill("asked in words")
        page.get_by_label("Sender").select_option("acme")
        page.get_by_role("button", name="Stop this mail for this recipient").click()
        expect(page.locator(".said")).to_contain_text("1 left the quarantine")
        assert whom is not None
        assert page.url != here
        assert "suggested=1" in page.url

        # replay ten
        page.goto(f"{service.url}/ops/quarantine?reason=quarantine:bad-tag")
        page.get_by_role("button", name="Replay the first").click()
        expect(page.locator(".said")).to_contain_text("messages:")
        if scripts:
            expect(page.locator(".said")).to_contain_text("10 × honour. 10 left the quarantine.")
            assert check(installation, "acme", 102, ["late.11@example.com"])[0].suppressed

        # find a recipient, and resubscribe
        address = "person.3@example.com" if scripts else "person.4@example.com"
        page.get_by_role("link", name="Search", exact=True).click()
        page.get_by_label(re.compile("^An address")).fill(address)
        page.get_by_role("button", name="Search").click()
        expect(page.locator("h1")).to_have_text(address)
        assert "person." not in page.url
        expect(page.locator("tr").filter(has_text="Weekly news")).to_contain_text("do not mail")
        page.get_by_label("Sender and group").select_option(_choice(page, "acme/101/"))
        page.get_by_label("Why for the ledger").fill("rang us, wants it back")
        page.get_by_role("button", name="Resubscribe").click()
        expect(page.locator("tr").filter(has_text="Weekly news")).to_contain_text("may be mailed")
        expect(page.locator(".timeline").first).to_contain_text(f"by {name}: rang us, wants it back")

        # requeue a failed job
        job_id = scene.failed_job(installation, f"unlucky.{name}@example.com")
        page.goto(f"{service.url}/ops/queue/{job_id}")
        page.get_by_text("The whole traceback").click()
        expect(page.locator("pre")).to_contain_text("ValueError")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".said")).to_have_text("1 of 1 jobs are in the queue again.")
        until(
            lambda: check(installation, "acme", 101, [f"unlucky.{name}@example.com"])[0].suppressed, what="the effect"
        )

        # what was done is told, and log out
        page.get_by_role("link", name=re.compile(f"^{name}")).click()
        trail = page.locator("tr").filter(has_text=name)
        for action in ("requeue job", "resubscribe", "replay-ten", "named"):
            expect(trail.filter(has_text=action).first).to_be_visible()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Admin token")).to_be_visible()
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith(service.url)] == []


def test_the_keyboard_leads_through_the_console(service: Service, visitor: Visitor) -> None:
    with visitor() as visit:
        page = visit.page
        _log_in(service, page)
        page.keyboard.press("g")
        page.keyboard.press("q")
        page.wait_for_url("**/ops/queue")
        page.keyboard.press("/")
        page.wait_for_url("**/ops/search")
        expect(page.locator("#q")).to_be_focused()


def test_the_console_is_whole_without_javascript(service: Service, visitor: Visitor) -> None:
    with visitor(java_script_enabled=False) as visit:
        _log_in(service, visit.page)

        expect(visit.page.locator(".counts dd")).to_have_count(9)
        assert _count(visit.page) >= 1


# -- the recipient's page


@pytest.mark.parametrize("scripts", [True, False])
def test_a_recipient_leaves_with_one_press_on_a_phone(
    service: Service, visitor: Visitor, tmp_path: Path, scripts: bool
) -> None:
    with visitor(PHONE, java_script_enabled=scripts) as visit:
        page = visit.page
        page.goto(_link(service, "landing page"))
        expect(page.locator("h1")).to_have_text("Stop “Weekly news” from Demo Shop?")
        expect(page.locator("main")).to_contain_text("y···u@example.com")
        button = page.get_by_role("button")
        expect(button).to_be_in_viewport(ratio=1)

        _keep_picture(page, tmp_path / "landing.png")

        button.click()

        expect(page.locator("h1")).to_have_text(
            re.compile("^(Done: no more “Weekly news”|You had stopped this already)")
        )
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith(service.url)] == []
    rows = service.rows("check", "demo", "1", "you@example.com")
    assert (rows[0]["suppressed"], rows[0]["source"]) == (True, "page")


def test_the_keyboard_alone_is_enough(service: Service, visitor: Visitor) -> None:
    with visitor() as visit:
        page = visit.page
        page.goto(_link(service, "landing page"))

        page.keyboard.press("Tab")
        style, width = page.evaluate("""() => {
            const style = getComputedStyle(document.activeElement);
            return [style.outlineStyle, parseFloat(style.outlineWidth)];
        }""")
        focused = page.locator(":focus")

        expect(focused).to_have_text("Stop these mails")
        assert (style, width >= 2) == ("solid", True)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).not_to_contain_text("?")


# -- how it looks


# A box of a list is pressed by the label around it.
_TARGETS = (
    "button:visible, a:visible, input:not([type=checkbox]):visible, label:has([type=checkbox]):visible, select:visible"
)


def _each_page(service: Service, page: Page) -> Iterator[str]:
    """Go through every page that a person may see, and stop at each."""
    for path in (
        _link(service, "landing page"),
        f"{service.url}/u/broken",
        f"{service.url}/docs",
        f"{service.url}/ops",
    ):
        page.goto(path)
        yield path
    _log_in(service, page)
    yield "/ops"
    for path in _OPS:
        page.goto(f"{service.url}/ops/{path}")
        yield path
    for path in ("quarantine", "queue?state=failed"):
        page.goto(f"{service.url}/ops/{path}")
        page.locator("tbody a").first.click()
        page.wait_for_url(
            re.compile("/ops/(quarantine|queue)/"), wait_until="load"
        )  # unstyled, it would have other sizes
        yield path
    _search(page, "jane.doe@example.com")
    yield "person"


_OPS = (
    "queue",
    "queue?state=failed",
    "quarantine",
    "search",
    "senders",
    "senders/acme",
    "keys",
    "sources",
    "audit",
    "queue/none",
)


def _search(page: Page, text: str) -> None:
    page.keyboard.press("/")
    page.wait_for_url("**/ops/search")
    page.locator("#q").fill(text)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/ops/(person|queue|quarantine|senders)/"))


def test_nothing_scrolls_sideways_on_a_phone_and_every_target_fits_a_thumb(service: Service, visitor: Visitor) -> None:
    with visitor(PHONE) as visit:
        for where in _each_page(service, visit.page):
            assert _what_scrolls_sideways(visit.page) == [], where
            targets = visit.page.locator(_TARGETS)
            boxes = [target.bounding_box() for target in targets.all()]
            assert [box for box in boxes if box is None or min(box["width"], box["height"]) < 44] == [], where
            assert boxes or "broken" in where


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(service: Service, visitor: Visitor, tmp_path: Path, scheme: str) -> None:
    with visitor(PHONE, color_scheme=scheme) as visit:
        page = visit.page
        for number, where in enumerate(_each_page(service, page)):
            page.evaluate("""() => document.querySelectorAll("main, .panel").forEach(place => {
                for (const kind of ["good", "bad", "warn", "quiet"])
                    place.insertAdjacentHTML("beforeend", `<p class="${kind}">A word</p>`);
            })""")
            _keep_picture(page, tmp_path / f"{scheme}-{number}.png")
            texts = page.locator("body :text-matches('.')")
            contrasts = texts.evaluate_all(_CONTRAST)

            assert (len(contrasts) >= 6, min(contrasts) >= 4.5) == (True, True), (where, min(contrasts))
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
                "rgb(246, 246, 243)" if scheme == "light" else "rgb(21, 22, 24)"
            )
