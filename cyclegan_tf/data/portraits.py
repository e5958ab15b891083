"""The built-in demo pair: faces that this project draws itself, so that nothing is downloaded.

Domain A looks like photographs (soft light, skin, grain, a background out of focus), domain B like
anime (flat colour, cel shadows, ink outlines, large eyes). One ``Portrait``, a vector of named
parameters, describes a person; ``draw`` shows that person in either style. Training stays unpaired,
as the two training sets show different people, but the test people exist in both styles, so a
translation can be scored against the truth.

What a translation must keep (pose, outlines, hair, glasses, colours) is shared by both styles: the
geometry lives in one place, ``_Plan``, and every colour is one parameter that each style looks up
in its own palette. Only the rendering differs: ``_Photo`` and ``_Anime``.
"""

from __future__ import annotations

import dataclasses
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

DOMAINS = ("A", "B")
SPLITS = ("trainA", "trainB", "testA", "testB")
SMALLEST, LARGEST = 16, 1024


# --- The parameter vector -------------------------------------------------------------------------


def _between(low: float, high: float) -> Any:
    """A field that holds a number from ``low`` to ``high``, all equally likely."""
    return dataclasses.field(metadata={"range": (low, high)})


def _one_of(**weights: float) -> Any:
    """A field that holds one of the names, as likely as its weight."""
    return dataclasses.field(metadata={"weights": weights})


@dataclass(frozen=True)
class Portrait:
    """One person in one pose: everything that both styles show.

    Each field states its range (inclusive) or its choices with their frequency; ``ValueError`` if a
    value lies outside. Left and right are the viewer's, and negative is left or up. Colours are
    positions from 0 to 1 on a palette that each style has its own version of.
    """

    # Pose. Offsets are fractions of the picture, the tilt is in degrees, clockwise.
    x: float = _between(-0.05, 0.05)
    y: float = _between(-0.02, 0.03)
    zoom: float = _between(0.92, 1.06)
    tilt: float = _between(-11.0, 11.0)
    yaw: float = _between(-1.0, 1.0)
    pitch: float = _between(-1.0, 1.0)

    # Face: relative width and length; the jaw from pointed (0) to square (1).
    face_width: float = _between(0.93, 1.05)
    face_length: float = _between(0.94, 1.06)
    jaw: float = _between(0.0, 1.0)
    skin_tone: float = _between(0.0, 1.0)

    # Hair: the parting from left to right; the volume from flat (0) to full (1).
    hair_style: str = _one_of(short=3, spiky=2, bob=3, long=3, twintails=2, bun=2, curly=2)
    fringe: str = _one_of(straight=3, swept=3, parted=2, back=1)
    parting: float = _between(-1.0, 1.0)
    hair_volume: float = _between(0.0, 1.0)
    hair_colour: float = _between(0.0, 1.0)

    # Eyes, brows and glasses: 1 is wide open; brows from worried (-1) to stern (1).
    eye_colour: float = _between(0.0, 1.0)
    eye_opening: float = _between(0.7, 1.0)
    eye_distance: float = _between(0.94, 1.06)
    gaze: float = _between(-1.0, 1.0)
    brows: float = _between(-1.0, 1.0)
    glasses: str = _one_of(none=4, round=1, square=1)

    # Mouth: from sad (-1) to smiling (1); closed (up to 0.3) to wide open (1).
    smile: float = _between(-0.5, 1.0)
    mouth_opening: float = _between(0.0, 1.0)

    # Surroundings: ``backdrop_shift`` slides the backdrop's shape; light from left to right.
    neckline: str = _one_of(crew=2, vee=1, collar=2)
    clothes_colour: float = _between(0.0, 1.0)
    backdrop: str = _one_of(disc=1, horizon=1, diagonal=1, window=1, dots=1)
    backdrop_shift: float = _between(0.0, 1.0)
    backdrop_colour: float = _between(0.0, 1.0)
    light: float = _between(-1.0, 1.0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "weights" in field.metadata:
                if value not in field.metadata["weights"]:
                    choices = ", ".join(field.metadata["weights"])
                    raise ValueError(f"{field.name} is {value!r}; it must be one of {choices}")
            else:
                low, high = field.metadata["range"]
                if not low <= value <= high:
                    raise ValueError(f"{field.name} is {value}; it must be from {low} to {high}")


def sample_portrait(rng: np.random.Generator) -> Portrait:
    """A random person: every field drawn independently from its range or by its weights."""
    return Portrait(**{field.name: _sample(field, rng) for field in dataclasses.fields(Portrait)})


def _sample(field: dataclasses.Field, rng: np.random.Generator) -> float | str:
    if "range" in field.metadata:
        return float(rng.uniform(*field.metadata["range"]))
    weights = field.metadata["weights"]
    shares = np.array(list(weights.values()), float)
    return str(rng.choice(list(weights), p=shares / shares.sum()))


def draw(portrait: Portrait, domain: str, size: int = 128) -> np.ndarray:
    """Draws the person as a photograph (domain "A") or as anime (domain "B").

    Returns uint8 RGB of shape [size, size, 3]. The same arguments give the same bytes: the grain of
    A is seeded from the portrait. Raises ``ValueError`` if the domain is neither "A" nor "B" or the
    size is not a whole number from 16 to 1024.
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain is {domain!r}; it must be 'A' or 'B'")
    _check_size(size)
    style = _Photo if domain == "A" else _Anime
    return style(portrait, int(size)).picture()


def _check_size(size: int) -> None:
    is_whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool)
    if not is_whole or not SMALLEST <= size <= LARGEST:
        rule = f"a whole number of pixels from {SMALLEST} to {LARGEST}"
        raise ValueError(f"size is {size!r}; it must be {rule}")


# --- The demo data set ----------------------------------------------------------------------------


@dataclass(frozen=True)
class DemoItem:
    """One picture of the demo, not drawn yet: small, picklable, and independent of all others."""

    split: str
    """One of "trainA", "trainB", "testA", "testB"."""
    file_name: str
    """Such as "0001.png"; the same in testA and testB for the same person."""
    portrait: Portrait
    size: int

    @property
    def domain(self) -> str:
        """The style, "A" or "B"."""
        return self.split[-1]

    def encode(self) -> bytes:
        """Draws the picture and returns it as the bytes of an RGB PNG file."""
        pixels = draw(self.portrait, self.domain, self.size)
        buffer = io.BytesIO()
        # On these pictures level 1 packs nearly as tightly as the default, in a third of the time.
        Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()


def demo_items(seed: int = 0, size: int = 128, train: int = 500, test: int = 64) -> list[DemoItem]:
    """Lists the demo's pictures: ``train`` in trainA and in trainB, ``test`` in testA and in testB.

    trainA, trainB and the test sets show different people; testA and testB show the same people
    under the same file names. A larger ``train`` or ``test`` adds people and changes none. Nothing
    is drawn until ``DemoItem.encode``, which a pool of processes can call. Raises ``ValueError`` if
    the seed or a count is negative, or the size is not one that ``draw`` takes.
    """
    for name, value in (("seed", seed), ("train", train), ("test", test)):
        if value < 0:
            raise ValueError(f"{name} is {value}; it must be 0 or more")
    _check_size(size)
    test_people = _people(seed, 2, test)
    people = {
        "trainA": _people(seed, 0, train),
        "trainB": _people(seed, 1, train),
        "testA": test_people,
        "testB": test_people,
    }
    return [
        DemoItem(split, f"{number:04d}.png", portrait, size)
        for split in SPLITS
        for number, portrait in enumerate(people[split], start=1)
    ]


def _people(seed: int, stream: int, count: int) -> list[Portrait]:
    return [sample_portrait(np.random.default_rng([seed, stream, i])) for i in range(count)]


# --- Colours: each parameter has one palette per style, with the same hues in the same order ------


def _palette(*stops: str) -> np.ndarray:
    """Colours such as "ffcc99" as float64 [stops, 3] in [0, 1]."""
    return np.array([list(bytes.fromhex(stop)) for stop in stops]) / 255.0


def _pick(palette: np.ndarray, position: float) -> np.ndarray:
    """The palette's colour at ``position`` in [0, 1], interpolated between the stops."""
    stops = np.linspace(0.0, 1.0, len(palette))
    return np.array([np.interp(position, stops, channel) for channel in palette.T])


# Black, brown, auburn, ginger, blond, platinum, and the dyes: rose, violet, blue, teal.
_HAIR = {
    "A": _palette(
        "1d1a20",
        "3e2a21",
        "6b3226",
        "a65a2c",
        "c79a58",
        "dccbb0",
        "c4788a",
        "77609c",
        "41659c",
        "3a7f80",
    ),
    "B": _palette(
        "3d4272",
        "8a5340",
        "d1483f",
        "ff923a",
        "ffd75e",
        "fff0d2",
        "ff92b4",
        "b18af2",
        "5fa2f8",
        "4fd6c8",
    ),
}
_SKIN = {
    "A": _palette("7a4d38", "a36c4b", "c98f6b", "e3b192", "f1cfb8"),
    "B": _palette("a8714e", "cf9468", "f2bd90", "ffd6b4", "ffe9d8"),
}
# Brown, amber, green, blue, violet.
_EYES = {
    "A": _palette("4a2c1a", "7d5526", "4f7340", "4d7596", "68588f"),
    "B": _palette("a4522c", "f0a01e", "58c544", "2f9df5", "9a5cf0"),
}
# Around the colour circle: red, orange, olive, green, teal, blue, violet, plum.
_CLOTHES = {
    "A": _palette("7e2f33", "93592f", "7d7336", "3f6a45", "2f6a70", "324f80", "54427c", "743a62"),
    "B": _palette("f0525a", "ff9d45", "f2d648", "5cc96e", "41c6cf", "4c86ee", "9873ea", "e065b4"),
}
_BACKDROP = {
    "A": _palette("b5958a", "bba383", "a5a883", "86a690", "80a2ae", "8595b8", "9a8db2", "ae8da2"),
    "B": _palette("ffc9bd", "ffe0ae", "eaf0ae", "bdeec4", "b2ebee", "bdd6ff", "d8ccff", "fbcbe6"),
}


# --- Geometry shared by both styles ---------------------------------------------------------------
# Curves are float [points, 2] of (x, y). Head coordinates: the origin lies between the eyes, the
# unit is half a face width, y points down. Picture coordinates run from 0 to 1.


_CATMULL_ROM = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])


