"""Image folders: PATH/train/CLASS/*.jpg, and PATH/test or PATH/val with the same classes.

Classes are the sorted names of the class folders. Files that are no images (by extension) and
hidden ones are passed over.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from kdjax.data import images
from kdjax.data.splits import RecordSplit, Source
from kdjax.errors import UserError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


class FolderRecords:
    """Image files below `root`, decoded to RGB when asked for."""

    def __init__(self, root: Path, files: list[str]):
        self.root = root
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        path = self.root / self.files[index]
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        return images.decode(encoded, where=str(path))

    def common_shape(self) -> tuple[int, int, int] | None:
        """(H, W, 3) if all images have one size, else None.

        Reads the headers of the files, up to the first that differs.
        """
        first = None
        for file in self.files:
            path = self.root / file
            try:
                with Image.open(path) as image:
                    width, height = image.size
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                raise UserError(
                    f"{path}: unreadable image; replace it or remove it from the data set"
                ) from error
            first = first or (height, width, 3)
            if first != (height, width, 3):
                return None
        return first


def open_folder(folder: str) -> Source:
    """Lists `folder:PATH`; no image is read.

    Raises:
      UserError: a folder or split is missing, a class is empty, or the splits' classes differ.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; check config.data.source")
    if not (root / "train").is_dir():
        raise UserError(f"{root}: no train/ in it; needs train/CLASS/*.jpg and test/ or val/")
    held_out = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if held_out is None:
        raise UserError(
            f"{root}: has train/ but neither test/ nor val/ to evaluate on; "
            "move some images of every class to test/CLASS/"
        )
    train_names, train = _list_split(root / "train")
    test_names, test = _list_split(held_out)
    if train_names != test_names:
        differing = sorted(set(train_names) ^ set(test_names))
        raise UserError(
            f"{held_out}: {len(test_names)} classes against {len(train_names)} in train/ (first "
            f"that differs: {differing[0]}); both need the same class folders"
        )
    return Source(root.name, train, test, train_names)


def _list_split(root: Path) -> tuple[tuple[str, ...], RecordSplit]:
    folders = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if not folders:
        raise UserError(f"{root}: no class folders in it; needs {root.name}/CLASS/*.jpg")
    files, labels = [], []
    for label, name in enumerate(folders):
        found = sorted(
            entry.name
            for entry in (root / name).iterdir()
            if entry.suffix.lower() in EXTENSIONS and not entry.name.startswith(".")
        )
        if not found:
            raise UserError(
                f"{root / name}: no images ({', '.join(sorted(EXTENSIONS))}) in this class; "
                "add some or remove the folder from both splits"
            )
        files += [f"{name}/{file}" for file in found]
        labels += [label] * len(found)
    return tuple(folders), RecordSplit(FolderRecords(root, files), np.array(labels, np.int32))
