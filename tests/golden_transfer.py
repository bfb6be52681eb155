"""Access to the golden numbers of segmentation and detection: `shared/golden/transfer`."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from tests import golden


class Case(NamedTuple):
    """A golden piece: its settings and its arrays `in_*`, `out_*`, `grad_*`."""

    hyper: dict[str, Any]
    arrays: dict[str, np.ndarray]


def case(name: str) -> Case:
    """Reads one of the golden pieces, such as 'seg_bilinear_up'."""
    cases = json.loads(golden.path("transfer", "index.json").read_text())["cases"]
    (entry,) = (each for each in cases if each["file"] == f"{name}.npz")
    return Case(entry.get("hyper", {}), arrays(name))


def arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of one of the golden files."""
    with np.load(golden.path("transfer", f"{name}.npz")) as file:
        return dict(file)


class Network(NamedTuple):
    """A golden network: its description, arrays, input `[B, H, W, C]` and filled state dict."""

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    images: np.ndarray
    state: dict[str, np.ndarray]


def network(name: str) -> Network:
    """Reads one of the golden networks, such as 'seg_deeplabv3_resnet18'."""
    record = json.loads(golden.path("transfer", f"{name}.json").read_text())
    recipe = record["x"]
    images = np.random.RandomState(recipe["seed"]).standard_normal(recipe["shape"])
    state = golden.state_dict(record)
    for key, factor in record["fill_scale"].items():
        state[key] = (state[key] * np.float32(factor)).astype(np.float32)
    return Network(record, arrays(name), images.astype(np.float32), state)
