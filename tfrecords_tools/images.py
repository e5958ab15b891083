"""Decides what becomes of one image file: kept as it came, encoded anew, or left out."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageChops, ImageCms, ImageOps, ImageStat, UnidentifiedImageError

# A header can promise any size. Above this (about 9,500 × 9,500, Pillow's own warning level) a
# file is taken for a decompression bomb and never decoded.
MAX_PIXELS = 89_478_485
# Standard deviation of the luminance, of 255, below which an image shows nothing to learn from.
MIN_DEVIATION = 1.5
JPEG_QUALITY = 95

# Levels of 255 by which the makers' own renderings of sRGB differ.
_SAME_COLOUR = 4

# The formats we let Pillow try. Its full list holds some that start other programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
# Modes that tf.io.decode_image gives the same RGB for as Pillow does.
_PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


class BadImage(Exception):
    """An image that is left out, with a short reason and the details."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Picture:
    """An image ready to be stored.

    Attributes:
        data: Encoded JPEG or PNG that decodes to uint8 RGB of this size.
        height: In pixels.
        width: In pixels.
        change: Why it was encoded anew; None if ``data`` is as it came.
    """

    data: bytes
    height: int
    width: int
    change: str | None


def prepare(data: bytes, max_side: int | None = None) -> Picture:
    """Checks an encoded image and encodes it anew only where that is needed.

    Args:
        data: The bytes of an image file, of any kind.
        max_side: Longest side in pixels; larger images are shrunk to it.

    Raises:
        BadImage: If it cannot be used.
    """
    image = _load(data)
    try:
        return _prepared(image, data, max_side)
    except BadImage:
        raise
    except Exception as error:  # Pillow's converters, too, raise nearly anything on odd input.
        raise BadImage("unreadable", _one_line(error)) from error


def _prepared(image: Image.Image, data: bytes, max_side: int | None) -> Picture:
    change = _why_reencode(image, data, max_side)
    if change is None:
        _refuse_near_constant(image)
        return Picture(data, image.height, image.width, None)
    rgb = _shrink(_upright_rgb(image), max_side)
    _refuse_near_constant(rgb)
    return Picture(_encode(rgb, lossy=_is_lossy(image, data)), rgb.height, rgb.width, change)


def _load(data: bytes) -> Image.Image:
    """Returns the first frame, decoded."""
    if not data:
        raise BadImage("empty", "0 bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=readable_formats())
        if image.width * image.height > MAX_PIXELS:
            raise BadImage("too large", f"{image.width}x{image.height}, over {MAX_PIXELS:,} pixels")
        image.load()
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage("too large", _one_line(error)) from error
    except UnidentifiedImageError as error:
        if data.startswith(_SIGNATURES):
            raise BadImage("unreadable", "damaged header") from error
        raise BadImage("not an image", f"none of {', '.join(readable_formats())}") from error
    except Exception as error:  # On damaged input, Pillow's decoders raise nearly anything.
        reason = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise BadImage(reason, _one_line(error)) from error
    return image


@functools.lru_cache(maxsize=1)
def readable_formats() -> tuple[str, ...]:
    """Returns Pillow's names of the kinds of images that are taken, as far as it has them."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _why_reencode(image: Image.Image, data: bytes, max_side: int | None) -> str | None:
    if image.format not in ("JPEG", "MPO", "PNG"):  # MPO: a JPEG with further images behind it
        return str(image.format)
    if image.format == "PNG" and data[24] == 16:  # the bit depth in the PNG header
        return "16-bit"
    if image.mode not in _PLAIN_MODES:
        return image.mode
    if image.format == "PNG" and getattr(image, "is_animated", False):
        return "animation"
    if _orientation(image) != 1:
        return "EXIF orientation"
    if _is_transparent(image):
        return "transparency"
    if _changes_colours(image.info.get("icc_profile"), image.mode):
        return "colour profile"
    if max_side is not None and max(image.size) > max_side:
        return "larger than --max-side"
    if not _tensorflow_decodes(data, image):
        return "not decoded by tf.image"
    return None


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Damaged EXIF data is no reason to lose a good image.
        return 1
    return value if value in range(2, 9) else 1


def _is_transparent(image: Image.Image) -> bool:
    """Tells whether any pixel lets through what lies behind: tf.image would drop the alpha."""
    if not image.has_transparency_data:
        return False
    return image.convert("RGBA").getchannel("A").getextrema()[0] < 255


@functools.lru_cache(maxsize=64)
def _changes_colours(profile: bytes | None, mode: str) -> bool:
    """Tells whether a profile means other colours than sRGB's, which tf.image takes for granted."""
    if not profile:
        return False
    mode = "L" if mode == "L" else "RGB"
    colours = _colours().convert(mode)
    meant = ImageChops.difference(to_srgb(colours, profile), colours.convert("RGB"))
    return max(high for _, high in meant.getextrema()) > _SAME_COLOUR


@functools.lru_cache(maxsize=1)
def _colours() -> Image.Image:
    """Every colour of 0, 15, 30 … 255, as an image."""
    levels = range(0, 256, 15)
    colours = [bytes([red, green, blue]) for red in levels for green in levels for blue in levels]
    return Image.frombytes("RGB", (len(colours), 1), b"".join(colours))


def _tensorflow_decodes(data: bytes, image: Image.Image) -> bool:
    """Tells whether training will be able to decode ``data``: the surest way is to do it."""
    import tensorflow as tf

    try:
        decoded = tf.io.decode_image(data, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        return False
    return decoded.shape == (image.height, image.width, 3)


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Returns ``image`` as 8-bit sRGB, turned upright, on white where it is transparent."""
    return to_srgb(on_white(upright(image)), image.info.get("icc_profile"))


def upright(image: Image.Image) -> Image.Image:
    """A decoded image with 8 bits a channel, turned as its EXIF data say.

    Raises:
        ValueError: If its pixels are floating-point numbers, whose white could be anything.
    """
    return _with_8_bits(image if _orientation(image) == 1 else ImageOps.exif_transpose(image))


def on_white(image: Image.Image) -> Image.Image:
    """An 8-bit image as it looks on white: RGB if any of it is transparent, else as it is."""
    if not _is_transparent(image):
        return image
    canvas = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")


def _with_8_bits(image: Image.Image) -> Image.Image:
    import numpy as np

    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.float32) / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An 8-bit image of any mode as RGB, its colours converted if it has a profile that fits."""
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # Damaged, or made for another mode: the plain values are the best guess.
    return image.convert("RGB")


def _shrink(image: Image.Image, max_side: int | None) -> Image.Image:
    longest = max(image.size)
    if max_side is None or longest <= max_side:
        return image
    size = tuple(max(1, round(side * max_side / longest)) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS)


def _refuse_near_constant(image: Image.Image) -> None:
    # Pillow's variance of a single colour may come out a little under zero.
    deviation = max(0.0, ImageStat.Stat(image.convert("L")).var[0]) ** 0.5
    if deviation < MIN_DEVIATION:
        raise BadImage(
            "near-constant", f"standard deviation {deviation:.2f} of 255, under {MIN_DEVIATION}"
        )


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    if image.format == "WEBP":
        return b"VP8 " in data  # the chunk of lossy WebP; that of the lossless one is VP8L
    return image.format in ("JPEG", "MPO", "AVIF")


def _encode(image: Image.Image, lossy: bool) -> bytes:
    buffer = io.BytesIO()
    image.info.pop("transparency", None)  # of the mode that it came in
    if lossy:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
