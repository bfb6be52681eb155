"""TensorFlow data sets, read without TensorFlow.

A set must have been prepared as array_record files, which most builders can do only where
TensorFlow is installed (the extra `kdjax[prepare]`); nothing is downloaded or prepared here.
"""

import difflib

import numpy as np

from kdjax.data import images
from kdjax.data.labels import checked_labels
from kdjax.data.splits import RecordSplit, Source
from kdjax.errors import UserError

# Sets up to this size are kept in memory as the encoded files that reading the labels passed over.
IN_MEMORY_BYTES = 256 * 2**20
_CHUNK = 1000


class TfdsRecords:
    """Images of a prepared split, read and decoded when asked for."""

    def __init__(self, directory: str, split: str, shape: tuple[int | None, ...]):
        self.directory = directory
        self.split = split
        self.shape = shape
        self._opened = None

    def __getstate__(self) -> dict:
        # Each process opens the files itself.
        return {**self.__dict__, "_opened": None}

    @property
    def source(self):
        if self._opened is None:
            import tensorflow_datasets as tfds

            self._opened = tfds.builder_from_directory(self.directory).as_data_source(
                self.split, decoders={"image": tfds.decode.SkipDecoding()}
            )
        return self._opened

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.decode(self.source[index]["image"], index)

    def decode(self, encoded: bytes, index: int) -> np.ndarray:
        mode = "L" if self.shape[-1] == 1 else "RGB"
        return images.decode(encoded, mode=mode, where=f"{self.directory} {self.split}[{index}]")

    def common_shape(self) -> tuple[int, int, int] | None:
        """(H, W, C) if the set declares one size for all images, else None."""
        return None if None in self.shape else tuple(self.shape)


class EncodedRecords(TfdsRecords):
    """The same with the encoded images in memory."""

    def __init__(self, records: TfdsRecords, encoded: list[bytes]):
        super().__init__(records.directory, records.split, records.shape)
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.decode(self.encoded[index], index)


def open_tfds(name: str, data_dir: str = "") -> Source:
    """Opens `tfds:NAME` in `data_dir` ('' is the TFDS default), splits train and test.

    A set whose test split is missing or unlabeled is evaluated on its validation split.

    Raises:
      UserError: unknown name, not prepared (says what to run), prepared in another file format,
        without features `image` and `label`, or without a labeled split to evaluate on.
    """
    builder = _builder(name, data_dir)
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not hasattr(features["label"], "num_classes"):
        raise UserError(
            f"config.data.source='tfds:{name}': needs the features image and label (a class), "
            f"has {', '.join(features)}; choose a classification set"
        )
    directory = str(builder.data_dir)
    shape = tuple(features["image"].shape)
    label = features["label"]
    num_classes = label.num_classes

    def split(split_name: str) -> RecordSplit:
        in_memory = builder.info.splits[split_name].num_bytes <= IN_MEMORY_BYTES
        return _read_split(TfdsRecords(directory, split_name, shape), num_classes, in_memory)

    if "train" not in builder.info.splits:
        raise UserError(f"{directory}: no train split, only {', '.join(builder.info.splits)}")
    held_out = _held_out(builder, name)
    names = tuple(label.names or map(str, range(num_classes)))
    return Source(name.replace("/", "_"), split("train"), split(held_out), names)


def _builder(name: str, data_dir: str):
    """The builder of a set that is prepared as array_record."""
    import tensorflow_datasets as tfds

    setting = f"config.data.source='tfds:{name}'"
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError as error:
        base = name.split("/")[0].split(":")[0]
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(base, known, n=3)
        hint = f"nearest: {', '.join(near)}" if near else "see tensorflow.org/datasets for names"
        raise UserError(f"{setting}: TFDS knows no such data set; {hint}") from error
    except ImportError as error:
        raise UserError(
            f"{setting}: its builder cannot be imported ({_one_line(error)}); "
            "pip install 'kdjax[prepare]' for TensorFlow"
        ) from error
    except (ValueError, AssertionError) as error:
        # An unknown configuration, an unknown version, or a name TFDS cannot parse.
        raise UserError(
            f"{setting}: TFDS cannot open it ({_one_line(error)}); check the name"
        ) from error
    command = _prepare_command(name, data_dir)
    if not builder.is_prepared():
        raise UserError(
            f"{setting} is not prepared in {builder.data_dir}; "
            f"run: {command} (or set config.data.dir to where it is)"
        )
    if builder.info.file_format.value != "array_record":
        raise UserError(
            f"{setting} is prepared as {builder.info.file_format.value} in "
            f"{builder.data_dir}, kdjax reads array_record; remove that folder and run: {command}"
        )
    return builder


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _prepare_command(name: str, data_dir: str) -> str:
    arguments = repr(name) + (f", data_dir={data_dir!r}" if data_dir else "")
    return (
        "pip install 'kdjax[prepare]' && "
        f'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({arguments}, file_format='array_record').download_and_prepare()\""
    )


def _held_out(builder, name: str) -> str:
    """The split to evaluate on: some sets publish their test split with every label -1."""
    for split in ("test", "validation"):
        if split in builder.info.splits and builder.info.splits[split].num_examples:
            records = TfdsRecords(str(builder.data_dir), split, ())
            if records.source[0]["label"] >= 0:
                return split
    raise UserError(
        f"config.data.source='tfds:{name}': no labeled test or validation split "
        f"(it has {', '.join(builder.info.splits)}); choose another set"
    )


def _read_split(records: TfdsRecords, num_classes: int, in_memory: bool) -> RecordSplit:
    """Reads every label, keeping the encoded images if `in_memory`.

    Labels lie inside the records, so this passes once over the whole split.
    """
    size = len(records)
    labels = np.empty(size, np.int64)
    encoded = []
    for start in range(0, size, _CHUNK):
        examples = records.source.__getitems__(list(range(start, min(start + _CHUNK, size))))
        labels[start : start + len(examples)] = [example["label"] for example in examples]
        if in_memory:
            encoded += [example["image"] for example in examples]
    where = f"{records.directory} ({records.split})"
    kept = EncodedRecords(records, encoded) if in_memory else records
    return RecordSplit(kept, checked_labels(labels, num_classes, where))
