"""The README's pictures, taken from the running program: `make pictures`."""

import re
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.harness import processes
from tests.harness.mails import address, mail
from tests.harness.service import MASTERS, Service, until

_PICTURES = Path(__file__).parents[2] / "deploy" / "pictures"
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


def main() -> None:
    """Start unsubd with its demo, give it some mail, and photograph console and recipient's pages."""
    folder = Path(tempfile.mkdtemp(prefix="unsubd-pictures-"))
    try:
        service = Service(folder, in_relay="bearer:t", address="u+{tag}@unsub.example.com", secret_keys=MASTERS[0])
        with service.running("run", "--demo"), sync_playwright() as playwright:
            log = until(lambda: (text := service.log.read_text()) and "/docs" in text and text, what="the links")
            links = dict(re.findall(r"^(console|landing page|API) +(\S+)", log, re.M))
            for number in range(6):
                service.post(
                    "/in/relay", mail(address(number, sender="demo"), f"picture-{number}"), authorization="Bearer t"
                )
            service.post("/in/relay", b"x", authorization="Bearer wrong")
            until(lambda: service.rows("status")[0]["quarantine"]["total"] == 2, what="all recorded")
            browser = playwright.chromium.launch(
                executable_path=str(processes.require("chromium", "chromium")), args=_ARGUMENTS
            )
            _take(
                browser.new_page(viewport={"width": 1100, "height": 900}), links["console"], "console.png", whole=True
            )
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


def _take(page: Page, url: str, name: str, *, whole: bool) -> None:
    page.goto(url)
    page.screenshot(path=_PICTURES / name, full_page=whole)
    page.close()


if __name__ == "__main__":
    main()
