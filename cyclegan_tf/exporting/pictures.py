"""Picture files: upright sRGB pixels and alpha in, the same kind of file out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tfrecords_tools.images import JPEG_QUALITY, from_16_bit, to_srgb

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Pillow's full list holds some that start other programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


class BadFile(Exception):
    """A picture or film that cannot be read or written; the message is a few words."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8 [height, width, 3], sRGB, upright.
        alpha: uint8 [height, width]; None if it is opaque.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None

    def resized(self, size: int | None) -> Picture:
        """The same with a shorter side of ``size`` pixels; None leaves it as it is."""
        height, width = self.pixels.shape[:2]
        if size is None or min(height, width) == size:
            return self
        factor = size / min(height, width)
        shape = (max(size, round(width * factor)), max(size, round(height * factor)))
        alpha = None if self.alpha is None else _resize(self.alpha, shape)
        return Picture(_resize(self.pixels, shape), alpha)

    def beside(self, other: Picture) -> Picture:
        """This one on the left and ``other``, of equal size, on the right."""
        pixels = np.concatenate([self.pixels, other.pixels], axis=1)
        if self.alpha is None:
            return Picture(pixels)
        return Picture(pixels, np.concatenate([self.alpha, other.alpha], axis=1))

    def with_pixels(self, pixels: np.ndarray) -> Picture:
        """This one's alpha over other pixels of the same size."""
        return replace(self, pixels=pixels)

    def image(self) -> Image.Image:
        """As a Pillow image, RGB or RGBA."""
        image = Image.fromarray(self.pixels)
        if self.alpha is not None:
            image.putalpha(Image.fromarray(self.alpha))
        return image


def read_picture(source: Path | Image.Image) -> Picture:
    """Decodes a file, or takes a Pillow image: EXIF orientation applied, colours converted to sRGB.

    Raises:
        BadFile: if it is no picture, damaged, or larger than Pillow holds to be safe.
    """
    if isinstance(source, Image.Image):
        return _picture(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source, formats=_FORMATS) as image:
                return _picture(image)
    except FileNotFoundError:
        raise BadFile("no such file") from None
    except Exception as error:  # On damaged input, Pillow's decoders raise nearly anything.
        raise BadFile(" ".join(str(error).split()) or type(error).__name__) from error


def save_picture(picture: Picture, path: Path) -> None:
    """Writes a file of the kind that its suffix names, all at once.

    Raises:
        BadFile: if it cannot be written.
    """
    image = picture.image()
    if path.suffix.lower() in (".jpg", ".jpeg"):
        image = image.convert("RGB")
    kind = Image.registered_extensions()[path.suffix.lower()]
    try:
        with unfinished_file(path) as unfinished:
            image.save(unfinished, kind, quality=JPEG_QUALITY, subsampling=0)
    except (OSError, ValueError) as error:
        raise BadFile(f"cannot be written ({error})") from error


@contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """A file beside ``path``, of the same suffix, that becomes it if all goes well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished-{path.name}")
    # Someone else's link in its place must not be written through.
    unfinished.unlink(missing_ok=True)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _picture(image: Image.Image) -> Picture:
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = from_16_bit(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
        image = image.convert("RGB")
    return Picture(np.array(to_srgb(image, profile)), alpha)


def _resize(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(values).resize(shape, Image.Resampling.BICUBIC))
