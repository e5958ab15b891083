from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from cyclegan_tf.exporting.pictures import read_picture
from tests.tfrecords_tools.helpers import encoded, picture
from tfrecords_tools.images import JPEG_QUALITY, MAX_PIXELS, BadImage, Picture, prepare

# Pillow warns of oddities that are the very point here.
pytestmark = pytest.mark.filterwarnings("ignore")

RGB = picture(width=24, height=16)
OPAQUE = RGB.convert("RGBA")
PALETTE = RGB.quantize(100)


def decoded(made: Picture) -> np.ndarray:
    """What training will see; checks the size that is stored with it."""
    import tensorflow as tf

    pixels = tf.io.decode_image(made.data, channels=3, expand_animations=False).numpy()
    assert pixels.shape == (made.height, made.width, 3)
    return pixels


def with_alpha(image: Image.Image) -> Image.Image:
    """``image`` with its left half fully transparent."""
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, image.width // 2, image.height))
    image = image.convert("RGBA")
    image.putalpha(alpha)
    return image


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


KEPT = {
    "JPEG": encoded(RGB),
    "progressive JPEG": encoded(RGB, progressive=True),
    "grey JPEG": encoded(RGB.convert("L")),
    "JPEG turned as it should be": encoded(RGB, exif=exif(1)),
    "JPEG with a colour profile": encoded(
        RGB, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ),
    "PNG": encoded(RGB, "PNG"),
    "grey PNG": encoded(RGB.convert("L"), "PNG"),
    "1-bit PNG": encoded(RGB.convert("1"), "PNG"),
    "palette PNG": encoded(PALETTE, "PNG"),
    "2-bit palette PNG": encoded(RGB.quantize(4), "PNG"),
    "opaque RGBA PNG": encoded(OPAQUE, "PNG"),
    "opaque palette PNG": encoded(PALETTE, "PNG", transparency=bytes([255] * 100)),
    "opaque grey PNG with alpha": encoded(RGB.convert("LA"), "PNG"),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept_as_it_came(name):
    data = KEPT[name]
    made = prepare(data)
    assert made == Picture(data, 16, 24, None)
    ours = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decoded(made) - ours).max() <= 6  # decoders of JPEG differ by rounding


def sixteen_bit() -> Image.Image:
    return Image.fromarray(np.asarray(RGB.convert("L")).astype(np.uint16) * 257)


LOSSLESS = {  # what is encoded anew as PNG: data, why, and the pixels to expect
    "WEBP": (encoded(RGB, "WEBP", lossless=True), "WEBP", RGB),
    "TIFF": (encoded(RGB, "TIFF"), "TIFF", RGB),
    "BMP": (encoded(RGB, "BMP"), "BMP", RGB),
    "GIF": (encoded(PALETTE, "GIF"), "GIF", PALETTE),
    "PPM": (encoded(RGB, "PPM"), "PPM", RGB),
    "JPEG 2000": (encoded(RGB, "JPEG2000", irreversible=False), "JPEG2000", RGB),
    "animated GIF": (
        encoded(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]),
        "GIF",
        PALETTE,
    ),
    "animated PNG": (
        encoded(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]),
        "animation",
        RGB,
    ),
    "CMYK TIFF": (encoded(RGB.convert("CMYK"), "TIFF"), "TIFF", RGB),
    "16-bit PNG": (encoded(sixteen_bit(), "PNG"), "16-bit", RGB.convert("L")),
    "16-bit TIFF": (encoded(sixteen_bit(), "TIFF"), "TIFF", RGB.convert("L")),
    "turned PNG": (
        encoded(RGB, "PNG", exif=exif(6)),
        "EXIF orientation",
        RGB.transpose(Image.Transpose.ROTATE_270),
    ),
    "PNG without an end": (encoded(RGB, "PNG")[:-12], "not decoded by tf.image", RGB),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_encoded_anew_without_loss(name):
    data, change, expected = LOSSLESS[name]
    made = prepare(data)
    assert made.data.startswith(b"\x89PNG")
    assert made.change == change
    np.testing.assert_array_equal(decoded(made), np.asarray(expected.convert("RGB")))


