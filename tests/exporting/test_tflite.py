"""Files for phones, in the LiteRT runtime."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from flatbuffers import number_types
from flatbuffers.table import Table

import cyclegan_tf
from cyclegan_tf import export
from cyclegan_tf.config import Config, DataConfig
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting import litert, tflite
from cyclegan_tf.exporting.quiet import quiet_stderr
from cyclegan_tf.exporting.tflite import (
    Parity,
    TfliteOptions,
    compare,
    convert,
    export_tflite,
    sample_pictures,
)
from cyclegan_tf.exporting.tflite_metadata import Description, add_metadata, metadata_bytes
from cyclegan_tf.models.generator import build_generator
from cyclegan_tf.presets import make_config
from cyclegan_tf.training.checkpoints import load_generators
from tests.exporting.helpers import distinct_generators, pixels

pytest.importorskip("ai_edge_litert")

from cyclegan_tf.exporting.litert import LiteRtModel, measure_in_new_process

SIDE = 16


@pytest.fixture(scope="module")
def generators(tiny_config):
    """Keras's generators by preset, one for every kind."""
    return {
        preset: build_generator(config, image_size=SIDE, seed=3)
        for preset, config in distinct_generators(tiny_config).items()
    }


@pytest.fixture(scope="module")
def wider(tiny_config):
    """The same with 8 channels: TFLite leaves weights of fewer than 1,024 numbers in float32."""
    return {
        preset: build_generator(config, image_size=SIDE, seed=3)
        for preset, config in distinct_generators(tiny_config, generator_filters=8).items()
    }


@pytest.fixture(scope="module")
def pictures():
    return np.stack([pixels(SIDE, SIDE, seed) for seed in range(8)])


def test_every_preset_within_one_level(generators, pictures):
    for preset, generator in generators.items():
        parity = compare(LiteRtModel(convert(generator, SIDE, "none", True)), generator, pictures)
        assert parity.largest <= 1, preset
        assert parity.ssim > 0.999, preset


@pytest.mark.parametrize(
    ("quantize", "kind"), [("float16", np.float16), ("dynamic", np.int8), ("int8", np.int8)]
)
def test_every_preset_quantized(wider, pictures, quantize, kind):
    for preset, generator in wider.items():
        model = convert(generator, SIDE, quantize, True, pictures)
        assert kind in kinds_of_large_tensors(model), preset
        parity = compare(LiteRtModel(model), generator, pictures)
        assert parity.shortfall(quantize) is None, (preset, parity)


def kinds_of_large_tensors(model: bytes) -> set[type]:
    from ai_edge_litert.interpreter import Interpreter

    tensors = Interpreter(model_content=model).get_tensor_details()
    return {tensor["dtype"] for tensor in tensors if np.prod(tensor["shape"]) >= 1024}


def test_quantizing_makes_it_smaller(tiny_config, pictures):
    config = tiny_config(generator_filters=16, generator_blocks=1)
    generator = build_generator(config, image_size=SIDE)
    full, half, dynamic, int8 = (
        len(convert(generator, SIDE, quantize, True, pictures))
        for quantize in ("none", "float16", "dynamic", "int8")
    )
    assert half < 0.6 * full
    assert max(dynamic, int8) < 0.4 * full


def test_mobile_is_as_small_as_promised(pictures):
    generator = build_generator(make_config("mobile"), image_size=SIDE)
    full, dynamic, int8 = (
        len(convert(generator, SIDE, quantize, True, pictures))
        for quantize in ("none", "dynamic", "int8")
    )
    assert full <= 500_000
    assert max(dynamic, int8) <= 200_000


@pytest.fixture(scope="module")
def paper(generators):
    return generators["paper"], convert(generators["paper"], SIDE, "none", True)


