"""The registered methods as a Markdown table, for the docs and `--job=methods`."""

from __future__ import annotations

import dataclasses
import re

from kdjax.methods.registry import METHODS, MethodEntry

_HEAD = "| method | run by | needs | reads | settings | source | paper, CIFAR-100 |"


def markdown() -> str:
    """One row per registered method, in the order of their names."""
    rows = [_HEAD, "|" + "---|" * _HEAD.count(" | ") + "---|"]
    return "\n".join(rows + [_row(METHODS[name]) for name in sorted(METHODS)]) + "\n"


def families() -> str:
    """One row per file of `configs/`: the methods that it runs."""
    methods: dict[str, list[str]] = {}
    for name in sorted(METHODS):
        methods.setdefault(METHODS[name].family, []).append(name)
    rows = ["| config | methods |", "|---|---|"]
    for family in sorted(methods):
        argument = ":NAME" if len(methods[family]) > 2 else ""
        names = ", ".join(f"`{name}`" for name in methods[family])
        rows.append(f"| `configs/{family}.py{argument}` | {names} |")
    return "\n".join(rows) + "\n"


def _row(entry: MethodEntry) -> str:
    names = [field.name for field in dataclasses.fields(entry.settings)]
    settings = f"`config.{entry.section}`: {', '.join(names)}" if names else ""
    cells = (
        f"`{entry.name}`",
        f"`configs/{entry.family}.py`",
        ", ".join(_needs(entry)),
        entry.reads,
        settings,
        _linked(entry.source),
        entry.paper,
    )
    return "| " + " | ".join(cells) + " |"


def _needs(entry: MethodEntry) -> list[str]:
    """What a run must have for a method, in words."""
    needs = []
    if entry.teacher_if is not None:
        needs.append("maybe a teacher")
    elif "teacher" in entry.context:
        needs.append("a teacher")
    if entry.networks > 1:
        needs.append(f"{entry.networks} networks")
    needs += [f"data.{name} ≥ {need.at_least}" for name, need in entry.data.items()]
    return needs


def _linked(source: str) -> str:
    """A source with its arXiv numbers as links."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", source)
