"""Workdirs as archives in parts, for a machine that returns little at a time, and back."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

PART_BYTES = 15 * 2**20


def pack(
    folders: Sequence[Path], output: Path, name: str, about: dict, *, root: Path
) -> list[Path]:
    """Writes an archive of folders in parts, and NAME.json, with which a resumption agrees.

    In the archive they are named as seen from `root`, the folder that `unpack` puts them into.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for folder in folders:
            archive.add(folder, folder.relative_to(root))
    data, files = buffer.getvalue(), []
    for number, first in enumerate(range(0, len(data), PART_BYTES)):
        files.append(output / f"{name}.tar.gz.{number}")
        files[-1].write_bytes(data[first : first + PART_BYTES])
    files.append(output / f"{name}.json")
    files[-1].write_text(json.dumps(about, indent=2) + "\n")
    return files


def unpack(folder: Path, name: str, scratch: Path, about: dict) -> None:
    """Puts the folders of `pack` into `scratch`, to go on with.

    Raises:
      SystemExit: the run was of other images, epochs or precision, or its parts are not there.
    """
    file = folder / f"{name}.json"
    if not file.is_file():
        raise SystemExit(f"--resume={folder}: no {name}.json; name the --output of a run")
    was = json.loads(file.read_text())
    if other := [key for key in about if was.get(key) != about[key]]:
        told = "; ".join(f"{key} was {was.get(key)}, is {about[key]}" for key in other)
        raise SystemExit(f"--resume={folder}: another run: {told}")
    parts = sorted(folder.glob(f"{name}.tar.gz.*"), key=lambda part: int(part.suffix[1:]))
    if not parts:
        raise SystemExit(f"--resume={folder}: no {name}.tar.gz.0")
    data = b"".join(part.read_bytes() for part in parts)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(scratch, filter="data")
