"""What proves somebody is compared in constant time: read from the source."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECRET = re.compile(
    r"(?<![a-z])(mac|macs|_mac|hmac|signature|expected|token|secret|password|csrf|given|proof)(?![a-z])"
)
# (module, comparison): what it compares, of which nothing can be learnt by its time.
EXCEPTIONS = {
    ("worker/doctor/ways_in.py", "expected in answer"): "a server's greeting",
    ("worker/sources/look.py", "uid in self._given_up_at"): "UIDs",
    ("worker/sources/oauth/__init__.py", "token.refresh != login.refresh_token.get_secret_value()"): "both are ours",
}
CONSTANT = {
    ("handlers/providers/webhook.py", "same"), ("handlers/tag.py", "_signer"), ("handlers/undo.py", "read"),
    ("worker/sources/oauth/consent.py", "do_GET"), ("worker/web/ops/gate.py", "admit"),
    ("worker/web/ops/session.py", "role_of"),
}  # fmt: skip


def _paths():
    return [path for folder in ("handlers", "worker") for path in sorted((ROOT / folder).rglob("*.py"))]


def _early(tree):
    """Yield every comparison of two values, one of them named as a secret, that ends at the first difference."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            continue
        sides = [node.left, node.comparators[0]]
        literal = any(isinstance(each, ast.Constant | ast.Tuple | ast.Set | ast.List) for each in sides)
        if not literal and any(SECRET.search(ast.unparse(each)) for each in sides):
            yield ast.unparse(node)


def _constant(tree):
    """Yield the functions that compare in constant time."""
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        if any(isinstance(each, ast.Attribute) and each.attr == "compare_digest" for each in ast.walk(function)):
            yield function.name


def _found(search):
    return {
        (str(path.relative_to(ROOT)), each) for path in _paths() for each in search(ast.parse(path.read_text("utf-8")))
    }


def test_no_secret_is_compared_up_to_its_first_difference():
    assert _found(_early) == EXCEPTIONS.keys()


def test_every_proof_is_compared_in_constant_time():
    """Whoever adds a proof adds its place here; one that is gone was replaced by a comparison that can be timed."""
    assert _found(_constant) == CONSTANT


@pytest.mark.parametrize(
    "source", ["mac == _mac(key, tag)", "given != expected", "token in tokens", "row.csrf == form.csrf"]
)
def test_an_early_end_would_be_seen(source):
    assert list(_early(ast.parse(source)))


@pytest.mark.parametrize(
    "source", ["hmac.compare_digest(mac, expected)", "kind == 'token'", "a == b", "machine == name"]
)
def test_what_is_no_secret_may_end_early(source):
    assert not list(_early(ast.parse(source)))
