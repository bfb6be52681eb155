"""Augmentation policies on the device: functions of one key per image and a uint8 batch.

What an image becomes depends on its key alone, not on its place in the batch or the device. Shears,
rotations, histograms and the like are Pillow's, as torchvision calls them, to the last bit; see
`tones.auto_contrast_tables` for the one level by which AutoContrast may differ.
"""

import difflib
import functools
from collections.abc import Callable, Sequence

import jax

from kdjax.data.policies.augmix import augmix
from kdjax.data.policies.auto_augment import auto_augment
from kdjax.data.policies.cutout import cutout
from kdjax.data.policies.rand_augment import rand_augment
from kdjax.data.policies.random_erasing import random_erasing
from kdjax.data.policies.trivial_augment import trivial_augment
from kdjax.errors import UserError

Policy = Callable[[jax.Array, jax.Array], jax.Array]

POLICIES = {
    "augmix": augmix,
    "auto_augment": auto_augment,
    "cutout": cutout,
    "rand_augment": rand_augment,
    "random_erasing": random_erasing,
    "trivial_augment": trivial_augment,
}


def create(names: Sequence[str], *, fill: int | tuple[int, ...] = 0) -> Policy:
    """`(keys, images) -> images`: the policies of `names`, one after the other.

    Keys are typed PRNG keys [B], images uint8 [B, H, W, C] in and out.

    Args:
      names: of `POLICIES`, each with the settings of its paper; none: nothing is changed.
      fill: color of cutout's square, 0..255, for all channels or one per channel: the mean color
        of the training images, to be zero after normalization.

    Raises:
      UserError: unknown name; where images come in, that they have neither 1 nor 3 channels.
    """
    functions = [_named(name, fill) for name in names]

    def apply(keys: jax.Array, images: jax.Array) -> jax.Array:
        for position, function in enumerate(functions):
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
            images = function(own, images)
        return images

    return apply


def _named(name: str, fill: int | tuple[int, ...]) -> Policy:
    if name not in POLICIES:
        near = difflib.get_close_matches(name, POLICIES, n=3, cutoff=0.5) or POLICIES
        raise UserError(
            f"config.data.policies: {name!r} is unknown; did you mean {' or '.join(near)}?"
        )
    return functools.partial(cutout, fill=fill) if name == "cutout" else POLICIES[name]