@cache
def _blend(steps: int) -> np.ndarray:
    """How much each of four neighbouring points counts along the curve: float [steps, 4]."""
    return np.vander(np.arange(steps) / steps, 4, increasing=True) @ _CATMULL_ROM


def _spline(points: Any, closed: bool = False, steps: int = 8) -> np.ndarray:
    """A smooth (Catmull-Rom) curve through the points."""
    points = np.asarray(points, float)
    ends = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    padded = np.concatenate([ends[0], points, ends[1]])
    pieces = len(padded) - 3
    neighbours = padded[np.arange(pieces)[:, None] + np.arange(4)]
    curve = (_blend(steps) @ neighbours).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def _moved(points: np.ndarray, x: float, y: float) -> np.ndarray:
    return points + np.array([x, y])


def _mirrored(right: Any) -> np.ndarray:
    """Closes a half outline, given from top to bottom on the right, with its mirror image."""
    right = np.asarray(right, float)
    left = right[::-1] * (-1.0, 1.0)
    return np.concatenate([right, left[np.abs(left[:, 0]) > 1e-9]])


_CIRCLE = np.stack([np.cos(np.arange(40) * np.pi / 20), np.sin(np.arange(40) * np.pi / 20)], axis=1)


def _ellipse(centre: Any, radii: Any, power: float = 2.0) -> np.ndarray:
    """An ellipse, or with a higher power a rounded rectangle."""
    circle = _CIRCLE if power == 2.0 else np.sign(_CIRCLE) * np.abs(_CIRCLE) ** (2.0 / power)
    return np.asarray(centre) + np.asarray(radii) * circle


def _locks(points: Any, bend: float = 0.12) -> np.ndarray:
    """A line through tips and gaps of hair: arcs that meet in sharp points."""
    points = np.asarray(points, float)
    start, end = points[:-1, None], points[1:, None]
    along = end - start
    across = along[..., ::-1] * (-1.0, 1.0)
    t = np.linspace(0.0, 1.0, 7)[:, None]
    return (start + t * along + 4 * bend * t * (1 - t) * across).reshape(-1, 2)


def _stroke(line: np.ndarray, width: float, taper: float = 0.5) -> np.ndarray:
    """The outline of a pen stroke along a line; it thins towards its ends as ``taper`` grows."""
    ahead, behind = np.concatenate([line[1:], line[-1:]]), np.concatenate([line[:1], line[:-1]])
    along = ahead - behind
    along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
    t = np.arange(len(line)) / (len(line) - 1)
    half = 0.5 * width * np.maximum(4 * t * (1 - t), 0.01) ** taper
    across = along[:, ::-1] * (-1.0, 1.0) * half[:, None]
    return np.concatenate([line + across, (line - across)[::-1]])


