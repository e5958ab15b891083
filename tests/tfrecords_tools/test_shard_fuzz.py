"""Damaged and hostile image files through build and verify: used, or left out with a reason.

The examples are a function of this file alone (hypothesis, derandomized). The long form:

    python -m pytest -n0 -m slow tests/tfrecords_tools/test_shard_fuzz.py
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.tfrecords_tools.helpers import encoded, fill, picture
from tests.tiny import FUZZ
from tfrecords_tools.build import build
from tfrecords_tools.images import BadImage, prepare
from tfrecords_tools.verify import verify

SHORT, LONG = 150, 2000
SECONDS = 20  # for one image; none needs a tenth of it


def _originals() -> list[bytes]:
    rgb = picture(1)
    deep = Image.fromarray(np.arange(384, dtype=np.uint16).reshape(16, 24) * 100)
    animation = io.BytesIO()
    rgb.save(animation, "GIF", save_all=True, append_images=[picture(2), picture(3)])
    rotated = Image.Exif()
    rotated[0x0112] = 6
    return [
        encoded(rgb),
        encoded(rgb, "JPEG", progressive=True),
        encoded(rgb, "JPEG", exif=rotated),
        encoded(rgb.convert("CMYK"), "JPEG"),
        encoded(rgb.convert("L"), "JPEG"),
        encoded(rgb, "PNG"),
        encoded(rgb.convert("RGBA"), "PNG"),
        encoded(rgb.convert("P"), "PNG"),
        encoded(rgb.convert("1"), "PNG"),
        encoded(rgb.convert("LA"), "PNG"),
        encoded(deep, "PNG"),
        encoded(rgb, "BMP"),
        encoded(rgb, "TIFF"),
        encoded(rgb, "TIFF", compression="tiff_lzw"),
        encoded(rgb, "WEBP"),
        encoded(rgb, "PPM"),
        animation.getvalue(),
    ]


ORIGINALS = _originals()
STRANGERS = [
    b"PK\x03\x04" + bytes(60),
    b"<script>alert(1)</script>",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    b"\x7fELF" + bytes(60),
    b"",
    bytes(500),
]


def _lying_png(width: int, height: int, depth: int, color: int) -> bytes:
    """A PNG whose header, with a right checksum, says anything at all."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = b"IHDR" + header
    data = zlib.compress(bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(header))
        + body
        + struct.pack(">I", zlib.crc32(body))
        + struct.pack(">I", len(data))
        + b"IDAT"
        + data
        + struct.pack(">I", zlib.crc32(b"IDAT" + data))
        + struct.pack(">I", 0)
        + b"IEND\xae\x42\x60\x82"
    )


@st.composite
def mutated(draw) -> bytes:
    """A file that is no longer the image that it was."""
    data = draw(st.sampled_from(ORIGINALS))
    kind = draw(st.sampled_from(["cut", "flip", "insert", "zero", "join", "double", "lie"]))
    place = draw(st.integers(0, len(data) - 1))
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        changed = bytearray(data)
        for at in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=20)):
            changed[at] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    if kind == "insert":
        return data[:place] + draw(st.binary(max_size=40)) + data[place:]
    if kind == "zero":
        return data[:place] + bytes(draw(st.integers(1, 60))) + data[place + 1 :]
    if kind == "join":
        other = draw(st.sampled_from(ORIGINALS + STRANGERS))
        return draw(st.sampled_from([data + other, other + data, data[:place] + other]))
    if kind == "double":
        return data[:place] + data[place // 2 :]
    sides = st.one_of(st.integers(0, 40), st.sampled_from([65535, 2**20, 2**31 - 1, 2**32 - 1]))
    return _lying_png(
        draw(sides), draw(sides), draw(st.integers(0, 255)), draw(st.integers(0, 255))
    )


@contextlib.contextmanager
def limited(seconds: int):
    """Ends what hangs."""

    def late(*_):
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def collect(count: int) -> list[bytes]:
    """So many mutated images, each of which ``prepare`` has taken or refused."""
    found: list[bytes] = []

    @settings(FUZZ, max_examples=count)
    @given(mutated())
    def check(data: bytes) -> None:
        with limited(SECONDS), contextlib.suppress(BadImage):
            picture = prepare(data)
            assert picture.height > 0 and picture.width > 0
        found.append(data)

    check()
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)])
def test_mutated_images_are_used_or_left_out(count: int, tmp_path: Path) -> None:
    files = collect(count)
    assert len(files) >= 0.9 * count
    source = fill(tmp_path / "source", {"trainA": 4, "trainB": 4, "testA": 1, "testB": 1})
    for number, data in enumerate(files):
        (source / "trainA" / f"mutated-{number:04d}").write_bytes(data)
    before = sorted(path for path in tmp_path.rglob("*"))
    output = tmp_path / "shards"
    with limited(count):
        built = build(str(source), output, shards=2, quiet=True)
        assert verify(output, quiet=True) == []
    report = json.loads((output / "build_report.json").read_text(encoding="utf-8"))
    left_out = [entry["file"] for entry in report["left_out"]]
    assert built.count("trainA") + len(left_out) == 4 + len(files)
    assert all(entry["reason"] and entry["detail"] for entry in report["left_out"])
    assert len(left_out) > len(files) / 10
    after = [path for path in tmp_path.rglob("*") if output not in (path, *path.parents)]
    assert sorted(after) == before
