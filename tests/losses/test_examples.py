"""The examples in docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

from kdjax import losses

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
FUNCTIONS = [name for name in losses.__all__ if inspect.isfunction(getattr(losses, name))]
# Draws, mixtures and shapes of arrays: they are not losses, and no paper's.
HELPERS = ("draw_box", "joint_labels", "mix", "draw_mixture", "mixed_pair")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", SHOWN)
def test_the_most_used_losses_have_examples(name):
    assert ">>>" in getattr(losses, name).__doc__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_name_shapes_and_source(name):
    doc = inspect.getdoc(getattr(losses, name))
    assert "`[" in doc or name in ("vid_log_scale",)
    assert "Source" in doc or name in HELPERS
