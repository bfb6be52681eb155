"""The sequence of residual blocks in a network, with strides and dilations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kdjax.errors import UserError


class Place(NamedTuple):
    """A block in the sequence of its network.

    Attributes:
      name: of the block.
      stride: of the block.
      widens: as in `ResidualBlock`; only asked for at stride 1.
      dilations: as in `ResidualBlock`.
    """

    name: str
    stride: int
    widens: bool
    dilations: tuple[int, int] = (1, 1)

    @property
    def reshapes(self) -> bool:
        """Whether the block has a shortcut other than the identity."""
        return self.stride != 1 or self.widens


def halvings(stages: int, stem_stride: int, output_stride: int) -> int:
    """The number of stages that halve the resolution, for a last stage at `output_stride`.

    Args:
      stages: of the network, without extra ones.
      stem_stride: pixels of the image per pixel of the first stage, along one side.
      output_stride: the same of the last stage; 0 for every stage but the first halving it.

    Raises:
      UserError: the stages cannot have this stride.
    """
    possible = [stem_stride * 2**count for count in range(stages)]
    if not output_stride:
        return stages - 1
    if output_stride not in possible:
        raise UserError(
            f"output_stride={output_stride}: {stages} stages behind a stem of stride {stem_stride} "
            f"have {', '.join(map(str, possible))}; choose one of these, or 0"
        )
    return possible.index(output_stride)


def places(
    blocks: Sequence[int], extra_stages: int, widens: bool, halved: int | None = None
) -> dict[int, list[Place]]:
    """The blocks of every stage; every stage but the first and extra ones halves the resolution.

    With `halved`, only so many stages do. Where a later one would, the dilation is doubled in place
    of it: of all its 3x3 convolutions but the one that would have the stride, which keeps that of
    the stage before. So every pixel that the network without dilation has is computed from the same
    pixels by the same weights.

    Source: `replace_stride_with_dilation` in torchvision/models/resnet.py.

    Args:
      blocks: number of blocks of each stage; extra ones have as many as the last.
      extra_stages: how many more stages follow.
      widens: whether the very first block has other channels than the stem.
      halved: of `halvings`; None: all stages but the first.
    """
    counts, last = [*blocks, *[blocks[-1]] * extra_stages], len(blocks)
    halved = last - 1 if halved is None else halved
    places_by_stage: dict[int, list[Place]] = {}
    dilation = 1
    for number, count in enumerate(counts, start=1):
        begins = 1 < number <= last
        dilated = begins and number - 1 > halved
        before, dilation = dilation, dilation * (2 if dilated else 1)
        for index in range(count):
            first = index == 0
            place = Place(
                f"stage{number}_block{index}",
                stride=2 if first and begins and not dilated else 1,
                widens=first and (dilated or (widens and number == 1)),
                dilations=(before if first else dilation, dilation),
            )
            places_by_stage.setdefault(number, []).append(place)
    return places_by_stage
