"""``cyclegan_tf.load(path).translate(images)`` with all three kinds of model."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import cyclegan_tf
from cyclegan_tf import export, import_pytorch
from cyclegan_tf.config import WEIGHTS, Config
from cyclegan_tf.data.pipeline import to_pixels, to_range
from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting import litert
from cyclegan_tf.exporting.pictures import BadFile, read_picture
from cyclegan_tf.exporting.saved_model import save_generator
from cyclegan_tf.exporting.tflite import convert
from cyclegan_tf.exporting.translator import Translator
from cyclegan_tf.training.checkpoints import Checkpoints, load_generators
from cyclegan_tf.training.run_directory import create_run_directory
from cyclegan_tf.training.state import TrainingState
from tests.exporting.helpers import pixels

PICTURE = pixels(16, 16)[None]


@pytest.fixture(scope="module")
def models(run_dir, tmp_path_factory):
    """The same generator, A to B, as a run, as the newest of two SavedModels and as a file."""
    folder = tmp_path_factory.mktemp("models")
    config = Config.load(run_dir)
    generators = load_generators(run_dir, config)
    for version, generator in (("2", generators.ba), ("10", generators.ab)):
        save_generator(generator, folder / "served" / "ab" / version)
    file = folder / "model.tflite"
    file.write_bytes(convert(load_generators(run_dir, config, image_size=16).ab, 16, "none", True))
    return {"run": run_dir, "saved_model": folder / "served", "tflite": file}


@pytest.fixture(scope="module")
def expected(run_dir):
    """A function: what Keras makes of uint8 [batch, height, width, 3]."""
    generator = load_generators(run_dir, Config.load(run_dir)).ab
    return lambda pictures: through(generator, pictures)


def through(generator, pictures):
    """What a generator of Keras makes of uint8 [batch, height, width, 3]."""
    images = to_range(pictures.astype(np.float32))
    return to_pixels(generator(images, training=False)).numpy()


@pytest.mark.parametrize("kind", ["run", "saved_model", "tflite"])
def test_all_kinds_agree_with_keras(models, expected, kind):
    if kind == "tflite":
        pytest.importorskip("ai_edge_litert")
    pictures = np.stack([pixels(16, 16, seed) for seed in range(3)])
    translated = cyclegan_tf.load(models[kind]).translate(pictures)
    assert translated.dtype == np.uint8
    assert np.abs(translated.astype(int) - expected(pictures)).max() <= 1


@pytest.mark.parametrize("kind", ["run", "saved_model", "tflite"])
@pytest.mark.parametrize("height, width", [(5, 9), (16, 16), (50, 37)])
def test_any_size(models, kind, height, width):
    if kind == "tflite":
        pytest.importorskip("ai_edge_litert")
    picture = pixels(height, width)
    assert cyclegan_tf.load(models[kind]).translate(picture).shape == picture.shape


def test_a_folder_of_versions_gives_the_newest(models):
    folder, picture = models["saved_model"] / "ab", pixels(8, 8)
    second, tenth = (cyclegan_tf.load(folder / each).translate(picture) for each in ("2", "10"))
    assert (second != tenth).any()
    np.testing.assert_array_equal(cyclegan_tf.load(folder).translate(picture), tenth)
    (folder / "11").mkdir(exist_ok=True)  # unfinished: no model in it
    np.testing.assert_array_equal(cyclegan_tf.load(folder).translate(picture), tenth)


def test_a_direction_that_a_failed_export_left_empty_is_not_there(models, tmp_path):
    (tmp_path / "ab").mkdir()
    shutil.copytree(models["saved_model"] / "ab" / "2", tmp_path / "ba" / "1")
    assert cyclegan_tf.load(tmp_path).translate(pixels(8, 8)).shape == (8, 8, 3)


def test_directions_differ(run_dir):
    picture = pixels(16, 16)
    outputs = [
        cyclegan_tf.load(run_dir, direction).translate(picture) for direction in ("ab", "ba")
    ]
    assert np.any(outputs[0] != outputs[1])
    np.testing.assert_array_equal(cyclegan_tf.load(run_dir).translate(picture), outputs[0])


@pytest.fixture(scope="module")
def weighed(tmp_path_factory, tiny_config, mirrored, shards):
    """A run, and by weights what A to B makes of ``PICTURE``: the best ones are of its step 1."""
    run_dir, expected = tmp_path_factory.mktemp("weighed"), {}
    config = tiny_config(average=0.9, generator_blocks=6, data=str(shards))
    create_run_directory(run_dir, config)
    state = TrainingState(config, mirrored(), "float32")
    checkpoints = Checkpoints(state, run_dir, keep=1)
    for step, name in ((1, "best"), (2, "average")):
        state.step.assign(step)
        for weight in state.average_variables():
            weight.assign(tf.random.stateless_normal(weight.shape, [step, 0], stddev=0.1))
        expected[name] = through(state.averages.ab, PICTURE)
        checkpoints.save()
        if name == "best":
            checkpoints.mark_best(step)
    return run_dir, {**expected, "last": through(state.generators.ab, PICTURE)}


@pytest.fixture
def opened(weighed, tmp_path, monkeypatch):
    """A function: the run with some weights, itself or as the command has exported it."""
    monkeypatch.setattr(litert, "measure_in_new_process", lambda *_: litert.Speed(1.0, 1.0))

    def open_as(kind, weights):
        if kind == "run":
            return cyclegan_tf.load(weighed[0], weights=weights)
        flags = ["--run-dir", str(weighed[0]), "--output", str(tmp_path), "--direction", "ab"]
        assert export.main([*flags, "--format", kind, "--weights", weights]) == 0
        if kind == "pytorch":  # and back again, to translate with it
            file, path = tmp_path / "latest_net_G_A.pth", tmp_path / "imported"
            assert import_pytorch.main([str(file), "--output", str(path)]) == 0
            return cyclegan_tf.load(path)
        return cyclegan_tf.load(tmp_path / "ab_16_none.tflite" if kind == "tflite" else tmp_path)

    return open_as


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        *[("run", weights) for weights in WEIGHTS],
        # An export that forgot the flag would hold the newest averages.
        *[(kind, w) for kind in ("saved_model", "tflite", "pytorch") for w in ("last", "best")],
    ],
)
def test_the_weights_asked_for_are_those_that_translate(kind, weights, weighed, opened):
    pytest.importorskip({"tflite": "ai_edge_litert", "pytorch": "torch"}.get(kind, "numpy"))
    translated = opened(kind, weights).translate(PICTURE).astype(int)
    same = [name for name, right in weighed[1].items() if np.abs(translated - right).max() <= 1]
    assert same == [weights]


@pytest.fixture
def inverting():
    return Translator(lambda images: 255 - images)


def test_what_goes_in_comes_out(inverting, tmp_path):
    picture = pixels(12, 20)
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    image = Image.fromarray(np.dstack([picture, picture[..., 0]]))
    array, from_path, from_text, with_alpha = inverting.translate([picture, path, str(path), image])
    np.testing.assert_array_equal(array, 255 - picture)
    for result in (from_path, from_text):
        assert result.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(result), 255 - picture)
    np.testing.assert_array_equal(np.asarray(with_alpha)[..., :3], 255 - read_picture(image).pixels)
    np.testing.assert_array_equal(np.asarray(with_alpha)[..., 3], picture[..., 0])
    np.testing.assert_array_equal(inverting.translate(picture[None]), 255 - picture[None])


def test_size(inverting):
    assert inverting.translate(pixels(40, 60), size=20).shape == (20, 30, 3)
    assert inverting.translate(np.stack([pixels(40, 60)] * 2), size=20).shape == (2, 20, 30, 3)


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)]
)
def test_arrays_of_another_kind_are_refused(inverting, wrong):
    with pytest.raises(ValueError, match="images: must be uint8"):
        inverting.translate(wrong)


def test_a_missing_picture(inverting):
    with pytest.raises(BadFile, match=r"nowhere\.png: no such file"):
        inverting.translate([pixels(8, 8), "nowhere.png"])


def test_large_pictures_never_reach_the_network_whole():
    sizes = []

    def network(images):
        sizes.append(images.shape)
        return images

    picture = pixels(300, 500)
    translated = Translator(network, tile=128).translate(picture)
    np.testing.assert_array_equal(translated, picture)
    assert max(height * width for _, height, width, _ in sizes) <= 128**2
    assert {shape[0] for shape in sizes} == {1}


def test_a_picture_of_one_tile_is_not_cut():
    sizes = []
    network = lambda images: sizes.append(images.shape) or images  # noqa: E731
    Translator(network, tile=128).translate(pixels(64, 256))
    assert sizes == [(1, 64, 256, 3)]


def test_what_is_no_model(tmp_path, run_dir, models):
    cases = {
        ("nowhere", None): "nowhere: not found",
        (tmp_path, None): "holds no run",
        (run_dir, "up"): "--direction up: must be ab or ba",
        (models["tflite"], "ba"): "holds one direction only",
        (models["saved_model"], "ba"): "--direction ba: .*served holds only ab",
        (tmp_path, "ab"): "holds no run",
        (models["saved_model"], None, "last"): "--weights last: .*served is no run; leave it out",
        (run_dir, None, "mean"): "--weights mean: must be one of last, best, average",
    }
    for arguments, message in cases.items():
        with pytest.raises(UserError, match=message):
            cyclegan_tf.load(*arguments)


def test_importing_needs_no_tensorflow_and_a_tflite_file_neither(models):
    pytest.importorskip("ai_edge_litert")
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import cyclegan_tf, numpy\n"
        "picture = numpy.zeros((20, 20, 3), numpy.uint8)\n"
        "print(cyclegan_tf.load(sys.argv[1]).translate(picture).shape)"
    )
    command = [sys.executable, "-c", code, models["tflite"]]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "(20, 20, 3)", result.stderr