def png(width: int, height: int, depth: int, raw: bytes) -> bytes:
    """An RGB PNG made by hand, of which Pillow could only write the plainest."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def test_16_bit_colour():
    rows = np.asarray(RGB).astype(np.uint16) * 257
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    made = prepare(png(RGB.width, RGB.height, 16, raw))
    assert made.change == "16-bit"
    np.testing.assert_array_equal(decoded(made), np.asarray(RGB))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied(orientation):
    data = encoded(RGB, quality=100, subsampling=0, exif=exif(orientation))
    made = prepare(data)
    assert made.change == "EXIF orientation"
    upright = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }[orientation]
    expected = np.asarray(RGB.transpose(upright)).astype(int)
    assert np.abs(decoded(made) - expected).mean() < 4
    assert prepare(made.data).change is None  # not to be turned a second time


def test_damaged_exif_costs_no_image():
    data = encoded(RGB, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert prepare(data).data == data


@pytest.mark.parametrize(
    "data",
    [
        encoded(with_alpha(RGB), "PNG"),
        encoded(with_alpha(RGB).convert("LA"), "PNG"),
        encoded(with_alpha(RGB).quantize(50), "PNG"),
        encoded(with_alpha(RGB), "WEBP", lossless=True),
    ],
    ids=["RGBA", "LA", "palette", "WebP"],
)
def test_transparent_pixels_become_white(data):
    made = prepare(data)
    assert made.change in ("transparency", "WEBP")
    assert (decoded(made)[:, : RGB.width // 2] == 255).all()
    assert (decoded(made)[:, RGB.width // 2 :] < 255).any()


def test_colour_keyed_png_becomes_white():
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    image.paste((200, 0, 0), (0, 0, 4, 8))
    made = prepare(encoded(image, "PNG", transparency=(10, 20, 30)))
    assert made.change == "transparency"
    assert (decoded(made)[:, 4:] == 255).all()


def test_cmyk_jpeg_stays_a_jpeg():
    made = prepare(encoded(RGB.convert("CMYK"), quality=100))
    assert made.change == "CMYK"
    assert made.data.startswith(b"\xff\xd8\xff")
    assert np.abs(decoded(made) - np.asarray(RGB).astype(int)).mean() < 6


def test_lossy_webp_becomes_a_jpeg():
    assert prepare(encoded(RGB, "WEBP", quality=80)).data.startswith(b"\xff\xd8\xff")


def test_avif_becomes_a_jpeg():
    made = prepare(encoded(RGB, "AVIF", quality=100, subsampling="4:4:4"))
    assert made.change == "AVIF"
    assert made.data.startswith(b"\xff\xd8\xff")
    assert np.abs(decoded(made) - np.asarray(RGB).astype(int)).mean() < 4


def test_shrinking():
    big = picture(3, 300, 100)
    png, jpeg = prepare(encoded(big, "PNG"), 90), prepare(encoded(big), 90)
    assert (png.width, png.height, png.change) == (90, 30, "larger than --max-side")
    assert (jpeg.width, jpeg.height) == (90, 30)
    assert png.data.startswith(b"\x89PNG") and jpeg.data.startswith(b"\xff\xd8\xff")
    expected = np.asarray(big.resize((90, 30), Image.Resampling.LANCZOS)).astype(int)
    np.testing.assert_array_equal(decoded(png), expected)
    assert np.abs(decoded(jpeg) - expected).mean() < 4
    # Quality shows in the quantisation tables.
    reference = Image.open(io.BytesIO(encoded(RGB, quality=JPEG_QUALITY)))
    assert Image.open(io.BytesIO(jpeg.data)).quantization == reference.quantization


def test_no_shrinking_where_it_fits():
    data = encoded(picture(3, 300, 100))
    assert prepare(data, 300).data == data


def test_shrinking_never_loses_a_side():
    made = prepare(encoded(picture(3, 3000, 2), "PNG"), 16)
    assert (made.width, made.height) == (16, 1)


def test_colour_profile_is_applied_where_pixels_are_encoded_anew():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    gamma_1 = linear_profile()
    plain = decoded(prepare(encoded(RGB, "TIFF")))
    same = decoded(prepare(encoded(RGB, "TIFF", icc_profile=lab.tobytes())))
    other = decoded(prepare(encoded(RGB, "TIFF", icc_profile=gamma_1)))
    assert np.abs(same.astype(int) - plain).max() <= 2
    assert other.mean() > plain.mean() + 20  # linear light looks brighter as sRGB
    damaged = decoded(prepare(encoded(RGB, "TIFF", icc_profile=b"no profile at all")))
    np.testing.assert_array_equal(damaged, plain)


@pytest.mark.parametrize("image", [RGB, PALETTE, OPAQUE], ids=lambda image: image.mode)
def test_a_colour_profile_of_other_colours_than_srgb_is_applied(image, tmp_path):
    """Training sees the colours that translating sees."""
    path = tmp_path / "display.png"
    image.save(path, icc_profile=linear_profile())
    made = prepare(path.read_bytes())
    assert made.change == "colour profile"
    np.testing.assert_array_equal(decoded(made), read_picture(path).pixels)
    assert decoded(made).mean() > np.asarray(image.convert("RGB")).mean() + 20


def test_a_profile_that_does_not_fit_changes_nothing():
    data = encoded(RGB.convert("L"), "PNG", icc_profile=linear_profile())
    assert prepare(data).data == data


def linear_profile() -> bytes:
    """sRGB's own profile with its tone curves replaced by the identity."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(struct.unpack(">I", data[128:132])[0]):
        tag, offset, _ = struct.unpack(">4sII", data[132 + 12 * index : 144 + 12 * index])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + 12] = b"curv\0\0\0\0\0\0\0\0"
    return bytes(data)


