"""How MCL's projections collapse in the first steps, or do not: several seeds, step by step.

    python -m experiments.collapse_start --seeds 0,1,2 --output FILE \
        --config=configs/mcl.py:cifar100,resnet8,2 --config.data.train_fraction=0.2 \
        --config.epochs=15 --config.data.source=arrays:DATA/cifar100_train.npz

Trains the first steps of the config, which is the rest of the command line, and prints before some
of the steps, for the images of that step: the mean cosine between the projections of different
images (1: all are the same, the collapse), how many hidden units of the projection heads are active
on some image, the learning rate, VCL, and the length of the gradient of every weighted term with
respect to the networks and to the heads. Seeds whose lines the output has are left out.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.collapse import networks
from kdjax import methods
from kdjax.cli.command_line import parse
from kdjax.methods import base
from kdjax.methods.mcl import ProjectionHead, projected
from kdjax.training.building import build
from kdjax.training.input_images import input_spec
from kdjax.training.optimizers import learning_rate
from kdjax.training.step import step_batch

STEPS = (0, 1, 2, 3, 5, 8, 12, 20, 40, 77, 80, 90, 100, 120, 140, 155)
WEIGHTS = {"vcl": "alpha", "icl": "beta", "soft_vcl": "gamma", "soft_icl": "lam"}
HEADER = "seed step rate cosine active vcl | gradients of cross_entropy " + " ".join(WEIGHTS)


class Probe:
    """Looks at a state: `probe(state, batch)` -> the numbers of a line."""

    def __init__(self, config, dataset):
        self.weights = {name: config.mcl[key] for name, key in WEIGHTS.items()}
        self.method = methods.create(
            config,
            num_classes=dataset.num_classes,
            images=input_spec(dataset),
            axis_name=None,
            train_labels=dataset.train.labels,
        )
        self.cohort = networks(config, dataset.num_classes)
        self.head = ProjectionHead(config.mcl.projection_features)
        self.numbers = jax.jit(self._numbers)

    def _terms(self, params: Any, model_state: Any, batch: Any) -> jax.Array:
        """The weighted terms `[5]`: cross entropy, then those of `WEIGHTS`."""
        _, (_, metrics) = self.method.loss(params, model_state, batch, jax.random.key(0))
        weighted = [weight * metrics[name] for name, weight in self.weights.items()]
        return jnp.stack([metrics["cross_entropy"], *weighted])

    def _numbers(self, params: Any, model_state: Any, batch: Any) -> dict[str, jax.Array]:
        outputs, _ = base.train_outputs(self.cohort, params, model_state, batch["image"])
        vectors = jnp.stack(projected(self.head, params, outputs))
        count = vectors.shape[1]
        sums = jnp.sum(jnp.sum(vectors, 1) ** 2, -1)
        hidden = [
            output.embedding @ params["heads"][f"head_{i}"]["hidden"]["kernel"]
            + params["heads"][f"head_{i}"]["hidden"]["bias"]
            for i, output in enumerate(outputs)
        ]
        terms = functools.partial(self._terms, model_state=model_state, batch=batch)
        gradients = jax.jacrev(terms)(params)
        return {
            "cosine": jnp.mean((sums - count) / (count * (count - 1))),
            "active": jnp.mean(jnp.stack([(unit > 0).any(0).sum() for unit in hidden])),
            "vcl": terms(params)[1] / self.weights["vcl"],
            "cohort": _lengths(gradients["cohort"]),
            "heads": _lengths(gradients["heads"]),
        }


def _lengths(gradients: Any) -> jax.Array:
    """Euclidean lengths `[5]` of a tree of gradients `[5, ...]`."""
    squares = [jnp.sum(leaf.reshape(len(leaf), -1) ** 2, 1) for leaf in jax.tree.leaves(gradients)]
    return jnp.sqrt(sum(squares))


def lines(flags: list[str], seed: int, last: int):
    """The lines of a seed, up to a step."""
    config = parse(["kdjax", *flags, f"--config.seed={seed}", "--workdir=unused"]).config
    config.steps_per_dispatch = 1
    program = build(config)
    probe = Probe(config, program.feed.dataset)
    rate = learning_rate(config, program.steps_per_epoch)
    prepare = jax.jit(step_batch(program.prepare))
    constants = program.feed.train_constants()
    state, step = program.parallel.replicate(program.init_state()), 0
    for epoch in range(config.epochs):
        for _, batches in program.feed.train(epoch, 0):
            if step in STEPS:
                rows = jax.tree.map(lambda x: np.asarray(x)[0, 0], batches)
                batch, _ = prepare(constants, rows, np.int32(step), np.int32(0))
                found = probe.numbers(state.params, state.model_state, batch)
                lengths = [
                    f"{networks:.3g}/{heads:.3g}"
                    for networks, heads in zip(found["cohort"], found["heads"], strict=True)
                ]
                yield (
                    f"{seed} {step} {float(rate(step)):.3g} {found['cosine']:.4f} "
                    f"{found['active']:.0f} {found['vcl']:.3f} | {' '.join(lengths)}"
                )
            if step == last:
                return
            state, _ = program.train_steps(state, constants, batches)
            step += 1


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", required=True, help="numbers, with commas")
    parser.add_argument("--last", type=int, choices=STEPS, default=STEPS[-1], help="step")
    parser.add_argument("--output", type=Path, required=True)
    options, flags = parser.parse_known_args(argv)
    text = options.output.read_text() if options.output.exists() else ""
    if not text:
        options.output.write_text(f"{HEADER}\n")
    there = {line.split()[0] for line in text.splitlines()[1:]}
    for seed in options.seeds.split(","):
        if seed in there:
            continue
        for line in list(lines(flags, int(seed), options.last)):
            print(line, flush=True)
            with options.output.open("a") as file:
                file.write(f"{line}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
