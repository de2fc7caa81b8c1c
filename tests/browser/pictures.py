"""The README's pictures, taken from the running program: `make pictures`."""

import re
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser import scene
from tests.harness import processes
from tests.harness.mails import address, mail
from tests.harness.service import MASTERS, Service, until
from worker.installation import open_installation
from worker.settings import load_settings

_PICTURES = Path(__file__).parents[2] / "deploy" / "pictures"
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


def main() -> None:
    """Start unsubd with its demo, give it some mail, and photograph console and recipient's pages."""
    folder = Path(tempfile.mkdtemp(prefix="unsubd-pictures-"))
    try:
        service = Service(
            folder,
            in_relay="bearer:t",
            public_url="https://unsub.example.com",
            address="u+{tag}@unsub.example.com",
            secret_keys=MASTERS[0],
        )
        with service.running("run", "--demo"), sync_playwright() as playwright:
            log = until(lambda: (text := service.log.read_text()) and "/docs" in text and text, what="the links")
            links = dict(re.findall(r"^(console|landing page|API) +(\S+)", log, re.M))
            for number in range(6):
                service.post(
                    "/in/relay", mail(address(number, sender="demo"), f"picture-{number}"), authorization="Bearer t"
                )
            service.post("/in/relay", b"x", authorization="Bearer wrong")
            until(lambda: service.rows("status")[0]["quarantine"]["total"] == 2, what="all recorded")
            with open_installation(load_settings(_environ(service))) as installation:
                scene.furnish(installation)
            browser = playwright.chromium.launch(
                executable_path=str(processes.require("chromium", "chromium")), args=_ARGUMENTS
            )
            _take_console(browser, links["console"], service.url)
            _take_recipient(browser, service, links["landing page"])
            browser.close()
    finally:
        shutil.rmtree(folder)


def _take_recipient(browser: Browser, service: Service, link: str) -> None:
    """Photograph what a recipient sees on a phone: the question, the answer, and the choices."""
    for name, description in (("Offers", "Discounts, twice a month"), ("Events near you", "Markets and workshops")):
        service.last_line("group", "add", "demo", name, "--description", description)
    look = {"viewport": {"width": 390, "height": 460}, "device_scale_factor": 1.5}
    _take(browser.new_page(**look), link, "landing.png", whole=False)
    _take(browser.new_page(**look), link.replace("/u/", "/p/"), "preferences.png", whole=True)
    page = browser.new_page(viewport={"width": 390, "height": 740}, device_scale_factor=1.5)
    page.goto(link)
    page.get_by_role("button").click()
    page.locator("h1.good").wait_for()
    page.screenshot(path=_PICTURES / "done.png", full_page=True)
    page.close()


def _environ(service: Service) -> dict[str, str]:
    return {name: value for name, value in service.env.items() if name.startswith("UNSUBD_")}


def _take_console(browser: Browser, link: str, base: str) -> None:
    """The overview, one message in quarantine, and one recipient's story."""
    page = browser.new_page(viewport={"width": 1100, "height": 960})
    page.goto(link)
    page.screenshot(path=_PICTURES / "console.png")
    page.goto(f"{base}/ops/quarantine?suggested=1")
    page.get_by_role("link", name="Unsubscribe me please").first.click()
    page.screenshot(path=_PICTURES / "quarantine.png", full_page=True)
    page.goto(f"{base}/ops/search")
    page.locator("#q").fill("jane.doe@example.com")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ops/person/**")
    page.screenshot(path=_PICTURES / "search.png", full_page=True)
    page.close()


def _take(page: Page, url: str, name: str, *, whole: bool) -> None:
    page.goto(url)
    page.screenshot(path=_PICTURES / name, full_page=whole)
    page.close()


if __name__ == "__main__":
    main()
