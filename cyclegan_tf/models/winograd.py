"""3×3 convolutions in four ninths of the multiplications (Winograd's F(2×2, 3×3)).

Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1: a tile of 4×4
pixels (d) and a kernel (g) give 2×2 output pixels, Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A. Over all tiles and
channels, the products are 16 matrix products, which reach more of a CPU's arithmetic than its
convolutions do where channels are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
import tensorflow as tf

from cyclegan_tf.models.ordering import after

_G = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]], np.float32)
_G_G = np.kron(_G, _G)  # [16, 9]: along both axes at once
_FEWEST_CHANNELS = 64
_FEWEST_PIXELS = 32 * 32
_MOST_NUMBERS = 1 << 22  # of maps that are convolved at once
_ROWS, _COLUMNS = 1, 2  # axes of a picture


def pays(padded: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int]) -> bool:
    """Whether ``convolve`` is the same as this VALID convolution, and as measured, faster.

    (The figures are in docs/performance.md.)
    """
    height, width = padded.shape[1:3]
    if padded.dtype != tf.float32 or not padded.shape.is_fully_defined():
        return False
    if (*kernel.shape[:2], *strides) != (3, 3, 1, 1) or height % 2 or width % 2:
        return False
    channels = min(kernel.shape[2:])
    return channels >= _FEWEST_CHANNELS and (height - 2) * (width - 2) >= _FEWEST_PIXELS


@tf.custom_gradient
def convolve(padded: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """What ``tf.nn.conv2d(padded, kernel, 1, "VALID")`` gives, up to rounding.

    Args:
        padded: float32 [batch, h + 2, w + 2, c] with even sides.
        kernel: float32 [3, 3, c, filters].

    Returns:
        float32 [batch, h, w, filters].
    """
    kernel_tiles = _kernel_tiles(*after([padded], kernel))  # which is there all the time

    def one_more(before: list[tf.Tensor], part: tf.Tensor) -> list[tf.Tensor]:
        return [*before, _outputs(part, kernel_tiles)]

    outputs = _joined(_in_parts(one_more, [padded]))
    return outputs, lambda slopes: _slopes_before(padded, kernel, slopes)


def _slopes_before(
    padded: tf.Tensor, kernel: tf.Tensor, slopes: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The gradients of the padded input and of the kernel, from that of the output."""
    # Made again, so that tiles, which are larger than maps and kernels, are not kept.
    padded, kernel = after([slopes], padded, kernel)
    kernel_tiles = _kernel_tiles(kernel)

    def one_more(before: list[tf.Tensor], *part: tf.Tensor) -> list[tf.Tensor]:
        of_padded, of_kernel_tiles = _gradients(*part, kernel_tiles)
        if before:
            of_kernel_tiles += before[-1]
        return [*before[:-1], of_padded, of_kernel_tiles]

    *of_padded, of_kernel_tiles = _in_parts(one_more, [padded, slopes])
    of_kernel = _of_kernel(of_kernel_tiles)
    # The layers before wait for the kernel's, whose tiles would otherwise be kept until the end.
    (of_padded,) = after([of_kernel], _joined(of_padded))
    return of_padded, of_kernel


