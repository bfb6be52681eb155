"""Training that starts from trained weights."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import traverse_util

from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.networks import Network

_WHERE = "config.start.checkpoint"


def started(method: base.Method, network: Network, networks: Sequence[str]) -> base.Method:
    """`method`, whose only network starts from the weights of `network`.

    Its branches start from trained ones where `network` has some, too; otherwise they and all else
    that the method adds start as ever.

    Args:
      method: any.
      network: a trained network of the same name, with branches or without.
      networks: the names of the method's networks, `config.networks`.

    Raises:
      UserError: there are several networks, which would all be the same; the trained one is
        another, or was made smaller and the method reads more of it than logits; and by `init`,
        where the weights have no place in the method's networks.
    """
    if len(networks) > 1:
        raise UserError(f"{_WHERE} takes one network in config.networks: several would be the same")
    if network.spec.name != networks[0]:
        raise UserError(
            f"{_WHERE} holds {network.spec.full_name}, not the {networks[0]} of config.networks"
        )
    if network.spec.compaction is not None and not method.logits_only:
        raise UserError(
            f"{_WHERE} holds a {network.spec.name} that was made smaller, of which config.method "
            "reads more than the logits; start from a whole one, or by a method such as "
            "'cross_entropy'"
        )

    def init(key, images):
        params, model_state = method.init(key, images)
        own = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
        own = {
            name: tree | {"network_0": _placed(tree.get("network_0", {}), network, name)}
            for name, tree in own.items()
            if name in network.variables
        }
        statistics = own.get("batch_stats", model_state["batch_stats"])
        return params | {"cohort": own["params"]}, model_state | {"batch_stats": statistics}

    return method._replace(init=init)


def _placed(tree: dict, network: Network, collection: str) -> dict:
    """A network's variables with the trained ones in their places."""
    trained = network.variables[collection]
    if "backbone" in tree and "backbone" not in trained:
        return tree | {"backbone": _same(tree["backbone"], trained, network.spec.full_name)}
    if "backbone" in trained and "backbone" not in tree:
        trained = trained["backbone"]
    return _same(tree, trained, network.spec.full_name)


def _same(tree: dict, trained: dict, name: str) -> dict:
    old, new = (traverse_util.flatten_dict(each, sep="/") for each in (tree, trained))
    wrong = sorted(
        path
        for path in old.keys() | new.keys()
        if path not in old or path not in new or old[path].shape != new[path].shape
    )
    if wrong:
        raise UserError(
            f"{_WHERE} holds {name}, whose arrays are not those of config.networks: {wrong[0]}"
        )
    return jax.tree.map(lambda array, like: jnp.asarray(array, like.dtype), trained, tree)
