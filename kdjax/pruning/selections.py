"""Selections: which kernels of a parameter tree are pruned, by patterns or as in the papers."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdjax.pruning.axes import seems_first
from kdjax.pruning.groups import FilterGroup, Params, selected
from kdjax.tree import leaves, matching


def by_pattern(
    params: Params,
    patterns: Iterable[str],
    *,
    skip: Iterable[str] = (),
    norms: tuple[str, str] | None = None,
    filter_axis: int | None = None,
) -> list[FilterGroup]:
    """One group per kernel whose path matches a pattern.

    A kernel is an array of two or more axes with more than one weight per filter: a scale of shape
    [1, 1, 1, C] is none. Dense layers (two axes), such as the classifier, are taken only by a
    pattern that spells the layer's name out: 'classifier/*', not '**'.

    `functools.partial(by_pattern, patterns=[...])` is a `Selection`.

    Args:
      params: the parameters; only shapes are looked at.
      patterns: '*' and '?' stand for anything but '/', '[ab]' for one of these characters, '**' for
        anything: '**/conv*/kernel', 'stage[12]_*/**'.
      skip: patterns of kernels that are left alone.
      norms: (word in the names of convolutions, word in the names of their BatchNorms), which is
        ('conv', 'bn') for kdjax's networks. The convolution's bias, and its BatchNorm's scale and
        bias, then decay with it and are zeroed with a filter that is pruned for good
        (`FilterGroup.settled`), so that its output is exactly zero. It must be the BatchNorm
        *behind* the convolution, which a name cannot say of pre-activation blocks.
      filter_axis: see `FilterGroup`.

    Raises:
      ValueError: a pattern that matches no kernel, or dense layers that it does not spell out;
        nothing left; or a BatchNorm that is missing.
    """
    if filter_axis is not None:
        again = functools.partial(by_pattern, patterns=patterns, skip=skip, norms=norms)
        return selected(again, params, filter_axis)
    arrays = leaves(params)
    kernels = [path for path, leaf in arrays.items() if _is_kernel(leaf)]
    matching(kernels, patterns, "pattern")
    matched = {path for pattern in patterns for path in _matched(kernels, pattern, arrays)}
    skipped = set(matching(kernels, skip, "skip pattern"))
    chosen = [path for path in kernels if path in matched - skipped]
    if not chosen:
        raise ValueError("no filter group: every kernel that matches is skipped")
    return [_group(path, arrays, norms) for path in chosen]


def _is_kernel(leaf: Any) -> bool:
    """Whether an array, filters last, has several axes and more than one weight per filter."""
    return len(leaf.shape) >= 2 and math.prod(leaf.shape[:-1]) > 1


def _matched(kernels: Sequence[str], pattern: str, arrays: Mapping[str, Any]) -> list[str]:
    """The kernels that a pattern matches; dense layers only if it spells out their names."""
    matches = matching(kernels, [pattern], "pattern")
    names = pattern.split("/")

    def spelled_out(path: str) -> bool:
        *_, layer = (path.rpartition("/")[0] or path).split("/")
        return layer in names

    taken = [path for path in matches if len(arrays[path].shape) > 2 or spelled_out(path)]
    if not taken:
        raise ValueError(
            f"pattern {pattern!r} matches dense layers only, such as {matches[0]!r}: spell the "
            "layer's name out to prune it"
        )
    return taken


def official(
    params: Params, *, norms: tuple[str, str] | None = None, filter_axis: int | None = None
) -> list[FilterGroup]:
    """The selection of the papers in residual networks: all convolutions but the projections.

    That is, one by one, every 3x3 convolution of a CIFAR ResNet and every convolution of an
    ImageNet ResNet, the first layer included. Projections (paths that contain 'shortcut'), dense
    layers and BatchNorm stay as they are. Checked against soft-filter-pruning's
    pruning_cifar10_resnet.py and filter-pruning-geometric-median's pruning_imagenet.py.

    Args:
      params: the parameters; only shapes are looked at.
      norms: as in `by_pattern`; masks BatchNorm too, which the papers do not.
      filter_axis: see `FilterGroup`.

    Raises:
      ValueError: no convolution, or depthwise ones, whose filters belong to other layers' filters.
    """
    if filter_axis is not None:
        return selected(functools.partial(official, norms=norms), params, filter_axis)
    arrays = leaves(params)
    kernels = {
        path: leaf.shape
        for path, leaf in arrays.items()
        if len(leaf.shape) == 4 and _is_kernel(leaf) and "shortcut" not in path
    }
    if not kernels:
        raise ValueError("no filter group: the network has no convolution")
    # One convolution of one channel may be the first layer of a network for gray images.
    depthwise = [path for path, shape in kernels.items() if shape[2] == 1 < shape[3]]
    if len(depthwise) > 1 and not seems_first(depthwise[0], kernels[depthwise[0]]):
        raise ValueError(
            f"{depthwise[0]!r} is a depthwise convolution, which the official selection does not "
            "know; use the network's own filter groups"
        )
    return [_group(path, arrays, norms) for path in kernels]


def _group(kernel: str, arrays: Mapping[str, Any], norms: tuple[str, str] | None) -> FilterGroup:
    layer, _, leaf = kernel.rpartition("/")
    settled = []
    if norms is not None:
        if f"{layer}/bias" in arrays:
            settled.append(f"{layer}/bias")
        parent, _, name = layer.rpartition("/")
        norm = f"{parent}/{name.replace(*norms)}".removeprefix("/")
        affine = (f"{norm}/{part}" for part in ("scale", "weight", "bias"))
        parts = [path for path in affine if path in arrays]
        if norm == layer or not parts:
            raise ValueError(f"no BatchNorm of {layer!r}: norms={norms!r} looks for it at {norm!r}")
        settled += parts
    return FilterGroup(
        layer if layer and leaf == "kernel" else kernel,
        (kernel,),
        (kernel,),
        settled=tuple(settled),
    )
