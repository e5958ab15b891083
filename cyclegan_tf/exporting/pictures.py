"""Picture files: upright sRGB pixels and alpha in, the same kind of file out."""

from __future__ import annotations

import functools
import itertools
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cyclegan_tf.files import MACHINE
from tfrecords_tools.images import (
    JPEG_QUALITY,
    MAX_PIXELS,
    on_white,
    readable_formats,
    to_srgb,
    upright,
)

# Kinds that hold no alpha.
_OPAQUE = ("JPEG", "PPM")
# Kinds whose further pictures are frames, not pages or previews.
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")


_numbers = itertools.count()


class BadFile(Exception):
    """A picture or film that cannot be read or written; the message is a few words."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8 [height, width, 3], sRGB, upright, on white where they are transparent.
        alpha: uint8 [height, width]; None if it is opaque.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None

    def resized(self, size: int | None) -> Picture:
        """The same with a shorter side of ``size`` pixels; None leaves it as it is.

        Raises:
            BadFile: if it would have more pixels than a file that is read may have.
        """
        height, width = self.pixels.shape[:2]
        if size is None or min(height, width) == size:
            return self
        factor = size / min(height, width)
        shape = (max(size, round(width * factor)), max(size, round(height * factor)))
        if shape[0] * shape[1] > MAX_PIXELS:
            raise BadFile(
                f"{shape[0]} × {shape[1]} pixels at size {size}, more than {MAX_PIXELS:,}; take a "
                "smaller size"
            )
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
        BadFile: if it is no picture, an animation, damaged, or larger than Pillow holds to be
            safe, or its pixels are floating-point numbers.
    """
    try:
        if isinstance(source, Image.Image):
            return _picture(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source, formats=readable_formats()) as image:
                return _picture(image)
    except FileNotFoundError:
        raise BadFile("no such file") from None
    except Exception as error:  # On damaged input, Pillow's decoders raise nearly anything.
        raise BadFile(reason_of(error)) from error


def save_picture(picture: Picture, path: Path) -> None:
    """Writes a file of the kind that its suffix names, all at once.

    Raises:
        BadFile: if it cannot be written.
    """
    image = picture.image()
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise BadFile(f"cannot be written (this Pillow knows no {path.suffix})")
    if kind in _OPAQUE:
        image = image.convert("RGB")
    try:
        with unfinished_file(path) as unfinished:
            image.save(unfinished, kind, quality=JPEG_QUALITY, subsampling="4:4:4")
    except (OSError, ValueError, MemoryError) as error:
        raise BadFile(f"{path} cannot be written ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """An error in a few words, without the names of files that the user does not know."""
    if isinstance(error, MemoryError):  # Most of these say nothing.
        return "needs more memory than there is"
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """A file beside ``path``, of the same suffix, that becomes it if all goes well.

    Each process has its own, so that none publishes what another is still writing; those of
    processes that were killed are removed. ``path`` may have as long a name as there can be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent.absolute())
    name = f".unfinished-{os.getpid()}-{MACHINE}-{next(_numbers)}{path.suffix}"
    unfinished = path.with_name(name)
    # Someone else's link in its place must not be written through.
    unfinished.unlink(missing_ok=True)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@functools.cache  # Going through a large folder for every file would take longer than writing it.
def _remove_leftovers(folder: Path) -> None:
    for left in folder.glob(f".unfinished-*-{MACHINE}-*"):
        if not _is_running(left.name.split("-")[1]):
            left.unlink(missing_ok=True)


def _is_running(process: str) -> bool:
    """Whether a process of this number runs; True where that cannot be asked without harm."""
    if os.name != "posix" or not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True


def _picture(image: Image.Image) -> Picture:
    if image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"holds {image.n_frames} frames; the command takes .gif and video files")
    image.load()  # Damaged EXIF data are passed over, damaged pixels are not.
    profile, alpha = image.info.get("icc_profile"), None
    image = upright(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
    return Picture(np.array(to_srgb(on_white(image), profile)), alpha)


def _resize(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(values).resize(shape, Image.Resampling.BICUBIC))
