"""Links of a network's layers from its user's list, for networks that cannot be traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.compaction.link_table import Links, trees_of
from kdjax.compaction.tracing import named, trace_links
from kdjax.errors import UserError


class Feed(NamedTuple):
    """Layers whose output channels are the input channels of others. Layers are named by paths.

    Attributes:
      layers: the layers that make the channels; several, in the order of the forward pass, where
        their outputs are summed. Of a sum, filters are removed whose channels are zero.
      consumers: all layers that read them, also after pooling or flattening.
      depthwise: the depthwise convolutions that the channels go through before, one by one.
    """

    layers: Sequence[str]
    consumers: Sequence[str]
    depthwise: Sequence[str] = ()


def links(
    params: Any,
    feeds: Sequence[Feed],
    *,
    norms: Mapping[str, str] | None = None,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    padding: str = "SAME",
    filters_first: bool = False,
) -> Links:
    """The links of a network whose layers feed each other as a list says.

    `trace_links` finds the list by itself where the forward pass can be traced. Whatever a list
    leaves out, this cannot know: all consumers of a layer must be there.

    Args:
      params: as of `trace_links`. A layer has arrays 'kernel' (or 'weight') and 'bias'; its
        BatchNorm 'scale' (or 'weight'), 'bias', 'mean' and 'var'.
      feeds: which layers feed which, in the order of the forward pass. Layers that feed none stay
        whole: classifiers.
      norms: `{layer: BatchNorm behind it}`, with epsilon 1e-5.
      activation: behind BatchNorm and sums, from channels to channels.
      padding: of convolutions, 'SAME' or 'VALID'; constants move behind 'VALID' ones only.
      filters_first: whether kernels are [C, in, h, w] and [C, in] and images [C, H, W], as in
        PyTorch and Equinox, not [h, w, in, C], [in, C] and [H, W, C].

    Returns:
      The links; print them to check.

    Raises:
      UserError: a layer that is not in `params`, that two feeds name, or that reads its own output.
    """
    norms = dict(norms or {})
    arrays = named(trees_of(params))
    made_by = _by_layer(feeds, "layers")
    read_by = _by_layer(feeds, "consumers")
    layers = list(dict.fromkeys((*made_by, *read_by)))
    for layer in (*layers, *(each for feed in feeds for each in feed.depthwise)):
        _leaf(arrays, layer, "kernel", "weight")
    for norm in norms.values():
        _leaf(arrays, norm, "scale", "weight")

    def forward(*trees: Any) -> list[jax.Array]:
        *given, images = trees
        network = _Network(named(given), norms, activation, padding, filters_first)
        fed: dict[Feed, jax.Array | None] = {}
        outputs: dict[str, jax.Array] = {}

        def output(layer: str) -> jax.Array:
            if layer not in outputs:
                x = channels(read_by[layer]) if layer in read_by else images
                outputs[layer] = network.layer(layer, x)
            return outputs[layer]

        def channels(feed: Feed) -> jax.Array:
            if feed in fed:
                # Within a sum: what its next summands are computed from is the sum so far.
                so_far = fed[feed]
                if so_far is None:
                    raise UserError(
                        f"{feed.layers[0]!r} reads its own output: list feeds and the layers of "
                        "sums in the order of the forward pass"
                    )
                return so_far
            fed[feed] = total = None
            for layer in feed.layers:
                x = output(layer)
                total = x if total is None else total + x
                x = activation(total)
                for each in feed.depthwise:
                    x = activation(network.layer(each, x, depthwise=True))
                # Which summands a consumer reads is not in the list: it may count on zeros alone.
                fed[feed] = made = x if len(feed.layers) == 1 else x * images
            return made

        for feed in dict.fromkeys(made_by.values()):
            channels(feed)
        for layer in layers:
            output(layer)
        return [x for layer, x in outputs.items() if layer not in made_by]

    return trace_links(forward, trees_of(params), jax.ShapeDtypeStruct((), jnp.float32))


def _by_layer(feeds: Sequence[Feed], field: str) -> dict[str, Feed]:
    by_layer: dict[str, Feed] = {}
    for feed in feeds:
        feed = Feed(*map(tuple, feed))
        if not feed.layers:
            raise UserError(
                f"a feed of {feed.consumers} names no layers: name those that they read"
            )
        for layer in getattr(feed, field):
            if layer in by_layer:
                raise UserError(f"{layer!r} is among the {field} of two feeds: make them one")
            by_layer[layer] = feed
    return by_layer


def _leaf(arrays: Mapping[str, Any], layer: str, *names: str) -> str:
    """The path of a layer's array that has one of these names; a kernel may name its layer."""
    for path in (*(f"{layer}/{name}" for name in names), layer):
        if path in arrays:
            return path
    raise UserError(f"params have no layer {layer!r} with an array {' or '.join(names)}")


class _Network(NamedTuple):
    """Layers as a program of their own: what is needed of images is their channels."""

    arrays: Mapping[str, jax.Array]
    norms: Mapping[str, str]
    activation: Callable[[jax.Array], jax.Array]
    padding: str
    filters_first: bool

    def layer(self, layer: str, x: jax.Array, *, depthwise: bool = False) -> jax.Array:
        """Channels `[1, N]`, or `[]` of images, to `[1, C]` behind BatchNorm."""
        kernel = self.arrays[_leaf(self.arrays, layer, "kernel", "weight")]
        if self.filters_first:
            kernel = kernel.transpose(*range(2, kernel.ndim), 1, 0)
        *window, inputs, _ = kernel.shape
        inputs = x.shape[-1] if depthwise else inputs
        if not window:
            x = self._flat(x, inputs) @ kernel
        else:
            x = jnp.broadcast_to(x.reshape((1,) * (len(window) + 1) + (-1,)), (1, *window, inputs))
            letters = "XYZ"[: len(window)]
            x = jax.lax.conv_general_dilated(
                x,
                kernel,
                (1,) * len(window),
                "SAME" if any(size > 1 for size in window) and self.padding == "SAME" else "VALID",
                dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
                feature_group_count=inputs if depthwise else 1,
            )
        x = x + self._vector(f"{layer}/bias", 0)
        if norm := self.norms.get(layer):
            x = x - self._vector(f"{norm}/mean", 0)
            x = x * jax.lax.rsqrt(self._vector(f"{norm}/var", 1) + 1e-5)
            x = x * self._vector(_leaf(self.arrays, norm, "scale", "weight"), 1)
            x = x + self._vector(f"{norm}/bias", 0)
        return x.mean(tuple(range(1, x.ndim - 1)))

    def _vector(self, path: str, default: float) -> jax.Array | float:
        return self.arrays[path].reshape(-1) if path in self.arrays else default

    def _flat(self, x: jax.Array, inputs: int) -> jax.Array:
        """Channels as a flattened feature map has them: `[1, inputs]`."""
        if not x.ndim:
            return jnp.broadcast_to(x, (1, inputs))
        if inputs % x.shape[-1]:
            raise UserError(
                f"a dense layer of {inputs} inputs cannot read {x.shape[-1]} channels: is a feed "
                "missing or wrong?"
            )
        pixels = inputs // x.shape[-1]
        if self.filters_first:
            return jnp.broadcast_to(x[:, :, None], (1, x.shape[-1], pixels)).reshape(1, inputs)
        return jnp.broadcast_to(x[:, None], (1, pixels, x.shape[-1])).reshape(1, inputs)
