"""Images that TensorFlow Datasets prepared, as NAME_train.npz and NAME_test.npz.

    python -m experiments.arrays cifar100 --data_dir DATA/tfds --output DATA

The experiments on all of CIFAR-100 read these: they need nothing but NumPy where they run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from kdjax.data.tfds_source import open_tfds


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the data set; its images must have one size")
    parser.add_argument("--data_dir", default="", help="where prepared sets are; TFDS's default")
    parser.add_argument("--output", type=Path, required=True, help="directory of the files")
    options = parser.parse_args(argv)
    source = open_tfds(options.name, options.data_dir)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", source.train), ("test", source.test)):
        records = getattr(split, "images", None)
        if records is None:
            records = np.stack([split.records[index] for index in range(len(split.labels))])
        file = options.output / f"{source.name}_{name}.npz"
        np.savez(file, image=records, label=split.labels)
        print(f"{file}: {len(records)} images")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
