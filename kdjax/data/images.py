"""Single images on the host: decoding, resizing and cropping with Pillow.

Pixels are uint8 [h, w, C] with C = 1 or 3; sizes are in pixels.
"""

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from kdjax.data.available_memory import check_fits
from kdjax.data.regular_files import check_regular
from kdjax.errors import UserError

_LONGEST = 16  # of the longer side, in shorter sides, that is resized
_WAY_OUT = "replace it or remove it from the data set"


# Others are not tried: some of Pillow's readers start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


def decode(encoded: bytes, *, mode: str = "RGB", where: str) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP, BMP or GIF file to uint8 [h, w, C], C = 1 for mode "L".

    Gray levels of 16 bits are scaled to 8. Transparency is ignored.

    Raises:
      UserError: the bytes are not an image, or it is truncated or larger than the memory; the
        message starts with `where`.
    """
    with _opened(io.BytesIO(encoded), where) as image:
        width, height = image.size
        check_fits(4 * width * height, where, _WAY_OUT)
        pixels = np.asarray(_eight_bits(image).convert(mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def decode_mask(encoded: bytes, *, where: str) -> np.ndarray:
    """Decodes a gray or palette image to its values, uint8 [h, w].

    Raises:
      UserError: as `decode`, or an image of colors.
    """
    with _opened(io.BytesIO(encoded), where) as image:
        width, height = image.size
        check_fits(4 * width * height, where, _WAY_OUT)
        values = np.asarray(image)
        mode = image.mode
    if values.ndim != 2 or values.min() < 0 or values.max() > 255:
        raise UserError(
            f"{where}: a mask has one value of 0..255 for each pixel, gray or of a palette, not "
            f"pixels of mode {mode}"
        )
    return values.astype(np.uint8)


def stored_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image file, by its header.

    Raises:
      UserError: not a regular file, or no image.
    """
    check_regular(path)
    with _opened(path, str(path)) as image:
        width, height = image.size
    return height, width


def encoded_size(encoded: bytes, *, where: str) -> tuple[int, int]:
    """(height, width) of an encoded image, by its header.

    Raises:
      UserError: no image; the message starts with `where`.
    """
    with _opened(io.BytesIO(encoded), where) as image:
        width, height = image.size
    return height, width


@contextlib.contextmanager
def _opened(file: io.BytesIO | Path, where: str) -> Iterator[Image.Image]:
    """Opens an image, and turns errors of the block into `UserError`."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except UserError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged bytes
        # Pillow puts the repr of the in-memory file into this message: useless to a reader.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "not an image" if unknown else " ".join(str(error).split())[:200]
        raise UserError(f"{where}: unreadable image ({reason}); {_WAY_OUT}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in a mode whose conversion to RGB or gray keeps the range of levels."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image)
        return Image.fromarray((levels >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode}, of unknown range")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    return image


def _to_pillow(pixels: np.ndarray) -> Image.Image:
    channels = pixels.shape[-1]
    if channels not in (1, 3):
        raise UserError(
            f"images of {channels} channels cannot be resized (only 1 or 3); "
            "leave config.data.image_size at 0 and the augmentation other than resized_crop_flip"
        )
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def _to_pixels(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic resize to [height, width, C]."""
    return _to_pixels(_to_pillow(pixels).resize((width, height), Image.Resampling.BICUBIC))


def fit(pixels: np.ndarray, size: int, *, resize_to: int | None = None) -> np.ndarray:
    """Resizes the shorter side to `resize_to` (default: `size`) and cuts out the central square.

    Bilinear with antialiasing, sizes rounded as torchvision's Resize and CenterCrop round them.

    Of an image that is more than 16 times as long as wide, only the central part is resized.

    Returns:
      uint8 [size, size, C]
    """
    shorter = resize_to or size
    pixels = _without_far_ends(pixels)
    height, width = pixels.shape[:2]
    if (height, width) == (size, size) and shorter == size:
        return pixels
    scale = shorter / min(height, width)
    if height <= width:
        new = (max(size, int(width * scale)), shorter)
    else:
        new = (shorter, max(size, int(height * scale)))
    image = _to_pillow(pixels)
    if new != image.size:
        image = image.resize(new, Image.Resampling.BILINEAR)
    left, top = round((new[0] - size) / 2), round((new[1] - size) / 2)
    return _to_pixels(image.crop((left, top, left + size, top + size)))


def _without_far_ends(pixels: np.ndarray) -> np.ndarray:
    """The central part of an image whose resized copy would take far more memory than it does."""
    longest = _LONGEST * min(pixels.shape[:2])
    top, left = (max(0, (length - longest) // 2) for length in pixels.shape[:2])
    if not top and not left:
        return pixels
    return pixels[top : top + longest, left : left + longest]


def fit_evaluation(pixels: np.ndarray, size: int, crop_fraction: float) -> np.ndarray:
    """The ImageNet protocol: the central `crop_fraction` of the shorter side, at [size, size].

    Images that are not larger than `size` are resized to it and not cropped.
    """
    if max(pixels.shape[:2]) <= size:
        return fit(pixels, size)
    return fit(pixels, size, resize_to=round(size / crop_fraction))


def random_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Draws the box (left, top, right, bottom) of a random resized crop.

    The area is uniform in `scale` (a share of the image), the aspect log-uniform in `ratio`. After
    ten boxes that do not fit, it is the largest central box with an admissible aspect, as in
    torchvision.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


# Range of the area of crops for self-supervised methods, as a share of the image.
CONTRASTIVE_AREA = (0.2, 1.0)


def random_resized_crop(
    pixels: np.ndarray,
    size: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
) -> np.ndarray:
    """A random box of the image (see `random_box`), resized to [size, size, C]."""
    box = random_box(rng, pixels.shape[0], pixels.shape[1], scale)
    image = _to_pillow(pixels).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return _to_pixels(image)


def contrastive_crop(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """`random_resized_crop` with the areas of `CONTRASTIVE_AREA`."""
    return random_resized_crop(pixels, size, rng, scale=CONTRASTIVE_AREA)
