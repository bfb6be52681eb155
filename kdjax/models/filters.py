"""The convolutions that compute channels, and the layers that consume them, for filter pruning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Link(NamedTuple):
    """The filters of a convolution, and the layers that process their channels.

    Layers are named by their paths, relative to the network: 'stage1_block0/conv1'.

    Attributes:
      convs: the convolution; behind it the depthwise ones that its channels go through, one by one.
      norms: the BatchNorm after each of `convs`, '' where there is none directly.
      consumers: the layers whose input is exactly these channels (through ReLU, max pooling or
        global average pooling); none if the channels go into a sum, a concatenation, a gate, or
        through another BatchNorm.
      shared: whether the channels also go elsewhere than to the consumers.
      relu: whether the last of `norms` is followed by a ReLU.
      groups: of the convolution, unless it is depthwise.
      projection: whether the convolution is in a residual block's shortcut.
    """

    convs: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[str, ...] = ()
    shared: bool = False
    relu: bool = True
    groups: int = 1
    projection: bool = False

    @property
    def name(self) -> str:
        """The path of the convolution."""
        return self.convs[0]

    @property
    def last(self) -> str:
        """The last layer before ReLU: the last BatchNorm or, where there is none, convolution."""
        return self.norms[-1] or self.convs[-1]


class ResidualGroup(NamedTuple):
    """The channels of a residual sum. Paths are as in `Link`.

    Attributes:
      name: of the sum.
      convs: the last convolution of every summand.
      norms: the BatchNorms through which pre-activation blocks read the sum.
      consumers: the layers whose input is exactly these channels.
    """

    name: str
    convs: tuple[str, ...]
    norms: tuple[str, ...]
    consumers: tuple[str, ...]


class Block(NamedTuple):
    """The layers with which a residual block reads its input and writes its output.

    Attributes:
      name: of the block.
      reads: its convolutions that read its input.
      norms: the BatchNorms that stand between.
      writes: the last convolution of every branch that makes its output.
      adds: whether its input, as it is, is a summand of its output, too.
    """

    name: str
    reads: tuple[str, ...]
    norms: tuple[str, ...]
    writes: tuple[str, ...]
    adds: bool


def group_blocks(
    stem: str, blocks: Iterable[Block], norms: Sequence[str], consumers: Sequence[str]
) -> tuple[ResidualGroup, ...]:
    """The residual groups of several summands in a row of residual blocks.

    Args:
      stem: the convolution whose channels the first block reads.
      blocks: in their order.
      norms: the BatchNorms that read the output of the last block.
      consumers: the layers that read it.
    """
    groups: list[ResidualGroup] = []
    name = "stem_sum"
    writers: tuple[str, ...] = (stem,)
    norms_inside: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    for block in blocks:
        norms_inside, readers = norms_inside + block.norms, readers + block.reads
        if not block.adds:
            groups.append(ResidualGroup(name, writers, norms_inside, readers))
            name, writers, norms_inside, readers = f"{block.name}_sum", (), (), ()
        writers += block.writes
    last_norms, last_readers = norms_inside + tuple(norms), readers + tuple(consumers)
    groups.append(ResidualGroup(name, writers, last_norms, last_readers))
    return tuple(group for group in groups if len(group.convs) > 1)
