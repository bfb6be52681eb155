"""Single images on the host: decoding, resizing and cropping with Pillow.

Pixels are uint8 [h, w, C] with C = 1 or 3; sizes are in pixels.
"""

import io
import math

import numpy as np
from PIL import Image

from kdjax.errors import UserError


def decode(encoded: bytes, *, mode: str = "RGB", where: str) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP or BMP file to uint8 [h, w, C], C = 1 for mode "L".

    Raises:
      UserError: the bytes are no image or a truncated one; the message starts with `where`.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            pixels = np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow puts the repr of the in-memory file into this message: useless to a reader.
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
        raise UserError(
            f"{where}: unreadable image ({reason}); replace it or remove it from the data set"
        ) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


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

    Returns:
      uint8 [size, size, C]
    """
    shorter = resize_to or size
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


def fit_evaluation(pixels: np.ndarray, size: int, crop_fraction: float) -> np.ndarray:
    """The ImageNet protocol: the central `crop_fraction` of the shorter side, at [size, size].

    Images that are not bigger than `size` are not cropped, only brought to it.
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

    Area uniform in `scale` (a share of the image), aspect log-uniform in `ratio`; after ten boxes
    that do not fit, the largest central box with an admissible aspect (as torchvision does).
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


def random_resized_crop(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random box of the image (see `random_box`), resized to [size, size, C]."""
    box = random_box(rng, *pixels.shape[:2])
    image = _to_pillow(pixels).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return _to_pixels(image)
