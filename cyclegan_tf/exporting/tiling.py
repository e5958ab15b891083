"""Large pictures in overlapping tiles, so that memory is bounded by the tile and not the picture.

Instance normalization takes its statistics over the whole input, so each tile comes out in a tone
and contrast of its own: that is what tiling loses against translating in one piece. Neighbours
overlap by a quarter of a tile and are blended along a raised cosine, which spreads the difference
over so many pixels that no seam shows; it also hides each tile's border, where its padding shows.
"""

from __future__ import annotations

import math
from typing import Callable

import numpy as np


def tile_side(side: int, limit: int, overlap: int) -> int:
    """The least side, divisible by 4, of as many tiles as it takes to cover ``side``.

    Args:
        side: of the picture.
        limit: the largest side of a tile.
        overlap: pixels that neighbours share at least.
    """
    if side <= limit:
        return side
    count = _count(side, limit, overlap)
    return min(limit, 4 * math.ceil((side + (count - 1) * overlap) / count / 4))


def translate_in_tiles(
    picture: np.ndarray,
    translate: Callable[[np.ndarray], np.ndarray],
    height: int,
    width: int,
    overlap: int,
) -> np.ndarray:
    """Translates a picture tile by tile.

    Args:
        picture: uint8 [rows, columns, 3], at least as large as a tile.
        translate: uint8 [height, width, 3] to the same.
        height: of a tile.
        width: of a tile.
        overlap: pixels that neighbours share at least.

    Returns:
        uint8 of the picture's shape.
    """
    rows, columns = picture.shape[:2]
    tops, row_weights = _tiles(rows, height, overlap)
    lefts, column_weights = _tiles(columns, width, overlap)
    result = np.empty_like(picture)
    band = np.zeros((height, columns, 3), np.float32)  # what is not yet complete, from ``top`` on
    for top, next_top, row_weight in zip(tops, [*tops[1:], rows], row_weights):
        for left, column_weight in zip(lefts, column_weights):
            tile = translate(picture[top : top + height, left : left + width])
            weight = row_weight[:, None, None] * column_weight[:, None]
            band[:, left : left + width] += weight * tile
        done = next_top - top
        result[top:next_top] = np.rint(band[:done])
        band = np.concatenate([band[done:], np.zeros_like(band[:done])])
    return result


def _count(side: int, tile: int, overlap: int) -> int:
    overlap = min(overlap, side - tile) if side > tile else 0
    return max(1, math.ceil((side - overlap) / (tile - overlap)))


def _tiles(side: int, tile: int, overlap: int) -> tuple[list[int], list[np.ndarray]]:
    """Evenly spread starts, and each tile's weights, which sum to 1 at every pixel of ``side``."""
    count = _count(side, tile, overlap)
    starts = [round(i * (side - tile) / max(1, count - 1)) for i in range(count)]
    weights = [_ramps(tile, overlap, i > 0, i < count - 1) for i in range(count)]
    total = np.zeros(side, np.float32)
    for start, weight in zip(starts, weights):
        total[start : start + tile] += weight
    return starts, [w / total[start : start + tile] for start, w in zip(starts, weights)]


def _ramps(tile: int, overlap: int, rises: bool, falls: bool) -> np.ndarray:
    """1 in the middle, with raised-cosine ramps towards the sides that have a neighbour."""
    phase = np.clip((np.arange(tile, dtype=np.float32) + 0.5) / max(1, overlap), 0.0, 1.0)
    ramp = np.sin(np.pi / 2 * phase) ** 2
    return (ramp if rises else 1.0) * (ramp[::-1] if falls else np.ones_like(ramp))
