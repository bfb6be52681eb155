"""Public functions have type hints of all parameters and of their results."""

from __future__ import annotations

import ast

import pytest

from tests.test_docstrings import ROOMS, ROOT

SPECIAL = ("__init__", "__call__", "__getattr__")


def is_public(name: str) -> bool:
    """Whether users call a function of this name."""
    return not name.startswith("_") or name in SPECIAL


def functions(node: ast.AST, prefix: str = "") -> list[tuple[str, ast.FunctionDef]]:
    """The public functions of a module, and the public methods of its public classes."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            found += functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef) and is_public(child.name):
            found.append((f"{prefix}{child.name}", child))
    return found


def unhinted(source: str) -> dict[str, list[str]]:
    """The public functions without complete hints, and what lacks one."""
    missing = {}
    for name, function in functions(ast.parse(source)):
        a = function.args
        parameters = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        if "." in name and parameters and parameters[0].arg in ("self", "cls"):
            parameters = parameters[1:]
        lacking = [each.arg for each in parameters if each.annotation is None]
        # As type checkers have it, `__init__` with hinted parameters returns None.
        if function.returns is None and not (function.name == "__init__" and parameters):
            lacking.append("return")
        if lacking:
            missing[name] = lacking
    return missing


@pytest.mark.parametrize("room", [*ROOMS, ""])
def test_public_functions_have_type_hints(room):
    files = sorted((ROOT / room).rglob("*.py") if room else ROOT.glob("*.py"))
    missing = {f.name: unhinted(f.read_text(encoding="utf-8")) for f in files}
    assert {name: found for name, found in missing.items() if found} == {}


def test_what_lacks_a_hint_is_reported():
    source = """
def bare(x, *, y: int = 0): ...
def whole(x: int, *rest: int, **more: int) -> None: ...
def _private(x): ...
class Kind:
    def __init__(self, x: int): ...
    def __call__(self, x): ...
class Empty:
    def __init__(self): ...
"""
    assert unhinted(source) == {
        "bare": ["x", "return"],
        "Kind.__call__": ["x", "return"],
        "Empty.__init__": ["return"],
    }
