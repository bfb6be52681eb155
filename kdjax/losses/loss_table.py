"""The public losses as Markdown tables, for docs/losses.md and `--job=losses`.

Everything is read from signatures and docstrings: `Args:`, `Returns:` and the paragraph `Source:`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

from kdjax import losses

_SECTION = re.compile(r"^(Args|Returns|Raises):$", re.MULTILINE)
_ARGUMENT = re.compile(r"^  (\w+): ", re.MULTILINE)
_SHAPE = re.compile(r"`(\[[^`]*\])`")
_LONGEST_WORDS = 32  # characters before a shape that are shown with it


def markdown() -> str:
    """A heading and a table for every module of losses, in the order of `kdjax.losses`."""
    return "\n".join(_module(name) for name in _modules())


def functions() -> dict[str, Callable[..., Any]]:
    """The public functions by name, without aliases."""
    public = {name: getattr(losses, name) for name in losses.__all__}
    return {
        name: function
        for name, function in public.items()
        if inspect.isfunction(function) and function.__name__ == name
    }


def aliases() -> dict[str, list[str]]:
    """The other names of functions, by their own name."""
    names: dict[str, list[str]] = {name: [] for name in functions()}
    for alias in losses.__all__:
        function = getattr(losses, alias)
        if inspect.isfunction(function) and function.__name__ != alias:
            names[function.__name__].append(alias)
    return names


def shapes(function: Callable[..., Any]) -> dict[str, str]:
    """The shape of every array argument, and under `Returns` that of the result, with its words."""
    sections = _sections(inspect.getdoc(function) or "")
    parts = _ARGUMENT.split(sections.get("Args", ""))
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    texts["Returns"] = sections.get("Returns", "")
    stated: dict[str, str] = {}
    before = ""
    for name, text in texts.items():
        before = before if text.startswith("likewise") else _shape(" ".join(text.split()))
        if before:
            stated[name] = before
    return stated


def source(function: Callable[..., Any]) -> str:
    """The paragraph `Source:` of a docstring; empty without one."""
    doc = inspect.getdoc(function) or ""
    match = re.search(r"^(?:.*\. )?Source:\s+(.*?)(?:\n\n|\Z)", doc, re.MULTILINE | re.DOTALL)
    return " ".join(match[1].split()) if match else ""


def _modules() -> list[str]:
    """The modules of the public functions, in alphabetical order."""
    return sorted({function.__module__ for function in functions().values()})


def _module(name: str) -> str:
    doc = inspect.getdoc(importlib.import_module(name)) or ""
    heading = doc.split("\n\n")[0].rstrip(".")
    head = "| loss | also | what | arrays | result | settings | source |"
    rows = [
        _row(loss, function)
        for loss, function in functions().items()
        if function.__module__ == name
    ]
    lines = [f"## {' '.join(heading.split())}", "", head, "|" + "---|" * (head.count("|") - 1)]
    return "\n".join([*lines, *rows]) + "\n"


def _row(name: str, function: Callable[..., Any]) -> str:
    stated = shapes(function)
    parameters = inspect.signature(function).parameters.values()
    settings = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    summary = (inspect.getdoc(function) or "").split("\n\n")[0]
    cells = (
        f"`{name}`",
        ", ".join(f"`{alias}`" for alias in aliases()[name]),
        " ".join(summary.split()),
        ", ".join(
            f"{argument}: {stated[argument]}" for argument in stated if argument != "Returns"
        ),
        stated.get("Returns", ""),
        ", ".join(settings),
        _linked(source(function)),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _sections(doc: str) -> dict[str, str]:
    """The text of `Args:`, `Returns:` and `Raises:`, up to the next line without indentation."""
    parts = _SECTION.split(doc)
    bodies = (re.split(r"\n(?=\S)", body)[0] for body in parts[2::2])
    return dict(zip(parts[1::2], bodies, strict=True))


def _shape(text: str) -> str:
    """The first shape in a text, with the words before it if they are few."""
    match = _SHAPE.search(text)
    if match is None:
        return ""
    words = text[: match.start()]
    few = len(words) <= _LONGEST_WORDS and "." not in words
    return f"{words if few else ''}`{match[1]}`"


def _linked(text: str) -> str:
    """A source with its arXiv numbers as links."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)
