"""A generator as a .tflite file for phones: built-in operations only, fixed size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from cyclegan_tf.config import STRIDE, Config, DataConfig
from cyclegan_tf.data.pipeline import decode, fit, to_pixels, to_range
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.data.sources import open_data_of, readable
from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting.litert import LiteRtModel, interpreter_class
from cyclegan_tf.exporting.pictures import unfinished_file
from cyclegan_tf.exporting.quiet import quiet_stderr
from cyclegan_tf.exporting.tflite_metadata import Description, add_metadata
from cyclegan_tf.models.layers import trainable_variables
from cyclegan_tf.models.networks import present
from cyclegan_tf.training.checkpoints import check_pictures_known, find_weights, generators_of
from tfrecords_tools.schema import parse_example

CALIBRATION_PICTURES = 100
PARITY_PICTURES = 8
LEAST_SSIM = 0.90
# Instance norm divides by a variance that is far below one step of its tensor's 8-bit scale in most
# channels, so its arithmetic stays float32; the convolutions, nearly all of the work, are int8.
_FLOAT_OPERATIONS = ["MEAN", "SQUARED_DIFFERENCE", "ADD", "RSQRT", "SUB", "MUL"]


@dataclass(frozen=True)
class TfliteOptions:
    """What kinds of files are written.

    Attributes:
        quantizations: one file each: "none", "float16" (weights), "dynamic" (int8 weights), "int8"
            (activations too).
        is_uint8: pictures go in and come out as uint8; else as float32 in [-1, 1].
        image_size: their side; None for the one that the run was trained at.
        data: where calibration and test pictures come from; None for the run's own data.
        seed: of the choice of these pictures.
        version: of the model, for the metadata.
        license: of the model, for the metadata.
    """

    quantizations: Sequence[str] = ("none",)
    is_uint8: bool = True
    image_size: int | None = None
    data: str | None = None
    seed: int = 0
    version: str = "1"
    license: str = "as the training pictures allow"

    def file_name(self, direction: str, size: int, quantize: str) -> str:
        """For example ab_256_float16.tflite."""
        io = "" if self.is_uint8 else "_float_io"
        return f"{direction}_{size}_{quantize}{io}.tflite"


@dataclass(frozen=True)
class Parity:
    """How far a file's pictures are from those of Keras.

    Attributes:
        largest: largest absolute difference in levels of 255.
        mean: mean absolute difference in levels of 255.
        ssim: mean structural similarity.
    """

    largest: int
    mean: float
    ssim: float

    def shortfall(self, quantize: str) -> str | None:
        """Why a file with this parity is refused; None if it is good enough."""
        if quantize == "none" and self.largest > 1:
            return f"differs from Keras by up to {self.largest} levels, more than 1"
        if quantize == "float16" and self.mean > 1.0:
            return f"differs from Keras by {self.mean:.2f} levels on average, more than 1"
        if self.ssim < LEAST_SSIM:
            return f"its SSIM with Keras is {self.ssim:.3f}, under {LEAST_SSIM:.2f}"
        return None


@dataclass(frozen=True)
class TfliteExport:
    """A converted generator.

    Attributes:
        path: the file; not written if it was refused.
        size: in bytes.
        parity: with Keras on pictures of the test split.
        refused: why it was not written; None if it was.
    """

    path: Path
    size: int
    parity: Parity
    refused: str | None


def export_tflite(
    run_dir: Path,
    output: Path,
    directions: Sequence[str] | None,
    options: TfliteOptions,
    weights: str | None = None,
) -> list[TfliteExport]:
    """Converts a run's generators and writes those that are close enough to Keras.

    Args:
        run_dir: the run directory.
        output: the folder for the files.
        directions: "ab", "ba" or both; None for all that the run holds.
        options: what kinds of files.
        weights: "last", "best" or "average"; None for the averages where the run keeps them.

    Returns:
        One export per quantization and direction, in that order, A to B first.

    Raises:
        UserError: if the run, its data or an option does not allow it, or ``output`` cannot be
            written, or ai-edge-litert, the runtime that checks the files, is not installed.
    """
    interpreter_class()  # Without the runtime, all would be converted in vain.
    config = Config.load(run_dir)
    size = config.data.image_size if options.image_size is None else options.image_size
    _check_size(size)
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: must be at least 0")
    found = find_weights(run_dir, config, weights)
    if "int8" in options.quantizations:
        check_pictures_known(run_dir, found, config, options.data)
    shards = open_data_of(run_dir, config.data.data, options.data)
    generators = present(generators_of(found, config, directions, size, weights))
    exporter = _Exporter(config, shards, size, Path(output), options)
    return [
        exporter.export(generator, direction, quantize)
        for quantize in options.quantizations
        for direction, generator in generators.items()
    ]


def _check_size(size: int) -> None:
    if not 16 <= size <= 2048 or size % STRIDE:
        raise UserError(
            f"--image-size {size}: must be from 16 to 2048 and divisible by {STRIDE} for a .tflite"
        )


class _Exporter:
    """What the files of one export share; each kind of pictures is read once."""

    def __init__(
        self, config: Config, shards: Shards, size: int, output: Path, options: TfliteOptions
    ) -> None:
        self.config, self.shards, self.size = config, shards, size
        self.data = replace(config.data, image_size=size)
        self.output, self.options = output, options
        self._pictures: dict[tuple[str, int], np.ndarray] = {}

    def export(self, generator: tf.keras.Model, direction: str, quantize: str) -> TfliteExport:
        train, test = (f"{split}{direction[0].upper()}" for split in ("train", "test"))
        calibration = None
        if quantize == "int8":
            calibration = self._some(train, CALIBRATION_PICTURES)
        model = convert(generator, self.size, quantize, self.options.is_uint8, calibration)
        description = _description(direction, quantize, self.config.preset, self.size, self.options)
        model = add_metadata(model, description)
        split = test if self.shards.manifest.count(test) else train
        parity = compare(LiteRtModel(model), generator, self._some(split, PARITY_PICTURES))
        path = self.output / self.options.file_name(direction, self.size, quantize)
        refused = parity.shortfall(quantize)
        if refused is None:
            _write(path, model)
        return TfliteExport(path, len(model), parity, refused)

    def _some(self, split: str, count: int) -> np.ndarray:
        key = (split, count)
        if key not in self._pictures:
            with readable(self.shards):
                self._pictures[key] = sample_pictures(
                    self.shards, split, self.data, count, self.options.seed
                )
        return self._pictures[key]


def convert(
    generator: tf.keras.Model,
    size: int,
    quantize: str,
    is_uint8: bool,
    calibration: np.ndarray | None = None,
) -> bytes:
    """Converts a generator.

    Args:
        generator: float [1, size, size, 3] in [-1, 1] to the same.
        size: side of the pictures.
        quantize: "none", "float16", "dynamic" or "int8".
        is_uint8: whether pictures are uint8 at both ends.
        calibration: for "int8": uint8 [count, size, size, 3], typical pictures.

    Returns:
        The .tflite file's bytes.
    """
    module, translate = _module(generator, size, is_uint8)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [translate.get_concrete_function()], module
    )
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with quiet_stderr():  # It counts the operations of its own intermediate forms.
        if quantize == "int8":
            return _convert_int8(converter, calibration, is_uint8)
        return converter.convert()


def _module(
    generator: tf.keras.Model, size: int, is_uint8: bool
) -> tuple[tf.Module, tf.types.experimental.PolymorphicFunction]:
    """The function to convert, and the module that keeps its variables alive."""
    module = tf.Module()
    module.weights = trainable_variables(generator)
    kind = tf.uint8 if is_uint8 else tf.float32

    @tf.function(input_signature=[tf.TensorSpec([1, size, size, 3], kind, "image")])
    def translate(image: tf.Tensor) -> dict[str, tf.Tensor]:
        if not is_uint8:
            return {"translated": generator(image, training=False)}
        outputs = generator(to_range(tf.cast(image, tf.float32)), training=False)
        # tanh is within [-1, 1]; a saturating cast would be a Flex operation.
        return {"translated": tf.cast(tf.round((outputs + 1.0) * 127.5), tf.uint8)}

    return module, translate


def _convert_int8(
    converter: tf.lite.TFLiteConverter, calibration: np.ndarray, is_uint8: bool
) -> bytes:
    """Quantizes the convolutions to int8 and leaves ``_FLOAT_OPERATIONS`` in float32.

    Pictures at both ends are as in the other files: no app need know how a file is quantized.
    """

    def pictures() -> Iterator[list[np.ndarray]]:
        for picture in calibration[:, None]:
            yield [picture if is_uint8 else to_range(picture.astype(np.float32))]

    converter.representative_dataset = pictures
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=_FLOAT_OPERATIONS)
    quantizer = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=pictures, debug_options=options
    )
    return quantizer.get_nondebug_quantized_model()


def compare(model: LiteRtModel, generator: tf.keras.Model, pictures: np.ndarray) -> Parity:
    """Compares a file in the LiteRT runtime with its generator in Keras.

    Args:
        model: the file.
        generator: what it was made from.
        pictures: uint8 [count, side, side, 3].
    """
    theirs = model.translate(pictures)
    ours = [
        to_pixels(generator(to_range(tf.cast(picture, tf.float32)), training=False))
        for picture in pictures[:, None]
    ]
    ours = tf.concat(ours, axis=0)
    difference = np.abs(theirs.astype(np.int16) - ours.numpy())
    similarity = tf.image.ssim(tf.constant(theirs), ours, max_val=255)
    return Parity(
        int(difference.max()), float(difference.mean()), float(tf.reduce_mean(similarity))
    )


def sample_pictures(
    shards: Shards, split: str, data: DataConfig, count: int, seed: int
) -> np.ndarray:
    """``count`` pictures of a split, or all if there are fewer, chosen by ``seed``.

    Returns:
        uint8 [count, image_size, image_size, 3], brought to size as ``data`` says.
    """
    total = shards.manifest.count(split)
    chosen = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
    paths = [str(path) for path in shards.paths(split)]
    records = tf.data.TFRecordDataset(paths).enumerate()
    records = records.filter(lambda place, _: tf.reduce_any(place == chosen))

    def load(_, serialized: tf.Tensor) -> tf.Tensor:
        pixels = fit(decode(parse_example(serialized)["image"]), data)
        return tf.saturate_cast(tf.round(pixels), tf.uint8)

    return np.stack(list(records.map(load).as_numpy_iterator()))


def _description(
    direction: str, quantize: str, preset: str, size: int, options: TfliteOptions
) -> Description:
    source, target = direction.upper()
    return Description(
        name=f"CycleGAN {source} to {target}",
        text=f"Translates pictures of domain {source} to domain {target}; preset {preset}, "
        f"quantization {quantize}.",
        version=options.version,
        license=options.license,
        source=f"A picture of domain {source}, RGB",
        result=f"The picture as one of domain {target}, RGB",
        image_size=size,
        is_uint8=options.is_uint8,
    )


def _write(path: Path, model: bytes) -> None:
    try:
        with unfinished_file(path) as unfinished:
            unfinished.write_bytes(model)
    except OSError as error:
        raise UserError(
            f"--output {path.parent}: cannot be written ({os.strerror(error.errno)})"
        ) from error
