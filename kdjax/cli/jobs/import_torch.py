"""`--job=import-torch`: converts a PyTorch checkpoint to a kdjax checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CONFIG, MEAN, STD, TORCH_FILE, TORCH_PART, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.errors import UserError
from kdjax.runs.console import say

NETWORK = Flag("network", "The network whose weights the file has.")


def import_torch(values: FlagValues) -> None:
    """Converts a PyTorch checkpoint to a kdjax checkpoint in `--workdir`.

    Raises:
      UserError: the file is not a state dict of the network, or the workdir is in use.
    """
    from kdjax import models
    from kdjax.interop import torch as interop
    from kdjax.networks import InputSpec, Network, NetworkSpec, normalization, store

    directory, file, name = Path(values.workdir), Path(values.torch_file), values.network
    store.check_free(directory)
    statistics = normalization.from_flags(values.mean, values.std)
    state = interop.read(file)
    if values.torch_part:
        state = interop.select(state, values.torch_part)
    module = models.create(name, num_classes=1)
    try:
        num_classes = interop.count_classes(module, state)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    side = models.create(models.parse(name).network, num_classes=1).image_size
    channels = 3 if statistics is None else len(statistics.mean)
    spec = NetworkSpec.of(name, num_classes, InputSpec((side, side), channels, statistics))
    try:
        variables, report = interop.import_state_dict(
            spec.build(), state, image_shape=spec.input.shape
        )
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    source = {"file": file.name, "sha256": digest, "names": report.dialect}
    store.save(directory, Network(spec, variables), source)
    say(str(report))
    say(f"{name}, {num_classes} classes: {directory}")
    if statistics is None:
        say(
            "what its images were normalized with is not known: as a teacher it will see them as "
            "its student does; --mean and --std say it, such as --mean=imagenet"
        )


JOBS.add(
    "import-torch",
    Job(
        import_torch,
        "Write --torch_file as a checkpoint of --network to --workdir, to evaluate it or to teach.",
        flags=(WORKDIR, CONFIG, TORCH_FILE, TORCH_PART, NETWORK, MEAN, STD),
        required=(WORKDIR, TORCH_FILE, NETWORK),
    ),
)
