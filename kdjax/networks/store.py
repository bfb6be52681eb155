"""Trained networks by directory: a run's workdir, or what `--job=import-torch` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from kdjax import models
from kdjax.compaction import history as compactions
from kdjax.errors import UserError
from kdjax.runs.checkpoints import Checkpoints, saved
from kdjax.runs.metrics import write_atomically

_SPEC = "network.json"
_CHANNELS = (3, 1, 2, 4)  # that images may have, the likely first


class Pretrained(NamedTuple):
    """A network and its weights.

    Attributes:
      name: of the network, for `kdjax.models.create`.
      num_classes: its number of classes.
      variables: `{'params': ..., 'batch_stats': ...}`, numpy arrays.
      compaction: which filters are left of a network that was made smaller, else None.
    """

    name: str
    num_classes: int
    variables: dict[str, Any]
    compaction: models.Compaction | None = None

    def module(self, **options) -> nn.Module:
        """The network; `options` are those of `kdjax.models.create`."""
        module = models.create(self.name, num_classes=self.num_classes, **options)
        return module if self.compaction is None else module.clone(compaction=self.compaction)


def backbone(network: Pretrained) -> Pretrained:
    """The network itself, where it has branches."""
    if "backbone" not in network.variables["params"]:
        return network
    variables = {name: tree["backbone"] for name, tree in network.variables.items()}
    return Pretrained(network.name.rpartition("_")[0], network.num_classes, variables)


def is_imported(directory: Path) -> bool:
    """Whether a directory was written by `save`."""
    return (Path(directory) / _SPEC).is_file()


def check_free(directory: Path, flag: str = "--workdir") -> None:
    """Raises `UserError` if something is in the way of `save`; `flag` is what named it."""
    if is_imported(directory) or saved(directory / "checkpoints"):
        raise UserError(f"{flag}={directory} is in use; name another directory")


def save(
    directory: Path, network: Pretrained, source: dict[str, str], flag: str = "--workdir"
) -> None:
    """Writes a network as a checkpoint that `load` and `config.teacher.checkpoint` understand.

    Args:
      directory: made if missing.
      network: what to write.
      source: where it comes from; kept in network.json.
      flag: what named the directory.

    Raises:
      UserError: the directory holds another network or a run, or cannot be written to.
    """
    check_free(directory, flag)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(directory / "checkpoints", "none")
        checkpoints.save(0, network.variables, {}, {})
        checkpoints.close()
        spec = {"network": network.name, "num_classes": network.num_classes, "source": source}
        if network.compaction is not None:
            spec["compaction"] = network.compaction.as_dict()
        # Last, so that a directory with this file is a whole one.
        write_atomically(directory / _SPEC, json.dumps(spec, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{flag}={directory} cannot be written: {error.strerror}") from error


def load(directory: str | Path, *, member: str = "network_0", which: str = "best") -> Pretrained:
    """Reads a network.

    Args:
      directory: a run's workdir, or one that `save` wrote.
      member: which network of a run, 'network_0', 'network_1', ...; nothing else is in an imported
        directory.
      which: a run's 'best' or 'latest' checkpoint.

    Raises:
      UserError: no such directory or member, or a damaged checkpoint.
    """
    directory = Path(directory)
    if is_imported(directory):
        return _load_imported(directory)
    if not (directory / "config.json").is_file():
        raise UserError(
            f"{directory} holds no network: name a run's workdir, or import one "
            "(--job=import-torch)"
        )
    return _load_member(directory, member, which)


def teacher(config: ConfigDict, num_classes: int) -> Pretrained:
    """The network that `config.teacher` names.

    Raises:
      UserError: none is named, it cannot be read, or it has another number of classes.
    """
    if not config.checkpoint:
        raise UserError(
            "config.teacher.checkpoint is missing: name the workdir of a trained teacher, or "
            "import one from PyTorch (--job=import-torch)"
        )
    return named(config, "config.teacher", num_classes)


def named(config: ConfigDict, section: str, num_classes: int) -> Pretrained:
    """The network that a section of a config names by `checkpoint`, `member` and `which`.

    Raises:
      UserError: it cannot be read, or has another number of classes.
    """
    if config.which not in ("best", "latest"):
        raise UserError(f"{section}.which={config.which!r} is unknown; use 'best' or 'latest'")
    found = load(config.checkpoint, member=config.member, which=config.which)
    if found.num_classes != num_classes:
        raise UserError(
            f"{section}.checkpoint={config.checkpoint}: {found.name} has {found.num_classes} "
            f"classes, the data has {num_classes}"
        )
    return found


def _load_imported(directory: Path) -> Pretrained:
    try:
        spec = json.loads((directory / _SPEC).read_text())
        name, num_classes, compaction = spec["network"], spec["num_classes"], None
        if "compaction" in spec:
            compaction = models.Compaction.from_dict(spec["compaction"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory / _SPEC} is damaged: {error!r}; import it again") from error
    _, tree = _checkpoints(directory).restore_tree("latest")
    network = Pretrained(name, num_classes, tree, compaction)
    return network._replace(variables=_fitting(network.module(), tree, directory))


def _load_member(directory: Path, member: str, which: str) -> Pretrained:
    try:
        config = json.loads((directory / "config.json").read_text())
        names, best = config["networks"], config["evaluation"]["best"]
        method = config["method"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{directory / 'config.json'} is damaged: {error!r}") from error
    known = [f"network_{index}" for index in range(len(names))]
    if member not in known:
        raise UserError(f"{directory} has no {member!r}; it has {', '.join(known)}")
    step, tree = _checkpoints(directory, best).restore_tree(which)
    collections = {
        "params": tree["params"]["cohort"],
        "batch_stats": tree["model_state"]["batch_stats"],
    }
    # What networks share stands once, under 'trunk', and has no name in common with their own.
    variables = {
        name: collection.get("trunk", {}) | collection.get(member, {})
        for name, collection in collections.items()
    }
    # A frozen network is no part of what its run trains.
    frozen = tree["model_state"].get("constants", {}).get("backbone", {})
    for name, collection in frozen.items():
        variables[name]["backbone"] = collection
    if "bifpn" in variables["params"]:  # FRSKD's pyramid is no part of the network
        variables = {name: collection["backbone"] for name, collection in variables.items()}
    name, num_classes = _named(names[known.index(member)], method, variables["params"])
    compaction = compactions.read(directory, step).get(member)
    network = Pretrained(name, num_classes, variables, compaction)
    return network._replace(variables=_fitting(network.module(), variables, directory))


def _named(name: str, method: str, params: dict) -> tuple[str, int]:
    """The name of a run's network, with the suffix for its branches, and its classes."""
    if "backbone" not in params:
        return name, params["classifier"]["bias"].shape[0]
    num_classes = params["backbone"]["classifier"]["bias"].shape[0]
    if method in models.forms():  # methods and forms have the same name, but HSAKD's
        return f"{name}_{method}", num_classes
    transformations = params["branch1"]["classifier"]["bias"].shape[0] // num_classes
    return models.hsakd_name(name, transformations), num_classes


def _checkpoints(directory: Path, best: str = "none") -> Checkpoints:
    return Checkpoints(directory / "checkpoints", best, read_only=True)


def _fitting(module: nn.Module, variables: dict, directory: Path) -> dict:
    """`variables`, if they are of the shapes that `module` has.

    Raises:
      UserError: they are not.
    """
    found = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables).items()}
    wrong = {}
    for channels in _CHANNELS:
        images = jax.ShapeDtypeStruct((1, 64, 64, channels), np.float32)
        shapes = jax.eval_shape(module.init, jax.random.key(0), images)
        expected = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes).items()}
        if found == expected:
            return variables
        wrong[channels] = sorted({"/".join(path) for path, _ in found.items() ^ expected.items()})
    names = min(wrong.values(), key=len)
    raise UserError(
        f"the checkpoint in {directory} does not fit its network: {', '.join(names[:4])}"
    )
