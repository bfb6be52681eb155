"""TensorFlow data sets that were prepared as array_record files, read without TensorFlow.

Preparing needs TFDS, and for most sets TensorFlow (the extra `kdjax[prepare]`); nothing is
downloaded or prepared here, and TFDS is not needed for reading.
"""

import bisect
import contextlib
import difflib
import itertools
import os
from pathlib import Path

import numpy as np

from kdjax.data import images
from kdjax.data.example_protos import MalformedExample, bytes_value, int64_value, parse
from kdjax.data.labels import checked_labels
from kdjax.data.prepared_set import (
    PreparedSet,
    SplitInfo,
    file_format,
    read_prepared_set,
    version_directory,
)
from kdjax.data.regular_files import check_regular, expanded, is_directory, sorted_entries
from kdjax.data.splits import RecordSplit, Source
from kdjax.errors import UserError

# Sets up to this size are kept in memory as the encoded files that reading the labels passed over.
IN_MEMORY_BYTES = 256 * 2**20
_CHUNK = 1000


class TfdsRecords:
    """Images of a prepared split, read and decoded when asked for."""

    def __init__(self, split: SplitInfo, shape: tuple[int | None, int | None, int]):
        self.split = split
        self.shape = shape
        self._ends = list(itertools.accumulate(split.lengths))
        self._readers = {}

    def __getstate__(self) -> dict:
        # Each process opens the files itself.
        return {**self.__dict__, "_readers": {}}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> np.ndarray:
        shard = bisect.bisect_right(self._ends, index)
        place = index - (self._ends[shard] - self.split.lengths[shard])
        (example,) = self.read(shard, place, place + 1)
        try:
            encoded = bytes_value(parse(example), "image")
        except MalformedExample as error:
            raise self._malformed(shard, place, error) from error
        return self.decode(encoded, index)

    def read(self, shard: int, start: int, stop: int) -> list[bytes]:
        """The serialized examples start .. stop - 1 of a shard.

        Raises:
          UserError: the file is missing, damaged, or holds another number of examples.
        """
        path = self.split.shards[shard]
        try:
            if shard not in self._readers:
                self._readers[shard] = _reader(path, self.split.lengths[shard])
            return self._readers[shard].read(list(range(start, stop)))
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            if isinstance(error, UserError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: damaged ({reason}); prepare the data set again") from error

    def labels_and_images(self, shard: int, start: int, stop: int) -> list[tuple[int, bytes]]:
        """(label, encoded image) of the examples start .. stop - 1 of a shard.

        Raises:
          UserError: as `read`, or an example is malformed.
        """
        pairs = []
        for place, example in enumerate(self.read(shard, start, stop), start):
            try:
                features = parse(example)
                pairs.append((int64_value(features, "label"), bytes_value(features, "image")))
            except MalformedExample as error:
                raise self._malformed(shard, place, error) from error
        return pairs

    def _malformed(self, shard: int, place: int, error: MalformedExample) -> UserError:
        return UserError(
            f"{self.split.shards[shard]}: example {place} is malformed ({error}); prepare the "
            "data set again"
        )

    def decode(self, encoded: bytes, index: int) -> np.ndarray:
        """The pixels of an encoded image, uint8 [h, w, C].

        Raises:
          UserError: it is unreadable, or of another shape than the set declares.
        """
        mode = "L" if self.shape[-1] == 1 else "RGB"
        where = f"{self.split.shards[0].parent} {self.split.name}[{index}]"
        pixels = images.decode(encoded, mode=mode, where=where)
        declared = zip(self.shape, pixels.shape, strict=True)
        if any(size not in (None, actual) for size, actual in declared):
            raise UserError(
                f"{where}: an image of {list(pixels.shape)}, the set declares {list(self.shape)}; "
                "prepare the data set again"
            )
        return pixels

    def common_shape(self) -> tuple[int, int, int] | None:
        """(H, W, C) if the set declares one size for all images, else None."""
        return None if None in self.shape else tuple(self.shape)


def _reader(path: Path, length: int):
    from array_record.python import array_record_module

    check_regular(path)
    reader = array_record_module.ArrayRecordReader(str(path), options="readahead_buffer_size:0")
    if reader.num_records() != length:
        raise UserError(
            f"{path}: holds {reader.num_records()} examples, dataset_info.json declares {length}; "
            "prepare the data set again"
        )
    return reader


class EncodedRecords(TfdsRecords):
    """Images of a prepared split whose encoded files are in memory."""

    def __init__(self, records: TfdsRecords, encoded: list[bytes]):
        super().__init__(records.split, records.shape)
        self.encoded = encoded

    def __getitem__(self, index: int) -> np.ndarray:
        return self.decode(self.encoded[index], index)


def open_tfds(name: str, data_dir: str = "") -> Source:
    """Opens `tfds:NAME` in `data_dir`, splits train and test.

    A set whose test split is missing or unlabeled is evaluated on its validation split.

    Args:
      name: `NAME[/CONFIG][:VERSION]`.
      data_dir: where prepared sets are; '' is TFDS's default, `~/tensorflow_datasets` or the
        environment variable TFDS_DATA_DIR.

    Raises:
      UserError: unknown name, not prepared (says what to run), prepared in another file format,
        malformed, without features `image` and `label`, or without a labeled split to evaluate on.
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
    """The split to evaluate on: some sets publish their test split with every label -1."""
    for name in ("test", "validation"):
        split = prepared.splits.get(name)
        if split is not None and sum(split.lengths):
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