def test_built_in_operations_and_a_static_shape(paper):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=paper[1])
    interpreter.allocate_tensors()
    names = {operation["op_name"] for operation in interpreter._get_ops_details()}
    assert "CONV_2D" in names
    assert not any("Flex" in name or "CUSTOM" in name.upper() for name in names)
    for (tensor,) in (interpreter.get_input_details(), interpreter.get_output_details()):
        assert tensor["shape_signature"].tolist() == [1, SIDE, SIDE, 3]
        assert tensor["dtype"] == np.uint8


def test_the_converter_is_not_heard(generators, capfd):
    convert(generators["paper"], SIDE, "float16", True)
    assert capfd.readouterr() == ("", "")


def test_what_is_kept_back_is_shown_with_an_error(capfd):
    with quiet_stderr():
        os.write(2, b"unheard")
    with pytest.raises(ValueError), quiet_stderr():
        os.write(2, b"the reason")
        raise ValueError
    os.write(2, b", and all is as before")
    assert capfd.readouterr().err == "the reason, and all is as before"


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_float_pictures_at_both_ends(generators, pictures, quantize):
    model = convert(generators["paper"], SIDE, quantize, False, pictures)
    images = (pictures[:1] / 127.5 - 1).astype(np.float32)
    outputs = LiteRtModel(model).run(images)
    assert outputs.dtype == np.float32
    expected = generators["paper"](images, training=False).numpy()
    np.testing.assert_allclose(outputs, expected, atol=1e-4 if quantize == "none" else 0.15)


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quantize, parity, why",
    [
        ("none", Parity(1, 0.5, 1.0), None),
        ("none", Parity(2, 0.1, 1.0), "by up to 2 levels"),
        ("float16", Parity(9, 1.0, 0.99), None),
        ("float16", Parity(9, 1.1, 0.99), r"by 1.10 levels on average"),
        ("dynamic", Parity(90, 9.0, 0.90), None),
        ("int8", Parity(90, 9.0, 0.89), "SSIM with Keras is 0.890, under 0.90"),
    ],
)
def test_parity_floors(quantize, parity, why):
    shortfall = parity.shortfall(quantize)
    assert shortfall is None if why is None else why in shortfall


def test_a_file_far_from_keras_is_not_written(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, "compare", lambda *_: Parity(200, 50.0, 0.2))
    (export,) = export_tflite(run_dir, tmp_path, ["ab"], TfliteOptions())
    assert "200 levels" in export.refused
    assert list(tmp_path.iterdir()) == []


def test_compare_notices_another_network(tiny_config, paper, pictures):
    other = build_generator(tiny_config(), image_size=SIDE, seed=99)
    assert compare(LiteRtModel(paper[1]), other, pictures).largest > 5


def test_runs_of_wrong_size_or_kind(run_dir, tmp_path):
    for size in (18, 8, 4096):
        with pytest.raises(UserError, match=f"--image-size {size}: must be from 16 to 2048"):
            export_tflite(run_dir, tmp_path, ["ab"], TfliteOptions(image_size=size))
    (tmp_path / "a.tflite").write_bytes(b"no such file")
    with pytest.raises(UserError, match=r"a\.tflite: no \.tflite file that can be used"):
        LiteRtModel.open(tmp_path / "a.tflite")
    with pytest.raises(UserError, match="--seed -1: must be at least 0"):
        export_tflite(run_dir, tmp_path, ["ab"], TfliteOptions(seed=-1))


@pytest.mark.parametrize(
    "shape, dtype",
    [([], tf.float32), ([8], tf.uint8), ([1, 8, 12, 3], tf.uint8), ([1, 8, 8, 3], tf.int32)],
)
def test_a_model_of_other_shape_or_type_is_refused(shape, dtype, tmp_path):
    """As any .tflite file from elsewhere could be."""
    module = tf.Module()
    module.same = tf.function(lambda x: tf.identity(x), [tf.TensorSpec(shape, dtype)])
    function = module.same.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    (tmp_path / "a.tflite").write_bytes(converter.convert())
    with pytest.raises(UserError, match=r"a\.tflite: .*not one square picture in and one out"):
        LiteRtModel.open(tmp_path / "a.tflite")


