"""Groups of filters that are pruned together, by the paths of a parameter tree.

A path is the '/'-joined keys of a leaf, as in 'stage1_block0/conv1/kernel'. Filters are on the
*last* axis, as flax keeps them: convolutions [h, w, in, C], depthwise ones [h, w, 1, C], dense
layers [in, C], biases and BatchNorm's scale and bias [C]. With `filter_axis=0` they are on the
first, as PyTorch and Equinox keep them: [C, in, h, w], [C, in], [C] or [C, 1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kdjax.pruning import counting as counts
from kdjax.pruning.axes import check_axis, last_shape, seems_first, shapes_last
from kdjax.tree import leaves, nested

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
      filter_axis: -1 or 0, the axis of the leaves that the filters are on. None is -1 unless the
        kernels' names or shapes contradict.
    """

    name: str
    scored: tuple[str, ...]
    masked: tuple[str, ...]
    removed: int = 0
    consumers: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()
    filter_axis: int | None = None

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
      ValueError: no group, a name or a leaf in two groups, a path that is not in `params`, leaves
        of one group that differ in C, or kernels whose filters seem to be on the first axis, where
        the group does not set `filter_axis`.
    """
    if not groups:
        raise ValueError("no filter group: the selection found nothing to prune")
    stored = {path: tuple(leaf.shape) for path, leaf in leaves(params).items()}
    owners: dict[str, str] = {}
    counts_by_name: dict[str, int] = {}
    for group in groups:
        if group.name in counts_by_name:
            raise ValueError(f"two filter groups are called {group.name!r}")
        if not group.scored:
            raise ValueError(f"filter group {group.name!r} has no scored kernel")
        shapes = _shapes(group, stored)
        for path in group.leaves:
            if path in owners:
                raise ValueError(f"{path!r} is in two groups, {owners[path]!r} and {group.name!r}")
            owners[path] = group.name
            size = counts_by_name.setdefault(group.name, shapes[path][-1])
            if shapes[path][-1] != size:
                raise ValueError(
                    f"filter group {group.name!r}: {path!r} has {shapes[path][-1]} filters, "
                    f"{group.leaves[0]!r} has {size}"
                )
        for path in group.consumers:
            if shapes[path][-2:-1] != (counts_by_name[group.name],):
                raise ValueError(
                    f"filter group {group.name!r}: {path!r} does not read its "
                    f"{counts_by_name[group.name]} channels"
                )
    return counts_by_name


def _shapes(
    group: FilterGroup, stored: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shapes of a group's arrays, filters last."""
    check_axis(group.filter_axis)
    for path in group.leaves:
        if not stored.get(path):
            raise ValueError(f"filter group {group.name!r}: no array {path!r} in the network")
    for path in group.scored:
        if group.filter_axis is None and seems_first(path, stored[path]):
            raise ValueError(
                f"{path!r} {stored[path]} seems to have its filters on the first axis, as in "
                "PyTorch and Equinox: use filter_axis=0, or filter_axis=-1 if they are on the last"
            )
    shapes = {path: stored.get(path, ()) for path in (*group.leaves, *group.consumers)}
    if group.filter_axis == 0:
        return {path: last_shape(shape) for path, shape in shapes.items()}
    return shapes


def selected(
    select: Selection, params: Params, filter_axis: int | None = None
) -> list[FilterGroup]:
    """The groups of `select`, whose filters are on a given axis.

    Args:
      select: parameters -> groups.
      params: the parameters.
      filter_axis: -1 or 0 for all groups; the selection then sees kernels as flax keeps them. None
        leaves it to the groups.

    Raises:
      ValueError: another axis, or one that contradicts a group's.
    """
    check_axis(filter_axis)
    if filter_axis is None:
        return list(select(params))
    groups = select(shapes_last(params) if filter_axis == 0 else params)
    if axes := {group.filter_axis for group in groups} - {None}:
        raise ValueError(
            f"filter_axis={filter_axis} is set, the selection sets {axes.pop()}: set one of them"
        )
    return [group._replace(filter_axis=filter_axis) for group in groups]


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
