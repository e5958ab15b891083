"""Sample pictures: what the generators make of the same test images, again and again."""

from __future__ import annotations

import dataclasses
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cyclegan_tf.files import write_atomically

FOLDER = "samples"
DIRECTIONS = ("ab", "ba")

# The grid, in pixels.
GAP = 8
CAPTION = 26
MIN_CELL = 128  # Smaller pictures are magnified by a whole number, so that one sees something.
FONT_SIZE = 14
_BACKGROUND, _INK = (250, 250, 250), (60, 60, 60)

# The strips from which the report is made: small, so that it is written quickly and stays small.
STRIPS = "strips"
STRIP_PICTURES = 4
STRIP_CELL = 256
_NAME = re.compile(r"step-(\d+)-(ab|ba)\.(png|jpg)")  # of a grid or a strip


@dataclass(frozen=True)
class Samples:
    """The sample pictures of one moment: uint8 arrays [n, size, size, 3], n of at least 1.

    ``fake_b`` is ``real_a`` translated, ``cycled_a`` is that translated back; the rest the other
    way round. A one-sided training has no generator back, so it has the first three alone.

    Raises:
        ValueError: if the arrays are anything else or differ in shape.
    """

    real_a: np.ndarray
    real_b: np.ndarray
    fake_b: np.ndarray
    cycled_a: np.ndarray | None = None
    fake_a: np.ndarray | None = None
    cycled_b: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.real_a.shape
        if len(shape) != 4 or shape[0] < 1 or shape[1] != shape[2] or shape[3] != 3:
            raise ValueError(f"samples must have the shape [n, size, size, 3], not {shape}")
        for field in dataclasses.fields(self):
            array = getattr(self, field.name)
            if array is None and self.one_sided():
                continue
            if array.dtype != np.uint8 or array.shape != shape:
                raise ValueError(f"{field.name} is {array.dtype} {array.shape}, not uint8 {shape}")

    def one_sided(self) -> bool:
        """Whether there is nothing but A to B."""
        return self.cycled_a is None and self.fake_a is None and self.cycled_b is None

    def directions(self) -> tuple[str, ...]:
        """Those that there are."""
        return DIRECTIONS[:1] if self.one_sided() else DIRECTIONS

    def columns(self, direction: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(real, translated, reconstructed) of direction "ab" or "ba", as they are.

        One-sided, real pictures of the other domain stand in the third column.
        """
        if self.one_sided():
            return self.real_a, self.fake_b, self.real_b
        if direction == "ab":
            return self.real_a, self.fake_b, self.cycled_a
        return self.real_b, self.fake_a, self.cycled_b


def captions(direction: str, one_sided: bool = False) -> tuple[str, str, str]:
    """The captions of the three columns of direction "ab" or "ba"."""
    source, target = direction.upper()
    third = f"real {target}" if one_sided else f"reconstructed {source}"
    return f"real {source}", f"translated to {target}", third


def grid(samples: Samples, direction: str) -> np.ndarray:
    """One picture of a direction, "ab" or "ba": a row per test image, captions above the columns.

    Returns:
        uint8 [height, width, 3]. Cells are the size of the pictures, magnified by a whole number to
        at least ``MIN_CELL``; ``GAP`` lies around each, the captions take ``CAPTION`` at the top.
    """
    columns = samples.columns(direction)
    count, size = columns[0].shape[:2]
    factor = -(-MIN_CELL // size)
    pitch = size * factor + GAP
    width, height = GAP + 3 * pitch, CAPTION + GAP + count * pitch
    canvas = Image.new("RGB", (width, height), _BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_SIZE)
    for x, caption in enumerate(captions(direction, samples.one_sided())):
        middle = GAP + x * pitch + size * factor // 2
        draw.text((middle, (CAPTION + GAP) // 2), caption, _INK, font, anchor="mm")
    pixels = np.array(canvas)
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            top, left = CAPTION + GAP + y * pitch, GAP + x * pitch
            cell = picture.repeat(factor, axis=0).repeat(factor, axis=1)
            pixels[top : top + size * factor, left : left + size * factor] = cell
    return pixels


def save_samples(run_dir: Path, step: int, samples: Samples) -> list[Path]:
    """Writes ``samples/step-0001000-ab.png`` and ``-ba.png``, and the strips for the report.

    Returns:
        The paths of the grids.
    """
    folder = Path(run_dir) / FOLDER
    paths = []
    for direction in samples.directions():
        name = f"step-{step:07d}-{direction}"
        paths.append(folder / f"{name}.png")
        write_atomically(paths[-1], _encode(Image.fromarray(grid(samples, direction)), "PNG"))
        strip = _strip(samples.columns(direction))
        write_atomically(folder / STRIPS / f"{name}.jpg", _encode(strip, "JPEG", quality=92))
    return paths


def list_strips(run_dir: Path, direction: str) -> list[tuple[int, Path]]:
    """(step, path) of each strip of a direction, oldest first; none if there are no samples yet."""
    found = []
    for path in (Path(run_dir) / FOLDER / STRIPS).glob(f"step-*-{direction}.jpg"):
        match = _NAME.fullmatch(path.name)
        if match:
            found.append((int(match[1]), path))
    return sorted(found)


def remove_samples_after(run_dir: Path, step: int) -> None:
    """Deletes the grids and strips of later steps, which a run that goes on will take again."""
    folder = Path(run_dir) / FOLDER
    for path in [*folder.glob("step-*.png"), *(folder / STRIPS).glob("step-*.jpg")]:
        match = _NAME.fullmatch(path.name)
        if match and int(match[1]) > step:
            path.unlink()


def read_strip(path: Path, cell: int) -> list[tuple[Image.Image, Image.Image, Image.Image]]:
    """(real, translated, reconstructed) of each picture, shrunk to at most ``cell`` pixels a side.

    Raises:
        OSError: if the file is no readable picture.
    """
    with Image.open(path) as strip:
        # The gap of 1 lets the JPEG decoder do the shrinking, which is what makes reports quick.
        strip.thumbnail((3 * cell, strip.height), reducing_gap=1.0)
        side = strip.width // 3
        boxes = [
            [(x * side, y * side, (x + 1) * side, (y + 1) * side) for x in range(3)]
            for y in range(strip.height // side)
        ]
        return [tuple(strip.crop(box) for box in row) for row in boxes]


def _strip(columns: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Image.Image:
    """The first pictures as one image of 3 columns without gaps, cells at most ``STRIP_CELL``."""
    pictures = np.concatenate([column[:STRIP_PICTURES] for column in columns], axis=2)
    strip = Image.fromarray(pictures.reshape(-1, *pictures.shape[2:]))
    cell = min(columns[0].shape[1], STRIP_CELL)
    rows = pictures.shape[0]
    return strip.resize((3 * cell, rows * cell), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _encode(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
