"""Docstrings of the public functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "kdjax"
ROOMS = sorted(path.name for path in ROOT.iterdir() if (path / "__init__.py").exists())
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def public_functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """The public functions of a module, and the public methods of its public classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield f"{prefix}{child.name}", child


def is_abstract(node: ast.Raise) -> bool:
    """Whether a statement stands for a body that subclasses define."""
    return isinstance(node.exc, ast.Name) and node.exc.id == "NotImplementedError"


def raises(function: ast.FunctionDef) -> bool:
    """Whether the body of the function itself, not of one inside of it, raises an exception."""
    nodes = list(function.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Raise) and not is_abstract(node):
            return True
        if not isinstance(node, FUNCTIONS):
            nodes += ast.iter_child_nodes(node)
    return False


def undocumented(source: str) -> list[str]:
    """The public functions whose docstrings do not mention what their bodies raise."""
    return [
        name
        for name, function in public_functions(ast.parse(source))
        if raises(function) and "Raises:" not in (ast.get_docstring(function) or "")
    ]


@pytest.mark.parametrize("room", [*ROOMS, ""])
def test_functions_that_raise_say_so(room):
    files = sorted((ROOT / room).rglob("*.py") if room else ROOT.glob("*.py"))
    assert files
    missing = {file.name: undocumented(file.read_text(encoding="utf-8")) for file in files}
    assert {name: functions for name, functions in missing.items() if functions} == {}


def test_a_function_that_does_not_say_so_is_reported():
    source = '''
def silent():
    """Does it."""
    if True:
        raise ValueError


def spoken():
    """Does it.

    Raises:
      ValueError: always.
    """
    raise ValueError


def outer():
    """Makes it."""

    def inner():
        raise ValueError

    return inner


class Thing:
    def method(self):
        raise ValueError

    def abstract(self):
        raise NotImplementedError

    def _private(self):
        raise ValueError
'''
    assert undocumented(source) == ["silent", "Thing.method"]
