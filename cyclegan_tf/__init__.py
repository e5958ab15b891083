"""CycleGAN on TensorFlow: from two folders of pictures to a model that runs where people are.

>>> translator = cyclegan_tf.load("runs/my_run")  # doctest: +SKIP
>>> translator.translate("photo.jpg").save("translated.png")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cyclegan_tf.exporting.translator import Translator


def load(path: Path | str, direction: str | None = None, weights: str | None = None) -> Translator:
    """Opens a run directory, a SavedModel or a .tflite file, for ``translate(images)``.

    Args:
        path: what ``cyclegan_tf.train`` or ``cyclegan_tf.export`` has written.
        direction: "ab" or "ba" where ``path`` holds both; None means "ab", or "ba" where that is
            all there is.
        weights: of a run: "last", "best" (of the checkpoint that scored best) or "average"; None
            for the averages where it keeps them.

    Raises:
        cyclegan_tf.errors.UserError: if there is no usable model.
    """
    from cyclegan_tf.exporting import translator  # here, so that the import needs no TensorFlow

    return translator.load(path, direction, weights)
