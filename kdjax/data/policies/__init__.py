"""Augmentation policies on the device: functions of one key per image and a uint8 batch.

The result depends on the image and its key only, not on its position in the batch or the device.
Operations have the bits of Pillow's, as torchvision calls them, except for one level of
AutoContrast (see `tones.auto_contrast_tables`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from kdjax.data.policies.augmix import augmix
from kdjax.data.policies.auto_augment import auto_augment
from kdjax.data.policies.cutout import cutout
from kdjax.data.policies.rand_augment import rand_augment
from kdjax.data.policies.random_erasing import random_erasing
from kdjax.data.policies.trivial_augment import trivial_augment
from kdjax.registry import Registry

Apply = Callable[[jax.Array, jax.Array], jax.Array]


class Policy(NamedTuple):
    """An augmentation policy.

    Attributes:
      apply: `(keys [B], uint8 [B, H, W, C]) -> uint8 [B, H, W, C]`.
      takes_fill: whether `apply` has an argument `fill`, the mean color of the training images.
    """

    apply: Apply
    takes_fill: bool


POLICIES: Registry[Policy] = Registry("augmentation policy", "config.data.policies")


def register_policy(name: str, apply: Apply, *, takes_fill: bool = False) -> None:
    """Registers a `Policy`, for `config.data.policies`.

    Args:
      name: of the policy.
      apply: `(keys, images) -> images` on the device; the result of an image must depend on the
        image and its key only.
      takes_fill: whether `apply` has a keyword argument `fill`: 0..255 for all channels or one per
        channel.

    Raises:
      ValueError: the name is registered already, by another definition.
    """
    POLICIES.add(name, Policy(apply, takes_fill), apply)


register_policy("augmix", augmix)
register_policy("auto_augment", auto_augment)
register_policy("cutout", cutout, takes_fill=True)
register_policy("rand_augment", rand_augment)
register_policy("random_erasing", random_erasing)
register_policy("trivial_augment", trivial_augment)


def create(names: Sequence[str], *, fill: int | tuple[int, ...] = 0) -> Apply:
    """`(keys, images) -> images`: applies the policies of `names` one after the other.

    Keys are typed PRNG keys [B], images uint8 [B, H, W, C].

    Args:
      names: names in `POLICIES`, each with the settings of its paper; () for the identity.
      fill: for policies that take it, 0..255, for all channels or one per channel: the mean color
        of the training images, which normalization maps to zero.

    Raises:
      UserError: unknown name; the returned function raises it for images with neither 1 nor 3
        channels.
    """
    chosen = [POLICIES[name] for name in names]

    def apply(keys: jax.Array, images: jax.Array) -> jax.Array:
        for position, policy in enumerate(chosen):
            policy_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
            options = {"fill": fill} if policy.takes_fill else {}
            images = policy.apply(policy_keys, images, **options)
        return images

    return apply
