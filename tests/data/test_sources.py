"""The names of sources, and the digits."""

import subprocess
import sys

import numpy as np

from kdjax.data.sources import open_source
from tests.data.conftest import fails


def test_importing_data_is_light():
    code = (
        "import sys, kdjax.data; "
        "print([m for m in ('tensorflow_datasets', 'grain', 'sklearn') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_unknown_sources():
    assert "config.data.source='cifar100'" in fails("cifar100")
    assert "nearest: digits" in fails("digit")
    assert "nearest: folder" in fails("folders:/x")
    assert "write digits, tfds:NAME" in fails("tfds:")


def test_digits():
    source = open_source("digits")
    train, test = source.train, source.test
    assert train.images.shape == (1437, 32, 32, 3)
    assert test.images.shape == (360, 32, 32, 3)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    assert source.class_names == tuple("0123456789")
    # Stratified: each class has 174 to 183 images, a fifth of them in the test.
    assert set(np.bincount(test.labels)) <= {35, 36, 37}
    assert open_source("digits") is source
    for array in (*train, *test):
        assert not array.flags.writeable
    assert train.images.max() > 250
    assert train.images.min() == 0
