"""Savings of pruning, by the papers' formula for CIFAR ResNets."""

from __future__ import annotations

from typing import NamedTuple

WIDTHS, RESOLUTIONS = (16, 32, 64), (32, 16, 8)


class Cost(NamedTuple):
    """Multiply-adds of one 32x32 image, and parameters. Fractions of filters are not rounded."""

    macs: float
    parameters: float


def cifar_resnet(depth: int, rate: float = 0.0, *, num_classes: int = 10) -> Cost:
    """The cost of a CIFAR ResNet of which every 3x3 convolution loses a fraction of its filters.

    A convolution whose input is a residual sum keeps all input channels and counts (1 - rate); one
    behind a pruned convolution counts (1 - rate)^2. The first block counts as if its input were
    pruned too, since the stem is. Only convolutions count as multiply-adds. Checked against
    soft-filter-pruning's utils/cifar_resnet_flop.py, which calls them FLOPs and takes the fraction
    that is kept.

    Parameters by the same rule are inferred: of convolutions and the BatchNorms behind them, and
    the classifier, whole. Shortcuts have none (padding with zeros).

    Args:
      depth: 6 n + 2: 20, 32, 44, 56, 110.
      rate: fraction of the filters that is pruned, in [0, 1).
      num_classes: of the classifier.

    Raises:
      ValueError: another depth or rate.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"depth={depth} is not 6 n + 2, as 20, 32, 44, 56 and 110 are")
    if not 0 <= rate < 1:
        raise ValueError(f"rate={rate} is not in [0, 1)")
    kept_fraction = 1 - rate
    macs, parameters = 0.0, float((WIDTHS[-1] + 1) * num_classes)
    channels = 3
    for stage, (width, resolution) in enumerate(zip(WIDTHS, RESOLUTIONS, strict=True)):
        factors = [kept_fraction, kept_fraction**2] * blocks
        if stage == 0:
            factors = [kept_fraction, kept_fraction**2, kept_fraction**2, *factors[2:]]
        for factor in factors:
            weights = 9 * channels * width * factor
            macs += weights * resolution**2
            parameters += weights + 2 * width * kept_fraction
            channels = width
    return Cost(macs, parameters)


def cifar_resnet_reduction(depth: int, rate: float) -> float:
    """The fraction of the multiply-adds that pruning saves: 0.422 for depth 20 and rate 0.3."""
    return 1 - cifar_resnet(depth, rate).macs / cifar_resnet(depth).macs
