"""Shrinking of networks during training.

Hard-pruned filters (HFP, GHFP) never return. After each epoch of `config.pruning.shrink_epochs`
they are removed from the networks, the optimizer state and the batch statistics, and training
continues with the smaller networks, which compute the same function as the masked ones. The specs
saved with every checkpoint record the remaining filters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kdjax import compaction, methods, pruning
from kdjax.errors import UserError
from kdjax.models import Compaction
from kdjax.parallel import fetch
from kdjax.training.hooks import Change, Hook
from kdjax.training.program import Program
from kdjax.training.step import TrainState

_SETTING = "config.pruning.shrink_epochs"


def shrink(program: Program, state: TrainState) -> tuple[dict[str, Compaction], TrainState, str]:
    """Removes the hard-pruned filters from a state.

    Args:
      program: the program of the state.
      state: the training state, as numpy arrays.

    Returns:
      The remaining filters by 'network_i', the smaller state, and a line that reports the number of
      filters before and after.

    Raises:
      UserError: filters of the networks cannot be removed.
    """
    hard, config = pruning.pruning_state(state.opt_state).hard, program.config
    networks = methods.networks(config, program.num_classes, compactions=program.compactions)
    compactions: dict[str, Compaction] = {}
    sizes = []
    for index, network in enumerate(networks):
        name = f"network_{index}"
        prefix = f"cohort/{name}/"
        places = program.metadata["networks"][index]["places"]
        if program.method.form.name or places.get("params") != f"params/cohort/{name}":
            raise UserError(
                f"{_SETTING}: networks of method {config.method!r} have branches, which read "
                "channels that would be removed; shrink after training, by --job=compact"
            )
        masks = {
            group.removeprefix(prefix): ~np.asarray(mask)
            for group, mask in hard.items()
            if group.startswith(prefix)
        }
        variables = {
            "params": state.params["cohort"][name],
            "batch_stats": state.model_state["batch_stats"][name],
        }
        smaller = compaction.shrink(network, variables, masks)
        state = compaction.narrow(state, smaller.cuts, within=name)
        if smaller.network.compaction is not None:
            compactions[name] = smaller.network.compaction
        before, after = (_filters(arrays) for arrays in (variables, smaller.variables))
        sizes.append(f"{name} {before} -> {after}")
    return compactions, state, f"filters that are left: {', '.join(sizes)}"


def check(program: Program) -> None:
    """Checks, before training, that the networks of a run can be shrunk.

    The networks are shrunk with a trial set of pruned filters; the shapes of the resulting state
    must be those of a state of the smaller networks.

    Raises:
      UserError: the networks cannot be shrunk, or the method reads channels that would be removed.
    """
    settings = program.config.pruning
    if not settings.shrink_epochs:
        return
    state = program.abstract_state()
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    state = state._replace(opt_state=_with_hard(state.opt_state, settings.rate))
    compactions, state, _ = shrink(program, state)
    _check_features(program, compactions)
    expected = program.with_compactions(compactions).abstract_state()
    pairs = zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(state), strict=True)
    for (path, leaf), smaller in pairs:
        if leaf.shape != smaller.shape:
            raise _channels_are_read(
                program, jax.tree_util.keystr(path, simple=True, separator="/")
            )


def _check_features(program: Program, compactions: Mapping[str, Compaction]) -> None:
    """Raises `UserError` if shrinking changes the width of a feature that the method may read."""
    if program.method.logits_only:
        return
    images = jax.ShapeDtypeStruct((2, *program.image_shape), np.float32)
    widths = []
    for removed in (program.compactions, compactions):
        networks = methods.networks(program.config, program.num_classes, compactions=removed)
        outputs = [
            jax.eval_shape(network.init_with_output, jax.random.key(0), images)[0]
            for network in networks
        ]
        widths.append(
            {
                f"network_{index}/{name}": array.shape[-1]
                for index, output in enumerate(outputs)
                for name, array in (*output.features.items(), ("embedding", output.embedding))
            }
        )
    for name, width in widths[0].items():
        if widths[1][name] != width:
            raise _channels_are_read(program, name)


def _channels_are_read(program: Program, name: str) -> UserError:
    return UserError(
        f"{_SETTING}: method {program.config.method!r} reads channels that would be removed "
        f"({name}); shrink after training, by --job=compact"
    )


def _with_hard(opt_state: Any, rate: float) -> Any:
    """An optimizer state with some hard-pruned filters in every group.

    The set of filters differs between groups, so that a network which relies on two separate groups
    having equal masks is detected.
    """

    def pruned(node: Any) -> Any:
        if not isinstance(node, pruning.PruningState):
            return node
        hard: dict[str, Any] = {
            name: np.roll(np.arange(mask.size) < int(rate * mask.size), index)
            for index, (name, mask) in enumerate(node.hard.items())
        }
        return node._replace(hard=hard)

    return jax.tree.map(pruned, opt_state, is_leaf=lambda x: isinstance(x, pruning.PruningState))


def _filters(variables: dict[str, Any]) -> int:
    leaves = jax.tree.leaves(variables["params"])
    return sum(leaf.shape[-1] for leaf in leaves if leaf.ndim == 4)


def _change(program: Program, state: TrainState, epoch: int) -> Change | None:
    if epoch not in program.config.pruning.shrink_epochs:
        return None
    compactions, smaller, message = shrink(program, fetch(state))
    return Change(program.with_compactions(compactions), smaller, message)


# Shrinks the networks of a run after its `config.pruning.shrink_epochs`.
SHRINKING = Hook(check=check, change=_change)
