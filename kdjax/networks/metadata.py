"""What a checkpoint says of its networks: their specs, and where their variables are in its state.

    {"networks": [{"spec": {...}, "places": {"params": "params/cohort/network_0", ...}}, ...],
     "best": "mean/top1", "class_names": ["cat", "dog"]}

A place gives the subtree of the state that is a subtree of the network's variables, so that one
rule reads networks of every method: alone, with a shared trunk, or inside of something larger.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import traverse_util

from kdjax.errors import UserError
from kdjax.models import Compaction
from kdjax.networks.spec import NetworkSpec

# Subtrees of a network's variables -> those of the state, as '/'-joined keys.
Places = dict[str, str]
# (params, model_state, index) -> a network's {'params': ..., 'batch_stats': ...}.
VariablesOf = Callable[[Any, Any, int], Mapping[str, Any]]


def describe(
    specs: Sequence[NetworkSpec],
    params: Any,
    model_state: Any,
    variables_of: VariablesOf,
    best: str,
    averaged_of: VariablesOf | None = None,
) -> dict[str, Any]:
    """The metadata of a checkpoint whose state has these `params` and this `model_state`.

    Args:
      specs: of all networks, in their order.
      params, model_state: of the method; shapes are enough.
      variables_of: picks the variables of a network, `Method.variables`. It may take trees apart
        and put them together, but not compute.
      best: the metric that makes a checkpoint the best one.
      averaged_of: picks the moving averages of the variables, where there are any; their places
        are under 'ema'.
    """
    state = {"params": params, "model_state": model_state}
    paths = jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), state
    )
    sizes = collections.Counter(
        "/".join(keys[:length])
        for keys in (path.split("/") for path in jax.tree.leaves(paths))
        for length in range(1, len(keys) + 1)
    )
    networks = []
    for index, spec in enumerate(specs):
        described: dict[str, Any] = {"spec": spec.to_dict()}
        for key, pick in (("places", variables_of), ("ema", averaged_of)):
            if pick is not None:
                described[key] = {}
                for name, tree in pick(paths["params"], paths["model_state"], index).items():
                    described[key] |= _places(tree, name, sizes)
        networks.append(described)
    return {"networks": networks, "best": best}


def _places(node: Any, at: str, sizes: Mapping[str, int]) -> Places:
    """The places of a tree whose leaves are paths: as few subtrees as there may be.

    Args:
      node: the tree.
      at: where it is among the network's variables.
      sizes: number of leaves of every subtree of the state.
    """
    if isinstance(node, str):
        return {at: node}
    places: Places = {}
    for key, child in node.items():
        places |= _places(child, f"{at}/{key}", sizes)
    parents = {outer.removesuffix(inner.removeprefix(at)) for inner, outer in places.items()}
    if len(parents) != 1:
        return places
    (parent,) = parents
    whole = sizes[parent] == len(jax.tree.leaves(node))
    return {at: parent} if whole else places


def specs_of(metadata: Mapping[str, Any]) -> tuple[NetworkSpec, ...]:
    """The specs of all networks of a checkpoint.

    Raises:
      UserError: the metadata are damaged.
    """
    return tuple(NetworkSpec.from_dict(_entry(network, "spec")) for network in _networks(metadata))


def compactions_of(metadata: Mapping[str, Any]) -> dict[str, Compaction]:
    """Which filters are left of the networks of a checkpoint, by 'network_i', where some are gone.

    Raises:
      UserError: the metadata are damaged.
    """
    specs = {f"network_{index}": spec for index, spec in enumerate(specs_of(metadata))}
    return {name: spec.compaction for name, spec in specs.items() if spec.compaction is not None}


def best_of(metadata: Mapping[str, Any]) -> str:
    """The metric that makes a checkpoint the best one; '' where there is none.

    Raises:
      UserError: the metadata are damaged.
    """
    best = metadata.get("best")
    if not isinstance(best, str):
        raise UserError("a checkpoint's metadata are damaged: 'best' must be a metric's name")
    return best


def class_names_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes; () of a network that was imported, made compact, or saved before.

    Raises:
      UserError: the metadata are damaged.
    """
    names = metadata.get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("a checkpoint's metadata are damaged: 'class_names' must be texts")
    return tuple(names)


def variables_of(
    metadata: Mapping[str, Any], index: int, state: Mapping[str, Any], *, ema: bool = False
) -> dict[str, Any]:
    """The variables of network `index` in a checkpoint's state.

    Args:
      metadata: of the checkpoint.
      index: of the network, from 0.
      state: nested dicts of arrays.
      ema: whether the moving averages are wanted.

    Raises:
      UserError: the metadata are damaged, or the state lacks what they name; or there is no moving
        average.
    """
    flat: dict[str, Any] = {}
    network = _networks(metadata)[index]
    if ema and isinstance(network, Mapping) and "ema" not in network:
        raise UserError(
            "it has no moving average of its weights; train with config.ema.decay, or leave the "
            "average out"
        )
    for inner, outer in _entry(network, "ema" if ema else "places").items():
        node: Any = state
        for key in str(outer).split("/"):
            if not isinstance(node, Mapping) or key not in node:
                raise UserError(f"a checkpoint's metadata are damaged: there is no {outer!r} in it")
            node = node[key]
        if isinstance(node, Mapping):
            leaves = traverse_util.flatten_dict(dict(node), sep="/")
            flat |= {f"{inner}/{path}": leaf for path, leaf in leaves.items()}
        else:
            flat[inner] = node
    return traverse_util.unflatten_dict(flat, sep="/")


def _networks(metadata: Mapping[str, Any]) -> list[Any]:
    networks = metadata.get("networks")
    if not isinstance(networks, list) or not networks:
        raise UserError("a checkpoint's metadata are damaged: 'networks' must be a list")
    return networks


def _entry(network: Any, name: str) -> dict[str, Any]:
    entry = network.get(name) if isinstance(network, Mapping) else None
    if not isinstance(entry, dict):
        raise UserError(f"a checkpoint's metadata are damaged: a network has no {name!r}")
    return entry
