"""SavedModels that reach outside are refused before they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting.translator import load
from cyclegan_tf.exporting.untrusted import refuse_outside


def write(images):
    tf.io.write_file("owned", "by a model")
    return images


def read(images):
    return images + tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.uint8)


def python(images):
    return tf.numpy_function(lambda x: x, [images], tf.uint8)


def inside(images):
    """In a branch of a branch."""
    some = tf.size(images) > 0
    return tf.cond(
        some, lambda: tf.cond(some, lambda: write(images), lambda: images), lambda: images
    )


def save(function, folder: Path) -> Path:
    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
        def __call__(self, images):
            return function(images)

    model = Model()
    model.weight = tf.Variable(1.0)
    tf.saved_model.save(model, str(folder))
    return folder


@pytest.mark.parametrize("function", [write, read, python, inside])
def test_what_reaches_outside_is_refused(function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="reaches beyond the model"):
        load(save(function, tmp_path / "model"))
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_what_only_counts_is_taken(tmp_path):
    folder = save(lambda images: 255 - images, tmp_path / "model")
    refuse_outside(folder)
    assert load(folder).translate_batch(tf.zeros([1, 9, 9, 3], tf.uint8).numpy()).min() == 255


@pytest.mark.parametrize("content", [b"", b"\xff" * 100])
def test_a_damaged_model_is_one_line(content, tmp_path):
    folder = save(lambda images: images, tmp_path / "model")
    (folder / "saved_model.pb").write_bytes(content)
    with pytest.raises(UserError, match=r"saved_model\.pb|cannot be loaded"):
        load(folder)
