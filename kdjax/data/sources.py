"""Where images come from: `config.data.source` to a `Source`.

digits            the 1,797 digits that scikit-learn carries, 32x32x3
tfds:NAME         a TensorFlow data set prepared as array_record (see `tfds_source`)
folder:PATH       PATH/train/CLASS/*.jpg and PATH/test or PATH/val (see `folder`)
arrays:FILE.npz   plain arrays (see `arrays`)
"""

import difflib
import functools

import numpy as np

from kdjax.data import images
from kdjax.data.splits import ArraySplit, Source
from kdjax.errors import UserError


def open_source(source: str, data_dir: str = "", layout: str = "") -> Source:
    """Opens `config.data.source`.

    Args:
      source: one of the forms above.
      data_dir: `config.data.dir`, where prepared TFDS sets are; '' is the TFDS default.

    Raises:
      UserError: unknown kind, or data that are missing, not prepared or malformed.
    """
    if source == "digits":
        return digits()
    kind, _, where = source.partition(":")
    # Each kind is imported when asked for: TFDS alone costs half a second.
    if kind == "tfds" and where:
        from kdjax.data import tfds_source

        return tfds_source.open_tfds(where, data_dir)
    if kind == "folder" and where:
        from kdjax.data import folder

        return folder.open_folder(where)
    if kind == "arrays" and where:
        from kdjax.data import arrays

        return arrays.open_arrays(where, layout)
    near = difflib.get_close_matches(source, ("digits", "tfds", "folder", "arrays"), n=1)
    hint = f" (nearest: {near[0]})" if near else ""
    raise UserError(
        f"config.data.source={source!r} is unknown{hint}; write digits, tfds:NAME (such as "
        "tfds:cifar100), folder:PATH or arrays:FILE.npz"
    )


@functools.cache
def digits() -> Source:
    """Handwritten digits of 8x8 gray pixels, brought to 32x32x3; 20 % of each class are the test.

    The split is fixed: it depends on no seed. Read once per process; the arrays are read-only.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    gray = np.round(raw.images * (255 / 16)).astype(np.uint8)
    small = np.repeat(gray[..., None], 3, axis=-1)
    pixels = np.stack([images.resize(image, 32, 32) for image in small])
    labels = raw.target.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    splits = [ArraySplit(pixels[rows], labels[rows]) for rows in map(np.sort, (train, test))]
    for split in splits:
        for array in split:
            array.flags.writeable = False
    return Source("digits", *splits, tuple(str(digit) for digit in range(10)))
