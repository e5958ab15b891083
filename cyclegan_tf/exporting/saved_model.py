"""A generator as a SavedModel: everything from encoded bytes to encoded bytes lies in its graph."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from cyclegan_tf.config import STRIDE, Config
from cyclegan_tf.data.pipeline import to_pixels, to_range
from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting import serving_files
from cyclegan_tf.exporting.first_frame import first_frame
from cyclegan_tf.locking import locked
from cyclegan_tf.models.layers import trainable_variables
from cyclegan_tf.models.networks import DIRECTIONS, present
from cyclegan_tf.training.checkpoints import load_generators

# A file's header can promise any size, so it is read before anything is decoded.
MAX_PIXELS = 4096 * 4096
# Two halvings of 8 pixels leave 2, the least that the residual blocks can mirror one pixel of.
_LEAST_SIDE = 8
_HEADER_BYTES = 32
_GIF = (b"GIF87a", b"GIF89a")


def export_saved_models(
    run_dir: Path,
    output: Path,
    directions: Sequence[str] | None = None,
    flag: str = "--output",
    weights: str | None = None,
) -> list[Path]:
    """Exports a run's generators for TensorFlow Serving.

    Writes ``output/ab/1`` and ``output/ba/1`` (or the next free number), each all at once, and next
    to them ``models.config`` for the server and a README.

    Args:
        run_dir: the run directory.
        output: the folder that is served.
        directions: "ab", "ba" or both; None for all that the run holds.
        flag: what ``output`` was named with, for messages.
        weights: "last", "best" or "average"; None for the averages where the run keeps them.

    Returns:
        The folders of the new versions, A to B first.

    Raises:
        UserError: if the run has no readable checkpoint or no such weights, or ``output`` cannot be
            written or holds a README.md or models.config of somebody else's.
    """
    serving_files.check_guides(Path(output), flag)
    config = Config.load(run_dir)
    generators = present(load_generators(run_dir, config, directions, weights=weights))
    try:
        versions = [
            _save_version(generator, config, Path(output) / direction)
            for direction, generator in generators.items()
        ]
        served = [name for name in DIRECTIONS if serving_files.versions(Path(output) / name)]
        serving_files.write_guides(Path(output), served)
    except (OSError, tf.errors.OpError) as error:  # TensorFlow has errors of its own for a disk.
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise UserError(f"{flag} {output}: cannot be written ({reason})") from error
    return versions


class ServingModule(tf.Module):
    """What a SavedModel of ours can do: the object itself translates uint8 pictures when called.

    It holds the generator's variables but not the Keras model, so that loading needs neither Keras
    nor this package.

    Args:
        generator: float [batch, height, width, 3] in [-1, 1] to the same, for sides divisible by 4.
    """

    def __init__(self, generator: tf.keras.Model) -> None:
        super().__init__(name="cyclegan_generator")
        self.weights = trainable_variables(generator)
        # One function that the others call, so that the network is in the file once. It hides the
        # model from this module, which would save all of Keras's own functions as well.
        self._generate = tf.function(
            lambda images: generator(images, training=False),
            input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)],
        )

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """uint8 [batch, height, width, 3] to the same."""
        return self._pixels(images)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def translate(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """uint8 [batch, height, width, 3] to the same."""
        return {"images": self._pixels(images)}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, "images")])
    def translate_float(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """float32 [batch, height, width, 3] in [-1, 1] to the same."""
        return {"images": self._any_size(images)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def translate_encoded(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """string [batch] of JPEG, PNG, BMP or GIF files of any sizes to as many PNG files.

        Raises:
            tf.errors.InvalidArgumentError: if one of them is damaged, of another kind or too large.
        """
        encoded = tf.map_fn(self._png, image_bytes, parallel_iterations=1)
        return {"image_bytes": encoded}

    def _png(self, encoded: tf.Tensor) -> tf.Tensor:
        pixels = self._pixels(decode_checked(encoded)[tf.newaxis])
        return tf.io.encode_png(pixels[0])

    def _pixels(self, images: tf.Tensor) -> tf.Tensor:
        return to_pixels(self._any_size(to_range(tf.cast(images, tf.float32))))

    def _any_size(self, images: tf.Tensor) -> tf.Tensor:
        height, width = tf.unstack(tf.shape(images)[1:3])
        return self._generate(pad_to_stride(images))[:, :height, :width]


def pad_to_stride(images: tf.Tensor) -> tf.Tensor:
    """Mirrors pictures over their lower and right edges until the networks can take them.

    Unlike tf.pad it also fills more than the picture's own size, by mirroring again.

    Args:
        images: [batch, height, width, channels] with sides of at least 1.

    Returns:
        The same with sides divisible by 4 and of at least 8.
    """
    for axis in (1, 2):
        images = tf.gather(images, _mirrored_positions(tf.shape(images)[axis]), axis=axis)
    # The picture's own part of these has kept its static channels only.
    return tf.ensure_shape(images, [None, None, None, images.shape[-1]])


def _mirrored_positions(side: tf.Tensor) -> tf.Tensor:
    """0, 1 … side - 1, side - 2 … and so back and forth, as many as the networks can take."""
    length = tf.maximum((side + STRIDE - 1) // STRIDE * STRIDE, _LEAST_SIDE)
    last = side - 1
    # A picture one pixel wide has a period of 0, which cannot divide.
    there_and_back = tf.range(length) % tf.maximum(2 * last, 1)
    return last - tf.abs(there_and_back - last)


def decode_checked(encoded: tf.Tensor) -> tf.Tensor:
    """A JPEG, PNG, BMP or GIF file (its first frame) as uint8 [height, width, 3].

    Raises:
        tf.errors.InvalidArgumentError: in the graph, if it is damaged, of another kind, or has more
            than 4096 × 4096 pixels in the header or when it is decoded.
    """
    encoded = tf.cond(_starts(encoded, *_GIF), lambda: first_frame(encoded), lambda: encoded)
    with tf.control_dependencies([_assert_fits(_header_size(encoded))]):
        pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    # What a decoder makes of a header is its own affair, and the network takes far more memory.
    with tf.control_dependencies([_assert_fits(tf.shape(pixels, tf.int64)[:2])]):
        return tf.ensure_shape(pixels, [None, None, 3])


def _assert_fits(height_and_width: tf.Tensor) -> tf.Operation:
    """An assertion about int64 [2]; None where it is checked at once, outside of a graph."""
    height, width = tf.unstack(height_and_width, 2)
    message = f"image_bytes: not a JPEG, PNG, BMP or GIF file of 1 to {MAX_PIXELS} pixels"
    fits = (height > 0) & (width > 0) & (height <= MAX_PIXELS // tf.maximum(width, 1))
    return tf.debugging.Assert(fits, [message, height, width])


def _starts(encoded: tf.Tensor, *signatures: bytes) -> tf.Tensor:
    return tf.reduce_any([tf.strings.substr(encoded, 0, len(s)) == s for s in signatures])


def _header_size(encoded: tf.Tensor) -> tf.Tensor:
    """int64 [2], height and width as the file's header states them; 0 for an unknown kind."""
    header = tf.strings.substr(encoded, 0, _HEADER_BYTES) + "\0" * _HEADER_BYTES

    def numbers(start: int, kind: tf.DType, little_endian: bool) -> tf.Tensor:
        raw = tf.strings.substr(header, start, 2 * kind.size)
        width_and_height = tf.io.decode_raw(raw, kind, little_endian=little_endian)
        return tf.abs(tf.cast(tf.reverse(width_and_height, [0]), tf.int64))

    return tf.case(
        [
            (
                _starts(header, b"\xff\xd8\xff"),
                lambda: tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64),
            ),
            (_starts(header, b"\x89PNG\r\n\x1a\n"), lambda: numbers(16, tf.int32, False)),
            # A height below zero is that of a BMP whose rows are stored from the top.
            (_starts(header, b"BM"), lambda: numbers(18, tf.int32, True)),
            (_starts(header, *_GIF), lambda: numbers(6, tf.uint16, True)),
        ],
        default=lambda: tf.zeros([2], tf.int64),
    )


