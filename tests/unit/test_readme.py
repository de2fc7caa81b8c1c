"""The README says what the code does: every command, setting, metric and key."""

import re
from pathlib import Path

import pytest
import typer
from pydantic_core import PydanticUndefined

from handlers.providers import PROVIDERS
from handlers.providers.setup import SETUPS
from handlers.request import Outcome
from worker.cli import app
from worker.settings import Settings, setting_name
from worker.web.metrics import ALL

_ROOT = Path(__file__).parents[2]
README = (_ROOT / "README.md").read_text()


def settings_table() -> list[str]:
    """The README's table of settings, made from the code."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, PydanticUndefined, {}) else str(field.default).strip("*")
        if name == "data_dir":
            default = "`~/.local/state/unsubd`"
        elif default:
            default = f"`{default}`"
        rows.append(f"| `{setting_name(name)}` | {default} | {field.description} |")
    return rows


def metrics_table() -> list[str]:
    """The README's table of metrics, made from the code."""
    return [f"| `{name}` | `{label}` | {text} |" if label else f"| `{name}` | | {text} |"
            for name, (label, text) in ALL.items()]  # fmt: skip


def keys_table() -> list[str]:
    """The README's table of Redis keys, made from the tables in the modules that own them."""
    rows = []
    for path in sorted((_ROOT / "worker").rglob("*.py")):
        for name, _, holds in re.findall(r"^\| (`unsubd:[^|]+`) +\| (\w+) +\| (.+?) +\|", path.read_text(), re.M):
            rows.append(f"| {name} | {holds} |")
    return sorted(rows)


def providers_table() -> list[str]:
    """The README's table of providers, made from their modules and set-ups."""
    made = {
        "whsec": "a Standard Webhooks secret (made)", "basic": "a password in the URL (made)",
        "token": "a token (made)", "header": "a secret header (made)",
    }  # fmt: skip
    rows = []
    for name, module in PROVIDERS.items():
        setup, codes = SETUPS[name], module.CODES
        proofs = " or ".join(filter(None, [made.get(setup.makes), setup.gives if setup.makes != "whsec" else ""]))
        answers = " | ".join(str(code) for code in (codes.ack, codes.retry, codes.drop, codes.auth_fail))
        rows.append(f"| `{name}` | {proofs} | {answers} | {setup.experimental} |")
    return rows


def _commands() -> list[str]:
    group = typer.main.get_command(app)
    names = []
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        names += [f"{name} {each}" for each in inner] if inner else [name]
    return names


@pytest.mark.parametrize("row", [*settings_table(), *metrics_table(), *keys_table(), *providers_table()])
def test_row_is_in_the_readme(row: str) -> None:
    assert row in README.splitlines()


@pytest.mark.parametrize("command", _commands())
def test_command_is_in_the_readme(command: str) -> None:
    assert f"`unsubd {command}" in README


def test_every_command_of_the_readme_exists() -> None:
    named = {" ".join(words.split()[:2]) for words in re.findall(r"unsubd ([a-z]+(?: [a-z]+)?)", README)}
    known = set(_commands()) | {name.split()[0] for name in _commands()}

    unknown = {words for words in re.findall(r"^unsubd ([a-z]+)", README, re.M) if words not in known}

    assert unknown == set()
    assert named


def test_every_setting_of_the_readme_exists() -> None:
    known = {setting_name(name) for name in Settings.model_fields}
    families = r"UNSUBD_IMAP_[A-Z0-9]+_PASSWORD|UNSUBD_IN_[A-Z0-9_]+"
    named = {
        name if name in known else name.removesuffix("_FILE")
        for name in re.findall(r"UNSUBD_[A-Z0-9_]+[A-Z0-9]", README)
    }

    assert {name for name in named if name not in known and not re.fullmatch(families, name)} == {
        "UNSUBD_IMAP",
        "UNSUBD_IN",
    }


@pytest.mark.parametrize("outcome", [each for each in Outcome if each not in (Outcome.CHALLENGE, Outcome.PING)])
def test_outcome_is_in_the_readme(outcome: Outcome) -> None:
    assert f"`{outcome.value}`" in README


def test_every_key_in_the_code_is_in_the_readme() -> None:
    text = "".join(path.read_text() for path in (_ROOT / "worker").rglob("*.py"))
    used = set(re.findall(r"\"(unsubd:[a-z:-]+)", text))

    assert {key for key in used if key.rstrip(":") not in README} == set()