def noise(format: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), format)


JPEG, PNG = noise("JPEG"), noise("PNG")
BOMB = png(9_460, 9_460, 8, b"")
BAD = {
    "nothing": (b"", "empty"),
    "text": (b"not an image at all", "not an image"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "EPS, which would start Ghostscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
    "half a JPEG": (JPEG[: len(JPEG) // 2], "truncated"),
    "JPEG without its last bytes": (JPEG[:-2], "truncated"),
    "half a PNG": (PNG[: len(PNG) // 2], "truncated"),
    "the signature of a PNG": (PNG[:10], "unreadable"),
    "PNG with a flipped bit": (
        PNG[:5000] + bytes([PNG[5000] ^ 1]) + PNG[5001:],
        "unreadable",
    ),
    "bomb": (BOMB, "too large"),
    "white": (encoded(Image.new("RGB", (20, 20), "white")), "near-constant"),
    # Of so many white pixels Pillow's variance comes out under zero.
    "white, large": (encoded(Image.new("L", (799, 601), "white"), "PNG"), "near-constant"),
    "nearly black": (
        encoded(Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20) % 3), "PNG"),
        "near-constant",
    ),
    "one pixel": (encoded(Image.new("RGB", (1, 1))), "near-constant"),
    "all transparent": (encoded(Image.new("RGBA", (9, 9)), "PNG"), "near-constant"),
    "floating point": (
        encoded(Image.fromarray(np.random.default_rng(0).random((9, 9), np.float32)), "TIFF"),
        "unreadable",
    ),
}


def test_one_bit_with_a_transparent_colour_can_be_shrunk():
    dots = Image.fromarray(np.random.default_rng(0).random((40, 60)) < 0.5)
    shrunk = prepare(encoded(dots, "PNG", transparency=1), max_side=20)
    assert (shrunk.height, shrunk.width) == (13, 20)


@pytest.mark.parametrize("name", BAD)
def test_left_out(name):
    data, reason = BAD[name]
    with pytest.raises(BadImage) as error:
        prepare(data)
    assert error.value.reason == reason
    assert error.value.detail and "\n" not in error.value.detail


def test_the_limit_of_a_bomb_is_its_header():
    assert 9_460 * 9_460 > MAX_PIXELS > 9_450 * 9_450
    with pytest.raises(BadImage, match="9460x9460"):
        prepare(BOMB)


def test_what_tensorflow_sees_otherwise_is_encoded_anew(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(tf.io, "decode_image", lambda *_, **__: tf.zeros([16, 25, 3], tf.uint8))
    made = prepare(encoded(RGB, "PNG", compress_level=1))
    monkeypatch.undo()
    assert made.change == "not decoded by tf.image"
    np.testing.assert_array_equal(decoded(made), np.asarray(RGB))


def test_low_contrast_is_no_reason():
    pixels = np.arange(400, dtype=np.uint8).reshape(20, 20) % 8
    assert prepare(encoded(Image.fromarray(pixels), "PNG")).change is None


def test_no_damage_ever_gets_through_as_another_error():
    rng = np.random.default_rng(0)
    outcomes = set()
    for data in (encoded(RGB), encoded(PALETTE, "PNG"), encoded(RGB, "WEBP"), encoded(RGB, "TIFF")):
        for _ in range(100):
            damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
            for position in rng.integers(0, len(damaged), 3):
                damaged[position] = rng.integers(0, 256)
            try:
                decoded(prepare(bytes(damaged)))  # whatever is accepted, training can decode
                outcomes.add("accepted")
            except BadImage as error:
                outcomes.add(error.reason)
    assert {"accepted", "truncated", "unreadable", "not an image"} <= outcomes