def _in_parts(
    one_more: Callable[..., list[tf.Tensor]], tensors: list[tf.Tensor]
) -> list[tf.Tensor]:
    """What comes of parts of a batch, one after the other.

    Tiles are four times as large as the map, so of large maps there must be few at a time.

    Args:
        one_more: takes what came of the parts before, and a part of each tensor; gives what comes
            of all of them.
        tensors: as many pictures each.
    """
    batch = tensors[0].shape[0]
    count = max(1, batch * _MOST_NUMBERS // tensors[0].shape.num_elements())
    results: list[tf.Tensor] = []
    for first in range(0, batch, count):
        parts = (tensor[first : first + count] for tensor in after(results, *tensors))
        results = one_more(results, *parts)
    return results


def _joined(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat(parts, axis=0) if len(parts) > 1 else parts[0]


def _outputs(padded: tf.Tensor, kernel_tiles: tf.Tensor) -> tf.Tensor:
    products = tf.matmul(_tiles(padded), kernel_tiles)
    products = tf.reshape(products, [*_tiling(padded), kernel_tiles.shape[2]])
    return _to_output(_to_output(products, _ROWS + 1), _COLUMNS)


def _gradients(padded: tf.Tensor, slopes: tf.Tensor, kernel_tiles: tf.Tensor) -> list[tf.Tensor]:
    """Those of the padded input and of the kernel's tiles, from that of the output."""
    slopes = _flat(_from_output(_from_output(slopes, _COLUMNS), _ROWS + 1))
    of_kernel_tiles = tf.matmul(_tiles(padded), slopes, transpose_a=True)
    of_tiles = tf.matmul(slopes, kernel_tiles, transpose_b=True)
    of_tiles = tf.reshape(of_tiles, [*_tiling(padded), kernel_tiles.shape[1]])
    return [_overlap(_overlap(of_tiles, _ROWS + 1), _COLUMNS), of_kernel_tiles]


def _tiling(padded: tf.Tensor) -> list[int]:
    """[4, 4, batch, rows, columns] of the tiles."""
    batch, height, width, _ = padded.shape
    return [4, 4, batch, height // 2 - 1, width // 2 - 1]


def _tiles(padded: tf.Tensor) -> tf.Tensor:
    """Bᵀ d B of every tile: [16, tiles, c]."""
    return _flat(_cut(_cut(padded, _COLUMNS), _ROWS + 1))


def _flat(tiles: tf.Tensor) -> tf.Tensor:
    """[4, 4, batch, rows, columns, c] to [16, tiles, c]."""
    return tf.reshape(tiles, [16, -1, tiles.shape[-1]])


def _kernel_tiles(kernel: tf.Tensor) -> tf.Tensor:
    """G g Gᵀ for all channels: [16, c, filters]."""
    tiles = tf.matmul(_G_G, tf.reshape(kernel, [9, -1]))
    return tf.reshape(tiles, [16, *kernel.shape[2:]])


def _of_kernel(of_tiles: tf.Tensor) -> tf.Tensor:
    """The transpose of ``_kernel_tiles``."""
    of_kernel = tf.matmul(_G_G, tf.reshape(of_tiles, [16, -1]), transpose_a=True)
    return tf.reshape(of_kernel, [3, 3, *of_tiles.shape[1:]])


def _cut(padded: tf.Tensor, axis: int) -> tf.Tensor:
    """Bᵀ along an axis of 2n + 2 pixels: a new first axis of 4, and n tiles on this one."""
    even, odd = _pairs(padded, axis)
    (d0, d2), (d1, d3) = (_neighbours(half, axis) for half in (even, odd))
    return tf.stack([d0 - d2, d1 + d2, d2 - d1, d1 - d3])


def _overlap(tiles: tf.Tensor, axis: int) -> tf.Tensor:
    """The transpose of ``_cut``; ``axis`` is that of the result."""
    t0, t1, t2, t3 = tf.unstack(tiles)
    even = _added(t0, t1 + t2 - t0, axis)
    odd = _added(t1 - t2 + t3, -t3, axis)
    return _interleaved(even, odd, axis)


def _to_output(products: tf.Tensor, axis: int) -> tf.Tensor:
    """Aᵀ of the first axis: two pixels for each tile on ``axis`` of the result."""
    m0, m1, m2, m3 = tf.unstack(products)
    return _interleaved(m0 + m1 + m2, m1 - m2 - m3, axis)


def _from_output(outputs: tf.Tensor, axis: int) -> tf.Tensor:
    """The transpose of ``_to_output``: a new first axis of 4."""
    even, odd = _pairs(outputs, axis)
    return tf.stack([even, even + odd, even - odd, -odd])


def _pairs(images: tf.Tensor, axis: int) -> list[tf.Tensor]:
    """The even and the odd pixels of an axis."""
    shape = images.shape
    paired = [*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :]]
    return tf.unstack(tf.reshape(images, paired), axis=axis + 1)


def _interleaved(even: tf.Tensor, odd: tf.Tensor, axis: int) -> tf.Tensor:
    """The inverse of ``_pairs``."""
    shape = even.shape
    joined = [*shape[:axis], 2 * shape[axis], *shape[axis + 1 :]]
    return tf.reshape(tf.stack([even, odd], axis=axis + 1), joined)


def _neighbours(pixels: tf.Tensor, axis: int) -> tuple[tf.Tensor, tf.Tensor]:
    """All but the last and all but the first."""
    shape = pixels.shape.as_list()
    shape[axis] -= 1
    ends = [0] * axis + [1] + [0] * (len(shape) - axis - 1)
    return tf.slice(pixels, [0] * len(shape), shape), tf.slice(pixels, ends, shape)


def _added(first: tf.Tensor, second: tf.Tensor, axis: int) -> tf.Tensor:
    """The transpose of ``_neighbours``."""
    before, after = [[0, 0]] * axis, [[0, 0]] * (len(first.shape) - axis - 1)
    return tf.pad(first, [*before, [0, 1], *after]) + tf.pad(second, [*before, [1, 0], *after])
