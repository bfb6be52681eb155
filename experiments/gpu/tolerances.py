"""How far numbers on a device may be off, as a part of an array's largest absolute value.

Losses in float32 are held to what a CPU is held to. In bfloat16 they see rounded inputs and round
their gradients. Networks in bfloat16 are held to twice the error that the format itself makes in
them, which `rounding` measures and explains.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

DTYPES = ("float32", "bfloat16")
MODES = ("eval", "train")
NETWORKS = (
    "mcl_resnet32_n2",
    "hsakd_wrn_16_2",
    "hsakd_ShuffleV2_05",
    "hsakd_vgg8_bn",
    "hsakd_mobilenetV2",
    "okd_densenetd40k12",
)
ROUNDING = Path(__file__).parents[1] / "results/benchmark/bfloat16_rounding.json"

_LOSSES = {"float32": 1e-5, "bfloat16": 5e-2}
_LOSSES_IN_BFLOAT16 = {
    # Divided by estimated variances, rounding errors grow.
    "repd_vid": 2e-1,
    # One case has the temperature 0.07. In float32, its rounded inputs alone make 8e-2.
    "mcl_moco": 1.6e-1,
}
_NETWORK_IN_FLOAT32 = 1e-4


def of_loss(family: str, dtype: str) -> float:
    """Of values and gradients of a family of golden losses."""
    other = _LOSSES_IN_BFLOAT16 if dtype == "bfloat16" else {}
    return other.get(family, _LOSSES[dtype])


def of_network(name: str, dtype: str, mode: str) -> float:
    """Of a golden network's logits, in mode 'eval' or 'train'."""
    if dtype == "float32":
        return _NETWORK_IN_FLOAT32
    return 2 * rounding_errors()[name][mode]["largest"]


@functools.cache
def rounding_errors() -> dict[str, dict[str, dict[str, float]]]:
    """What `rounding` measured, by network and mode."""
    return json.loads(ROUNDING.read_text())
