"""The operations of the policies, as rows of a table; one row is applied to each image.

An operation is a name of the papers and a signed magnitude in torchvision's units: (ShearX, 0.3) or
(Brightness, -0.9). A batch of any operations costs one affine lookup and one table lookup.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.policies import affine, tones
from kdjax.data.policies.tones import Tone

Operation = tuple[str, float]

_BLENDS = {
    "Brightness": Tone.BRIGHTNESS,
    "Color": Tone.COLOR,
    "Contrast": Tone.CONTRAST,
    "Sharpness": Tone.SHARPNESS,
}
_MEASURED = {"AutoContrast": Tone.AUTO_CONTRAST, "Equalize": Tone.EQUALIZE}
_SHIFTS = {
    "ShearX": affine.shear_x,
    "ShearY": affine.shear_y,
    "TranslateX": affine.translate_x,
    "TranslateY": affine.translate_y,
}
_AFFINE = {*_SHIFTS, "Rotate"}
# Operations whose magnitude is signed.
SIGNED = _AFFINE | _BLENDS.keys()


class Operations(NamedTuple):
    """R operations on images of one size, with T different tables of levels.

    Attributes:
      matrices: int32 [R, 6], see `affine.fixed_point`.
      tones: int32 [R], of `tones.Tone`.
      which: int32 [R], the table of every operation.
      tables: float32 [T, 511], see `tones.apply`.
    """

    matrices: np.ndarray
    tones: np.ndarray
    which: np.ndarray
    tables: np.ndarray


def tabulate(operations: Sequence[Operation], height: int, width: int) -> Operations:
    """Tabulates operations for images of one size, a row for each.

    Names: Identity; ShearX, ShearY (slope), TranslateX, TranslateY (pixels, rounded towards zero),
    Rotate (degrees counter-clockwise); Brightness, Color, Contrast, Sharpness (0: identity, -1:
    black, gray, mean gray, smoothed); Posterize (number of bits that are kept), Solarize (the
    lowest level that is inverted); AutoContrast, Equalize, Invert (the magnitude is ignored).
    """
    matrices = [affine.fixed_point(_matrix(*operation, height, width)) for operation in operations]
    kinds = [(_BLENDS | _MEASURED).get(name, Tone.TABLE) for name, _ in operations]
    tables, which = np.unique(
        np.stack([_table(*operation) for operation in operations]), axis=0, return_inverse=True
    )
    return Operations(np.stack(matrices), np.array(kinds, np.int32), which.astype(np.int32), tables)


def _matrix(name: str, magnitude: float, height: int, width: int) -> tuple[float, ...]:
    if name == "Rotate":
        return affine.rotate(magnitude, height, width)
    return _SHIFTS[name](magnitude) if name in _SHIFTS else affine.IDENTITY


def _table(name: str, magnitude: float) -> np.ndarray:
    if name in _BLENDS:
        return tones.enhance(1.0 + magnitude)
    if name == "Posterize":
        return tones.posterize(magnitude)
    if name in ("Solarize", "Invert"):
        return tones.solarize(magnitude if name == "Solarize" else 0)
    if name in _AFFINE or name in _MEASURED or name == "Identity":
        return tones.table_of(np.arange(tones.LEVELS))
    raise ValueError(f"no operation is called {name!r}")


def both_signs(name: str, magnitude: float) -> list[Operation]:
    """The operation with both signs; twice the same operation if it has no sign.

    A uniform row of such lists is a uniform operation with a uniform sign.
    """
    return [(name, magnitude), (name, -magnitude if name in SIGNED else magnitude)]


def signed_rows(
    names: Sequence[str], magnitudes: Mapping[str, np.ndarray], count: int
) -> list[Operation]:
    """The operations of `names`, in order, with `both_signs` of each of their magnitudes.

    Args:
      names: names of operations.
      magnitudes: [count], by the names of operations that have any.
      count: number of times that operations without magnitude are repeated, so that all are equally
        likely.
    """
    none = np.zeros(count)
    return [
        row
        for name in names
        for magnitude in magnitudes.get(name, none)
        for row in both_signs(name, magnitude)
    ]


def apply(operations: Operations, rows: jax.Array, images: jax.Array) -> jax.Array:
    """Applies operation `rows[i]` to image i.

    Args:
      operations: the table of `tabulate`, for the images' size.
      rows: int32 [B].
      images: uint8 [B, H, W, C], C = 1 or 3.

    Returns:
      uint8 [B, H, W, C]

    Raises:
      UserError: C is neither 1 nor 3.
    """
    matrices, kinds, which, tables = map(jnp.asarray, operations)
    images = affine.sample(images, matrices[rows])
    return tones.apply(images, kinds[rows], tables[which[rows]])
