"""Training with pruning on all devices, and on one: `python -m tests.pruning.on_devices`.

Prints the number of devices, and whether parameters, masks and the rest of the state have the same
bits, for each way of spreading a step over devices.
"""

import jax
import numpy as np
import optax

from kdjax import pruning
from kdjax.parallel import AXIS, BACKENDS, Parallel, fetch
from kdjax.pruning import schedules
from tests.pruning.trees import EVERY, gradients, kernels, sgd, tree, zeros

EPOCHS = 3


def run(devices: Parallel | None):
    """The state after all epochs; gradients are a mean over devices, exact in any order."""
    prune = pruning.ghfp(
        pruning.official,
        0.4,
        epochs=EPOCHS,
        every=EVERY,
        base="asrfp",
        decay=schedules.exponential_decay(EPOCHS, zero_from=0.6),
    )
    tx, params = sgd(prune), tree(0, convolutions=1)
    count = 4

    def step(state, constants, shares):
        params, opt_state = state
        if devices is None:
            grads = jax.tree.map(lambda x: x.mean(0), shares)
        else:
            grads = jax.lax.pmean(shares, AXIS)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    state = params, tx.init(params)
    step = jax.jit(step) if devices is None else devices.map(step)
    for number in range(EVERY * EPOCHS):
        # Shares of few bits: sums of four of them are exact.
        grads = jax.tree.map(lambda x: np.round(8 * x) / 8, gradients(params, number))
        shares = jax.tree.map(lambda x: np.stack([d * x for d in range(count)]), grads)
        if devices is not None:
            shares = devices.shard(shares)
        state = step(state, np.float32(0), shares)
    return fetch(state)


def main() -> None:
    print(jax.device_count())
    one = run(None)
    pruned = [zeros(kernel).sum() for kernel in kernels(one[0]).values()]
    assert min(pruned) > 3
    for backend in BACKENDS:
        other = run(Parallel(backend))
        same = jax.tree.map(np.array_equal, one, other)
        print(backend, all(jax.tree.leaves(same)))


if __name__ == "__main__":
    main()
