"""What the memory banks of MCL cost: bytes of the compiled loss, and the time of a step.

    python -m experiments.benchmark.memory_bank

The loss with its gradient, alone and with the update of the banks, is compiled for ImageNet's sizes
and not run: 1,281,167 images, 128 numbers, 8192 negatives, two networks. Temporary bytes are what
the program needs beside its arguments and results, which hold the banks; beside them stands what a
copy of the rows of all anchors, [B, K + 2, D], would take. Then steps of method 'mcl_memory' and of
'mcl' alternate, on random images of 32x32 pixels.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import report
from kdjax import config as configs
from kdjax import losses, methods

IMAGES, FEATURES, NEGATIVES, NETWORKS = 1_281_167, 128, 8192, 2
BATCHES = (32, 256)
MEBIBYTE = 2**20

# Of the steps that are run.
STEP_IMAGES, STEP_BATCH, STEP_CLASSES, NETWORK = 50_000, 64, 100, "resnet20"
ROUNDS, STEPS = 4, 3


def main() -> int:
    print(report.command("memory_bank"))
    print(f"{report.machine(jax.devices()[0].device_kind)}\n")
    bank = 4 * IMAGES * FEATURES / MEBIBYTE
    print(f"One bank has {bank:.0f} MiB. Temporary MiB:\n")
    print("| anchors | all their rows | loss and gradient | with the update of banks |")
    print("|---|---|---|---|")
    for batch in BATCHES:
        rows = 4 * batch * (NEGATIVES + 2) * FEATURES / MEBIBYTE
        sizes = [loss_bytes(batch, update) / MEBIBYTE for update in (False, True)]
        print(f"| {batch} | {rows:.0f} | {sizes[0]:.0f} | {sizes[1]:.0f} |", flush=True)
    print(
        f"\n{NETWORKS} x {NETWORK}, batch of {STEP_BATCH}, {STEP_IMAGES} images, seconds a step:\n"
    )
    runs = {name: prepared(name) for name in ("mcl", "mcl_memory")}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            seconds[name].append(timed(run))
    print("| method | every round | median |\n|---|---|---|")
    for name, values in seconds.items():
        listed = ", ".join(f"{value:.3f}" for value in values)
        print(f"| {name} | {listed} | {statistics.median(values):.3f} |")
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    print(f"\nmcl_memory / mcl, round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    return 0


def loss_bytes(batch: int, update: bool) -> int:
    """Temporary bytes of the compiled loss and gradient, by choice with the update of the banks."""

    @functools.partial(jax.jit, donate_argnums=(1,) if update else ())
    def step(embeddings, banks, contrast):
        def total(embeddings):
            terms = losses.memory_contrast(
                embeddings, banks, contrast, positives=1, temperature=0.07, kd_temperature=3.0
            )
            return sum(term.mean() for term in terms)

        value, gradients = jax.value_and_grad(total)(embeddings)
        if not update:
            return value, gradients
        banks = [
            losses.remember_embeddings(bank, contrast[:, 0], embedding, momentum=0.5)
            for bank, embedding in zip(banks, embeddings, strict=True)
        ]
        return value, gradients, banks

    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    arguments = (
        [shape((batch, FEATURES))] * NETWORKS,
        [shape((IMAGES, FEATURES))] * NETWORKS,
        jax.ShapeDtypeStruct((batch, NEGATIVES + 2), jnp.int32),
    )
    return step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def prepared(name: str) -> Callable[[], None]:
    """A function that makes one step of a method, compiled; its state goes on."""
    config = configs.cifar_run(name, f"cifar100,{NETWORK}", count=NETWORKS)
    config.data.images_per_class = 2 if name == "mcl" else 0
    labels = np.arange(STEP_IMAGES) % STEP_CLASSES
    method = methods.create(config, num_classes=STEP_CLASSES, axis_name=None, train_labels=labels)
    random = np.random.default_rng(0)
    index = random.permutation(STEP_IMAGES // 2)[: STEP_BATCH // 2]
    index = np.concatenate([index, index + STEP_IMAGES // 2])  # two images of each class
    batch = {
        "image": random.normal(size=(STEP_BATCH, 32, 32, 3)).astype(np.float32),
        "label": labels[index],
        "index": index,
        "step": np.int32(0),
    }
    params, model_state = jax.jit(method.init)(jax.random.key(0), batch["image"])

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, model_state, key):
        gradient = jax.grad(method.loss, has_aux=True)
        gradients, (model_state, _) = gradient(params, model_state, batch, key)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradients), model_state

    state = (params, model_state)

    def run() -> None:
        nonlocal state
        state = step(*state, jax.random.key(1))
        jax.block_until_ready(state)

    run()
    return run


def timed(run: Callable[[], None]) -> float:
    """Seconds per step."""
    begin = time.perf_counter()
    for _ in range(STEPS):
        run()
    return (time.perf_counter() - begin) / STEPS


if __name__ == "__main__":
    sys.exit(main())
