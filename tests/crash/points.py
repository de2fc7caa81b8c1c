"""The points of the path, found by reading the code."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOMENTS = ("before", "after")


def modules() -> Iterator[Path]:
    """Yield every module of worker/."""
    yield from sorted((ROOT / "worker").rglob("*.py"))


def names_of(node: ast.With | ast.AsyncWith) -> Iterator[str]:
    """Yield the points that a `with` statement names; one that is no literal is an error."""
    for item in node.items:
        call = item.context_expr
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "point":
            (name,) = call.args
            assert isinstance(name, ast.Constant), f"line {node.lineno}: expected a literal name"
            assert isinstance(name.value, str), f"line {node.lineno}: expected a text"
            yield name.value


def found() -> list[str]:
    """Return the names of all points, each as often as it stands in the code."""
    trees = [ast.parse(path.read_text("utf-8")) for path in modules()]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.With | ast.AsyncWith)]
    return sorted(name for node in nodes for name in names_of(node))
