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
    """Converts a PyTorch checkpoint, or the folder of a timm model, to a kdjax checkpoint.

    Raises:
      UserError: the file is not a state dict of the network, or the workdir is in use.
    """
    from kdjax import models
    from kdjax.interop import model_folder
    from kdjax.interop.published import read_network
    from kdjax.networks import normalization, store

    directory, file, name = Path(values.workdir), Path(values.torch_file), values.network
    store.check_free(directory)
    statistics = normalization.from_flags(values.mean, values.std)
    folder = None
    if file.is_dir():
        if name:
            raise UserError(f"--network={name}: {file} says itself what it holds; leave it out")
        folder = model_folder.read(file)
        file, name, statistics = folder.file, folder.network, statistics or folder.statistics
    elif not name:
        raise UserError("--job=import-torch needs --network, unless --torch_file is a folder")
    models.create(name, num_classes=1)  # a wrong name is refused before the file is read
    network, report = read_network(file, name, statistics, part=values.torch_part)
    if folder is not None:
        network = folder.fitted(network)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    source = {"file": file.name, "sha256": digest, "names": report.dialect}
    store.save(directory, network, source)
    say(str(report))
    say(f"{name}, {network.spec.num_classes} classes: {directory}")
    if statistics is None:
        say(
            "what its images were normalized with is not known: as a teacher it will see them as "
            "its student does; --mean and --std say it, such as --mean=imagenet"
        )


JOBS.add(
    "import-torch",
    Job(
        import_torch,
        "Write --torch_file as a checkpoint of --network to --workdir, to evaluate it or to teach. "
        "--torch_file may be the folder of a timm model: config.json and model.safetensors.",
        flags=(WORKDIR, CONFIG, TORCH_FILE, TORCH_PART, NETWORK, MEAN, STD),
        required=(WORKDIR, TORCH_FILE),
    ),
)
