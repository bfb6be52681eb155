"""TensorFlow data sets that were prepared as array_record files, read without TensorFlow.

Preparing needs TFDS, and for most sets TensorFlow (the extra `kdjax[prepare]`); nothing is
downloaded or prepared here, and TFDS is not needed for reading.
"""

import contextlib
import difflib
import os
from pathlib import Path

import numpy as np

from kdjax.data.labels import checked_labels
from kdjax.data.prepared_set import (
    PreparedSet,
    file_format,
    read_prepared_set,
    version_directory,
)
from kdjax.data.regular_files import expanded, is_directory, sorted_entries
from kdjax.data.splits import RecordSplit, Source
from kdjax.data.tfds_records import EncodedRecords, TfdsRecords
from kdjax.errors import UserError

# The encoded images of sets up to this size, which are read with the labels, are kept in memory.
IN_MEMORY_BYTES = 256 * 2**20
_CHUNK = 1000


def open_tfds(name: str, data_dir: str = "") -> Source:
    """Opens `tfds:NAME` in `data_dir`, splits train and test.

    A set whose test split is missing or unlabeled is evaluated on its validation split.

    Args:
      name: `NAME[/CONFIG][:VERSION]`.
      data_dir: where prepared sets are; '' is TFDS's default, `~/tensorflow_datasets` or the
        environment variable TFDS_DATA_DIR.

    Raises:
      UserError: the name is unknown, or the set is not prepared (the message has the command),
        prepared in another file format, malformed, without features `image` and `label`, or without
        a labeled split to evaluate on.
    """
    prepared = read_prepared_set(_directory(name, data_dir))
    if "train" not in prepared.splits:
        raise UserError(f"{prepared.directory}: no train split, only {_names(prepared)}")
    train = _read_split(prepared, "train")
    held_out = _read_split(prepared, _held_out(prepared))
    return Source(name.replace("/", "_"), train, held_out, prepared.class_names)


def _names(prepared: PreparedSet) -> str:
    return ", ".join(prepared.splits) or "none"


def _directory(name: str, data_dir: str) -> Path:
    """The directory of a set that is prepared as array_record."""
    setting, command = f"config.data.source='tfds:{name}'", _prepare_command(name, data_dir)
    if data_dir:
        root = expanded(data_dir, "config.data.dir")
    else:
        default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        root = expanded(default, "TFDS_DATA_DIR")
    directory = version_directory(root, name)
    if directory is None:
        near = difflib.get_close_matches(name, _known_names(root), n=3)
        hint = f" (nearest: {', '.join(near)})" if near and name not in near else ""
        raise UserError(
            f"{setting} is not prepared in {root}{hint}; "
            f"run: {command} (or set config.data.dir to where it is)"
        )
    stored = file_format(directory)
    if stored != "array_record":
        raise UserError(
            f"{setting} is prepared as {stored} in {directory}, kdjax reads array_record; remove "
            f"that folder and run: {command}"
        )
    return directory


def _known_names(root: Path) -> list[str]:
    """Names of what is prepared in a data directory, and of TFDS's sets if TFDS is installed."""
    names = []
    for entry in filter(is_directory, sorted_entries(root) if is_directory(root) else []):
        inner = [inner.name for inner in sorted_entries(entry) if is_directory(inner)]
        names += [entry.name, *(f"{entry.name}{mark}{child}" for child in inner for mark in "/:")]
    with contextlib.suppress(ImportError):
        import tensorflow_datasets as tfds

        names += tfds.list_builders(with_community_datasets=False)
    return names


def _prepare_command(name: str, data_dir: str) -> str:
    arguments = repr(name) + (f", data_dir={data_dir!r}" if data_dir else "")
    return (
        "pip install 'kdjax[prepare]' && "
        f'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({arguments}, file_format='array_record').download_and_prepare()\""
    )


def _held_out(prepared: PreparedSet) -> str:
    """The split to evaluate on; not a test split whose labels are all -1, as some sets publish."""
    for name in ("test", "validation"):
        split = prepared.splits.get(name)
        if split is not None and any(split.lengths):
            shard = next(index for index, length in enumerate(split.lengths) if length)
            records = TfdsRecords(split, prepared.image_shape)
            ((label, _),) = records.labels_and_images(shard, 0, 1)
            if label >= 0:
                return name
    raise UserError(
        f"{prepared.directory}: no labeled test or validation split (it has {_names(prepared)}); "
        "choose another set"
    )


def _read_split(prepared: PreparedSet, name: str) -> RecordSplit:
    """Reads every label, keeping the encoded images of small splits.

    Labels lie inside the records, so this passes once over the whole split.
    """
    split = prepared.splits[name]
    records = TfdsRecords(split, prepared.image_shape)
    labels, encoded = [], []
    in_memory = split.num_bytes <= IN_MEMORY_BYTES
    for shard, length in enumerate(split.lengths):
        for start in range(0, length, _CHUNK):
            pairs = records.labels_and_images(shard, start, min(start + _CHUNK, length))
            labels += [label for label, _ in pairs]
            if in_memory:
                encoded += [image for _, image in pairs]
    where = f"{prepared.directory} ({name})"
    stored = EncodedRecords(records, encoded) if in_memory else records
    all_labels = np.array(labels, np.int64)
    return RecordSplit(stored, checked_labels(all_labels, prepared.num_classes, where))
