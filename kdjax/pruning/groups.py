"""Which filters are pruned together, and how they are chosen from the paths of a parameter tree.

A path is the '/'-joined keys of a leaf, as in 'stage1_block0/conv1/kernel'. Every leaf named here
has its filters on the *last* axis, as flax keeps them: convolutions [h, w, in, C], depthwise ones
[h, w, 1, C], dense layers [in, C], biases and BatchNorm's scale and bias [C].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from kdjax.pruning import counting as counts
from kdjax.tree import leaves, matching, nested

Params = Any


class FilterGroup(NamedTuple):
    """C filters that are kept or pruned together with everything that belongs to them.

    Attributes:
      name: of the group, unique in its network.
      scored: paths of the kernels that decide, seen as one kernel: their squared norms add up.
      masked: paths of the leaves that are multiplied by the mask; `scored` are, named or not.
      settled: paths of the leaves, BatchNorm's scale and bias, that are zeroed with a filter that
        is pruned for good: one that is hard, or pruned after the last epoch. While pruned filters
        are multiplied by a decay above 0, so are these: BatchNorm would undo the filter's own. At a
        decay of 0 they stay: with all of it zero no gradient would bring a filter back.
      removed: how many filters of the group an earlier compaction has taken out of the network.
        They count as pruned and hard, so that a compacted network goes on as the masked one would.
      consumers: paths of kernels [..., C, out] that take the C channels as input and nothing else.
        Their weights for a channel that is pruned for good are zeroed with it: these multiply
        zeros, and would count in the scores of the consumers' filters. Only for groups whose pruned
        channels are exactly zero.
    """

    name: str
    scored: tuple[str, ...]
    masked: tuple[str, ...]
    removed: int = 0
    consumers: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()

    @property
    def pruned(self) -> tuple[str, ...]:
        """The paths of the leaves that every pruning multiplies by the mask, each once."""
        return tuple(dict.fromkeys((*self.scored, *self.masked)))

    @property
    def leaves(self) -> tuple[str, ...]:
        """The paths of all leaves whose last axis are the filters, each once."""
        return tuple(dict.fromkeys((*self.pruned, *self.settled)))


Selection = Callable[[Params], Sequence[FilterGroup]]


def sizes(params: Params, groups: Sequence[FilterGroup]) -> dict[str, int]:
    """The number of filters C of each group, by its name.

    Raises:
      ValueError: no group, a name or a leaf in two groups, a path that is not in `params`, or
        leaves of one group that differ in C.
    """
    if not groups:
        raise ValueError("no filter group: the selection found nothing to prune")
    shapes = {path: leaf.shape for path, leaf in leaves(params).items()}
    owners: dict[str, str] = {}
    found: dict[str, int] = {}
    for group in groups:
        if group.name in found:
            raise ValueError(f"two filter groups are called {group.name!r}")
        if not group.scored:
            raise ValueError(f"filter group {group.name!r} has no scored kernel")
        for path in group.leaves:
            if not shapes.get(path):
                raise ValueError(f"filter group {group.name!r}: no array {path!r} in the network")
            if path in owners:
                raise ValueError(f"{path!r} is in two groups, {owners[path]!r} and {group.name!r}")
            owners[path] = group.name
            size = found.setdefault(group.name, shapes[path][-1])
            if shapes[path][-1] != size:
                raise ValueError(
                    f"filter group {group.name!r}: {path!r} has {shapes[path][-1]} filters, "
                    f"{group.leaves[0]!r} has {size}"
                )
        for path in group.consumers:
            if shapes.get(path, ())[-2:-1] != (found[group.name],):
                raise ValueError(
                    f"filter group {group.name!r}: {path!r} does not read its "
                    f"{found[group.name]} channels"
                )
    return found


def by_pattern(
    params: Params,
    patterns: Iterable[str],
    *,
    skip: Iterable[str] = (),
    norms: tuple[str, str] | None = None,
) -> list[FilterGroup]:
    """One group per kernel (array with two or more axes) whose path matches a pattern.

    `functools.partial(by_pattern, patterns=[...])` is a `Selection`.

    Args:
      params: the parameters; only shapes are looked at.
      patterns: '*' and '?' stand for anything but '/', '[ab]' for one of these characters, '**' for
        anything: '**/conv*/kernel', 'stage[12]_*/**'.
      skip: patterns of kernels that are left alone.
      norms: (word in the names of convolutions, word in the names of their BatchNorms), which is
        ('conv', 'bn') for kdjax's networks. The convolution's own bias, and its BatchNorm's scale
        and bias, then decay with it and are zeroed with a filter that is pruned for good
        (`FilterGroup.settled`), so that its output is exactly zero. It must be the BatchNorm
        *behind* the convolution, which a name cannot say of pre-activation blocks.

    Raises:
      ValueError: a pattern that matches no kernel, nothing left, or a BatchNorm that is missing.
    """
    found = leaves(params)
    kernels = [path for path, leaf in found.items() if len(leaf.shape) >= 2]
    wanted = matching(kernels, patterns, "pattern")
    unwanted = set(matching(kernels, skip, "skip pattern"))
    chosen = [path for path in wanted if path not in unwanted]
    if not chosen:
        raise ValueError("no filter group: every kernel that matches is skipped")
    return [_group(path, found, norms) for path in chosen]


def official(params: Params, *, norms: tuple[str, str] | None = None) -> list[FilterGroup]:
    """What the papers prune in residual networks: every convolution but the projections.

    That is, each on its own, every 3x3 convolution of a CIFAR ResNet and every convolution of an
    ImageNet ResNet, the first layer included. Projections (paths that contain 'shortcut'), dense
    layers and BatchNorm stay as they are. Checked against soft-filter-pruning's
    pruning_cifar10_resnet.py and filter-pruning-geometric-median's pruning_imagenet.py.

    Args:
      params: the parameters; only shapes are looked at.
      norms: as in `by_pattern`; masks BatchNorm too, which the papers do not.

    Raises:
      ValueError: no convolution, or depthwise ones, whose filters belong to other layers' filters.
    """
    found = leaves(params)
    kernels = {
        path: leaf.shape
        for path, leaf in found.items()
        if len(leaf.shape) == 4 and "shortcut" not in path
    }
    if not kernels:
        raise ValueError("no filter group: the network has no convolution")
    # One convolution of one channel may be the first layer of a network for gray images.
    depthwise = [path for path, shape in kernels.items() if shape[2] == 1 < shape[3]]
    if len(depthwise) > 1:
        raise ValueError(
            f"{depthwise[0]!r} is a depthwise convolution, which the official selection does not "
            "know; use the network's own filter groups"
        )
    return [_group(path, found, norms) for path in kernels]


def within(prefix: str, select: Selection) -> Selection:
    """`select` for a network whose parameters are the subtree `prefix` ('cohort/network_0')."""

    def outside(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{prefix}/{path}" for path in paths)

    def prefixed(params: Params) -> list[FilterGroup]:
        inside = {
            path.removeprefix(f"{prefix}/"): leaf
            for path, leaf in leaves(params).items()
            if path.startswith(f"{prefix}/")
        }
        if not inside:
            raise ValueError(f"no parameters under {prefix!r}")
        return [
            group._replace(
                name=f"{prefix}/{group.name}",
                scored=outside(group.scored),
                masked=outside(group.masked),
                settled=outside(group.settled),
                consumers=outside(group.consumers),
            )
            for group in select(nested(inside))
        ]

    return prefixed


def together(*selections: Selection) -> Selection:
    """The groups of several selections, say of every network of a cohort."""
    return lambda params: [group for select in selections for group in select(params)]


def table(
    params: Params, groups: Sequence[FilterGroup], rate: float, *, counting: str = "exact"
) -> str:
    """A text table of the groups: layer, filters, pruned filters, rate in percent; and the total.

    Args:
      params: the parameters; only shapes are looked at.
      groups: what a `Selection` returns.
      rate: fraction of the filters of every group that is pruned, in [0, 1).
      counting: as in `filter_pruning`.
    """
    rows = []
    for (name, size), group in zip(sizes(params, groups).items(), groups, strict=True):
        pruned = int(counts.number(size + group.removed, rate, counting=counting))
        rows.append((name, size, max(pruned - group.removed, 0)))
    rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    width = max(len(row[0]) for row in rows)
    lines = [f"{'layer':{width}}  filters  pruned   rate"]
    lines += [f"{n:{width}}  {c:7d}  {p:6d}  {100 * p / c:4.1f}%" for n, c, p in rows]
    return "\n".join(lines)


def _group(kernel: str, found: Mapping[str, Any], norms: tuple[str, str] | None) -> FilterGroup:
    layer, _, leaf = kernel.rpartition("/")
    settled = []
    if norms is not None:
        if f"{layer}/bias" in found:
            settled.append(f"{layer}/bias")
        parent, _, name = layer.rpartition("/")
        norm = f"{parent}/{name.replace(*norms)}".removeprefix("/")
        parts = [f"{norm}/{part}" for part in ("scale", "bias") if f"{norm}/{part}" in found]
        if norm == layer or not parts:
            raise ValueError(f"no BatchNorm of {layer!r}: norms={norms!r} looks for it at {norm!r}")
        settled += parts
    return FilterGroup(
        layer if layer and leaf == "kernel" else kernel,
        (kernel,),
        (kernel,),
        settled=tuple(settled),
    )
