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

_G = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]], np.float32)
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
    (outputs,) = zip(*_in_parts(lambda part: [_outputs(part, kernel)], [padded]))

    def gradient(slopes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([slopes]):
            again = tf.identity(padded)  # so that the tiles, four times the map, are not kept
        of_padded, of_kernel = zip(
            *_in_parts(lambda *part: _gradients(*part, kernel), [again, slopes])
        )
        return _joined(of_padded), tf.add_n(of_kernel)

    return _joined(outputs), gradient


def _in_parts(
    function: Callable[..., list[tf.Tensor]], tensors: list[tf.Tensor]
) -> list[list[tf.Tensor]]:
    """What a function makes of parts of a batch, one after the other.

    Tiles are four times as large as the map, so of large maps there must be few at a time.
    """
    batch = tensors[0].shape[0]
    count = max(1, batch * _MOST_NUMBERS // tensors[0].shape.num_elements())
    if count >= batch:
        return [function(*tensors)]
    results: list[list[tf.Tensor]] = []
    for first in range(0, batch, count):
        with tf.control_dependencies(results[-1] if results else []):
            part = [tf.identity(tensor[first : first + count]) for tensor in tensors]
        results.append(function(*part))
    return results


def _joined(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat(parts, axis=0) if len(parts) > 1 else parts[0]


def _outputs(padded: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    products = tf.matmul(_tiles(padded), _kernel_tiles(kernel))
    products = tf.reshape(products, [*_tiling(padded), kernel.shape[3]])
    return _to_output(_to_output(products, _ROWS + 1), _COLUMNS)


def _gradients(padded: tf.Tensor, slopes: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
    """Those of the padded input and of the kernel, from that of the output."""
    slopes = _flat(_from_output(_from_output(slopes, _COLUMNS), _ROWS + 1))
    of_kernel = tf.matmul(_tiles(padded), slopes, transpose_a=True)
    of_kernel = tf.reshape(of_kernel, [4, 4, *kernel.shape[2:]])
    of_tiles = tf.matmul(slopes, _kernel_tiles(kernel), transpose_b=True)
    of_tiles = tf.reshape(of_tiles, [*_tiling(padded), kernel.shape[2]])
    of_padded = _overlap(_overlap(of_tiles, _ROWS + 1), _COLUMNS)
    return [of_padded, tf.einsum("ay,bx,abcf->yxcf", _G, _G, of_kernel)]


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
    return _flat(tf.einsum("ay,bx,yxcf->abcf", _G, _G, kernel))


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
