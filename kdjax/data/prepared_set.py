"""The description of a prepared TensorFlow data set: splits, shards, features, class names.

Its JSON files are read as data. They name Python classes, which TFDS would import; here these names
are only compared with those of the features that kdjax reads.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from kdjax.data.regular_files import exists, is_directory, read_bytes, sorted_entries
from kdjax.errors import UserError

_FEATURES = "tensorflow_datasets.core.features"
_DICT = f"{_FEATURES}.features_dict.FeaturesDict"
_IMAGE = f"{_FEATURES}.image_feature.Image"
_CLASS_LABEL = f"{_FEATURES}.class_label_feature.ClassLabel"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_PLAIN_NAME = re.compile(r"[\w+=,-][\w.+=,-]*")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class SplitInfo(NamedTuple):
    """A split of a prepared set.

    Attributes:
      name: such as 'train'.
      shards: its files, in order.
      lengths: number of examples of every file.
      num_bytes: size of all files.
    """

    name: str
    shards: tuple[Path, ...]
    lengths: tuple[int, ...]
    num_bytes: int


class PreparedSet(NamedTuple):
    """A prepared set of labeled images.

    Attributes:
      directory: of its version.
      splits: by name.
      image_shape: (H, W, C), with None for what differs from image to image; C is 1 or 3.
      num_classes: of the labels.
      class_names: of all classes; numbers where the set does not name them.
    """

    directory: Path
    splits: dict[str, SplitInfo]
    image_shape: tuple[int | None, int | None, int]
    num_classes: int
    class_names: tuple[str, ...]


def version_directory(data_dir: Path, name: str) -> Path | None:
    """The directory of `NAME[/CONFIG][:VERSION]`, of the latest version if none is given.

    Returns:
      None if the set is not there, or has several configurations and none is given.

    Raises:
      UserError: a malformed name.
    """
    base, _, version = name.partition(":")
    parts = base.split("/")
    if len(parts) > 2 or not all(_PLAIN_NAME.fullmatch(part) for part in parts):
        raise UserError(
            f"config.data.source='tfds:{name}': not a name; write tfds:NAME, tfds:NAME/CONFIG or "
            "tfds:NAME:VERSION"
        )
    root = data_dir.joinpath(*parts)
    versions = _versions(root)
    if not versions and len(parts) == 1 and is_directory(root):
        configurations = [entry for entry in sorted_entries(root) if _versions(entry)]
        if len(configurations) != 1:
            return None
        versions = _versions(configurations[0])
    return versions.get(version) if version else next(reversed(versions.values()), None)


def _versions(root: Path) -> dict[str, Path]:
    """The versions in a directory, oldest first."""
    if not is_directory(root):
        return {}
    names = [entry.name for entry in sorted_entries(root) if _VERSION.fullmatch(entry.name)]
    names.sort(key=lambda name: tuple(map(int, name.split("."))))
    return {name: root / name for name in names if exists(root / name / "dataset_info.json")}


def file_format(directory: Path) -> str:
    """The file format of the examples, such as 'array_record' or 'tfrecord'.

    Raises:
      UserError: dataset_info.json is unreadable.
    """
    file = directory / "dataset_info.json"
    return _get(_read_json(file), "fileFormat", str, file, default="tfrecord")


def read_prepared_set(directory: Path) -> PreparedSet:
    """Reads dataset_info.json, features.json and the names of the classes.

    Raises:
      UserError: a file is missing, unreadable or malformed, or the set has no features image and
        label of the kinds that kdjax reads.
    """
    file = directory / "dataset_info.json"
    info = _read_json(file)
    dataset = _get(info, "name", str, file)
    splits = [_split(split, dataset, file) for split in _get(info, "splits", list, file)]
    file = directory / "features.json"
    features = _features(_read_json(file), file)
    shape = _image_shape(_feature(features, "image", _IMAGE, "image", file), file)
    label = _feature(features, "label", _CLASS_LABEL, "classLabel", file)
    num_classes = _number(_get(label, "numClasses", (str, int), file), "numClasses", file)
    named = {split.name: split for split in splits}
    names = _class_names(directory / "label.labels.txt", num_classes, named)
    return PreparedSet(directory, named, shape, num_classes, names)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON; prepare the data set again") from error
    if not isinstance(content, dict):
        raise _malformed(file, "needs an object")
    return content


def _malformed(file: Path, reason: str) -> UserError:
    return UserError(f"{file}: {reason}; prepare the data set again")


_REQUIRED = object()


def _get(
    content: Any,
    key: str,
    kind: type | tuple[type, ...],
    file: Path,
    default: Any = _REQUIRED,
) -> Any:
    value = content.get(key, default) if isinstance(content, dict) else _REQUIRED
    if value is _REQUIRED or (value is not default and not isinstance(value, kind)):
        raise _malformed(file, f"{key} is missing or of another type")
    return value


def _number(value: str | int, what: str, file: Path) -> int:
    """An integer >= 0, which protobuf's JSON stores as a string."""
    text = str(value)
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise _malformed(file, f"{what}={text[:40]!r} is not a count")
    return int(text)


