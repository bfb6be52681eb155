"""Statistics of pixels that networks were trained with, and images brought from one to another."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from kdjax.errors import UserError

# What Python makes of numbers of hundreds of digits, and of hundreds of brackets.
_TOO_LARGE = (OverflowError, MemoryError, RecursionError)


class Normalization(NamedTuple):
    """Images are `(pixels - mean) / std`, pixels being in [0, 1].

    Attributes:
      mean: C numbers, one per channel.
      std: C numbers above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        return f"mean {_text(self.mean)} and std {_text(self.std)}"


# The usual statistics by name; CIFAR's are those of the training images.
NAMED = {
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "half": Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def checked(mean: tuple[float, ...], std: tuple[float, ...], where: str) -> Normalization:
    """A normalization of these statistics.

    Args:
      mean, std: a number per channel each.
      where: what names them, for messages.

    Raises:
      UserError: not equally many finite numbers, or a deviation that is not above 0.
    """
    mean, std = tuple(map(float, mean)), tuple(map(float, std))
    if not mean or len(mean) != len(std):
        raise UserError(f"{where}: give mean and std one number per channel each")
    with np.errstate(over="ignore", under="ignore"):  # images are float32
        rounded = np.array([mean, std]).astype(np.float32)
    if not np.isfinite(rounded).all() or rounded[1].min() <= 0:
        raise UserError(f"{where}: mean and std must be finite, and std above 0")
    return Normalization(mean, std)


def from_flags(mean: str, std: str) -> Normalization | None:
    """The normalization that the flags `--mean` and `--std` name; None where both are empty.

    Either flag may be a name of `NAMED` instead of numbers; `--mean` alone may, for both.

    Raises:
      UserError: neither numbers nor a name, or one of the two is missing.
    """
    if not mean and not std:
        return None
    if mean in NAMED and not std:
        return NAMED[mean]
    if not mean or not std:
        missing, given = ("--mean", "--std") if std else ("--std", "--mean")
        raise UserError(f"{given} without {missing}: give both, or --mean={_names()} alone")
    return checked(_numbers("mean", mean), _numbers("std", std), "--mean and --std")


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    if text in NAMED:
        return getattr(NAMED[text], flag)
    try:
        value = ast.literal_eval(text)
        return tuple(map(float, value if isinstance(value, (tuple, list)) else (value,)))
    except (ValueError, SyntaxError, TypeError, *_TOO_LARGE) as error:
        raise UserError(
            f"--{flag}={text}: give a number per channel, such as 0.5,0.5,0.5, or one of {_names()}"
        ) from error


def _names() -> str:
    return "|".join(NAMED)


def renormalization(
    source: Normalization | None, target: Normalization | None
) -> Callable[[jax.Array], jax.Array]:
    """A function of images `[..., C]` that were normalized by `source`: as `target` would.

    It returns its very argument if both are equal, or one of them is not known.

    Raises:
      UserError: they have different numbers of channels.
    """
    if source is None or target is None or source == target:
        return lambda images: images
    if len(source.mean) != len(target.mean):
        raise UserError(
            f"images normalized by {source} cannot be normalized by {target}: these are other "
            "numbers of channels"
        )
    mean, std, target_mean, target_std = (
        np.asarray(values, np.float64) for values in (*source, *target)
    )
    scale, shift = std / target_std, (mean - target_mean) / target_std

    def renormalize(images: jax.Array) -> jax.Array:
        return images * scale.astype(images.dtype) + shift.astype(images.dtype)

    return renormalize


def _text(values: tuple[float, ...]) -> str:
    return f"({','.join(f'{value:.6g}' for value in values)})"
