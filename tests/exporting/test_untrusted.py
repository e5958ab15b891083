"""SavedModels that could do more than ours are refused before they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting.translator import load
from cyclegan_tf.exporting.untrusted import refuse_foreign


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
    with pytest.raises(UserError, match="may reach beyond the model"):
        load(save(function, tmp_path / "model"))
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def rewritten(folder: Path, change) -> Path:
    """The same SavedModel with something in its file changed."""
    file = folder / "saved_model.pb"
    model = SavedModel.FromString(file.read_bytes())
    change(model)
    file.write_bytes(model.SerializeToString())
    return folder


def renamed(folder: Path, old: str, new: str) -> Path:
    """The same with a function of another name, wherever it is named."""
    file = folder / "saved_model.pb"
    text = text_format.MessageToString(SavedModel.FromString(file.read_bytes()))
    assert old in text
    file.write_bytes(text_format.Parse(text.replace(old, new), SavedModel()).SerializeToString())
    return folder


def functions(folder: Path) -> list[str]:
    model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return [one.signature.name for one in model.meta_graphs[0].graph_def.library.function]


def test_a_method_with_the_name_of_what_saves_variables_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = save(write, tmp_path / "model")
    (method,) = (name for name in functions(folder) if "__call__" in name)
    renamed(folder, method, "__inference__traced_save_7")
    with pytest.raises(UserError, match="holds the operation WriteFile"):
        load(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_function_called_by_its_name_as_an_operation_is_refused(tmp_path):
    folder = save(lambda images: 255 - images, tmp_path / "model")
    (saver,) = (name for name in functions(folder) if "traced_save" in name)

    def call_the_saver(model):
        for function in model.meta_graphs[0].graph_def.library.function:
            if "__call__" in function.signature.name:
                function.node_def.add(name="disguised", op=saver)

    with pytest.raises(UserError, match="may reach beyond the model"):
        load(rewritten(folder, call_the_saver))


def test_a_row_of_disguised_functions_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inner = tf.function(write, [tf.TensorSpec([None, None, None, 3], tf.uint8)])
    outer = tf.function(lambda images: inner(images), inner.input_signature)
    folder = save(lambda images: outer(images), tmp_path / "model")
    plain = (name for name in functions(folder) if "traced" not in name and "call" not in name)
    for number, name in enumerate(sorted(plain)):
        renamed(folder, f'"{name}"', f'"__inference__traced_save_77{number}"')
    assert sum("traced_save_77" in name for name in functions(folder)) >= 2
    with pytest.raises(UserError, match="holds the operation"):
        load(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_function_that_nobody_calls_is_refused(tmp_path):
    """TensorFlow would work out what is constant in it while it loads the model."""
    folder = save(lambda images: 255 - images, tmp_path / "model")

    def add_reader(model):
        library = model.meta_graphs[0].graph_def.library
        function = library.function.add()
        function.signature.name = "__inference__traced_save_999"
        function.node_def.add(name="file", op="ReadFile")

    with pytest.raises(UserError, match="holds the operation ReadFile"):
        load(rewritten(folder, add_reader))


@pytest.mark.parametrize(
    "function",
    [
        lambda images: {"images": images},
        lambda images: tf.cast(images, tf.float32),
        lambda images: images[:, ::2],
    ],
    ids=["dictionary", "float32", "smaller"],
)
def test_a_harmless_model_that_does_something_else_is_one_line(function, tmp_path):
    with pytest.raises(UserError, match=r"was not written by cyclegan_tf\.export"):
        load(save(function, tmp_path / "model"))


def test_the_format_of_tensorflow_1_is_refused(tmp_path):
    folder = save(lambda images: 255 - images, tmp_path / "model")
    rewritten(folder, lambda model: model.meta_graphs[0].ClearField("object_graph_def"))
    with pytest.raises(UserError, match=r"saved_model\.pb: must be one graph in TensorFlow 2's"):
        load(folder)


def test_what_only_counts_is_taken(tmp_path):
    folder = save(lambda images: 255 - images, tmp_path / "model")
    refuse_foreign(folder)
    assert load(folder).translate_batch(tf.zeros([1, 9, 9, 3], tf.uint8).numpy()).min() == 255


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "must be one graph in TensorFlow 2's"), (b"\xff" * 100, "cannot be read")],
    ids=["empty", "noise"],
)
def test_a_damaged_model_is_one_line(content, message, tmp_path):
    folder = save(lambda images: images, tmp_path / "model")
    (folder / "saved_model.pb").write_bytes(content)
    with pytest.raises(UserError, match=rf"saved_model\.pb: {message}"):
        load(folder)


def test_a_model_without_its_weights_cannot_be_loaded(tmp_path):
    folder = save(lambda images: images, tmp_path / "model")
    (folder / "variables" / "variables.index").unlink()
    with pytest.raises(UserError, match=r"model: cannot be loaded \("):
        load(folder)