def _split(split: Any, dataset: str, file: Path) -> SplitInfo:
    name = _get(split, "name", str, file)
    lengths = _get(split, "shardLengths", list, file, default=[])
    counts = tuple(_number(length, f"shardLengths of {name}", file) for length in lengths)
    template = _get(split, "filepathTemplate", str, file, default="") or _TEMPLATE
    fields = {"DATASET": dataset, "SPLIT": name, "FILEFORMAT": "array_record"}
    shards = []
    for index in range(len(counts)):
        total = len(counts)
        fields["SHARD_INDEX"], fields["NUM_SHARDS"] = f"{index:05d}", f"{total:05d}"
        fields["SHARD_X_OF_Y"] = f"{index:05d}-of-{total:05d}"
        shard = re.sub(r"\{(\w+)\}", lambda match: fields.get(match[1], "/"), template)
        if not _PLAIN_NAME.fullmatch(shard):
            raise _malformed(file, f"filepathTemplate of {name} names no file of this directory")
        shards.append(file.parent / shard)
    num_bytes = _number(_get(split, "numBytes", (str, int), file, default=0), "numBytes", file)
    return SplitInfo(name, tuple(shards), counts, num_bytes)


def _features(content: dict[str, Any], file: Path) -> dict[str, Any]:
    if content.get("pythonClassName") != _DICT:
        raise _unsuitable(file, "its features are not a FeaturesDict of TFDS 4")
    return _get(_get(content, "featuresDict", dict, file), "features", dict, file)


def _unsuitable(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file}: {reason}; needs the features image (an Image) and label (a ClassLabel): choose "
        "a classification set"
    )


def _feature(
    features: dict[str, Any], name: str, python_class: str, key: str, file: Path
) -> dict[str, Any]:
    feature = features.get(name)
    if not isinstance(feature, dict) or feature.get("pythonClassName") != python_class:
        raise _unsuitable(file, f"has {', '.join(sorted(features)) or 'no features'}")
    return _get(feature, key, dict, file)


def _image_shape(image: dict[str, Any], file: Path) -> tuple[int | None, int | None, int]:
    if image.get("dtype", "uint8") not in ("uint8", "uint16"):
        raise _unsuitable(file, f"image is of {image['dtype']!r}, needs uint8 or uint16")
    shape = _get(image, "shape", dict, file, default={})
    dimensions = _get(shape, "dimensions", list, file, default=["-1", "-1", "3"])
    sizes = [
        None if str(size) == "-1" else _number(size, "shape of image", file) for size in dimensions
    ]
    if len(sizes) == 3 and 0 not in sizes:
        height, width, channels = sizes
        if channels is not None and channels in (1, 3):
            return height, width, channels
    raise _unsuitable(file, f"image is of shape {sizes}, needs 1 or 3 channels")


def _class_names(file: Path, num_classes: int, splits: dict[str, SplitInfo]) -> tuple[str, ...]:
    if exists(file):
        try:
            names = read_bytes(file).decode().rstrip("\n").split("\n")
        except UnicodeDecodeError as error:
            raise _malformed(file, "not readable as text") from error
        if len(names) != num_classes:
            raise _malformed(file, f"names {len(names)} classes, features.json {num_classes}")
        return tuple(names)
    examples = sum(sum(split.lengths) for split in splits.values())
    if num_classes > examples:
        raise _malformed(file.with_name("features.json"), f"{num_classes} classes of no names")
    return tuple(map(str, range(num_classes)))
