"""What deploy/SECURITY.md and deploy/PRIVACY.md rest on, as far as it can be read from the code itself."""

import ast
import re
import resource
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from tests.unit.test_readme import keys_table

ROOT = Path(__file__).parents[2]
CODE = sorted(path for folder in ("handlers", "worker") for path in (ROOT / folder).rglob("*.py"))
SECURITY = (ROOT / "deploy/SECURITY.md").read_text()
PRIVACY = (ROOT / "deploy/PRIVACY.md").read_text()


def _names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a file, by its dotted name as it stands there."""
    for node in _nodes(path):
        if isinstance(node, ast.Call):
            yield _dotted(node.func), node


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "()"


# --- the documents


def _tests() -> set[str]:
    text = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return set(re.findall(r"^ *(?:async )?def (test_\w+)", text, re.M))


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", SECURITY))

    assert len(named) > 60
    assert named - _tests() == set()


def test_every_threat_names_a_test_or_says_why_there_is_none() -> None:
    rows = [line for line in SECURITY.splitlines() if line.startswith("| ") and not line.startswith("| threat")]

    assert [row[:60] for row in rows if row.count("|") != 5 or not re.search(r"`test_\w+`|no test:", row)] == []
    assert len(rows) > 25


def test_every_redis_key_is_in_the_data_map() -> None:
    keys = {row.split("`")[1] for row in keys_table()}

    assert sorted(key for key in keys if f"`{key}`" not in PRIVACY) == []


def test_the_data_map_names_no_key_that_is_gone() -> None:
    keys = {row.split("`")[1] for row in keys_table()}

    assert set(re.findall(r"`(unsubd:[^`]+)`", PRIVACY)) - keys == set()


# --- nothing from outside is run, unpickled or unpacked

_RUNS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.loads", "marshal.loads", "yaml.load"}
_UNPACKS = {"gzip", "zlib", "zipfile", "bz2", "lzma", "tarfile", "zstandard", "brotli"}
_READS_TREES = {"xml", "lxml", "defusedxml", "pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}
# RQ's jobs, quarantine, archive and bundle: each reads what we packed ourselves.
_OUR_OWN = {"worker/batch.py", "worker/store/volume.py", "worker/store/bundle.py", "worker/store/bundle_verify.py",
            "worker/quarantine/rack.py", "worker/backup/file.py"}  # fmt: skip


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in _nodes(path):
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
    return found


def test_nothing_is_run_that_others_wrote() -> None:
    found = [(_names(path), name) for path in CODE for name, _ in _calls(path) if name in _RUNS]
    shells = [
        _names(path) for path in CODE for _, call in _calls(path) if any(each.arg == "shell" for each in call.keywords)
    ]

    assert (found, shells) == ([], [])


def test_nothing_is_unpickled_or_unpacked_that_others_wrote() -> None:
    trees = [_names(path) for path in CODE if _imports(path) & _READS_TREES]
    unpacking = {_names(path) for path in CODE if _imports(path) & _UNPACKS}

    assert (trees, unpacking) == ([], _OUR_OWN)


# --- TLS

_UNVERIFIED = re.compile(
    r"CERT_NONE|CERT_OPTIONAL|_create_unverified_context|_create_stdlib_context|ssl_cert_reqs=\W?none", re.I
)
_CLIENTS = {"httpx2.Client", "httpx2.AsyncClient"}


def test_nobody_switches_verification_off() -> None:
    assert [_names(path) for path in CODE if _UNVERIFIED.search(path.read_text())] == []
    for name, call in (each for path in CODE for each in _calls(path)):
        given = {
            each.arg: str(each.value.value) if isinstance(each.value, ast.Constant) else "…" for each in call.keywords
        }
        assert given.get("verify", "True") != "False", name
        assert given.get("check_hostname", "True") != "False", name
        if name.endswith(("SMTP_SSL", ".starttls")):
            assert "context" in given, f"{name}: smtplib believes any certificate unless it is given a context"
        if name in _CLIENTS and None not in given:
            assert given.get("follow_redirects") == "False", f"{name}: a redirect would carry secrets elsewhere"


def test_the_library_in_use_verifies_and_the_clients_options_follow_no_redirect() -> None:
    import httpx2
    import redis

    assert redis.SSLConnection(host="x").cert_reqs.name == "CERT_REQUIRED"
    assert redis.SSLConnection(host="x").check_hostname
    assert httpx2.Client().follow_redirects is False


# --- secrets are compared in constant time

_COMPARISONS = {
    "handlers/tag.py": 1, "handlers/undo.py": 1, "handlers/providers/webhook.py": 1, "worker/web/ops/gate.py": 1,
    "worker/web/ops/session.py": 1, "worker/sources/oauth/consent.py": 1,
}  # fmt: skip


def test_secrets_are_compared_in_constant_time() -> None:
    found = Counter(_names(path) for path in CODE for name, _ in _calls(path) if name == "hmac.compare_digest")

    assert found == _COMPARISONS


def test_no_plain_comparison_names_a_secret() -> None:
    word = re.compile(r"\b(mac|signature|secret|csrf|password|api_key|admin_token|viewer_token)\b")
    compared = [
        ast.unparse(node)
        for path in CODE
        for node in _nodes(path)
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.NotEq))
        and not any(isinstance(each, (ast.Constant, ast.Tuple)) for each in (node.left, *node.comparators))
    ]  # fmt: skip

    assert [each for each in compared if word.search(each)] == []


# --- memory

_ASKS = """
import ctypes, resource
from worker.dumps import leave_no_dump
leave_no_dump()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the mark is Linux's own")
def test_a_process_with_keys_leaves_no_core_dump() -> None:
    answer = subprocess.run([sys.executable, "-c", _ASKS], capture_output=True, text=True, cwd=ROOT, check=True)

    assert answer.stdout.split() == ["0", "0", "0"]


def test_every_process_of_ours_begins_without_dumps() -> None:
    begins = {"worker/cli/__init__.py"}  # a part is a fork of it

    assert {_names(path) for path in CODE for name, _ in _calls(path) if name == "leave_no_dump"} == begins
    assert resource.RLIMIT_CORE >= 0


# --- dependencies: what can be seen without the internet


def _pinned() -> dict[str, str]:
    lines = (ROOT / "deploy/constraints.txt").read_text().splitlines()
    return {_plain(name): version for name, _, version in (line.partition("==") for line in lines if "==" in line)}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [_plain(re.match(r"[\w.-]+", each)[0]) for each in project["dependencies"]]  # type: ignore[index]


def test_everything_that_is_installed_is_pinned_to_what_runs() -> None:
    ours = {"unsubd", "pip", "setuptools", "wheel"}
    installed = {_plain(each.name): each.version for each in metadata.distributions() if _plain(each.name) not in ours}

    assert {name: _pinned().get(name) for name in installed} == installed


def test_every_dependency_is_used() -> None:
    names = {_plain(name): module for module, found in metadata.packages_distributions().items() for name in found
             if not module.startswith("_")}  # fmt: skip
    text = "\n".join(path.read_text() for path in CODE)
    by_other_means = {"mail-parser": "mailparser", "python-multipart": "python_multipart"}

    unused = [
        name for name in _required()
        if not re.search(rf"^\s*(?:from|import) {re.escape(by_other_means.get(name, names.get(name, name)))}\b", text, re.M)
    ]  # fmt: skip

    assert unused == []
