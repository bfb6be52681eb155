"""The form in which a family says how PyTorch repositories name its modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

# Pairs (pattern, replacement), tried in order against a whole path such as
# 'stage1_block0/conv1'. A replacement is a template for `re.Match.expand`, or a function of the
# match.
Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]


class Family(NamedTuple):
    """The official names of one family of networks.

    Paths are those of modules in kdjax's variables, joined with '/' and without the leaf; names are
    those of PyTorch's modules. A leaf that is not of a convolution, linear layer or BatchNorm is
    part of both.

    Attributes:
      plain: network -> `{dialect: rules}` for paths such as 'stage1_block0/conv1'. The first
        dialect is the one that the network's own repository speaks; weights are exported in it.
      branch: rules for a branch of `Branched`, or network -> rules; paths such as
        'branch1/stage2_block0/conv1', names as under the official `auxiliary_classifier`.
      heads: network -> rules for the same paths where the official code keeps branches beside the
        network's own layers, which then have no prefix; or None.
      branched: the only dialect in which networks have branches; None if it may be any.
      shared: rules for one of several networks with a common trunk (`Cohort.shared_stages`), or
        cohort -> rules where they depend on its kind; paths such as
        'network_0/stage2_block0/conv1'.
    """

    plain: Callable[[Any], dict[str, Rules]]
    branch: Rules | Callable[[Any], Rules] = ()
    heads: Callable[[Any], Rules] | None = None
    branched: str | None = None
    shared: Rules | Callable[[Any], Rules] = ()


FAMILIES: dict[type[nn.Module], Family] = {}


def rename(rules: Rules, path: str) -> str:
    """The PyTorch name of a path by the first rule that matches all of it.

    Raises:
      KeyError: no rule does.
    """
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, path):
            return replacement(match) if callable(replacement) else match.expand(replacement)
    raise KeyError(path)
