"""Six networks on this device, with the weights of the golden numbers: how far logits are off.

    python -m experiments.gpu.networks --golden shared/golden --output FILE.jsonl

In float32 at the highest precision of products, and in bfloat16; in evaluation and in train mode.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu import tolerances
from tests import golden
from tests.models import reference_networks
from tests.models.official import Computed, GoldenCase, Pass


def case_of(name: str) -> GoldenCase:
    """The golden network of this name.

    Raises:
      StopIteration: the golden index has no such network.
    """
    nets = json.loads(golden.path("nets", "index.json").read_text())["nets"]
    reference = next(net["reference"] for net in nets if net["name"] == name)
    return reference_networks.case(name, reference)


def errors(name: str, dtype: str) -> dict[str, float]:
    """The largest error of logits over their largest absolute value, by mode."""
    computed = Computed(case_of(name))
    module = computed.case.build(jnp.dtype(dtype))
    found = {}
    for mode in tolerances.MODES:

        @jax.jit
        def run(variables, images, train=mode == "train"):
            one = Pass(module, variables, images, computed.record, train)
            return computed.case.run(one)[0]

        found[mode] = error(run(computed.variables, computed.images), computed, mode)
    return found


def error(named: dict[str, jax.Array], computed: Computed, mode: str) -> float:
    """The largest error of logits, by their golden names, over their largest absolute value."""
    names = {name: f"{mode}_{name}" for name in named if "logits" in name}
    return max(
        _error(named[name], computed.arrays[key])
        for name, key in names.items()
        if key in computed.arrays
    )


def _error(actual, expected) -> float:
    expected = np.asarray(expected, np.float64)
    actual = np.asarray(actual).astype(np.float64).reshape(expected.shape)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--names", default=",".join(tolerances.NETWORKS))
    options = parser.parse_args(argv)
    golden.root = lambda: options.golden
    jax.config.update("jax_default_matmul_precision", "highest")
    for name in options.names.split(","):
        for dtype in tolerances.DTYPES:
            for mode, error in errors(name, dtype).items():
                line = {"network": name, "dtype": dtype, "mode": mode, "error": error}
                with options.output.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
