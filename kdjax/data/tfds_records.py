"""Images of a split that TFDS prepared as array_record files, read without TFDS."""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data import images
from kdjax.data.example_protos import MalformedExample, bytes_value, int64_value, parse
from kdjax.data.prepared_set import SplitInfo
from kdjax.data.regular_files import check_regular
from kdjax.errors import UserError


class TfdsRecords:
    """Images of a prepared split, read and decoded on access."""

    def __init__(self, split: SplitInfo, shape: tuple[int | None, int | None, int]):
        self.split = split
        self.shape = shape
        self._ends = list(itertools.accumulate(split.lengths))
        self._readers: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
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
        height, width, channels = self.shape
        return None if height is None or width is None else (height, width, channels)


def _reader(path: Path, length: int) -> Any:
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
