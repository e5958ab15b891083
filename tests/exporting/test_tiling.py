"""Large pictures in tiles."""

from __future__ import annotations

import numpy as np
import pytest

from cyclegan_tf.exporting.tiling import tile_side, translate_in_tiles
from tests.exporting.helpers import pixels


@pytest.mark.parametrize("height, width", [(64, 64), (65, 64), (90, 200), (64, 131), (257, 99)])
def test_tiles_that_change_nothing_give_the_picture_back(height, width):
    picture = pixels(height, width)
    result = translate_in_tiles(picture, lambda tile: tile, 64, 64, 16)
    np.testing.assert_array_equal(result, picture)


def test_every_tile_has_the_size_that_was_asked_for():
    shapes = []

    def translate(tile):
        shapes.append(tile.shape)
        return tile

    translate_in_tiles(pixels(100, 150), translate, 48, 64, 16)
    assert set(shapes) == {(48, 64, 3)}
    assert len(shapes) == 3 * 3


def test_no_seam_where_tiles_differ_in_tone():
    """Each tile a shade of its own, as from instance norm: no step between neighbouring pixels."""
    shades = iter(np.random.default_rng(0).integers(90, 170, 100))
    grey = np.zeros((300, 400, 3), np.uint8)
    result = translate_in_tiles(grey, lambda tile: tile + np.uint8(next(shades)), 128, 128, 64)
    assert result.std() > 5  # the tiles do differ
    for axis in (0, 1):
        assert np.abs(np.diff(result.astype(int), axis=axis)).max() <= 3


def test_a_tiles_own_border_does_not_show():
    """What a network makes of its padding is seen at the picture's own edges only."""

    def translate(tile):
        tile = tile.copy()
        tile[:2], tile[-2:], tile[:, :2], tile[:, -2:] = 255, 255, 255, 255
        return tile

    black = np.zeros((300, 400, 3), np.uint8)
    result = translate_in_tiles(black, translate, 128, 128, 64)
    assert result.max() == 255
    assert result[2:-2, 2:-2].max() <= 3


@pytest.mark.parametrize("side", [100, 1024, 1025, 1080, 1920, 4000, 6016])
def test_tiles_are_no_larger_than_needed(side):
    tile = tile_side(side, 1024, 256)
    if side <= 1024:
        assert tile == side
    else:
        assert tile <= 1024 and tile % 4 == 0
        count = -(-(side - 256) // (1024 - 256))
        assert count * tile - (count - 1) * 256 >= side
        assert count * (tile - 4) - (count - 1) * 256 < side
