"""Trained networks in directories: of a run, of an import, of `--job=compact`.

One format for all: a checkpoint whose metadata say which networks are in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flax import traverse_util

from kdjax.data.regular_files import expanded
from kdjax.errors import UserError
from kdjax.networks import metadata as descriptions
from kdjax.networks.network import Network
from kdjax.networks.normalization import Normalization
from kdjax.networks.spec import NetworkSpec
from kdjax.runs import contents
from kdjax.runs.checkpoints import Checkpoints, saved

CHOICES = ("best", "latest")


def is_run(directory: Path) -> bool:
    """Whether a directory is a run's workdir; others hold an imported or a compact network."""
    return (Path(directory) / "config.json").is_file()


def check_free(directory: Path, flag: str = "--workdir") -> None:
    """Checks that a network can be written to a directory.

    Args:
      directory: where it is to go.
      flag: what named the directory.

    Raises:
      UserError: a network or a run is there.
    """
    contents.check_kind(directory, contents.IMPORTED, flag)


def check_trainable(workdir: Path) -> None:
    """Checks that a run may be trained in a directory.

    Raises:
      UserError: an imported or a compact network is there.
    """
    if is_run(workdir) or not saved(workdir / "checkpoints"):
        return
    manager = Checkpoints(workdir / "checkpoints", "", read_only=True)
    written = manager.metadata()
    manager.close()
    if not descriptions.best_of(written):
        raise UserError(
            f"--workdir={workdir} holds a network that was imported or made compact; name another "
            "directory, and start from the network by config.start.checkpoint"
        )


def save(
    directory: str | Path,
    network: Network,
    source: dict[str, Any],
    flag: str = "--workdir",
    kind: str = contents.IMPORTED,
) -> None:
    """Writes a network for `load`, `config.teacher.checkpoint` and `config.start.checkpoint`.

    Args:
      directory: made if missing.
      network: what to write.
      source: where it comes from, JSON values; kept with the checkpoint.
      flag: what named the directory.
      kind: of what it then holds, for messages.

    Raises:
      UserError: the directory holds another network or a run, or cannot be written to.
    """
    with contents.claimed(Path(directory), kind, flag):
        write(directory, network, source)


def write(directory: str | Path, network: Network, source: dict[str, Any]) -> None:
    """As `save`, to a directory that `kdjax.runs.contents.claimed` keeps for it.

    Raises:
      UserError: the directory cannot be written to.
    """
    described = {"spec": network.spec.to_dict(), "places": {n: n for n in network.variables}}
    metadata = {"networks": [described], "best": "", "source": source}
    checkpoints = Checkpoints(Path(directory) / "checkpoints", "")
    try:
        checkpoints.save(0, network.variables, {}, metadata)
    finally:  # what has begun is finished, whatever ends the job
        checkpoints.close()


def load(
    directory: str | Path, network: int | str = 0, checkpoint: str = "best", *, ema: bool = False
) -> Network:
    """Reads a trained network.

    >>> network = kdjax.networks.load("runs/mcl", 1)
    >>> probabilities = network.predict(images)  # uint8 [M, H, W, C] to float32 [M, N]

    Args:
      directory: a run's workdir, or what `save`, `--job=import-torch` or `--job=compact` wrote.
      network: which of a run's networks, from 0, or its name, such as 'network_0'.
      checkpoint: a run's 'best' or 'latest' one; others have one only.
      ema: whether the moving average of the weights is read, of a run with `config.ema`.

    Raises:
      UserError: there is no such directory, network or checkpoint, or it is damaged; or it has no
        moving average.
    """
    directory = expanded(str(directory), "directory")
    manager, choice = _opened(directory, checkpoint)
    loaded = manager.load(choice)
    manager.close()
    try:
        specs = descriptions.specs_of(loaded.metadata)
        index = _index(network, len(specs))
        variables = descriptions.variables_of(loaded.metadata, index, loaded.tree, ema=ema)
        _check_shapes(specs[index], variables)
    except UserError as error:
        raise UserError(f"{directory / 'checkpoints' / str(loaded.step)}: {error}") from error
    return Network(specs[index], variables)


def read_spec(
    directory: str | Path, network: int | str = 0, checkpoint: str = "best"
) -> NetworkSpec:
    """What `load` would read, without its weights.

    Raises:
      UserError: as `load`.
    """
    manager, choice = _opened(Path(directory), checkpoint)
    step = manager.step("best") if choice == "best" else None
    metadata = manager.metadata(step)
    manager.close()
    try:
        specs = descriptions.specs_of(metadata)
        return specs[_index(network, len(specs))]
    except UserError as error:
        raise UserError(f"{directory}: {error}") from error


def read_class_names(directory: str | Path) -> tuple[str, ...]:
    """The names of the classes that a run's networks tell apart; () where they are not known.

    Raises:
      UserError: as `load`.
    """
    manager, _ = _opened(Path(directory), "latest")
    try:
        return descriptions.class_names_of(manager.metadata())
    finally:
        manager.close()


def latest_normalization(workdir: Path) -> Normalization | None:
    """What the images of a run are normalized with; None where it has no checkpoint yet.

    Raises:
      UserError: the latest checkpoint is damaged.
    """
    if not saved(workdir / "checkpoints"):
        return None
    return read_spec(workdir, checkpoint="latest").input.normalization


def _opened(directory: Path, checkpoint: str) -> tuple[Checkpoints, str]:
    """The checkpoints of a directory, and which of them is meant, 'best' or 'latest'."""
    if checkpoint not in CHOICES:
        raise UserError(f"checkpoint={checkpoint!r} is unknown; use 'best' or 'latest'")
    contents.kind_of(directory)  # refuses another format
    if not saved(directory / "checkpoints"):
        if is_run(directory):
            raise UserError(f"{directory} holds no network yet: train first (--job=train)")
        raise UserError(
            f"{directory} holds no network: name a run's workdir, or import one "
            "(--job=import-torch)"
        )
    manager = Checkpoints(directory / "checkpoints", "", read_only=True)
    best = descriptions.best_of(manager.metadata())
    if checkpoint == "latest" or not best:
        return manager, "latest"
    manager.close()
    return Checkpoints(directory / "checkpoints", best, read_only=True), "best"


def _index(network: int | str, count: int) -> int:
    names = [f"network_{index}" for index in range(count)]
    if network in names:
        return names.index(network)
    if isinstance(network, int) and 0 <= network < count:
        return network
    raise UserError(f"there is no network {network!r}; there are {', '.join(names)}")


def _check_shapes(spec: NetworkSpec, variables: dict[str, Any]) -> None:
    """Raises `UserError` unless variables are of the shapes that the network has."""
    try:
        abstract = spec.abstract_variables()
    except (ValueError, TypeError, IndexError) as error:  # a compaction of another network
        raise UserError(f"it does not fit its network {spec.full_name}: {error}") from error
    shapes, expected = (
        {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}
        for tree in (variables, abstract)
    )
    if shapes != expected:
        wrong = sorted({path for path, _ in shapes.items() ^ expected.items()})
        raise UserError(f"it does not fit its network {spec.full_name}: {', '.join(wrong[:4])}")