# --- A run's file --------------------------------------------------------------------------------


def test_a_float_file_of_the_command_translates_as_keras_and_has_a_speed(
    run_dir, shards, tmp_path, monkeypatch, capsys
):
    speeds = []
    monkeypatch.setattr(
        litert,
        "measure_in_new_process",
        lambda *file: speeds.append(measure_in_new_process(*file)) or speeds[-1],
    )
    flags = ["--format", "tflite", "--io", "float32", "--direction", "ba", "--image-size", "32"]
    flags += ["--run-dir", str(run_dir), "--data", str(shards), "--output", str(tmp_path)]
    assert export.main(flags) == 0
    path = tmp_path / "ba_32_none_float_io.tflite"
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[:2] == [str(path), f"{path.stat().st_size / 1e6:.2f}"]
    generator = load_generators(run_dir, Config.load(run_dir), image_size=32).ba
    model, picture = cyclegan_tf.load(path), pixels(32, 32)[None]
    assert model.translate(picture).std() > 1  # with something to compare
    parity = compare(model, generator, picture)
    assert max(parity.largest, int(row[2])) <= 1
    assert len(speeds) == 2
    for speed in speeds:
        assert 0 < speed.seconds < 10
        # A process that had loaded TensorFlow would hold hundreds of megabytes.
        assert speed.peak_megabytes is None or 0 < speed.peak_megabytes < 60


def test_damaged_shards_are_read_as_the_run_has_mended_them(run_dir, shards, tmp_path):
    own, data = tmp_path / "run", tmp_path / "shards"
    shutil.copytree(run_dir, own)
    shutil.copytree(shards, data)
    config = Config.load(own).replace(data=str(data))
    (own / "config.json").write_text(config.to_json(), encoding="utf-8")
    path = Shards.open(data).paths("testB")[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"shards: a record cannot be read .*_tools\.verify"):
        export_tflite(own, tmp_path / "out", ["ba"], TfliteOptions())
    (own / "mended_shards").mkdir()
    shutil.copy(shards / path.name, own / "mended_shards")
    (export,) = export_tflite(own, tmp_path / "out", ["ba"], TfliteOptions())
    assert export.path.exists()


@pytest.mark.parametrize(
    ("status", "megabytes"), [("VmSize: 9 kB\n", None), ("VmHWM:\t 2048 kB\nVmRSS: 1 kB\n", 2.0)]
)
def test_peak_memory_where_the_system_tells_it(status, megabytes, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: status)
    assert litert._peak_megabytes() == megabytes


