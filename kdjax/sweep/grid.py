"""The runs of a sweep: every combination of configs, values of settings and seeds."""

from __future__ import annotations

import collections
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kdjax.errors import UserError

_LONGEST_NAME = 120
_OPENING, _CLOSING = "([{", ")]}"


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: that of its workdir and of its rows.
      label: what it has in common with the same run of other seeds.
      seed: its seed.
      values: what the grid sets, by setting; the config under 'config'.
      flags: of its command line, without the workdir.
    """

    name: str
    label: str
    seed: int
    values: dict[str, str]
    flags: tuple[str, ...]


def runs(
    configs: Sequence[str], axes: Sequence[str], seeds: Sequence[int], extra: Sequence[str]
) -> list[Run]:
    """All runs, seed by seed, so that a part of a sweep can be compared.

    Args:
      configs: values of `--config`.
      axes: `config.KEY=VALUE,VALUE...`.
      seeds: seeds.
      extra: flags of all runs.

    Raises:
      UserError: an axis of another form, an axis, seed or name that comes twice, or no seed.
    """
    parsed = [axis(text) for text in axes]
    named = [name for name, _ in parsed]
    for what, given in (("--grid", named), ("--config", configs), ("--seeds", seeds)):
        if len(set(given)) < len(given):
            raise UserError(f"{what}: {', '.join(map(str, given))} has an entry twice")
    if not seeds or not configs:
        raise UserError("--seeds and --config: give one or more of each")
    if taken := {"config.seed", *(flag.partition("=")[0].lstrip("-") for flag in extra)} & {*named}:
        raise UserError(f"--grid: {', '.join(sorted(taken))} is set by another flag")
    combinations = itertools.product(configs, *(values for _, values in parsed))
    points = [dict(zip(("config", *named), values, strict=True)) for values in combinations]
    made = [_run(point, seed, extra) for seed in seeds for point in points]
    names = collections.Counter(run.name for run in made)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"--grid: {twice[0]} would be the name of two runs; use two --runs")
    return made


def axis(text: str) -> tuple[str, list[str]]:
    """The setting and the values of `config.KEY=VALUE,VALUE...`.

    Commas inside of brackets or quotes separate no values.

    Raises:
      UserError: another form, or a value twice.
    """
    name, equals, listed = text.partition("=")
    name = name.lstrip("-")
    values = list(split(listed))
    if not equals or not name.startswith("config.") or not all(values):
        raise UserError(f"--grid {text}: give it as config.KEY=VALUE,VALUE")
    if len(set(values)) < len(values):
        raise UserError(f"--grid {text}: a value comes twice")
    return name, values


def split(text: str) -> Iterator[str]:
    """The parts of a text between its commas outside of brackets and quotes."""
    depth, quote, start = 0, "", 0
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == "," and depth == 0:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


def _run(point: dict[str, str], seed: int, extra: Sequence[str]) -> Run:
    settings = {name: value for name, value in point.items() if name != "config"}
    label = _label(point["config"], settings)
    grid = (f"--{name}={value}" for name, value in settings.items())
    flags = (f"--config={point['config']}", *extra, *grid, f"--config.seed={seed}")
    return Run(f"{label}_seed{seed}", label, seed, point, flags)


def _label(config: str, settings: dict[str, str]) -> str:
    """A file name made of config and settings."""
    file, _, arguments = config.partition(":")
    parts = [file.removesuffix(".py"), *filter(None, [arguments])]
    short = [name.rpartition(".")[2] for name in settings]
    for name, value in settings.items():
        last = name.rpartition(".")[2]
        parts.append(f"{name if short.count(last) > 1 else last}={value}")
    text = "_".join(parts)
    safe = re.sub(r"[^\w.=+-]+", "_", text).strip("._")
    plain = text.replace(",", "_").replace("/", "_")
    if safe == plain and len(safe) <= _LONGEST_NAME:
        return safe
    digits = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{safe[:_LONGEST_NAME]}_{digits}"
