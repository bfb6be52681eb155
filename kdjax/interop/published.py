"""Networks whose weights come from a PyTorch file."""

from __future__ import annotations

from pathlib import Path

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.networks import InputSpec, Network, NetworkSpec, Normalization


def read_network(
    file: str | Path, name: str, normalization: Normalization | None = None, *, part: str = ""
) -> tuple[Network, interop.Report]:
    """Reads the state dict of a network; the number of classes is that of its classifier.

        statistics = kdjax.networks.NAMED["imagenet"]
        teacher, report = read_network("resnet34.safetensors", "resnet34", statistics)
        kdjax.networks.save("teacher", teacher, {"file": "resnet34.safetensors"})

    Args:
      file: `.safetensors`, or `.pth` and `.pth.tar`, which need PyTorch.
      name: of the network, with its form, such as 'resnet34' or 'wrn_40_2_aux'.
      normalization: the statistics that its images were normalized with; None if not known.
      part: only the arrays under this name, such as 'backbone'; '' for all.

    Returns:
      The network, and which array became which.

    Raises:
      UserError: no network has this name, or the file cannot be read or is not one of its state
        dicts.
    """
    state = interop.read(Path(file))
    if part:
        state = interop.select(state, part)
    try:
        num_classes = interop.count_classes(models.create(name, num_classes=1), state)
        side = models.create(models.parse(name).network, num_classes=1).image_size
        channels = 3 if normalization is None else len(normalization.mean)
        spec = NetworkSpec.of(name, num_classes, InputSpec((side, side), channels, normalization))
        variables, report = interop.import_state_dict(
            spec.build(), state, image_shape=spec.input.shape
        )
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return Network(spec, variables), report
