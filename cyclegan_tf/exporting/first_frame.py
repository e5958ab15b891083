"""A GIF's first frame, found in the graph and without decoding anything."""

from __future__ import annotations

import tensorflow as tf

# Where the colours of a GIF's screen begin, if it has any.
_BEHIND_SCREEN = 13
_EXTENSION, _FRAME = 0x21, 0x2C
# By the three bits that tell how many colours a table holds.
_TABLE_BYTES = [3 * 2 ** (bits + 1) for bits in range(8)]


def first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """A GIF of another one's first frame alone, on a screen of the frame's size.

    TensorFlow decodes all frames even where one is wanted, at the size of the largest, whatever
    size the screen at the beginning of the file has. Of the result it can decode no more than the
    beginning states.

    Args:
        encoded: string [], a file with the signature of a GIF.

    Returns:
        string []; empty if the file ends before its first frame does.
    """
    data = tf.io.decode_raw(encoded, tf.uint8)
    size = tf.size(data)

    def byte(place: tf.Tensor) -> tf.Tensor:
        """int32; 0, which ends everything that is read here, behind the file's end."""
        value = tf.cast(tf.gather(data, tf.minimum(place, size - 1)), tf.int32)
        return tf.where(place < size, value, 0)

    def behind_colours(place: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
        return place + tf.where(flags >= 128, tf.gather(_TABLE_BYTES, flags % 8), 0)

    def behind_blocks(place: tf.Tensor) -> tf.Tensor:
        """Behind a row of blocks, each of which begins with its length; the last one has none."""
        (last,) = tf.while_loop(
            lambda place: byte(place) > 0, lambda place: [place + 1 + byte(place)], [place]
        )
        return last + 1

    (frame,) = tf.while_loop(
        lambda place: tf.equal(byte(place), _EXTENSION),
        lambda place: [behind_blocks(place + 2)],
        [behind_colours(tf.constant(_BEHIND_SCREEN), byte(tf.constant(10)))],
    )
    # Between the colours and the pixels' blocks lies one byte about how these are packed.
    end = behind_blocks(behind_colours(frame + 10, byte(frame + 9)) + 1)

    def alone() -> tf.Tensor:
        signature = tf.strings.substr(encoded, 0, 6)
        width_and_height = tf.strings.substr(encoded, frame + 5, 4)
        until_frame = tf.strings.substr(encoded, 10, frame + 1 - 10)
        at_corner = tf.constant(b"\0\0\0\0")
        of_frame = tf.strings.substr(encoded, frame + 5, end - frame - 5)
        return signature + width_and_height + until_frame + at_corner + of_frame + ";"

    is_whole = tf.equal(byte(frame), _FRAME) & (end <= size)
    return tf.cond(is_whole, alone, lambda: tf.constant(""))