def test_pictures_are_chosen_by_seed(shards):
    opened = Shards.open(shards)
    first, again = (
        sample_pictures(opened, "trainA", DataConfig(image_size=16), 5, seed=1) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == (5, 16, 16, 3)
    assert first.dtype == np.uint8
    assert len(np.unique(first.reshape(5, -1), axis=0)) == 5
    assert np.any(sample_pictures(opened, "trainA", DataConfig(image_size=16), 5, seed=2) != first)
    assert len(sample_pictures(opened, "testA", DataConfig(image_size=16), 100, seed=0)) == 3


def test_int8_is_calibrated_with_pictures_of_its_own_domain(run_dir, tmp_path, monkeypatch):
    asked = []

    def sample(shards, split, data, count, seed):
        asked.append((split, count, seed))
        return sample_pictures(shards, split, data, count, seed)

    monkeypatch.setattr(tflite, "sample_pictures", sample)
    export_tflite(run_dir, tmp_path, ["ba"], TfliteOptions(quantizations=["int8"], seed=7))
    assert asked == [("trainB", 100, 7), ("testB", 8, 7)]


# --- Metadata ------------------------------------------------------------------------------------

DESCRIPTION = Description(
    "CycleGAN A to B", "Translates.", "7", "CC0", "a face", "a drawing", SIDE, is_uint8=True
)


def field(table: Table, place: int) -> int | None:
    """Where a field of a flatbuffer's table lies."""
    offset = table.Offset(4 + 2 * place)
    return offset + table.Pos if offset else None


def text(table: Table, place: int) -> str:
    return table.String(field(table, place)).decode()


def child(table: Table, place: int) -> Table:
    return Table(table.Bytes, table.Indirect(field(table, place)))


def element(table: Table, place: int) -> Table:
    """The only element of a vector of tables."""
    offset = table.Offset(4 + 2 * place)
    assert table.VectorLen(offset) == 1
    return Table(table.Bytes, table.Indirect(table.Vector(offset)))


def number(table: Table, place: int, kind) -> int:
    return table.Get(kind, field(table, place))


def floats(table: Table, place: int) -> list[float]:
    offset = table.Offset(4 + 2 * place)
    start = table.Vector(offset)
    return [
        table.Get(number_types.Float32Flags, start + 4 * i) for i in range(table.VectorLen(offset))
    ]


@pytest.mark.parametrize(
    ("is_uint8", "most", "least", "mean", "deviation"),
    [(True, 255.0, 0.0, 0.0, 1.0), (False, 1.0, -1.0, 127.5, 127.5)],
)
def test_metadata_field_by_field(is_uint8, most, least, mean, deviation):
    """By the numbers of the fields in the schema; MediaPipe 0.10.21's own reader finds the same."""
    data = metadata_bytes(dataclasses.replace(DESCRIPTION, is_uint8=is_uint8))
    assert flatbuffers.util.BufferHasIdentifier(data, 0, b"M001")
    model = Table(bytearray(data), int.from_bytes(data[:4], "little"))
    texts = [text(model, place) for place in (0, 1, 2, 5, 7)]
    assert texts == ["CycleGAN A to B", "Translates.", "7", "CC0", "1.0.0"]
    subgraph = element(model, 3)
    for place, name, content in ((2, "image", "a face"), (3, "translated", "a drawing")):
        tensor = element(subgraph, place)
        assert [text(tensor, 0), text(tensor, 1)] == [name, content]
        assert number(child(tensor, 3), 0, number_types.Uint8Flags) == 2  # an image
        image = child(child(tensor, 3), 1)
        assert number(image, 0, number_types.Uint8Flags) == 1  # RGB
        for side in (0, 1):
            assert number(child(image, 1), side, number_types.Uint32Flags) == SIDE
        assert [floats(child(tensor, 5), side) for side in (0, 1)] == [[most], [least]]
        normalization = child(element(tensor, 4), 1)
        found = [floats(normalization, which) for which in (0, 1)]
        assert found == [[mean], [deviation]]


def test_a_file_with_metadata_translates_as_before(paper, pictures):
    from tensorflow.lite.python import schema_py_generated as schema

    model = add_metadata(paper[1], DESCRIPTION)
    before, after = (LiteRtModel(data).translate(pictures) for data in (paper[1], model))
    np.testing.assert_array_equal(after, before)
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    (entry,) = (entry for entry in tree.metadata if entry.name == b"TFLITE_METADATA")
    assert bytes(tree.buffers[entry.buffer].data) == metadata_bytes(DESCRIPTION)


def test_without_the_runtime_nothing_is_converted(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match="needs its runtime: pip install ai-edge-litert"):
        export_tflite(tmp_path / "not looked at", tmp_path, None, TfliteOptions())


def test_a_runs_metadata_name_direction_and_license(run_dir, tmp_path):
    options = TfliteOptions(version="2.5", license="CC BY 4.0")
    (export,) = export_tflite(run_dir, tmp_path, ["ba"], options)
    data = export.path.read_bytes()
    for expected in ("CycleGAN B to A", "domain A", "2.5", "CC BY 4.0"):
        assert expected.encode() in data
    assert Config.load(run_dir).preset.encode() in data
