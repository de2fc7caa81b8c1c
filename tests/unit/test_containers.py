"""deploy/: settings, Dockerfile and compose.yaml hold what their heads promise, and their linters agree."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.settings import load_settings, setting_name, unknown_names

DEPLOY = Path(__file__).parents[2] / "deploy"
_TOOLS = Path(sys.executable).parent
_IS_ROOT = os.geteuid() == 0
_SOMEBODY = 65534 if _IS_ROOT else os.geteuid()
_SECRETS_MADE = 0 if _IS_ROOT else 77
_LINE = re.compile(r"^(?:# )?(UNSUBD_[A-Z0-9_]+)=(.*)$", re.M)


def _run(*words: str | Path, folder: Path, user: int | None = None) -> subprocess.CompletedProcess[str]:
    plain = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(words, cwd=folder, env=plain, user=user, capture_output=True, text=True, timeout=60)


# env.example


def _example() -> dict[str, str]:
    return dict(_LINE.findall((DEPLOY / "env.example").read_text()))


def test_every_setting_of_the_example_exists_and_is_read() -> None:
    plain = {name: value for name, value in _example().items() if not name.endswith("_FILE")}

    assert unknown_names(_example()) == []
    assert {setting_name(field) for field in load_settings(plain).model_fields_set} == plain.keys()


def test_the_example_has_what_an_installation_needs() -> None:
    lines = (DEPLOY / "env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    settings = load_settings(given)
    named = {name.removesuffix("_FILE") for name in _example()}

    assert settings.template() is not None
    assert settings.public_url is not None
    assert {"UNSUBD_REDIS_URL", "UNSUBD_SECRET_KEYS", "UNSUBD_ADMIN_TOKEN", "UNSUBD_IMAP_URL"} <= named


def test_no_remark_follows_a_value() -> None:
    assert [name for name, value in _example().items() if " #" in value or value != value.strip()] == []


# Dockerfile


def test_hadolint_finds_nothing() -> None:
    done = _run(_TOOLS / "hadolint", "--failure-threshold", "style", DEPLOY / "Dockerfile", folder=DEPLOY)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_is_of_what_the_build_may_see_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    seen = (DEPLOY / "Dockerfile.dockerignore").read_text()
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M) for word in line.split()[:-1]
    }  # fmt: skip

    assert copied == {line[1:] for line in seen.splitlines() if line.startswith("!")}
    assert all((DEPLOY.parent / name).exists() for name in copied)
    assert text.count("FROM ") == 2
    assert re.findall(r"^USER (.+)$", text, re.M) == ["10001:10001"]
    assert re.search(r"^HEALTHCHECK ", text, re.M)


# compose.yaml


@pytest.fixture(scope="module")
def compose_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """deploy/ as somebody has it who followed the head of compose.yaml."""
    folder = tmp_path_factory.mktemp("checkout") / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets.d", "env", "pictures"))
    shutil.copy(folder / "env.example", folder / "env")
    done = _run(folder / "secrets", folder=folder)
    assert done.returncode == _SECRETS_MADE, done.stderr
    return folder


@pytest.fixture(scope="module")
def compose(compose_folder: Path) -> dict[str, Any]:
    """What compose itself makes of the file."""
    done = _run(_TOOLS / "docker-compose", "--profile", "monitoring", "config", folder=compose_folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_compose_starts_the_parts(compose: dict[str, Any]) -> None:
    services = compose["services"]

    assert {"valkey", "web", "poll", "work", "prometheus", "grafana"} == services.keys()
    assert {name for name, service in services.items() if service.get("profiles")} == {"prometheus", "grafana"}
    assert [services[name]["command"] for name in ("web", "poll", "work")] == [["web"], ["poll"], ["work"]]


def test_the_valkey_of_compose_loses_nothing_and_is_alone(compose: dict[str, Any]) -> None:
    valkey = compose["services"]["valkey"]
    options = dict(zip(valkey["command"][1::2], valkey["command"][2::2], strict=True))

    assert (options["--appendonly"], options["--appendfsync"]) == ("yes", "always")
    assert "--aclfile" in options
    assert "ports" not in valkey
    assert valkey["networks"].keys() == {"store"}
    assert compose["networks"]["store"]["internal"] is True


@pytest.mark.parametrize("name", ["valkey", "web", "poll", "work", "prometheus", "grafana"])
def test_a_container_has_no_rights(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0", "root"))
    assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))
    assert not any("TOKEN" in key or "PASSWORD" in key for key in service.get("environment", {}) if "_FILE" not in key)


def _password(folder: Path) -> str:
    """Return the password that Valkey wants."""
    found = re.fullmatch(r"user default on >(\S+) ~\* &\* \+@all\n", (folder / "secrets.d/valkey-acl").read_text())
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", ["web", "poll", "work"])
def test_the_settings_that_compose_gives_exist(compose: dict[str, Any], compose_folder: Path, name: str) -> None:
    service = compose["services"][name]
    given = service["environment"]
    mounted = {each["target"]: Path(compose["secrets"][each["source"]]["file"]) for each in service["secrets"]}
    settings = load_settings({key: str(mounted.get(value, value)) for key, value in given.items()})

    assert unknown_names(given) == []
    assert settings.redis_url is not None
    assert f":{_password(compose_folder)}@valkey:6379" in settings.redis_url
    assert bool(settings.admin_token.get_secret_value()) == (name == "web")


def test_secrets_are_made_once_and_only_for_us(compose_folder: Path) -> None:
    folder = compose_folder / "secrets.d"
    before = {path.name: path.read_text() for path in folder.iterdir()}
    (folder / "admin-token").unlink()

    assert _run(compose_folder / "secrets", folder=compose_folder).returncode == _SECRETS_MADE
    after = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"admin-token"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_secrets_of_another_user_are_his_alone_until_root_hands_them_over() -> None:
    with tempfile.TemporaryDirectory() as home:  # pytest's own folders let nobody else in
        folder = Path(home) / "deploy"
        folder.mkdir()
        shutil.copy(DEPLOY / "secrets", folder)
        for path in (Path(home), folder, folder / "secrets"):
            os.chown(path, _SOMEBODY, -1)
        by_him = _run(folder / "secrets", folder=folder, user=_SOMEBODY)
        his = _kept(folder)
        (folder / "secrets.d/admin-token").chmod(0o644)  # as this script once left them
        handed_over = _run(folder / "secrets", folder=folder)
        theirs = _kept(folder)

    owners = dict.fromkeys(his, 10001) | {"valkey-acl": 999, "grafana-password": 472}
    assert (by_him.returncode, handed_over.returncode) == (77, _SECRETS_MADE)
    assert "sudo ./secrets" in by_him.stderr
    assert {(owner, mode) for owner, mode, _ in his.values()} == {(_SOMEBODY, 0o600)}
    assert theirs == {
        name: (owners[name] if _IS_ROOT else _SOMEBODY, 0o600, content) for name, (_, _, content) in his.items()
    }


def _kept(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return name -> (owner, mode, content) of the secrets."""
    paths = (folder / "secrets.d").iterdir()
    return {each.name: (each.stat().st_uid, stat.S_IMODE(each.stat().st_mode), each.read_text()) for each in paths}


def test_prometheus_and_grafana_find_what_they_are_told_of(compose: dict[str, Any]) -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    (boards,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/unsubd.yaml").read_text())["providers"]
    mounts = {each["target"]: each["source"] for each in compose["services"]["grafana"]["volumes"]}

    assert all((DEPLOY / "prometheus" / name).is_file() for name in prometheus["rule_files"])
    assert job["static_configs"] == [{"targets": ["web:8126"]}]
    assert source["url"] == "http://prometheus:9090"
    assert mounts[f"{boards['options']['path']}/unsubd.json"].endswith("deploy/grafana/unsubd.json")
