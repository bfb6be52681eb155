"""Training that starts from trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.networks import Network
from kdjax.tree import leaves

_WHERE = "config.start.checkpoint"
_CLASSIFIER = "params/classifier/"


def started(
    method: base.Method, network: Network, networks: Sequence[str], *, transfers: bool = False
) -> base.Method:
    """A method whose only network starts from trained weights.

    Branches start from the trained ones where `network` has them. Everything else that the method
    adds is initialized as without `network`.

    Args:
      method: the method to start.
      network: a trained network of the same name, with branches or without.
      networks: the names of the method's networks, `config.networks`.
      transfers: of the method's registration. Its stages alone start from trained ones, unless
        `network` is in the method's form itself. Without a form it is all but the classifier.

    Raises:
      UserError: `networks` has several names; the trained network is another one, or a compact one
        of which the method reads more than the logits. `init` raises it where the trained arrays
        are not those of the method's network.
    """
    if len(networks) > 1:
        raise UserError(f"{_WHERE} takes one network in config.networks: several would be the same")
    if network.spec.name != networks[0]:
        raise UserError(
            f"{_WHERE} holds {network.spec.full_name}, not the {networks[0]} of config.networks"
        )
    if network.spec.compaction is not None and not (method.logits_only or transfers):
        raise UserError(
            f"{_WHERE} holds a {network.spec.name} that was made smaller, of which config.method "
            "reads more than the logits; start from a whole one, or by a method such as "
            "'cross_entropy'"
        )

    if transfers and network.spec.form.name not in ("", method.form.name):
        # Also of a form without a classifier of images: what is behind the stages is left out.
        inside = {name: tree["backbone"] for name, tree in network.variables.items()}
        network = Network(network.spec.backbone, inside)

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        params, model_state = method.init(key, images)
        state = {"params": params, "model_state": model_state}
        trained = _trained_arrays(method, network, state, transfers)

        def initial(path: tuple[Any, ...], array: jax.Array) -> jax.Array:
            array_path = jax.tree_util.keystr(path, simple=True, separator="/")
            return jnp.asarray(trained.get(array_path, array), array.dtype)

        state = jax.tree_util.tree_map_with_path(initial, state)
        return state["params"], state["model_state"]

    return method._replace(init=init)


def _trained_arrays(
    method: base.Method, network: Network, state: dict[str, Any], transfers: bool
) -> dict[str, Any]:
    """The trained arrays by the paths that they have in the method's initial state.

    Raises:
      UserError: a trained array without a place in the state, or a place without one. What stands
        behind the last stage needs no place where the method `transfers`.
    """
    paths = jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), state
    )
    places = method.variables(paths["params"], paths["model_state"], 0)
    if method.form.name and not network.spec.form.name:
        places = {collection: tree["backbone"] for collection, tree in places.items()}
    elif network.spec.form.name and not method.form.name:
        network = network.backbone
    trained, places, arrays = leaves(network.variables), leaves(places), leaves(state)
    if transfers and not method.form.name:  # its classifier has the name of the trained one
        places = {path: at for path, at in places.items() if not path.startswith(_CLASSIFIER)}
    if transfers:
        trained = {path: array for path, array in trained.items() if path in places}
    wrong = sorted(
        path
        for path in trained.keys() | places.keys()
        if path not in trained
        or path not in places
        or trained[path].shape != arrays[places[path]].shape
    )
    if wrong:
        raise UserError(
            f"{_WHERE} holds {network.spec.full_name}, whose arrays are not those of "
            f"config.networks: {wrong[0]}"
        )
    return {places[path]: array for path, array in trained.items()}