def save_generator(generator: tf.keras.Model, folder: Path) -> None:
    """Writes one SavedModel, as ``ServingModule`` describes it, into ``folder``."""
    module = ServingModule(generator)
    signatures = {
        "serving_default": module.translate_encoded,
        "translate": module.translate,
        "translate_float": module.translate_float,
    }
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures, options)


def _save_version(generator: tf.keras.Model, config: Config, folder: Path) -> Path:
    """Saves one generator as the next version in ``folder``."""
    with _unfinished_folder(folder) as unfinished:
        save_generator(generator, unfinished)
        serving_files.write_warmup(unfinished, config.data.image_size)
        return _publish(unfinished, folder)


@contextmanager
def _unfinished_folder(parent: Path) -> Iterator[Path]:
    """A folder beside the versions to write the next one in; gone afterwards unless renamed.

    Exports into the same folder wait for each other, so what else is unfinished was killed.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with locked(parent, lambda: None):
        for killed in parent.glob(".unfinished-*"):
            shutil.rmtree(killed, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=parent))
        try:
            yield unfinished
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _publish(unfinished: Path, folder: Path) -> Path:
    """Renames a finished folder to the next free number, which a server sees all at once."""
    unfinished.chmod(0o755)
    number = max([int(path.name) for path in folder.iterdir() if path.name.isdecimal()], default=0)
    while True:
        number += 1
        try:
            return unfinished.rename(folder / str(number))
        except OSError:  # Another export took the number meanwhile.
            if not (folder / str(number)).exists():
                raise
