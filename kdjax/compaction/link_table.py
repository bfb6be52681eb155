"""Which layers share channels, and which consume them: a table to check, and what is pruned."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.compaction.channel_flow import Flow
from kdjax.errors import UserError
from kdjax.pruning.groups import FilterGroup


class Link(NamedTuple):
    """Channels that are kept or removed together, and the arrays that have them. Paths all over.

    Attributes:
      name: of the layer whose filters make the channels; with '_tied' where several do.
      filters: the number of channels.
      kernels: those that make the channels; several where they are summed or multiplied.
      depthwise: kernels of depthwise convolutions that the channels go through.
      between: other arrays with one number per channel: biases, BatchNorm.
      consumers: kernels that read the channels.
      reason: why channels must stay; '' where none must.
      removable: how many channels need not stay.
      regular: whether all kernels make the same channels in the same order.
    """

    name: str
    filters: int
    kernels: tuple[str, ...]
    depthwise: tuple[str, ...]
    between: tuple[str, ...]
    consumers: tuple[str, ...]
    reason: str
    removable: int
    regular: bool


class Links:
    """The links of a network, made by `trace_links` or `links`. `print` shows them as a table.

    Iterating yields the `Link`s in the order of the forward pass.

    Attributes:
      flow: the record of the forward pass.
      shapes: of the network's arrays, by path.
      trained: paths of the arrays that are trained.
      removed: how many filters earlier cuts took out of the network, by the links' names.
    """

    def __init__(
        self, flow: Flow, shapes: Mapping[str, tuple[int, ...]], trained: Iterable[str]
    ) -> None:
        self.flow, self.shapes, self.trained = flow, dict(shapes), frozenset(trained)
        self.removed: dict[str, int] = {}
        self.component = flow.components()

    @functools.cached_property
    def outputs(self) -> dict[str, np.ndarray]:
        """The channels that kernels make, depthwise ones too, by path."""
        return {each.kernel: each.outputs for each in self.flow.contractions if each.outputs.size}

    @functools.cached_property
    def reasons(self) -> dict[int, str]:
        """Why sets of tied channels must stay."""
        reasons: dict[int, str] = {}
        for channels, reason in self.flow.blocked:
            for component in np.unique(self.component[channels]).tolist():
                reasons.setdefault(component, reason)
        return reasons

    @functools.cached_property
    def table(self) -> tuple[Link, ...]:
        """The links, in the order of the forward pass."""
        return tuple(self._link(kernels) for kernels in self._tied_kernels())

    def __iter__(self) -> Iterator[Link]:
        return iter(self.table)

    def after(self, removed: Mapping[str, int]) -> Links:
        """These links of a network that was cut, whose groups count the filters that are gone.

        Without them a pruning rate would be one of the filters that are left.

        Args:
          removed: `Cut.removed`.

        Raises:
          UserError: a cut of another network.
        """
        if missing := sorted(removed.keys() - {link.name for link in self.table}):
            raise UserError(f"the cut is of another network: there is no link {missing[0]!r}")
        links = copy.copy(self)
        links.removed = dict(removed)
        return links

    def groups(self, params: Any = None) -> list[FilterGroup]:
        """The filters to prune: one group per link whose channels can all be removed.

        The method itself is a `kdjax.pruning.Selection`. What stands between a filter and its
        consumers is zeroed with a filter that is pruned for good (`FilterGroup.settled`), so that
        its channel is exactly zero and `cut` loses nothing. Of a network that has been cut, take
        the groups of `links.after(cut.removed)`.

        Args:
          params: not looked at; there so that `links.groups` is a selection.

        Raises:
          UserError: no link can be removed, or a kernel has its filters neither first nor last.
        """
        del params
        chosen = [link for link in self.table if link.regular and not link.reason]
        if not chosen:
            raise UserError(f"no layer's filters can be removed:\n{self}")
        return [self._group(link) for link in chosen]

    def __str__(self) -> str:
        rows = [["layer", "filters", "tied with", "through", "consumers", "must stay"]]
        for link in self.table:
            first, *others = map(layer_of, link.kernels)
            reason = link.reason
            if 0 < link.removable < link.filters:
                reason = f"{link.filters - link.removable} of them: {reason}"
            layers = [path.rpartition("/")[0] or path for path in (*link.between, *link.depthwise)]
            within = {path.rpartition("/")[0] for path in link.kernels}
            through = [layer for layer in dict.fromkeys(layers) if layer not in within]
            columns = (others, through, map(layer_of, link.consumers))
            rows.append([first, str(link.filters), *map(", ".join, columns), reason])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join(lines)

    def _tied_kernels(self) -> list[list[str]]:
        """The kernels that make channels, but depthwise ones, those of tied channels together."""
        depthwise = {each.kernel for each in self.flow.contractions if each.depthwise}
        groups: list[tuple[set[int], list[str]]] = []
        for kernel, channels in self.outputs.items():
            if kernel in depthwise:
                continue
            members, kernels = set(self.component[channels].tolist()), [kernel]
            for group in [group for group in groups if group[0] & members]:
                groups.remove(group)
                members, kernels = members | group[0], group[1] + kernels
            groups.append((members, kernels))
        order = list(self.outputs)
        kernels_of_links = [sorted(kernels, key=order.index) for _, kernels in groups]
        return sorted(kernels_of_links, key=lambda kernels: order.index(kernels[0]))

    def _link(self, kernels: list[str]) -> Link:
        members = [self.component[self.outputs[kernel]] for kernel in kernels]
        every = np.unique(np.concatenate(members))
        depthwise, consumers = [], []
        for each in self.flow.contractions:
            if each.depthwise:
                if np.isin(self.component[each.outputs], every).any():
                    depthwise.append(each.kernel)
            elif np.isin(self.component[each.kernel_inputs], every).any():
                consumers.append(each.kernel)
        kernels_of_all = {each.kernel for each in self.flow.contractions}
        between = [
            path
            for path, axes in self.flow.axes.items()
            if path not in kernels_of_all
            and any(np.isin(self.component[c], every).any() for c in axes if len(c) > 1)
        ]
        reasons = [self.reasons.get(component) for component in members[0].tolist()]
        name = layer_of(kernels[0])
        return Link(
            name=name if len(kernels) == 1 else f"{name}_tied",
            filters=len(members[0]),
            kernels=tuple(kernels),
            depthwise=tuple(dict.fromkeys(depthwise)),
            between=tuple(between),
            consumers=tuple(dict.fromkeys(consumers)),
            reason=next(filter(None, reasons), ""),
            removable=reasons.count(None),
            regular=all(np.array_equal(members[0], each) for each in members),
        )

    def _group(self, link: Link) -> FilterGroup:
        kernels = self.masked(link)
        axes = [self.axis(path, self.outputs[path]) for path in kernels]
        first = all(axis == 0 for axis in axes)
        if not first and any(
            axis != len(self.shapes[path]) - 1 for axis, path in zip(axes, kernels, strict=True)
        ):
            raise UserError(
                f"the kernels of {link.name!r} have their filters neither all on the first axis "
                "nor all on the last: prune them by groups of your own (kdjax.pruning.FilterGroup)"
            )
        return FilterGroup(
            link.name,
            kernels,
            kernels,
            removed=self.removed.get(link.name, 0),
            consumers=self._exact_consumers(link, first),
            settled=tuple(path for path in link.between if self._is_settled(path, link)),
            filter_axis=0 if first else -1,
        )

    def masked(self, link: Link) -> tuple[str, ...]:
        """The kernels that one mask of a regular link is of: those with these channels only."""
        members = self.component[self.outputs[link.kernels[0]]]
        depthwise = (
            path
            for path in link.depthwise
            if np.array_equal(self.component[self.outputs[path]], members)
        )
        return (*link.kernels, *depthwise)

    def _is_settled(self, path: str, link: Link) -> bool:
        """Whether an array is trained and has one number for each of a link's channels."""
        members = self.component[self.outputs[link.kernels[0]]]
        axes = [self.component[channels] for channels in self.flow.axes[path] if len(channels) > 1]
        return path in self.trained and len(axes) == 1 and np.array_equal(axes[0], members)

    def _exact_consumers(self, link: Link, first: bool) -> tuple[str, ...]:
        """Consumers that read the link's channels and no others, beside their filters' axis."""
        members = self.component[self.outputs[link.kernels[0]]]
        axis = 1 if first else -2
        return tuple(
            path
            for path in link.consumers
            if np.array_equal(self.component[self.flow.axes[path][axis]], members)
        )

    def axis(self, path: str, channels: np.ndarray) -> int:
        """The axis of an array along which it has these channels.

        Raises:
          UserError: there is none.
        """
        for axis, own in enumerate(self.flow.axes[path]):
            if np.array_equal(own, channels):
                return axis
        raise UserError(f"{path!r} does not have these channels along one of its axes")


def layer_of(path: str) -> str:
    """The name of a kernel's layer, as `kdjax.pruning` names groups: its path without 'kernel'."""
    return path.removesuffix("/kernel")


def trees_of(params: Any) -> tuple[Any, ...]:
    """The trees of a network's arrays: a tuple's, or one."""
    return params if type(params) is tuple else (params,)
