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

from kdjax.interop import torch as interop
from tests import golden
from tests.models.test_golden import CASES

NAMES = (
    "mcl_resnet32_n2",
    "hsakd_wrn_16_2",
    "hsakd_ShuffleV2_05",
    "hsakd_vgg8_bn",
    "hsakd_mobilenetV2",
    "okd_densenetd40k12",
)


def errors(name: str, dtype: str) -> dict[str, float]:
    """The largest error of logits over their largest absolute value, by mode."""
    case = next(case for case in CASES if case.name == name)
    record, arrays, images = golden.network(name)
    module = case.build(jnp.dtype(dtype))
    variables, _ = interop.import_state_dict(module, golden.state_dict(record))
    found = {}
    for mode in ("eval", "train"):
        train = mode == "train"
        mutable = ["batch_stats"] if train else False

        @jax.jit
        def apply(variables, images, train=train, mutable=mutable):
            outputs = module.apply(variables, images, train=train, mutable=mutable)
            return case.named(outputs[0] if train else outputs)

        named = apply(variables, images)
        compared = [key for key in named if f"{mode}_{key}" in arrays and "logits" in key]
        found[mode] = max(_error(named[key], arrays[f"{mode}_{key}"]) for key in compared)
    return found


def _error(actual, expected) -> float:
    expected = np.asarray(expected, np.float64)
    actual = np.asarray(actual).astype(np.float64).reshape(expected.shape)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--names", default=",".join(NAMES))
    options = parser.parse_args(argv)
    golden.root = lambda: options.golden
    jax.config.update("jax_default_matmul_precision", "highest")
    for name in options.names.split(","):
        for dtype in ("float32", "bfloat16"):
            for mode, error in errors(name, dtype).items():
                line = {"network": name, "dtype": dtype, "mode": mode, "error": error}
                with options.output.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
