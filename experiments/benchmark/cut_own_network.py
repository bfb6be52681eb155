"""How much faster a network outside kdjax is when `compaction.cut` has taken filters out.

    python -m experiments.benchmark.cut_own_network

A residual network written in flax.nnx, with random weights, loses a part of the filters of smallest
norm in every group of `links.groups`. Dense and cut network take turns (A B A B ...), in
evaluation, on random images; milliseconds are medians.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.benchmark import alternating, report
from kdjax import compaction, pruning

CLASSES = 10


class Block(nnx.Module):
    """Two convolutions with BatchNorm, and a sum with what came in."""

    def __init__(self, width: int, inner: int, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(width, inner, (3, 3), use_bias=False, rngs=rngs)
        self.conv2 = nnx.Conv(inner, width, (3, 3), use_bias=False, rngs=rngs)
        self.bn1, self.bn2 = nnx.BatchNorm(inner, rngs=rngs), nnx.BatchNorm(width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(x + self.bn2(self.conv2(hidden)))


class Network(nnx.Module):
    """A stem, three blocks at one resolution, and a classifier."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, width, (3, 3), strides=2, rngs=rngs)
        self.block1, self.block2, self.block3 = (Block(width, width, rngs) for _ in range(3))
        self.classifier = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.stem(x))
        x = self.block3(self.block2(self.block1(x)))
        return self.classifier(x.mean((1, 2)))


def forward_of(network: Network):
    """`(params, stats, images) -> logits` in evaluation, and the arrays of the network."""
    network.eval()
    graph, *variables = nnx.split(network, nnx.Param, nnx.BatchStat)

    def forward(params, stats, images):
        return nnx.merge(graph, params, stats)(images)

    return forward, tuple(variables)


def pruned(params, groups, rate: float):
    """Parameters whose filters of smallest norm are zero, and the masks by layer."""
    prune = pruning.hfp(groups, rate, epochs=1, every=1)
    params = pruning.initial(prune, params)
    updates, state = prune.update(jax.tree.map(jnp.zeros_like, params), prune.init(params), params)
    return optax.apply_updates(params, updates), pruning.pruning_state(state).masks


def row(forward, variables, links, images, rate: float, rounds: int) -> str:
    """The line of a rate."""
    params, masks = pruned(variables[0], links.groups, rate)
    masked = (params, *variables[1:])
    smaller = compaction.cut(masked, links, {name: mask[...] for name, mask in masks.items()})
    error = jnp.abs(forward(*masked, images) - forward(*smaller.params, images)).max()
    compiled = jax.jit(forward)
    calls = {"dense": (compiled, (*masked, images)), "cut": (compiled, (*smaller.params, images))}
    times = alternating.milliseconds(calls, rounds)
    weights = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (masked, smaller.params)]
    dense, cut = times["dense"], times["cut"]
    return (
        f"| {rate:g} | {weights[1] / weights[0]:.2f} | {dense:.1f} | {cut:.1f} | {cut / dense:.2f} "
        f"| {error:.1e} |"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(argv)
    images = jax.random.normal(jax.random.key(0), (options.batch_size, 32, 32, 3))
    forward, variables = forward_of(Network(options.width, nnx.Rngs(0)))
    links = compaction.trace_links(forward, variables, images)
    print(report.command("cut_own_network"))
    print(report.machine(jax.devices()[0].device_kind))
    print(f"\nwidth {options.width}, batch {options.batch_size}, {options.rounds} rounds\n")
    print("| filters pruned | weights left | dense ms | cut ms | cut / dense | largest error |")
    print("|" + "---|" * 6)
    for rate in options.rates:
        print(row(forward, variables, links, images, rate, options.rounds))


if __name__ == "__main__":
    main()
