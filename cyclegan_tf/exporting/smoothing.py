"""Flicker between the frames of a translated film: how much there is, and less of it.

A generator sees one frame at a time, and instance normalization lets anything that moves anywhere
change the tone everywhere: what stands still in the film still changes in the translation.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

_STILL_LEVELS = 3.0  # A pixel has not moved if its blurred change is below this, of 255.
_MOVING_LEVELS = 8.0  # Scale on which trust in the previous frame fades with the change.
_BLUR = 3  # Radius in pixels over which a film's noise is averaged.


class Smoother:
    """Blends each translated frame with the one before, where the film itself has not changed.

    Moving things are left as they are, so nothing trails behind them.

    Args:
        strength: share of the previous frame in still places, 0 to below 1.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self._source: np.ndarray | None = None
        self._result: np.ndarray | None = None

    def smooth(self, source: np.ndarray, translated: np.ndarray) -> np.ndarray:
        """Takes the film's next frame and its translation, uint8 [height, width, 3], in order.

        Returns:
            The smoothed translation, uint8 of the same shape.
        """
        result = translated.astype(np.float32)
        if self._source is not None and self.strength:
            change = change_between(self._source, source)[..., None]
            share = self.strength * np.exp(-np.square(change / _MOVING_LEVELS))
            result += share * (self._result - result)
        self._source, self._result = source, result
        return np.rint(result).astype(np.uint8)


class FlickerMeter:
    """Mean absolute change of a translation, in levels of 255, where the film stands still."""

    def __init__(self) -> None:
        self._previous: tuple[np.ndarray, np.ndarray] | None = None
        self._sum, self._count = 0.0, 0

    def add(self, source: np.ndarray, translated: np.ndarray) -> None:
        """Takes the film's next frame and its translation, uint8 [height, width, 3], in order."""
        if self._previous is not None:
            still = change_between(self._previous[0], source) < _STILL_LEVELS
            change = np.abs(translated[still].astype(np.float32) - self._previous[1][still])
            self._sum += float(change.sum(dtype=np.float64))
            self._count += change.size
        self._previous = source, translated

    def value(self) -> float | None:
        """The measure over all frames so far; None if nothing stood still."""
        return self._sum / self._count if self._count else None


def change_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How much each place changed: float32 [height, width] in levels, free of single pixels' noise.

    The signed change is averaged over a small square first, which cancels noise but not movement.
    """
    change = (after.astype(np.int16) - before).astype(np.float32)
    channels = [_box_blur(change[..., channel]) for channel in range(change.shape[-1])]
    return np.max(np.abs(channels), axis=0)


def _box_blur(values: np.ndarray) -> np.ndarray:
    # Pillow blurs 8-bit images only, so the change of ±255 is halved and shifted into 0 to 255.
    levels = Image.fromarray(np.rint(values / 2 + 128).clip(0, 255).astype(np.uint8))
    blurred = np.asarray(levels.filter(ImageFilter.BoxBlur(_BLUR)), np.float32)
    return 2 * (blurred - 128)
