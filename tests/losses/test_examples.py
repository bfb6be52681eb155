"""The examples in docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re

import pytest

from kdjax import losses
from kdjax.losses import loss_table
from kdjax.methods import METHODS

MODULES = [f"kdjax.losses.{module.name}" for module in pkgutil.iter_modules(losses.__path__)]
# The most used ones: an example is expected of them.
SHOWN = (
    "attention_transfer",
    "cross_entropy",
    "cs_kd",
    "dist",
    "dkd",
    "focal",
    "hint",
    "kd",
    "label_smoothing",
    "mixed_cross_entropy",
    "mutual_contrast",
    "mutual_learning",
    "rkd",
    "similarity_preserving",
)
WITHOUT_ARRAYS = ("vid_log_scale", "draw_mixture")  # of numbers and keys


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", SHOWN)
def test_the_most_used_losses_have_examples(name):
    assert ">>>" in getattr(losses, name).__doc__


@pytest.mark.parametrize("name", loss_table.functions())
def test_docstrings_have_shapes_and_a_source(name):
    function = getattr(losses, name)
    shapes = loss_table.shapes(function)
    assert "Returns" in shapes
    assert len(shapes) > 1 or name in WITHOUT_ARRAYS
    assert re.search(r"\d{4}|PyTorch", loss_table.source(function))  # a year, or the standard


def test_aliases_are_the_names_of_methods_and_papers():
    assert losses.at is losses.attention_transfer
    assert losses.sp is losses.similarity_preserving
    assert losses.fitnet is losses.hint
    others = [alias for names in loss_table.aliases().values() for alias in names]
    assert set(others) <= set(METHODS)


def test_tables_read_docstrings():
    def loss(a, b, c, *, weight=1.0):
        """What it is, `[B]`.

        Source: A et al., 2020, arXiv 2001.00001,
        equation 1; checked against nothing.

        Args:
          a: M arrays `[B, D]` of unit vectors. Of `[B]` in the paper.
          b: likewise.
          c: a long list of words that is no help to a reader of a table, `[B, K]`.

        Returns:
          `[B]`, in nats.

        Raises:
          ValueError: never.

        >>> loss()
        """

    stated = {"a": "M arrays `[B, D]`", "b": "M arrays `[B, D]`", "c": "`[B, K]`"}
    assert loss_table.shapes(loss) == {**stated, "Returns": "`[B]`"}
    expected = "A et al., 2020, arXiv 2001.00001, equation 1; checked against nothing."
    assert loss_table.source(loss) == expected
