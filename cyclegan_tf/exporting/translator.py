"""Pictures through a trained generator, be it stored as a run, a SavedModel or a .tflite file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Union

import numpy as np
from PIL import Image

from cyclegan_tf.config import WEIGHTS, Config
from cyclegan_tf.errors import UserError, first_line
from cyclegan_tf.exporting.pictures import BadFile, Picture, read_picture
from cyclegan_tf.exporting.serving_files import versions
from cyclegan_tf.exporting.tiling import tile_side, translate_in_tiles

Input = Union[Path, str, Image.Image, np.ndarray]
Output = Union[Image.Image, np.ndarray]

# Up to so many pixels, squared, a picture is translated in one piece: about 1 GB with 64 channels.
TILE = 1024


def most_at_once(pixels: np.ndarray, batch_size: int) -> int:
    """How many pictures of a size one batch may hold: together no more than one tile.

    Args:
        pixels: one of them, [height, width, channels].
        batch_size: how many are allowed at most.
    """
    height, width = pixels.shape[:2]
    return max(1, min(batch_size, TILE**2 // (height * width)))


@dataclass(frozen=True)
class Translator:
    """Translates pictures of any size.

    Attributes:
        network: uint8 [batch, height, width, 3] to the same.
        side: the only height and width that the network takes; None if it takes any.
        tile: largest side of a tile where the network takes any.
    """

    network: Callable[[np.ndarray], np.ndarray]
    side: int | None = None
    tile: int = TILE

    def translate(
        self, images: Input | Sequence[Input], size: int | None = None
    ) -> Output | list[Output]:
        """Translates one picture or several.

        Args:
            images: a Pillow image, a path, a uint8 array [height, width, 3], or a list of them; or
                a uint8 array [batch, height, width, 3].
            size: the shorter side to which pictures are brought first; None keeps theirs.

        Returns:
            For each array a uint8 array, for anything else a Pillow image, which keeps its alpha; a
            list if a list came in.

        Raises:
            BadFile: if a file, which it names, is not a readable picture, or a picture is too large
                at ``size``.
            ValueError: if an array is not uint8 of one of the shapes above.
        """
        if isinstance(images, (list, tuple)):
            return [self.translate(image, size) for image in images]
        if isinstance(images, Image.Image):
            return self.translate_picture(read_picture(images), size).image()
        if not isinstance(images, np.ndarray):
            try:
                return self.translate_picture(read_picture(Path(images)), size).image()
            except BadFile as error:
                raise BadFile(f"{images}: {error}") from error
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
            raise ValueError(
                "images: must be uint8 [height, width, 3] or [batch, height, width, 3], not"
                f" {images.dtype} {list(images.shape)}"
            )
        if images.ndim == 4 and size is None:
            return self.translate_batch(images)
        if images.ndim == 4:
            return np.stack([self.translate(image, size) for image in images])
        return self.translate_picture(Picture(images), size).pixels

    def translate_picture(self, picture: Picture, size: int | None = None) -> Picture:
        """Translates one picture, resized to a shorter side of ``size`` if that is given."""
        picture = picture.resized(size)
        return picture.with_pixels(self.translate_batch(picture.pixels[None])[0])

    def translate_batch(self, images: np.ndarray) -> np.ndarray:
        """Translates uint8 [batch, height, width, 3] to the same, large pictures in tiles."""
        if not len(images):
            return images
        height, width = images.shape[1:3]
        if self.side is not None:
            return np.stack([self._through_fixed_side(image) for image in images])
        if height * width <= self.tile**2:
            return self.network(images)
        overlap = self.tile // 4
        sides = [tile_side(side, self.tile, overlap) for side in (height, width)]
        return np.stack([translate_in_tiles(image, self._one, *sides, overlap) for image in images])

    def _one(self, image: np.ndarray) -> np.ndarray:
        return self.network(image[None])[0]

    def _through_fixed_side(self, image: np.ndarray) -> np.ndarray:
        """Mirrors a small picture over its edges, and cuts a large one into tiles."""
        height, width = image.shape[:2]
        missing = [(0, max(0, self.side - length)) for length in (height, width)]
        padded = np.pad(image, [*missing, (0, 0)], mode="reflect")
        translated = translate_in_tiles(padded, self._one, self.side, self.side, self.side // 4)
        return translated[:height, :width]


def load(path: Path | str, direction: str | None = None, weights: str | None = None) -> Translator:
    """Opens a run directory, an exported SavedModel or a .tflite file.

    Args:
        path: the run directory; a .tflite file; a SavedModel, a folder of its versions, of which
            the newest is taken, or what ``cyclegan_tf.export`` has written, with ab/ and ba/.
        direction: "ab" or "ba" where ``path`` holds both; None means "ab", or "ba"
            where that is all there is.
        weights: of a run: "last", "best" or "average"; None for the averages where it keeps them.

    Raises:
        UserError: if there is no model, it holds one direction and ``direction`` is given, or it is
            no run and ``weights`` is given.
    """
    path = Path(path)
    if direction not in (None, "ab", "ba"):
        raise UserError(f"--direction {direction}: must be ab or ba")
    if weights not in (None, *WEIGHTS):
        raise UserError(f"--weights {weights}: must be one of {', '.join(WEIGHTS)}")
    if (path / "config.json").is_file():
        return _from_run(path, direction, weights)
    if not path.exists():
        raise UserError(f"{path}: not found; name a run, a SavedModel or a .tflite file")
    if weights is not None:
        raise UserError(f"--weights {weights}: {path} is no run; leave it out")
    present = [name for name in ("ab", "ba") if _saved_models(path / name)]
    if present:
        if direction and direction not in present:
            raise UserError(f"--direction {direction}: {path} holds only {present[0]}")
        return _from_saved_model(_newest_version(path / (direction or present[0])))
    is_tflite = path.suffix == ".tflite"
    model = path if is_tflite else _newest_version(path)
    if direction is not None:
        raise UserError(f"--direction {direction}: {path} holds one direction only; leave it out")
    return _from_tflite(model) if is_tflite else _from_saved_model(model)


def _newest_version(path: Path) -> Path:
    found = _saved_models(path)
    if not found:
        raise UserError(f"{path}: holds no run, no SavedModel, and is no .tflite file")
    return found[-1]


def _saved_models(path: Path) -> list[Path]:
    """A SavedModel itself, or the versions in a folder, the newest last."""
    return [path] if (path / "saved_model.pb").is_file() else versions(path)


def _from_run(run_dir: Path, direction: str | None, weights: str | None) -> Translator:
    from cyclegan_tf.exporting.saved_model import ServingModule
    from cyclegan_tf.models.networks import present
    from cyclegan_tf.training.checkpoints import directions_of, find_weights, generators_of

    config = Config.load(run_dir)
    found = find_weights(run_dir, config, weights)
    directions = (direction,) if direction else directions_of(found, config, weights)[:1]
    made = generators_of(found, config, directions, weights=weights)
    (generator,) = present(made).values()
    module = ServingModule(generator)
    return Translator(_through_tensorflow(module))


def _from_saved_model(path: Path) -> Translator:
    import tensorflow as tf

    from cyclegan_tf.exporting.untrusted import refuse_foreign

    refuse_foreign(path)
    try:
        module = tf.saved_model.load(str(path))
    except Exception as error:  # On damaged files, TensorFlow raises nearly anything.
        raise UserError(f"{path}: cannot be loaded ({first_line(error)})") from error
    example = np.zeros([1, 16, 12, 3], np.uint8)
    try:
        result = module(example).numpy()
    except Exception as error:  # Whatever someone else's model may do with it.
        reason = first_line(error)
        raise UserError(f"{path}: was not written by cyclegan_tf.export ({reason})") from error
    if (result.dtype, result.shape) != (example.dtype, example.shape):
        raise UserError(f"{path}: was not written by cyclegan_tf.export (gives other pictures)")
    return Translator(_through_tensorflow(module))


def _through_tensorflow(module: Callable) -> Callable[[np.ndarray], np.ndarray]:
    """The module as a network that, where memory is short, says so as Python does."""
    import tensorflow as tf

    def network(images: np.ndarray) -> np.ndarray:
        try:
            return module(images).numpy()
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(first_line(error)) from error

    return network


def _from_tflite(path: Path) -> Translator:
    from cyclegan_tf.exporting.litert import LiteRtModel

    model = LiteRtModel.open(path)
    return Translator(model.translate, side=model.side)
