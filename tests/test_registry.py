"""Entries that are registered again."""

from __future__ import annotations

import runpy
import textwrap

import pytest

from kdjax.methods.registry import METHODS
from kdjax.registry import Registry

METHOD = """
from kdjax import methods
from kdjax.methods.registry import register


@register("again", source="{source}")
def {name}(cohort, settings):
    return methods.base.cohort_method(cohort, None)
"""

BASELINE = """
import dataclasses

from kdjax.methods.baselines.distillation.registration import register_teacher_loss
from kdjax.methods.registry import LOGITS


@dataclasses.dataclass(frozen=True)
class Nothing:
    pass


register_teacher_loss("again", None, settings=Nothing, weight=1.0, reads=LOGITS)
"""


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS))
    monkeypatch.setattr(METHODS, "_origins", dict(METHODS._origins))
    return METHODS


def write(path, text=METHOD, **fields):
    path.write_text(textwrap.dedent(text).format(**fields) if fields else text)
    return str(path)


def test_a_file_that_is_executed_again_replaces_its_entry(tmp_path, methods):
    file = tmp_path / "my_config.py"
    runpy.run_path(write(file, name="mine", source="first"))
    names = list(methods)
    runpy.run_path(write(file, name="mine", source="second"))
    assert methods["again"].source == "second" and list(methods) == names


def test_a_baseline_that_is_executed_again(tmp_path, methods):
    file = write(tmp_path / "my_config.py", BASELINE)
    runpy.run_path(file)
    first = methods["again"]
    runpy.run_path(file)
    assert methods["again"] is not first


def test_two_rows_of_one_name_in_one_file_are_refused(tmp_path, methods):
    row = BASELINE.rpartition("\n\n")[2]
    with pytest.raises(ValueError, match="method 'again' is registered already"):
        runpy.run_path(write(tmp_path / "my_config.py", BASELINE + row))


def test_a_notebook_cell_that_is_executed_again(methods):
    namespace = {"__name__": "__main__"}
    for cell, source in enumerate(("first", "second")):
        text = METHOD.format(name="mine", source=source)
        exec(compile(text, f"<ipython-input-{cell}>", "exec"), namespace)
        assert methods["again"].source == source


def test_another_file_or_definition_is_refused(tmp_path, methods):
    file, other = tmp_path / "my_config.py", tmp_path / "other_config.py"
    runpy.run_path(write(file, name="mine", source="first"))
    for path, name in ((other, "mine"), (file, "yours")):
        with pytest.raises(ValueError, match="method 'again' is registered already") as error:
            runpy.run_path(write(path, name=name, source="second"))
        message = str(error.value)
        assert f"mine in {file}" in message and f"{name} in {path}" in message
        assert methods["again"].source == "first"
    text = METHOD.replace('"again"', '"dml"')
    with pytest.raises(ValueError, match=r"method 'dml' .* dml in .*kdjax/methods/baselines/dml"):
        runpy.run_path(write(other, text, name="mine", source=""))


def test_a_registry_of_ones_own():
    registry = Registry("thing", "config.thing")
    assert [registry.add("one", len) for _ in range(2)] == [len, len]
    with pytest.raises(ValueError, match=r"for len in .*; choose another name for max in"):
        registry.add("one", max)