class _Frame:
    """A coordinate system in the picture that moves, grows, tilts and turns with the person."""

    PIVOT = np.array([0.0, 1.3])  # the head tilts about the neck

    def __init__(self, portrait: Portrait, is_head: bool):
        tilt = math.radians(portrait.tilt) if is_head else 0.0
        self.is_head = is_head
        self.turn = np.array([0.2 * portrait.yaw, 0.08 * portrait.pitch]) * is_head
        cos, sin = math.cos(tilt), math.sin(tilt)
        self.scale = 0.236 * portrait.zoom
        self.matrix = self.scale * np.array([[cos, sin], [-sin, cos]])
        origin = np.array([0.5 + portrait.x, 0.485 + portrait.y])
        self.offset = origin + self.scale * self.PIVOT - self.PIVOT @ self.matrix

    def place(self, points: Any, depth: Any = 0.0) -> np.ndarray:
        """To picture coordinates. Nearer parts (larger ``depth``) move more as the head turns."""
        nearer = np.multiply.outer(depth, self.turn) if self.is_head else 0.0
        return (np.asarray(points, float) + nearer) @ self.matrix + self.offset

    def locate(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From picture coordinates, at depth 0."""
        # Python floats keep float32 arrays float32 in every version of NumPy.
        (a, b), (c, d) = np.linalg.inv(self.matrix).tolist()
        left, top = self.offset.tolist()
        return (x - left) * a + (y - top) * c, (x - left) * b + (y - top) * d


@dataclass(frozen=True)
class _Eye:
    """Where an eye sits (head coordinates), its side (-1 or 1) and its width as the head turns."""

    side: int
    centre: np.ndarray
    narrowing: float

    def shape(self, points: Any) -> np.ndarray:
        """Points drawn around (0, 0) for the right eye, moved to this eye."""
        return self.centre + np.asarray(points, float) * (self.side * self.narrowing, 1.0)


# Lowest point of the locks in front of the ears.
_SIDELOCKS = {
    "short": 0.2, "spiky": 0.32, "bob": 1.05, "long": 1.2, "twintails": 0.75, "bun": 0.4,
    "curly": 0.5,
}  # fmt: skip

# The lower edge of the fringe, right to left, between the temples, as alternating tips and gaps.
_FRINGES = {
    "straight": [
        (0.66, -0.16), (0.5, -0.38), (0.36, -0.14), (0.14, -0.38), (-0.02, -0.12), (-0.2, -0.38),
        (-0.4, -0.14), (-0.54, -0.38), (-0.68, -0.16),
    ],
    "swept": [
        (0.7, -0.5), (0.5, -0.94), (0.24, -0.5), (-0.02, -0.22), (-0.08, -0.46), (-0.42, -0.08),
        (-0.46, -0.34), (-0.74, 0.06),
    ],
    "parted": [
        (0.74, 0.04), (0.62, -0.26), (0.46, -0.2), (0.26, -0.56), (0.04, -0.98), (-0.2, -0.56),
        (-0.46, -0.2), (-0.58, -0.26), (-0.74, 0.04),
    ],
    "back": [
        (0.76, -0.5), (0.6, -0.76), (0.3, -0.9), (0.0, -0.84), (-0.3, -0.9), (-0.6, -0.76),
        (-0.76, -0.5),
    ],
}  # fmt: skip

# The right half of the hair behind the head, top to bottom.
_NAPE = [(0.0, -1.4), (0.7, -1.22), (1.08, -0.6), (1.08, 0.0), (0.9, 0.6), (0.5, 0.95), (0.0, 1.0)]
_BACK_HAIR = {
    "bob": [
        (0.0, -1.42), (0.75, -1.2), (1.16, -0.6), (1.26, 0.1), (1.34, 0.7), (1.26, 1.12),
        (0.98, 1.36), (0.5, 1.3), (0.0, 1.3),
    ],
    "long": [
        (0.0, -1.42), (0.75, -1.2), (1.16, -0.6), (1.26, 0.2), (1.36, 1.1), (1.52, 1.9),
        (1.5, 2.5), (1.2, 3.0), (0.0, 3.0),
    ],
    "curly": [
        (0.0, -1.56), (0.8, -1.36), (1.34, -0.7), (1.46, 0.1), (1.34, 0.8), (0.95, 1.2), (0.0, 1.1),
    ],
}  # fmt: skip
_TAIL = [
    (0.9, -0.95), (1.3, -1.08), (1.68, -0.7), (1.86, 0.0), (1.84, 0.8), (1.62, 1.5), (1.32, 1.98),
    (1.44, 1.3), (1.38, 0.6), (1.2, 0.0), (1.0, -0.5),
]  # fmt: skip


def _ruffled(curve: np.ndarray, style: str) -> np.ndarray:
    """Gives an outline of hair its curls or spikes."""
    centre = np.array([0.0, -0.2])
    away = curve - centre
    angle = np.arctan2(away[:, 0], -away[:, 1])  # 0 points up
    if style == "curly":
        swell = 0.09 * np.abs(np.sin(6.5 * angle)) - 0.03
    elif style == "spiky":
        wave = np.abs((angle * 11.0 / np.pi + 0.6) % 2.0 - 1.0)
        length = np.clip(2.4 - 1.1 * np.abs(angle), 0.2, 1.0) * (0.75 + 0.25 * np.cos(2.5 * angle))
        swell = 0.24 * (1.0 - wave) ** 1.3 * length - 0.03
    else:
        return curve
    return centre + away * (1.0 + swell)[:, None]


class _Plan:
    """The curves of one portrait in picture coordinates, and its two coordinate systems."""

    def __init__(self, portrait: Portrait):
        self.portrait = portrait
        self.head = _Frame(portrait, is_head=True)
        self.torso = _Frame(portrait, is_head=False)

    # Head

    @cached_property
    def face(self) -> np.ndarray:
        p = self.portrait
        half = np.array([
            (0.0, -1.15), (0.55, -1.02), (0.9, -0.55), (0.98, 0.0), (0.92, 0.45),
            (0.62 + 0.14 * p.jaw, 0.92), (0.2 + 0.18 * p.jaw, 1.25), (0.0, 1.3),
        ])  # fmt: skip
        outline = _spline(_mirrored(half), closed=True)
        depth = 0.6 * np.clip(outline[:, 1], 0.0, 1.3)  # the chin turns, the skull stays
        return self.head.place(self.fit(outline), depth)

    def fit(self, points: Any) -> np.ndarray:
        """Head coordinates of a standard face, fitted to this face's width and length."""
        points = np.array(points, float)
        points[:, 0] *= self.portrait.face_width
        points[:, 1] *= np.where(points[:, 1] > 0, self.portrait.face_length, 1.0)
        return points

    @cached_property
    def ears(self) -> list[np.ndarray]:
        return [
            self.head.place(self.fit(_ellipse((side * 0.99, 0.24), (0.17, 0.28))), -0.4)
            for side in (-1, 1)
        ]

    @cached_property
    def eyes(self) -> list[_Eye]:
        p = self.portrait
        return [
            _Eye(
                side,
                self.fit([(side * 0.43 * p.eye_distance, 0.13)])[0],
                1.0 - 0.16 * max(0.0, p.yaw * side),
            )
            for side in (-1, 1)
        ]

    def feature(self, points: Any, depth: float = 0.8) -> np.ndarray:
        """Places a feature of the face that is given in head coordinates."""
        return self.head.place(points, depth)

    def brow(self, eye: _Eye) -> np.ndarray:
        slope = 0.07 * self.portrait.brows
        line = _spline([(-0.24, -0.34 + slope), (0.02, -0.43), (0.27, -0.34 - 0.5 * slope)])
        return self.feature(eye.shape(line))

    @cached_property
    def lenses(self) -> list[np.ndarray]:
        if self.portrait.glasses == "none":
            return []
        is_round = self.portrait.glasses == "round"
        radii, power = ((0.36, 0.36), 2.0) if is_round else ((0.38, 0.29), 5.0)
        lens = _ellipse((0.0, 0.03), radii, power)
        return [self.feature(eye.shape(lens), 1.0) for eye in self.eyes]

    @cached_property
    def glasses_wires(self) -> list[np.ndarray]:
        """The bridge and the arms of the glasses, as lines."""
        if self.portrait.glasses == "none":
            return []
        left, right = self.eyes
        bridge = [left.shape([(-0.36, 0.0)])[0], (0.0, 0.06), right.shape([(-0.36, 0.0)])[0]]
        wires = [self.feature(_spline(bridge), 1.0)]
        for eye in self.eyes:
            arm = np.array([eye.shape([(0.36, -0.02)])[0], (eye.side * 1.0, 0.06)])
            wires.append(self.head.place(arm, np.array([1.0, -0.2])))
        return wires

    def lip(self, width: float, centre_drop: float) -> np.ndarray:
        """A line between the corners of the mouth; its middle hangs ``centre_drop`` lower."""
        corner = -0.07 * self.portrait.smile
        line = _spline([(-width, corner), (0.0, -corner + centre_drop), (width, corner)])
        return self.feature(self.fit(_moved(line, 0.0, 0.82)), 0.9)

    @property
    def gape(self) -> float:
        """How far the lips stand apart, in head units; 0 if the mouth is closed."""
        return 0.3 * max(0.0, self.portrait.mouth_opening - 0.3)

    # Hair

    def _with_volume(self, outline: np.ndarray) -> np.ndarray:
        return _ruffled(outline, self.portrait.hair_style) * (
            1.0 + 0.09 * self.portrait.hair_volume
        )

    @cached_property
    def back_hair(self) -> list[np.ndarray]:
        """Hair behind the head: tails and buns first, then what hangs down."""
        style = self.portrait.hair_style
        hanging = _spline(_mirrored(_BACK_HAIR.get(style, _NAPE)), closed=True, steps=16)
        parts = [self._with_volume(hanging)]
        if style == "bun":
            parts.insert(0, _ellipse((0.0, -1.55), (0.42, 0.38)))
        if style == "twintails":
            tail = _spline(_TAIL, closed=True)
            parts[:0] = [tail, tail * (-1.0, 1.0)]
        return [self.head.place(part, -0.4) for part in parts]

    @cached_property
    def front_hair(self) -> np.ndarray:
        """Hair before the face: left sidelock, crown, right sidelock, then the fringe."""
        tip = _SIDELOCKS[self.portrait.hair_style]
        widest = 1.12 if tip < 0.6 else 1.2
        right = [
            (0.0, -1.48), (0.64, -1.33), (1.06, -0.86), (widest, -0.2),
            (widest - 0.03, 0.5 * tip), (0.97, tip),
        ]  # fmt: skip
        left = [(-x, y) for x, y in right[:0:-1]]
        crown = self._with_volume(_spline(left + right, steps=16))
        edge = _locks([(0.97, tip), (0.84, -0.1), *self.fringe, (-0.84, -0.1), (-0.97, tip)], 0.06)
        outline = np.concatenate([crown, edge])
        depth = np.concatenate([np.zeros(len(crown)), np.full(len(edge), 0.5)])
        return self.head.place(outline, depth)

    @cached_property
    def fringe(self) -> list[tuple[float, float]]:
        parting = self.portrait.parting
        points = [
            (x + 0.16 * abs(parting) * (1 - x * x), y) for x, y in _FRINGES[self.portrait.fringe]
        ]
        return points if parting > 0 else [(-x, y) for x, y in points[::-1]]

    @cached_property
    def hair_lines(self) -> list[np.ndarray]:
        """Lines that run from the gaps of the fringe towards the crown."""
        crown = np.array([0.1 * self.portrait.parting, -1.5])
        lines = []
        for gap in self.fringe[1::2]:
            gap = np.array(gap)
            middle = 0.5 * (gap + crown) + (0.25 * gap[0], 0.0)
            lines.append(self.head.place(_spline([gap, middle, crown])[:11], 0.3))
        return lines

    # Body and backdrop

    @cached_property
    def body(self) -> np.ndarray:
        half = [
            (0.0, 1.55), (0.5, 1.62), (1.1, 1.84), (1.75, 2.06), (2.1, 2.6), (2.2, 3.6), (0.0, 3.6),
        ]  # fmt: skip
        return self.torso.place(_spline(_mirrored(half), closed=True))

    @cached_property
    def neck(self) -> np.ndarray:
        """The neck down to the neckline."""
        top = self.head.place([(-0.46, 0.7), (0.46, 0.7)])
        depth = {"crew": 2.0, "vee": 2.3, "collar": 2.1}[self.portrait.neckline]
        side = 1.72 if self.portrait.neckline == "crew" else 1.66
        edge = [(0.56, side), (0.34, 0.55 * depth + 0.45 * side), (0.0, depth)]
        if self.portrait.neckline == "crew":
            edge[1] = (0.36, depth - 0.07)
        right = self.torso.place(_spline(edge))
        left = self.torso.place(_spline([(-x, y) for x, y in edge]))
        return np.concatenate([top[:1], left, right[::-1], top[1:]])

    @cached_property
    def collar(self) -> list[np.ndarray]:
        """The two wings of a collar, none for other necklines."""
        if self.portrait.neckline != "collar":
            return []
        wing = np.array([(0.5, 1.5), (0.86, 1.78), (0.62, 2.36), (0.0, 2.12), (0.3, 1.95)])
        return [self.torso.place(wing * (side, 1.0)) for side in (-1, 1)]

    @cached_property
    def backdrop(self) -> list[np.ndarray]:
        """The shapes behind the person."""
        shift = self.portrait.backdrop_shift
        kind = self.portrait.backdrop
        if kind == "disc":
            return [_ellipse((0.3 + 0.4 * shift, 0.42), (0.38, 0.38))]
        if kind == "horizon":
            height = 0.35 + 0.4 * shift
            return [np.array([(-1, height), (2, height), (2, 2), (-1, 2)], float)]
        if kind == "diagonal":
            x = -0.1 + 0.8 * shift
            return [np.array([(x + 0.5, -0.1), (2, -0.1), (2, 1.1), (x - 0.1, 1.1)], float)]
        if kind == "window":
            x = -0.3 + 0.42 * shift
            panes = [(x, 0.06), (x, 0.45), (x + 0.62, 0.06), (x + 0.62, 0.45)]
            return [
                np.array([(a, b), (a + 0.28, b), (a + 0.28, b + 0.35), (a, b + 0.35)])
                for a, b in panes
            ]
        centres = [(0.08, 0.1), (0.3, 0.2), (0.86, 0.14), (0.1, 0.5), (0.95, 0.46), (0.62, 0.06)]
        return [
            _ellipse((x, (y + 0.3 * shift) % 0.9), (0.05 + 0.012 * i,) * 2)
            for i, (x, y) in enumerate(centres)
        ]


# --- Drawing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Box:
    """A rectangle of pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, curves: tuple[np.ndarray, ...], size: int, margin: float = 0.0) -> _Box:
        """The pixels that the curves and a margin around them touch, at least one pixel."""
        points = np.concatenate(curves) * size
        low = np.clip(points.min(axis=0) - margin, 0, size - 1).astype(int).tolist()
        high = np.clip(points.max(axis=0) + margin + 1.0, 0, size).astype(int).tolist()
        return cls(*low, max(high[0], low[0] + 1), max(high[1], low[1] + 1))

    @property
    def slices(self) -> tuple[Any, slice, slice]:
        """Indexes both [size, size] and [3, size, size]."""
        return ..., slice(self.top, self.bottom), slice(self.left, self.right)

    def stencil(self, curves: tuple[np.ndarray, ...], size: int, oversampling: int) -> Image.Image:
        """The part of the filled curves inside this box, as an "L" image."""
        shape = (self.right - self.left, self.bottom - self.top)
        image = Image.new("L", (shape[0] * oversampling, shape[1] * oversampling))
        pen = ImageDraw.Draw(image)
        for curve in curves:
            corners = (curve * size - (self.left, self.top)) * oversampling
            pen.polygon(corners.ravel().tolist(), fill=255)
        return image.reduce(oversampling) if oversampling > 1 else image


class _Lids:
    """The lids of an open eye around (0, 0), each a line from the inner to the outer corner."""

    def __init__(self, width: float, above: float, below: float):
        self.upper = _spline([
            (-width, 0.25 * below), (-0.45 * width, -0.85 * above), (0.25 * width, -above),
            (0.8 * width, -0.5 * above), (width, -0.1 * above),
        ])  # fmt: skip
        self.lower = _spline([
            (-width, 0.25 * below), (-0.3 * width, below), (0.4 * width, 0.9 * below),
            (width, -0.1 * above),
        ])  # fmt: skip
        self.outline = np.concatenate([self.upper, self.lower[::-1]])

    def cover(self, points: np.ndarray) -> np.ndarray:
        """Moves the points of an iris that lie behind a lid to the edge of that lid."""
        x, y = points.T
        top, bottom = np.interp(x, *self.upper.T), np.interp(x, *self.lower.T)
        return np.stack([x, np.minimum(np.maximum(y, top), bottom)], axis=1)


class _Pen:
    """Draws filled curves, given in picture coordinates, on an RGB image of part of the picture."""

    def __init__(self, image: Image.Image, scale: float, corner: tuple[float, float] = (0.0, 0.0)):
        self.opaque = ImageDraw.Draw(image)
        self.blending = ImageDraw.Draw(image, "RGBA")
        self.scale = scale
        self.corner = corner

    def fill(self, curve: np.ndarray, colour: Any, opacity: float = 1.0) -> None:
        corners = (curve - self.corner) * self.scale
        draw = self.opaque if opacity == 1.0 else self.blending
        draw.polygon(corners.ravel().tolist(), fill=_rgb(colour, opacity))

    def outline(self, curve: np.ndarray, colour: Any, width: float) -> None:
        closed = (np.concatenate([curve, curve[:2]]) - self.corner) * self.scale
        self.opaque.line(closed.ravel().tolist(), _rgb(colour), round(width * self.scale))

    def stroke(
        self, line: np.ndarray, colour: Any, width: float, opacity: float = 1.0, taper: float = 0.5
    ) -> None:
        self.fill(_stroke(line, width, taper), colour, opacity)


def _rgb(colour: Any, opacity: float = 1.0) -> tuple[int, ...]:
    """A colour in [0, 1], clipped, as Pillow takes it: with alpha only if it is not opaque."""
    values = (*colour, opacity) if opacity < 1.0 else colour
    return tuple([int(255.0 * min(max(value, 0.0), 1.0) + 0.5) for value in values])


def _plane(colour: Any) -> np.ndarray:
    """A colour that combines with colour fields: float32 [3, 1, 1]."""
    return np.asarray(colour, np.float32).reshape(3, 1, 1)


def _planes(image: Image.Image) -> np.ndarray:
    """An RGB image as a colour field: float32 [3, height, width] in [0, 1]."""
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    return pixels * np.float32(1.0 / 255.0)


def _image(planes: np.ndarray) -> Image.Image:
    """A colour field, clipped to [0, 1], as an RGB image."""
    pixels = (np.clip(planes, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _grain_seed(portrait: Portrait) -> int:
    return zlib.crc32(repr(portrait).encode())


@dataclass(frozen=True)
class _Mask:
    """How much of each pixel in a box a layer covers: float32 in [0, 1]."""

    box: _Box
    cover: np.ndarray


class _Photo:
    """Domain A: layers of soft-edged, shaded colour, then what a lens and a film add.

    Colour fields are planar, float32 [3, size, size]: NumPy is several times faster on long rows
    than on triples.
    """

    OVERSAMPLING = 3
    WARM_SHADOW = (0.5, 0.36, 0.32)

    def __init__(self, portrait: Portrait, size: int):
        self.portrait = portrait
        self.plan = _Plan(portrait)
        self.size = size
        self.rng = np.random.default_rng(_grain_seed(portrait))
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x, self.y = np.meshgrid(axis, axis)
        self.u, self.v = self.plan.head.locate(self.x, self.y)
        self.pixels = np.zeros((3, size, size), np.float32)
        self.skin = _pick(_SKIN["A"], portrait.skin_tone).astype(np.float32)
        self.hair = _pick(_HAIR["A"], portrait.hair_colour).astype(np.float32)
        self.side = math.copysign(1.0, portrait.light)

    def picture(self) -> np.ndarray:
        strands = self.strands()
        self.draw_backdrop()
        self.draw_back_hair(strands)
        self.draw_body()
        self.draw_face()
        with self.retouching(self.plan.face, *self.plan.lenses) as pen:
            self.draw_nostrils(pen)
            for eye in self.plan.eyes:
                self.draw_eye(pen, eye)
            self.draw_mouth(pen)
            self.draw_glasses(pen)
        self.draw_front_hair(strands)
        return self.develop()

    # Tools

    def mask(self, *curves: np.ndarray, soft: float = 0.0, within: _Mask | None = None) -> _Mask:
        """The filled curves, their edge blurred by ``soft``, cut off at the edge of ``within``."""
        blur = soft * self.size
        box = within.box if within else _Box.around(curves, self.size, 3.0 * blur)
        stencil = box.stencil(curves, self.size, self.OVERSAMPLING)
        if blur:
            stencil = stencil.filter(ImageFilter.GaussianBlur(blur))
        cover = np.asarray(stencil, np.float32) * np.float32(1.0 / 255.0)
        return _Mask(box, cover * within.cover if within else cover)

    def spot(self, u: float, v: float, width: float, height: float) -> _Mask:
        """A soft round spot on the face, 1 at its centre, given in head coordinates."""
        u, v = self.plan.fit([(u, v)])[0].tolist()
        reach = 2.2 * max(width, height)
        corners = np.array([(u - reach, v - reach), (u + reach, v + reach)])
        box = _Box.around((self.plan.feature(corners),), self.size)
        turn_u, turn_v = self.plan.head.turn.tolist()
        across = (self.u[box.slices] - (u + 0.8 * turn_u)) / width
        down = (self.v[box.slices] - (v + 0.8 * turn_v)) / height
        return _Mask(box, np.exp(-across * across - down * down))

    def paint(self, mask: _Mask, colour: Any, opacity: float = 1.0) -> None:
        """Covers the masked part with a colour: one for all, or a colour field."""
        part = self.pixels[mask.box.slices]
        colour = _plane(colour) if np.ndim(colour) == 1 else colour[mask.box.slices]
        part += (np.float32(opacity) * mask.cover) * (colour - part)

    def darken(self, mask: _Mask, colour: Any, opacity: float) -> None:
        """Multiplies the masked part by a colour."""
        loss = opacity * (1.0 - _plane(colour))
        self.pixels[mask.box.slices] *= 1.0 - mask.cover * loss

    @contextmanager
    def retouching(self, *curves: np.ndarray) -> Iterator[_Pen]:
        """A pen for fine, hard-edged features around the curves; the rest stays as it is."""
        box = _Box.around(curves, self.size)
        part = _image(self.pixels[box.slices])
        large = part.resize(
            (part.width * self.OVERSAMPLING, part.height * self.OVERSAMPLING),
            Image.Resampling.NEAREST,
        )
        corner = (box.left / self.size, box.top / self.size)
        yield _Pen(large, self.size * self.OVERSAMPLING, corner)
        self.pixels[box.slices] = _planes(large.reduce(self.OVERSAMPLING))

    def lit(self, width: float, height: float, centre: float = 0.0) -> np.ndarray:
        """How brightly the light falls on an egg around the head, 0.45 to about 1.15."""
        across = np.clip(self.u / width, -1.0, 1.0)
        down = np.clip((self.v - centre) / height, -1.0, 1.0)
        towards = np.sqrt(np.clip(1.0 - across * across - down * down, 0.0, 1.0))
        light = 0.6 * self.portrait.light
        return 0.58 + 0.5 * np.clip(light * across - 0.3 * down + 0.75 * towards, -0.25, 1.15)

    def noise(self, cells: int) -> np.ndarray:
        """Smooth noise, about -1 to 1, with features 1/cells of the picture wide."""
        coarse = self.rng.standard_normal((cells, cells), np.float32)
        image = Image.fromarray(coarse).resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(image)

    # Layers

    def draw_backdrop(self) -> None:
        colour = _plane(_pick(_BACKDROP["A"], self.portrait.backdrop_colour))
        light = 1.0 + 0.3 * self.portrait.light * (self.x - 0.5) - 0.4 * (self.y - 0.4)
        light += 0.04 * self.noise(6)
        self.pixels += (0.92 * colour) * light
        self.paint(self.mask(*self.plan.backdrop, soft=0.025), (1.25 * colour + 0.04) * light, 0.9)

    def strands(self) -> np.ndarray:
        """Noise, about -1 to 1, that is stretched along the hair."""
        if self.portrait.hair_style == "curly":
            return 0.8 * self.noise(14) + 0.5 * self.noise(26)
        angle = np.arctan2(self.u, self.v + 2.0) + 0.04 * np.sin(2.0 * self.v)
        fine, coarse = self.rng.standard_normal(121), self.rng.standard_normal(41)
        steps = np.linspace(0.0, 1.0, 800)
        noise = 0.5 * np.interp(steps, np.linspace(0.0, 1.0, 121), fine)
        noise += 0.6 * np.interp(steps, np.linspace(0.0, 1.0, 41), coarse)
        place = (angle * (400 / math.pi)).astype(np.int32) + 400
        return noise.astype(np.float32).take(place, mode="clip")

    def hair_shades(self, brightness: np.ndarray) -> np.ndarray:
        """The hair under a light of that brightness; above 1 it shines white."""
        shine = 0.35 * np.maximum(0.0, brightness - 1.0)
        return _plane(self.hair) * np.minimum(brightness, 1.15) + shine

    def draw_back_hair(self, strands: np.ndarray) -> None:
        shades = self.hair_shades(self.lit(1.7, 2.6, 0.3) * (0.62 + 0.075 * strands))
        *extras, hanging = self.plan.back_hair
        if extras:
            self.paint(self.mask(*extras), 1.45 * shades)
        self.paint(self.mask(hanging), shades)

    def draw_body(self) -> None:
        cloth = _plane(_pick(_CLOTHES["A"], self.portrait.clothes_colour))
        shade = 1.08 + 0.4 * self.portrait.light * (self.x - 0.5) + 0.09 * self.noise(7)
        self.paint(self.mask(self.plan.body), cloth * shade)
        self.darken(self.mask(_moved(self.plan.neck, 0.0, 0.012), soft=0.012), (0.0, 0.0, 0.0), 0.5)
        neck = self.mask(self.plan.neck)
        tone = 0.8 + 0.2 * self.portrait.light * self.u
        self.paint(neck, _plane(self.skin) * tone)
        chin = self.mask(_moved(self.plan.face, 0.0, 0.035), soft=0.02, within=neck)
        self.darken(chin, self.WARM_SHADOW, 0.6)
        for wing in self.plan.collar:
            self.darken(self.mask(_moved(wing, 0.0, 0.012), soft=0.01), (0.0, 0.0, 0.0), 0.45)
            self.paint(self.mask(wing), (1.25 * cloth + 0.14) * shade)

    def draw_face(self) -> None:
        glow = self.lit(1.2, 1.7)
        # Skin lets red light through: its shadows are warmer than its lights.
        warmth = _plane((0.12, -0.02, -0.08))
        skin = _plane(self.skin) * (glow + np.maximum(0.0, 1.0 - glow) * warmth)
        self.paint(self.mask(*self.plan.ears), skin * _plane((0.88, 0.8, 0.78)))
        face = self.mask(self.plan.face)
        self.paint(face, 1.13 * skin)
        fall = (-0.012 * self.portrait.light, 0.03)
        cast = self.mask(_moved(self.plan.front_hair, *fall), soft=0.016, within=face)
        self.darken(cast, self.WARM_SHADOW, 0.5)
        self.model_face()

    def model_face(self) -> None:
        """Cheeks, eye sockets and nose, as warm shadows and highlights."""
        side = 0.3 * self.side + 0.7 * self.portrait.light
        for u in (-0.56, 0.56):
            self.darken(self.spot(u, 0.5, 0.26, 0.2), (1.0, 0.76, 0.74), 0.45)
        for u in (-0.43, 0.43):
            self.darken(self.spot(u, 0.06, 0.3, 0.17), self.WARM_SHADOW, 0.3)
        self.darken(self.spot(-0.17 * side, 0.3, 0.1, 0.28), self.WARM_SHADOW, 0.4)
        self.darken(self.spot(0.0, 0.59, 0.2, 0.07), self.WARM_SHADOW, 0.4)
        self.darken(self.spot(0.0, 1.06, 0.24, 0.07), self.WARM_SHADOW, 0.3)
        shine = 1.15 * self.skin + 0.15
        self.paint(self.spot(0.03 * side, 0.22, 0.055, 0.22), shine, 0.35)
        self.paint(self.spot(0.02 * side, 0.44, 0.07, 0.06), shine, 0.45)

    def draw_nostrils(self, pen: _Pen) -> None:
        for u in (-0.09, 0.09):
            nostril = self.plan.fit(_ellipse((u, 0.53), (0.05, 0.025)))
            pen.fill(self.plan.feature(nostril), self.skin * (0.42, 0.3, 0.28), 0.75)

    def draw_eye(self, pen: _Pen, eye: _Eye) -> None:
        opening, unit = self.portrait.eye_opening, self.plan.head.scale
        lids = _Lids(0.245, 0.135 * opening, 0.08 * opening)
        white = 0.82 + 0.2 * float(self.skin.mean())
        pen.fill(self.eye_curve(eye, lids.outline), (0.91 * white, 0.88 * white, 0.86 * white))
        iris = _pick(_EYES["A"], self.portrait.eye_colour)
        look = np.array([0.06 * self.portrait.gaze * eye.side, -0.03])
        for radius, colour in ((0.125, 0.4 * iris), (0.1, iris), (0.05, (0.04, 0.03, 0.04))):
            disc = lids.cover(_ellipse(look, (radius, radius)))
            pen.fill(self.eye_curve(eye, disc), colour)
        crease = self.eye_curve(eye, _moved(lids.upper, 0.0, -0.085))
        pen.stroke(crease, self.skin * (0.5, 0.36, 0.32), 0.05 * unit, 0.5)
        lash = self.eye_curve(eye, _moved(lids.upper, 0.0, -0.01))
        pen.stroke(lash, self.skin * (0.2, 0.13, 0.13), 0.06 * unit, 0.9)
        glint = _moved(look, 0.04 * self.side * eye.side, -0.045)
        pen.fill(self.eye_curve(eye, _ellipse(glint, (0.03, 0.03))), (1.0, 1.0, 1.0), 0.9)
        pen.stroke(self.plan.brow(eye), 0.55 * self.hair + 0.04, 0.11 * unit, 0.72, taper=0.4)

    def eye_curve(self, eye: _Eye, points: np.ndarray) -> np.ndarray:
        return self.plan.feature(eye.shape(points))

    def draw_mouth(self, pen: _Pen) -> None:
        plan, gape = self.plan, self.plan.gape
        lip_colour = self.skin * (0.9, 0.58, 0.57)
        upper_edge, parting = plan.lip(0.36, -0.09), plan.lip(0.33, 0.0)
        lower_rim, lower_edge = plan.lip(0.33, gape), plan.lip(0.3, gape + 0.12)
        pen.fill(np.concatenate([upper_edge, lower_edge[::-1]]), lip_colour, 0.9)
        gloss = 1.3 * lip_colour + 0.1
        pen.stroke(plan.lip(0.14, gape + 0.06), gloss, 0.05 * plan.head.scale, 0.5)
        if gape > 0.0:
            pen.fill(np.concatenate([parting, lower_rim[::-1]]), (0.26, 0.08, 0.08))
            teeth = plan.lip(0.33, 0.55 * gape)
            pen.fill(np.concatenate([parting, teeth[::-1]]), (0.92, 0.9, 0.86))
        pen.stroke(parting, self.skin * (0.35, 0.18, 0.17), 0.045 * plan.head.scale, 0.85)

    def draw_glasses(self, pen: _Pen) -> None:
        width, frame = 0.06 * self.plan.head.scale, (0.13, 0.11, 0.11)
        for lens in self.plan.lenses:
            pen.fill(lens, (0.95, 0.97, 1.0), 0.07)
            pen.outline(lens, frame, width)
        for wire in self.plan.glasses_wires:
            pen.stroke(wire, frame, width, taper=0.0)

    def draw_front_hair(self, strands: np.ndarray) -> None:
        from_brow = np.hypot(self.u / 1.15, (self.v + 0.1) / 1.25)
        gleam = np.exp(-np.square((from_brow - 0.78) / 0.13))
        gleam *= np.clip(0.71 + 0.6 * self.portrait.light * self.u - 0.2 * self.v, 0.0, 1.0) - 0.3
        brightness = self.lit(1.5, 2.0, -0.1) * (1.05 + 0.125 * strands)
        brightness += gleam * (0.5 + 0.2 * strands)
        self.paint(self.mask(self.plan.front_hair), self.hair_shades(brightness))
        with self.retouching(*self.plan.hair_lines) as pen:
            for line in self.plan.hair_lines:
                pen.stroke(line, 0.4 * self.hair, 0.045 * self.plan.head.scale, 0.35)

    # Lens and film

    def develop(self) -> np.ndarray:
        """Lens blur, darker corners and grain; uint8 [size, size, 3]."""
        blurred = _planes(_image(self.pixels).filter(ImageFilter.BoxBlur(0.0035 * self.size)))
        corners = 1.0 - 0.4 * ((self.x - 0.5) ** 2 + (self.y - 0.5) ** 2)
        return np.array(_image(blurred * corners + self.grain()))

    def grain(self) -> np.ndarray:
        """Film grain, in brightness only: float32 [size, size]."""
        return 0.014 * self.rng.standard_normal((self.size, self.size), np.float32)


class _Anime:
    """Domain B: flat colours, hard shadows and ink lines, drawn large and then reduced."""

    OVERSAMPLING = 3
    INK_WIDTH = 0.014

    def __init__(self, portrait: Portrait, size: int):
        self.portrait = portrait
        self.plan = _Plan(portrait)
        self.size = size * self.OVERSAMPLING
        self.image = Image.new("RGB", (self.size, self.size))
        self.pen = _Pen(self.image, self.size)
        self.skin = _pick(_SKIN["B"], portrait.skin_tone)
        self.skin_shadow = self.skin * np.array([0.9, 0.74, 0.72])
        self.hair = _pick(_HAIR["B"], portrait.hair_colour)
        self.hair_shadow = self.hair * np.array([0.72, 0.68, 0.8])
        self.ink = np.array([0.16, 0.1, 0.16])
        self.hair_ink = 0.35 * self.hair * np.array([0.9, 0.8, 1.0]) + 0.03

    def picture(self) -> np.ndarray:
        self.draw_backdrop()
        self.draw_back_hair()
        self.draw_body()
        self.draw_face()
        for eye in self.plan.eyes:
            self.draw_eye(eye)
        self.draw_mouth()
        self.draw_glasses()
        self.draw_front_hair()
        return np.array(self.image.reduce(self.OVERSAMPLING))

    # Tools

    def surface(self, curve: np.ndarray, colour: np.ndarray, ink: np.ndarray) -> None:
        """A flat area with an ink outline."""
        self.pen.fill(curve, colour)
        self.pen.outline(curve, ink, self.INK_WIDTH)

    def fill_within(self, surface: np.ndarray, curve: np.ndarray, colour: np.ndarray) -> None:
        """Fills the part of a curve that lies on a surface."""
        box = _Box.around((curve,), self.size)
        both = (box.stencil((part,), self.size, 1) for part in (surface, curve))
        self.image.paste(_rgb(colour), (box.left, box.top), mask=ImageChops.multiply(*both))

    def shade(self, surface: np.ndarray, colour: np.ndarray, width: float) -> None:
        """A hard shadow on the side of a surface that the light misses."""
        lit = _moved(surface, width * self.portrait.light, -0.4 * width)
        box = _Box.around((surface,), self.size)
        both = (box.stencil((part,), self.size, 1) for part in (surface, lit))
        self.image.paste(_rgb(colour), (box.left, box.top), mask=ImageChops.subtract(*both))

    # Layers

    def draw_backdrop(self) -> None:
        colour = _pick(_BACKDROP["B"], self.portrait.backdrop_colour)
        self.image.paste(_rgb(colour), (0, 0, self.size, self.size))
        for shape in self.plan.backdrop:
            self.pen.fill(shape, 0.45 * colour + 0.55)

    def draw_back_hair(self) -> None:
        *extras, hanging = self.plan.back_hair
        for part in extras:
            self.pen.fill(part, self.hair)
            self.shade(part, self.hair_shadow, 0.045)
            self.pen.outline(part, self.hair_ink, self.INK_WIDTH)
        self.surface(hanging, self.hair_shadow, self.hair_ink)

    def draw_body(self) -> None:
        cloth = _pick(_CLOTHES["B"], self.portrait.clothes_colour)
        self.pen.fill(self.plan.body, cloth)
        self.shade(self.plan.body, 0.74 * cloth, 0.07)
        self.pen.outline(self.plan.body, self.ink, self.INK_WIDTH)
        self.surface(self.plan.neck, self.skin, self.ink)
        self.fill_within(self.plan.neck, _moved(self.plan.face, 0.0, 0.045), self.skin_shadow)
        for wing in self.plan.collar:
            self.surface(wing, 0.5 * cloth + 0.5, self.ink)

    def draw_face(self) -> None:
        for ear in self.plan.ears:
            self.surface(ear, self.skin_shadow, self.ink)
        face = self.plan.face
        self.pen.fill(face, self.skin)
        self.shade(face, self.skin_shadow, 0.05)
        fall = (-0.012 * self.portrait.light, 0.03)
        self.fill_within(face, _moved(self.plan.front_hair, *fall), self.skin_shadow)
        for eye in self.plan.eyes:
            blush = _ellipse(_moved(eye.centre, 0.1 * eye.side, 0.4), (0.19, 0.085))
            self.pen.fill(self.plan.feature(blush), self.skin * np.array([1.0, 0.82, 0.8]))
        self.pen.outline(face, self.ink, self.INK_WIDTH)
        nose = self.plan.feature([(0.0, 0.5), (0.05, 0.53), (0.0, 0.56)], 1.1)
        self.pen.stroke(nose, 0.6 * self.skin_shadow, 0.04 * self.plan.head.scale, taper=0.2)

    def draw_eye(self, eye: _Eye) -> None:
        unit, opening = self.plan.head.scale, self.portrait.eye_opening
        lids = _Lids(0.3, 0.27 * opening, 0.26 * opening)
        self.pen.fill(self.eye_curve(eye, lids.outline), (1.0, 1.0, 1.0))
        self.draw_iris(eye, lids)
        upper = self.eye_curve(eye, _moved(lids.upper, 0.0, -0.015))
        self.pen.stroke(upper, self.ink, 0.13 * unit, taper=0.35)
        self.pen.stroke(self.eye_curve(eye, lids.lower[4:]), self.ink, 0.045 * unit)
        self.pen.stroke(self.plan.brow(eye), self.hair_ink, 0.07 * unit)

    def eye_curve(self, eye: _Eye, points: np.ndarray) -> np.ndarray:
        return self.plan.feature(eye.shape(_moved(points, 0.0, 0.04)))

    def draw_iris(self, eye: _Eye, lids: _Lids) -> None:
        """Rim, iris, its bright lower half, pupil, and two highlights towards the light."""
        iris = _pick(_EYES["B"], self.portrait.eye_colour)
        glint = math.copysign(0.08, self.portrait.light) * eye.side
        look = np.array([0.06 * self.portrait.gaze * eye.side - 0.01, 0.0])
        for centre, radii, colour in (
            ((0.0, 0.0), (0.2, 0.27), 0.3 * iris),
            ((0.0, 0.02), (0.17, 0.235), 0.72 * iris),
            ((0.0, 0.12), (0.15, 0.13), 1.15 * iris + 0.08),
            ((0.0, 0.0), (0.085, 0.12), 0.2 * iris),
            ((glint, -0.11), (0.075, 0.085), (1.0, 1.0, 1.0)),
            ((-glint, 0.12), (0.04, 0.045), (1.0, 1.0, 1.0)),
        ):
            disc = lids.cover(_ellipse(look + centre, radii))
            self.pen.fill(self.eye_curve(eye, disc), colour)

    def draw_mouth(self) -> None:
        plan, gape = self.plan, self.plan.gape
        upper = plan.lip(0.24, 0.0)
        if gape > 0.0:
            inside = np.concatenate([upper, plan.lip(0.22, 1.3 * gape)[::-1]])
            self.surface(inside, np.array([0.78, 0.25, 0.27]), self.ink)
        self.pen.stroke(upper, self.ink, 0.065 * plan.head.scale, taper=0.3)

    def draw_glasses(self) -> None:
        frame = np.array([0.2, 0.13, 0.17])
        for lens in self.plan.lenses:
            self.pen.outline(lens, frame, 0.07 * self.plan.head.scale)
        for wire in self.plan.glasses_wires:
            self.pen.stroke(wire, frame, 0.065 * self.plan.head.scale, taper=0.0)

    def draw_front_hair(self) -> None:
        hair = self.plan.front_hair
        self.pen.fill(hair, self.hair)
        self.shade(hair, self.hair_shadow, 0.05)
        self.draw_gleam()
        for line in self.plan.hair_lines:
            self.pen.stroke(line, self.hair_ink, 0.05 * self.plan.head.scale)
        self.pen.outline(hair, self.hair_ink, self.INK_WIDTH)

    def draw_gleam(self) -> None:
        """The zigzag band of light on the crown."""
        steps = np.arange(15)
        angle = 0.75 * (steps / 7 - 1.0) + 0.35 * self.portrait.light
        ring = np.stack([0.9 * np.sin(angle), -0.1 - 0.98 * np.cos(angle)], axis=1)
        depth = 0.1 * np.cos(1.5 * (steps / 7 - 1.0)) * np.where(steps % 2, 1.3, 0.6)
        band = np.concatenate([ring, (ring * (1.0 - depth[:, None]))[::-1]])
        band = self.plan.head.place(band, 0.2)
        self.fill_within(self.plan.front_hair, band, 0.4 * self.hair + 0.6)
