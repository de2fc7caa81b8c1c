"""What `pipx install` gets: a wheel of this checkout, in an empty environment elsewhere, runs and shows its pages."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.harness import service as harness
from tests.harness.service import Service, until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]  # builds, and installs some forty packages

ROOT = Path(__file__).parents[2]
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def _run(*words: str | Path, folder: Path) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("UNSUBD_", "PYTHON"))}
    done = subprocess.run(words, cwd=folder, env=plain, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _tracked(*places: str) -> list[str]:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", *places], capture_output=True, check=True).stdout
    return [name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it from a copy of what git knows: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in _tracked("handlers", "worker", "pyproject.toml", "README.md", "LICENSE"):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    _run(*_PIP, "wheel", "--no-deps", "--wheel-dir", folder, folder / "source", folder=folder)
    (built,) = folder.glob("unsubd-*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and what it asks for; nothing of the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    _run(sys.executable, "-m", "venv", "--without-pip", folder / "env", folder=folder)
    python, pins = folder / "env/bin/python", ROOT / "deploy/constraints.txt"
    _run(*_PIP, "--python", python, "install", "--constraint", pins, wheel, folder=folder)
    return folder


@pytest.fixture
def installed(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr(harness, "UNSUBD", elsewhere / "env/bin/unsubd")
    monkeypatch.chdir(tmp_path)
    return Service(tmp_path)


def test_the_wheel_holds_every_file_that_is_no_test(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    needed = {
        name.replace("worker/client/", "unsubd/") for name in _tracked("handlers", "worker") if not name.endswith(".md")
    }

    assert needed - held == set()


def test_nothing_comes_from_the_checkout(elsewhere: Path) -> None:
    told = _run(
        elsewhere / "env/bin/python",
        "-c",
        "import handlers, worker, unsubd; print(handlers.__file__, worker.__file__, unsubd.__file__)",
        folder=elsewhere,
    )

    assert len(told.split()) == 3
    assert all(Path(each).is_relative_to(elsewhere / "env") for each in told.split())


def test_the_demo_runs(installed: Service) -> None:
    done = installed.command("demo", "--count", "6")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 requests have their effect" in done.stdout


def test_the_pages_are_served(installed: Service) -> None:
    with installed.running("run", "--demo"):
        said = until(lambda: re.search(r"/u/(\S+)", installed.log.read_text()), 30, "the links")
        (login,) = re.findall(r"console\s+(\S+)", installed.log.read_text())
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        shown = {}
        for path in (f"/u/{said[1]}", f"/p/{said[1]}", "/docs", "/metrics", "/openapi.json"):
            with opener.open(installed.url + path, timeout=10) as answer:
                shown[path] = answer.read().decode()
        with opener.open(login, timeout=10) as answer:
            console = answer.read().decode()
        with opener.open(f"{installed.url}/ops/quarantine", timeout=10) as answer:
            quarantine = answer.read().decode()
        pages = " ".join([*shown.values(), console, quarantine])
        for asset in sorted(set(re.findall(r"(?:href|src)=\"(/static/[^\"]+)\"", pages))):
            with opener.open(installed.url + asset, timeout=10) as answer:
                assert answer.read()

    assert "<form" in shown[f"/u/{said[1]}"]
    assert "<form" in shown[f"/p/{said[1]}"]
    assert "/v1/check" in shown["/docs"]
    assert "unsubd_workers" in shown["/metrics"]
    assert "<nav" in console
    assert "bad-tag" in quarantine
