"""The error that bfloat16 itself makes in the networks of the numbers.

    python -m experiments.gpu.rounding --golden shared/golden

Networks run in float64, where only these numbers are rounded to the eight bits of bfloat16: images,
kernels, and what every layer and every block gives. What is left is the error of the format,
whatever the device. 'nearest' rounds as devices do; 'median' and 'largest' are of draws that round
every number up or down by chance, to its neighbor in proportion to its nearness, which has twice
the variance. A tolerance is twice the largest: a device may round inside of layers, too.

In train mode MobileNetV2 and ShuffleNetV2 have large tolerances: with the golden weights and four
images, they enlarge any error. PyTorch's float32 is off 17 and 11 times as far in train mode as in
evaluation, by the golden numbers' own record (`torch_f32_vs_f64_rel`).
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu import networks, tolerances
from tests import golden
from tests.models.official import Computed, Pass

DRAWS = 16
_BFLOAT16_BITS = {"exponent_bits": 8, "mantissa_bits": 7}


def nearest(x: jax.Array) -> jax.Array:
    """Rounds to bfloat16, in the dtype of `x`."""
    return jax.lax.reduce_precision(x, **_BFLOAT16_BITS)


def by_chance(x: jax.Array, key: jax.Array) -> jax.Array:
    """Rounds up or down, with the probabilities that make `x` the mean."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    bits += jax.random.bits(key, x.shape, jnp.uint32) & 0xFFFF
    rounded = jax.lax.bitcast_convert_type(bits & 0xFFFF0000, jnp.float32)
    return rounded.astype(x.dtype)


def rounded_logits(
    computed: Computed, mode: str, variables: dict, images: jax.Array, key: jax.Array | None
) -> dict[str, jax.Array]:
    """Logits by their golden names, of float64 inputs.

    Args:
      computed: the network.
      mode: 'eval' or 'train'.
      variables: of the network.
      images: `[B, H, W, C]`.
      key: of rounding by chance; None for the nearest.
    """
    count = iter(range(10**6))

    def rounded(x: jax.Array) -> jax.Array:
        if x.dtype != jnp.float64:
            return x
        return nearest(x) if key is None else by_chance(x, jax.random.fold_in(key, next(count)))

    def interceptor(call, args, kwargs, context):
        outputs = call(*args, **kwargs)
        return rounded(outputs) if isinstance(outputs, jax.Array) else outputs

    params = jax.tree_util.tree_map_with_path(
        lambda path, x: nearest(x) if path[-1].key == "kernel" else x, variables["params"]
    )
    module = computed.case.build(jnp.float64)
    variables = variables | {"params": params}
    one = Pass(module, variables, nearest(images), computed.record, mode == "train")
    with nn.intercept_methods(interceptor):
        named, _ = computed.case.run(one)
    return {name: value for name, value in named.items() if "logits" in name}


def measure(name: str, mode: str, draws: int = DRAWS) -> dict[str, float]:
    """The errors of a network: 'nearest', 'median' and 'largest'."""
    computed = Computed(networks.case_of(name))
    run = functools.partial(rounded_logits, computed, mode)

    def drawn_logits(variables, images, keys):
        return jax.lax.map(lambda key: run(variables, images, key), keys)

    options = {"compiler_options": golden.OPTIMIZED}
    with jax.enable_x64(True):
        inputs = computed.variables, computed.images
        inputs = jax.tree.map(lambda x: np.asarray(x, np.float64), inputs)
        once = jax.jit(lambda *inputs: run(*inputs, None), **options)(*inputs)
        keys = jax.random.split(jax.random.key(0), draws)
        many = jax.jit(drawn_logits, **options)(*inputs, keys)
    drawn = [
        networks.error(jax.tree.map(lambda x, i=i: x[i], many), computed, mode)
        for i in range(draws)
    ]
    return {
        "nearest": networks.error(once, computed, mode),
        "median": float(np.median(drawn)),
        "largest": max(drawn),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=tolerances.ROUNDING)
    parser.add_argument("--names", default=",".join(tolerances.NETWORKS), help="with commas")
    options = parser.parse_args(argv)
    golden.root = lambda: options.golden
    found = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name in options.names.split(","):
        found[name] = {mode: measure(name, mode) for mode in tolerances.MODES}
        print(name, found[name], flush=True)
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
