"""Data sources by name: `config.data.source` to a `Source`.

digits            the 1,797 digits of scikit-learn, 32x32x3
tfds:NAME         a TensorFlow data set prepared as array_record (see `tfds_source`)
folder:PATH       PATH/train/CLASS/*.jpg and PATH/test or PATH/val (see `folder`)
hf:PATH           a set that `save_to_disk` of Hugging Face's datasets wrote (see `hf_source`)
masks:PATH        images and masks (see `mask_folders`)
coco:PATH, voc:PATH, yolo:PATH   images and objects in boxes (see `objects.folders`)
arrays:FILE.npz   plain arrays (see `arrays`)
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from kdjax.data.labels import check_labels
from kdjax.data.splits import Source
from kdjax.errors import UserError
from kdjax.registry import Registry

# Settings of `config.data` that only some kinds of sources read, with their default values.
_OPTIONAL_SETTINGS = {
    "dir": "",
    "layout": "",
    "ignored": 255,
    "test_split": "",
    "bad_boxes": "refuse",
    "columns": (),
}


class SourceKind(NamedTuple):
    """A kind of data source.

    Attributes:
      open: `(place, config.data) -> Source`, where `place` is what follows 'KIND:'.
      place: what follows 'KIND:', for messages, such as 'PATH'; '' for a source without one.
      settings: the optional settings that it reads, among 'dir', 'layout', 'ignored', 'test_split',
        'bad_boxes' and 'columns'.
    """

    open: Callable[[str, Any], Source]
    place: str
    settings: tuple[str, ...]


SOURCES: Registry[SourceKind] = Registry("data source", "config.data.source")


def register_source(
    kind: str,
    open_kind: Callable[[str, Any], Source],
    *,
    place: str = "",
    settings: Collection[str] = (),
) -> None:
    """Registers a kind of source, for `config.data.source='KIND:PLACE'` or `'KIND'`.

    Args:
      kind: without colon.
      open_kind: `(place, config.data) -> Source`. Raises `UserError` for data that cannot be used.
      place: what follows the colon, for messages; '' for sources without it.
      settings: the settings among 'dir', 'layout', 'ignored', 'test_split', 'bad_boxes' and
        'columns' that `open_kind` reads; the others are refused.

    Raises:
      ValueError: the kind is registered already, has a colon, or a setting is unknown.
    """
    unknown = set(settings) - _OPTIONAL_SETTINGS.keys()
    if ":" in kind or unknown:
        raise ValueError(f"kind={kind!r} with settings {sorted(settings)} cannot be registered")
    SOURCES.add(kind, SourceKind(open_kind, place, tuple(settings)), open_kind)


def open_source(data: ConfigDict) -> Source:
    """Opens `data.source`.

    Args:
      data: `config.data`: source, dir, layout, ignored, test_split, bad_boxes, columns,
        class_names.

    Raises:
      UserError: unknown kind, a setting that has no effect on this kind, or data that are missing,
        not prepared or malformed.
    """
    name, colon, place = data.source.partition(":")
    kind = SOURCES[name]
    if bool(place) != bool(kind.place) or (colon and not place):
        form = f"{name}:{kind.place}" if kind.place else name
        raise UserError(f"config.data.source={data.source!r}: write {form}")
    for setting, unset in _OPTIONAL_SETTINGS.items():
        value = getattr(data, setting)
        value = tuple(value) if isinstance(unset, tuple) else value  # of config.json: a list
        if value != unset and setting not in kind.settings:
            raise UserError(
                f"config.data.{setting}={value!r} has no effect on config.data.source="
                f"{data.source!r}; leave it at {unset!r}"
            )
    source = _named(kind.open(place, data), data)
    for split_name, split in (("train", source.train), ("test", source.test)):
        where = f"config.data.source={data.source!r} ({split_name})"
        check_labels(split.labels, len(source.class_names), where)
        if len(split[0]) != len(split.labels):
            raise UserError(f"{where}: {len(split[0])} images but {len(split.labels)} labels")
    return source


def _named(source: Source, data: ConfigDict) -> Source:
    """The source with the names of `data.class_names`, if there are any."""
    names, count = tuple(data.class_names), len(source.class_names)
    if not names:
        return source
    if len(set(names)) != count or len(names) != count:
        raise UserError(
            f"config.data.class_names has {len(names)} names, {len(set(names))} of them different; "
            f"{data.source} has {count} classes; give each a name, or () for the source's names"
        )
    return source._replace(class_names=names)


# Readers are imported when a source of their kind is opened, because importing them takes long.


def _open_digits(place: str, data: ConfigDict) -> Source:
    del place, data
    from kdjax.data import digits

    return digits.read_digits()


def _open_tfds(place: str, data: ConfigDict) -> Source:
    from kdjax.data import tfds_source

    return tfds_source.open_tfds(place, data.dir)


def _open_folder(place: str, data: ConfigDict) -> Source:
    from kdjax.data import folder

    return folder.open_folder(place, data.test_split, split=bool(data.validation_fraction))


def _open_hf(place: str, data: ConfigDict) -> Source:
    from kdjax.data import hf_source

    return hf_source.open_hf(
        place, data.test_split, tuple(data.columns), split=bool(data.validation_fraction)
    )


def _open_arrays(place: str, data: ConfigDict) -> Source:
    from kdjax.data import arrays

    return arrays.open_arrays(place, data.layout, data.ignored, data.test_split)


def _open_masks(place: str, data: ConfigDict) -> Source:
    from kdjax.data import mask_folders

    return mask_folders.open_mask_folders(place, data.layout, data.ignored, data.test_split)


def _open_coco(place: str, data: ConfigDict) -> Source:
    from kdjax.data.objects import folders

    return folders.open_coco(place, data.test_split, data.bad_boxes)


def _open_voc(place: str, data: ConfigDict) -> Source:
    from kdjax.data.objects import folders

    return folders.open_voc(place, data.test_split, data.bad_boxes)


def _open_yolo(place: str, data: ConfigDict) -> Source:
    from kdjax.data.objects import folders

    return folders.open_yolo(place, data.test_split, data.bad_boxes)


register_source("digits", _open_digits)
register_source("tfds", _open_tfds, place="NAME", settings=("dir",))
register_source("folder", _open_folder, place="PATH", settings=("test_split",))
register_source("hf", _open_hf, place="PATH", settings=("test_split", "columns"))
_LAID_OUT = ("layout", "ignored", "test_split")
register_source("arrays", _open_arrays, place="FILE.npz", settings=_LAID_OUT)
register_source("masks", _open_masks, place="PATH", settings=_LAID_OUT)
register_source("coco", _open_coco, place="PATH", settings=("test_split", "bad_boxes"))
register_source("voc", _open_voc, place="PATH", settings=("test_split", "bad_boxes"))
register_source("yolo", _open_yolo, place="PATH", settings=("test_split", "bad_boxes"))
