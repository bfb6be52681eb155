"""Handwritten digits, a data set included in scikit-learn."""

import base64
import functools
import gzip
import importlib.util
from pathlib import Path

import numpy as np

from kdjax.data import images
from kdjax.data.splits import ArraySplit, Source
from kdjax.errors import UserError

# One bit per image, 1 for the test: 20 % of the images of every class, as scikit-learn's
# train_test_split(stratify=labels, test_size=0.2, random_state=0) draws them.
_IN_TEST = (
    b"AAAEiDUkEEAABkEAk0IFABoACAEAJAAoBiwSABAAlAoAkBkSBCD4oAKBEKAACAqIIEQVJElCQKAKAAAA"
    b"QATYAACBgCAASAXEABBACKAQAAVASAAwEAACDsQJAAIkhACDqAE8IKaYCgAAAAsIQAgEoBhIAgJAQcEA"
    b"gARARoQ3aoECFgBEgABAQqCkGApQAIQLhWHGCBCACABMgMAgBAaOAAEIggCBADgIA8AIGQAAEA4BAIQQ"
    b"oCEAMygpBMBEwIBoDgECgwCCAIgipkAsJAQhCKhggJCBoAwCggJCEgE4pBUA"
)


@functools.cache
def read_digits() -> Source:
    """The 1,797 digits of 8x8 gray pixels, resized to 32x32x3; 20 % of every class are test images.

    The split is fixed. The arrays are read once per process and are read-only. scikit-learn is not
    imported, which would take seconds: only its file is read.

    Raises:
      UserError: scikit-learn is not installed.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("config.data.source='digits': pip install scikit-learn, which carries them")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(file, "rt") as text:
        table = np.loadtxt(text, delimiter=",")
    gray = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    small = np.repeat(gray[..., None], 3, axis=-1)
    pixels = np.stack([images.resize(image, 32, 32) for image in small])
    labels = table[:, -1].astype(np.int32)
    in_test = np.unpackbits(np.frombuffer(base64.b64decode(_IN_TEST), np.uint8))[: len(labels)]
    train, test = (ArraySplit(pixels[in_test == part], labels[in_test == part]) for part in (0, 1))
    for split in (train, test):
        for array in (split.images, split.labels):
            array.flags.writeable = False
    return Source("digits", train, test, tuple(str(digit) for digit in range(10)))
