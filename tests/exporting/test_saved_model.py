"""SavedModels, in processes and runtimes other than the one that made them."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cyclegan_tf.config import Config
from cyclegan_tf.data.pipeline import to_range
from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting import saved_model
from cyclegan_tf.exporting.saved_model import (
    ServingModule,
    decode_checked,
    export_saved_models,
    pad_to_stride,
    save_generator,
)
from cyclegan_tf.exporting.serving_files import check_guides
from cyclegan_tf.exporting.untrusted import refuse_foreign
from cyclegan_tf.models.generator import build_generator
from cyclegan_tf.training.checkpoints import load_generators
from tests.exporting.helpers import distinct_generators, pixels, run_fresh

# Another Python with the other TensorFlow, to check that each reads what the other wrote.
OTHER_PYTHON = os.environ.get("CYCLEGAN_TF_OTHER_PYTHON")

TRANSLATE_ALL = """
import json
import numpy as np
import tensorflow as tf
picture = np.load(sys.argv[1])
outputs = {}
for folder in sys.argv[2:]:
    model = tf.saved_model.load(folder)
    outputs[folder] = model(picture).numpy().tolist()
    images = tf.constant(picture / 127.5 - 1, tf.float32)
    floats = model.signatures["translate_float"](images=images)["images"]
    outputs[folder + "/float"] = floats.numpy().tolist()
print(json.dumps(outputs))
"""

TRANSLATE_IN_OPENVINO = """
import json
import numpy as np
import openvino
images = np.load(sys.argv[1])
outputs = {}
for folder in sys.argv[2:]:
    model = openvino.Core().read_model(folder)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs[folder] = next(iter(compiled([images]).values())).tolist()
print(json.dumps(outputs))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory, run_dir) -> Path:
    """What ``export_saved_models`` writes."""
    output = tmp_path_factory.mktemp("served") / "my faces"
    export_saved_models(run_dir, output)
    return output


@pytest.fixture(scope="module")
def signatures(served):
    """The signatures of A to B."""
    return tf.saved_model.load(str(served / "ab" / "1")).signatures


@pytest.fixture(scope="module")
def generator(run_dir):
    """Keras's generator from A to B."""
    return load_generators(run_dir, Config.load(run_dir)).ab


@pytest.fixture(scope="module")
def every_preset(tmp_path_factory, tiny_config) -> tuple[dict[str, np.ndarray], Path, list[Path]]:
    """Keras's float outputs for one picture by preset's folder, the picture, and the folders."""
    root = tmp_path_factory.mktemp("presets")
    picture = pixels(12, 20)[None]
    np.save(root / "picture.npy", picture)
    expected, folders = {}, []
    for preset, config in distinct_generators(tiny_config).items():
        generator = build_generator(config, seed=3)
        folders.append(root / preset)
        save_generator(generator, folders[-1])
        images = to_range(tf.constant(picture, tf.float32))
        expected[str(folders[-1])] = generator(images, training=False).numpy()
    return expected, root / "picture.npy", folders


def check_every_preset(outputs: dict[str, list], expected: dict[str, np.ndarray]) -> None:
    for folder, floats in expected.items():
        np.testing.assert_allclose(outputs[f"{folder}/float"], floats, atol=1e-4)
        levels = np.array(outputs[folder])
        assert levels.std() > 1  # not a uniform picture, which everything would agree on
        assert np.abs(levels - (floats + 1) * 127.5).max() < 0.55


def test_every_preset_in_a_process_without_this_project(every_preset):
    expected, picture, folders = every_preset
    check_every_preset(run_fresh(TRANSLATE_ALL, picture, *folders), expected)


def test_every_preset_is_taken_for_ours(every_preset):
    for folder in every_preset[2]:
        refuse_foreign(folder)


@pytest.mark.skipif(not OTHER_PYTHON, reason="CYCLEGAN_TF_OTHER_PYTHON is not set")
def test_every_preset_in_the_other_tensorflow(every_preset):
    expected, picture, folders = every_preset
    outputs = run_fresh(TRANSLATE_ALL, picture, *folders, python=OTHER_PYTHON)
    check_every_preset(outputs, expected)


@pytest.mark.skipif(not find_spec("openvino"), reason="openvino is not installed")
def test_every_preset_in_openvino(every_preset, tmp_path):
    expected, picture, folders = every_preset
    images = (np.load(picture) / 127.5 - 1).astype(np.float32)
    outputs = in_openvino("translate_float", images, folders, tmp_path)
    for folder, output in zip(folders, outputs):
        np.testing.assert_allclose(output, expected[str(folder)], atol=1e-3)


@pytest.mark.skipif(not find_spec("openvino"), reason="openvino is not installed")
def test_pixels_of_odd_sides_in_openvino(served, signatures, tmp_path):
    pictures = np.stack([pixels(9, 14, seed) for seed in (0, 1, 2)])
    [output] = in_openvino("translate", pictures, [served / "ab" / "1"], tmp_path)
    ours = signatures["translate"](images=tf.constant(pictures))["images"].numpy()
    assert np.abs(output.astype(int) - ours).max() <= 1


def in_openvino(
    signature: str, images: np.ndarray, folders: list[Path], place: Path
) -> list[np.ndarray]:
    """One signature of each SavedModel run by OpenVINO.

    In a process of its own: OpenVINO leaves a freed stack behind for signal handlers, so that the
    next signal would end the tests with a segmentation fault.
    """
    copies = [place / str(number) for number in range(len(folders))]
    for folder, copy in zip(folders, copies):
        shutil.copytree(folder, copy)
        make_default(copy / "saved_model.pb", signature)
    np.save(place / "images.npy", images)
    outputs = run_fresh(TRANSLATE_IN_OPENVINO, place / "images.npy", *copies)
    return [np.array(outputs[str(copy)]) for copy in copies]


def make_default(path: Path, signature: str) -> None:
    """OpenVINO always takes the default signature, so that is replaced."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    definitions = model.meta_graphs[0].signature_def
    definitions["serving_default"].CopyFrom(definitions[signature])
    path.write_bytes(model.SerializeToString())


# --- Any size ------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(1, 1), (1, 40), (2, 3), (7, 9), (8, 12), (13, 30)])
def test_any_size_is_mirrored_and_cropped_back(generator, height, width):
    images = to_range(tf.constant(pixels(height, width)[None], tf.float32))
    module = ServingModule(generator)
    translated = module.translate_float(images)["images"]
    assert translated.shape == (1, height, width, 3)
    sides = [max(8, -(-side // 4) * 4) for side in (height, width)]
    missing = [(0, 0), *((0, full - side) for full, side in zip(sides, (height, width))), (0, 0)]
    padded = np.pad(images.numpy(), missing, mode="reflect")
    np.testing.assert_array_equal(pad_to_stride(images).numpy(), padded)
    expected = generator(padded, training=False)[:, :height, :width]
    np.testing.assert_allclose(translated, expected, atol=1e-5)


# --- Encoded bytes -------------------------------------------------------------------------------


def encode(picture: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


def serve(signatures, *files: bytes) -> list[np.ndarray]:
    outputs = signatures["serving_default"](image_bytes=tf.constant(files))["image_bytes"].numpy()
    assert all(output.startswith(b"\x89PNG") for output in outputs)
    return [np.asarray(Image.open(io.BytesIO(output))) for output in outputs]


def test_files_of_mixed_kinds_and_sizes_in_one_request(signatures):
    sizes = {"PNG": (16, 16), "BMP": (9, 21), "JPEG": (30, 12), "GIF": (5, 8)}
    files = [encode(pixels(*size, seed), kind) for seed, (kind, size) in enumerate(sizes.items())]
    outputs = serve(signatures, *files)
    for file, size, output in zip(files, sizes.values(), outputs):
        # TensorFlow's and Pillow's JPEG decoders differ by some levels, hence TensorFlow's here.
        decoded = tf.io.decode_image(file, channels=3, expand_animations=False)
        direct = signatures["translate"](images=decoded[None])["images"][0].numpy()
        assert output.shape == (*size, 3)
        np.testing.assert_array_equal(output, direct)


def test_grey_and_transparent_and_upside_down_files(signatures):
    grey = np.asarray(Image.fromarray(pixels(16, 16)).convert("L"))
    transparent = np.dstack([pixels(12, 16), np.full((12, 16), 9, np.uint8)])
    bmp = bytearray(encode(pixels(10, 16), "BMP"))
    bmp[22:26] = struct.pack("<i", -10)  # the rows, which begin at the bottom, from the top
    files = encode(grey, "PNG"), encode(transparent, "PNG"), bytes(bmp)
    seen = [np.dstack([grey] * 3), transparent[..., :3], pixels(10, 16)[::-1]]
    for output, picture in zip(serve(signatures, *files), seen):
        direct = signatures["translate"](images=tf.constant(picture[None]))["images"][0].numpy()
        np.testing.assert_array_equal(output, direct)


PNG = encode(pixels(16, 16), "PNG")
JPEG = encode(pixels(16, 16), "JPEG")
GIF = encode(pixels(16, 16), "GIF")
HUGE = struct.pack(">II", 60_000, 60_000)


def frame_of(gif: bytes) -> int:
    """Where the frame of a GIF by Pillow begins: behind the screen and its colours."""
    place = 13 + 3 * 2 ** (gif[10] % 8 + 1)
    assert gif[place] == ord(",")
    return place


FRAME = frame_of(GIF)
BAD_FILES = {
    "empty": b"",
    "text": b"no picture at all",
    "signature only": PNG[:8],
    "header only": PNG[:33],
    "truncated PNG": PNG[:-60],
    "truncated JPEG": JPEG[: len(JPEG) // 2],
    "JPEG without a frame": JPEG[:20],
    "huge PNG": PNG[:16] + HUGE + PNG[24:],
    "huge GIF": b"GIF89a\xff\xff\xff\xff" + bytes(20),
    "frame larger than its screen": GIF[: FRAME + 5] + 2 * b"\x04\x10" + GIF[FRAME + 9 :],  # 4100
    "GIF without a frame": GIF[:FRAME] + b";",
    "truncated GIF": GIF[:-9],
    "huge BMP": b"BM" + bytes(16) + struct.pack("<ii", 1 << 30, -(1 << 30)) + bytes(28),
    "PNG of no pixels": PNG[:16] + bytes(8) + PNG[24:],
    "WebP": b"RIFF\x24\0\0\0WEBPVP8 " + bytes(30),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_and_the_next_one_served(signatures, name):
    with pytest.raises(tf.errors.InvalidArgumentError):
        serve(signatures, PNG, BAD_FILES[name])
    assert serve(signatures, PNG)[0].shape == (16, 16, 3)


@pytest.mark.parametrize(
    "name", ["text", "huge PNG", "huge GIF", "frame larger than its screen", "huge BMP"]
)
def test_a_refusal_says_what_would_be_right(signatures, name):
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a JPEG, PNG, BMP or GIF file of"):
        serve(signatures, BAD_FILES[name])


def test_a_gif_is_its_first_frame(signatures):
    other = encode(pixels(40, 40, 1), "GIF")
    comment = b"!\xfe" + 2 * (b"\xff" + 255 * b",") + b"\x01,\0"
    files = {
        "on a smaller screen": GIF[:6] + struct.pack("<HH", 2, 2) + GIF[10:],
        "before a larger frame": GIF[:-1] + other[frame_of(other) :],
        "behind a comment": GIF[:FRAME] + comment + GIF[FRAME:],
        "at an offset": GIF[: FRAME + 1] + struct.pack("<HH", 3, 5) + GIF[FRAME + 5 :],
    }
    decoded = tf.io.decode_image(GIF, expand_animations=False)
    direct = signatures["translate"](images=decoded[None])["images"][0].numpy()
    for name, file in files.items():
        np.testing.assert_array_equal(serve(signatures, file)[0], direct, name)


def test_what_is_decoded_larger_than_its_header_says_is_refused(monkeypatch):
    assert decode_checked(tf.constant(PNG)).shape == (16, 16, 3)
    monkeypatch.setattr(saved_model, "MAX_PIXELS", 256)
    monkeypatch.setattr(tf.io, "decode_image", lambda *_, **__: tf.zeros([16, 17, 3], tf.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError, match="of 1 to 256 pixels"):
        decode_checked(tf.constant(PNG))


def test_random_damage_is_refused_or_survived(signatures):
    random = np.random.default_rng(0)
    refused = 0
    for number in range(90):
        file = bytearray((PNG, JPEG, GIF)[number % 3])
        for place in random.integers(0, len(file), 8):
            file[place] = random.integers(256)
        try:
            serve(signatures, bytes(file[: random.integers(1, len(file) + 1)]))
        except tf.errors.InvalidArgumentError:
            refused += 1
    assert refused > 30


# --- What stands next to it ----------------------------------------------------------------------


def test_request_and_answer_of_the_readme(served, signatures):
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    readme = (served / "README.md").read_text(encoding="utf-8")
    request = predict_pb2.PredictRequest()
    lines = re.findall(r"^    (request\.(?:model_spec|inputs).*)$", readme, re.MULTILINE)
    assert len(lines) == 3
    exec("\n".join(lines), {"request": request, "tf": tf, "photo": PNG})
    assert request.model_spec.name == "my_faces_ab"
    answer = answer_like_the_server(signatures, request)
    png = answer.outputs["image_bytes"].string_val[0]
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(png))), serve(signatures, PNG)[0]
    )


def answer_like_the_server(signatures, request):
    """Runs a PredictRequest on the signature that it names, checking names and types as it does."""
    from tensorflow_serving.apis import predict_pb2

    signature = signatures[request.model_spec.signature_name]
    expected = signature.structured_input_signature[1]
    assert set(request.inputs) == set(expected)
    inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
    for name, spec in expected.items():
        assert spec.is_compatible_with(inputs[name])
    answer = predict_pb2.PredictResponse()
    for name, tensor in signature(**inputs).items():
        answer.outputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
    return answer


def test_grpc_lines_of_the_readme(served, tmp_path, monkeypatch):
    """With a server that answers more than clients take unless they are told to."""
    grpc = pytest.importorskip("grpc")
    service = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc")
    from tensorflow_serving.apis import predict_pb2

    class Service(service.PredictionServiceServicer):
        def Predict(self, request, context):
            (photo,) = request.inputs["image_bytes"].string_val
            answer = predict_pb2.PredictResponse()
            answer.outputs["image_bytes"].CopyFrom(tf.make_tensor_proto([photo * 5]))
            return answer

    server = grpc.server(ThreadPoolExecutor(1))
    service.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    photo = bytes(1 << 20)
    (tmp_path / "photo.jpg").write_bytes(photo)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_grpc_proxy", "localhost")
    readme = (served / "README.md").read_text(encoding="utf-8")
    code = re.search(r"^    import grpc\n.*?(?=^\S)", readme, re.MULTILINE | re.DOTALL).group()
    found = {}
    try:
        exec(textwrap.dedent(code).replace("localhost:8500", f"localhost:{port}"), found)
        assert found["png"] == photo * 5
        found["channel"].close()
    finally:
        server.stop(None)


def test_rest_body_of_the_readme(served, signatures):
    readme = (served / "README.md").read_text(encoding="utf-8")
    start, end = re.search(r"printf '(\{.*)'\n.*printf '(.*)'\) \|", readme).groups()
    body = json.loads(start + base64.b64encode(PNG).decode() + end)
    signature = signatures[body["signature_name"]]
    # The server's rules: {"b64": …} is bytes, and so is an output whose name ends in _bytes.
    files = [base64.b64decode(instance["image_bytes"]["b64"]) for instance in body["instances"]]
    assert set(body["instances"][0]) == set(signature.structured_input_signature[1])
    (name,) = signature.structured_outputs
    assert name.endswith("_bytes")
    assert signature.structured_outputs[name].dtype == tf.string
    assert serve(signatures, *files)[0].shape == (16, 16, 3)
    assert '{"predictions": [{"b64": "' in readme
    assert "/v1/models/my_faces_ab:predict" in readme


def test_models_config_lists_both_directions(served):
    config_pb2 = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    from google.protobuf import text_format

    text = (served / "models.config").read_text(encoding="utf-8")
    models = text_format.Parse(text, config_pb2.ModelServerConfig()).model_config_list.config
    assert [model.name for model in models] == ["my_faces_ab", "my_faces_ba"]
    assert {model.model_platform for model in models} == {"tensorflow"}
    for model in models:
        assert model.base_path.startswith("/models/my_faces/")
        assert (served / Path(model.base_path).name / "1" / "saved_model.pb").is_file()


def test_warm_up_requests_run(served, signatures):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = served / "ab" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    requests = [log.predict_log.request for log in logs]
    assert {r.model_spec.signature_name for r in requests} == {"serving_default", "translate"}
    for request in requests:
        assert answer_like_the_server(signatures, request).outputs


def test_saved_model_cli_runs_it(served, tmp_path):
    np.save(tmp_path / "picture.npy", pixels(8, 8)[None])
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run"]
    command += ["--dir", served / "ba" / "1", "--tag_set", "serve", "--signature_def", "translate"]
    command += ["--inputs", f"images={tmp_path / 'picture.npy'}", "--outdir", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert np.load(tmp_path / "images.npy").shape == (1, 8, 8, 3)


def test_the_models_config_of_two_directions_is_known_again(served):
    check_guides(served, "--output")


@pytest.mark.parametrize("name", ["README.md", "models.config"])
def test_a_guide_that_is_not_ours_is_not_replaced(run_dir, tmp_path, name):
    (tmp_path / name).write_text("model_config_list {\n}\n# mine", encoding="utf-8")
    with pytest.raises(UserError, match=rf"--output .*: the {name} there was not written by an"):
        export_saved_models(run_dir, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_guides_are_checked_without_tensorflow(tmp_path):
    code = (
        "import pathlib, sys; sys.modules['tensorflow'] = None\n"
        "from cyclegan_tf.exporting.serving_files import check_guides\n"
        "check_guides(pathlib.Path(sys.argv[1]), '--export-dir')"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "new"], check=True)


# --- Versions ------------------------------------------------------------------------------------


def test_each_direction_has_its_own_network(served):
    picture = tf.constant(pixels(16, 16)[None])
    outputs = [tf.saved_model.load(str(served / name / "1"))(picture) for name in ("ab", "ba")]
    assert np.any(outputs[0].numpy() != outputs[1].numpy())


def test_versions_count_up_and_the_guides_list_what_is_there(run_dir, tmp_path):
    (tmp_path / "ab").mkdir()  # as a failed export leaves it
    assert export_saved_models(run_dir, tmp_path, ["ba"]) == [tmp_path / "ba" / "1"]
    assert "_ab" not in (tmp_path / "models.config").read_text(encoding="utf-8")
    (tmp_path / "ba" / "7").mkdir()
    assert export_saved_models(run_dir, tmp_path, ["ba"]) == [tmp_path / "ba" / "8"]
    assert sorted(path.name for path in (tmp_path / "ba").iterdir()) == ["1", "7", "8"]


def test_a_failed_export_leaves_nothing(run_dir, tmp_path, monkeypatch):
    def save(module, folder, *_):
        Path(folder, "saved_model.pb").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(KeyboardInterrupt):
        export_saved_models(run_dir, tmp_path, ["ab"])
    assert list((tmp_path / "ab").iterdir()) == []


def test_a_killed_export_leaves_no_version(run_dir, tmp_path):
    code = f"""
import os, pathlib, signal
import tensorflow as tf
from cyclegan_tf.exporting.saved_model import export_saved_models
original = tf.saved_model.save
def save(module, folder, *rest):
    original(module, folder, *rest)
    os.kill(os.getpid(), signal.SIGKILL)
tf.saved_model.save = save
export_saved_models(pathlib.Path({str(run_dir)!r}), pathlib.Path({str(tmp_path)!r}), ["ab"])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()[-2000:]
    names = [path.name for path in (tmp_path / "ab").iterdir()]
    assert names  # it had begun
    assert not any(name.isdecimal() for name in names)
    assert export_saved_models(run_dir, tmp_path, ["ab"]) == [tmp_path / "ab" / "1"]
    assert [path.name for path in (tmp_path / "ab").iterdir()] == ["1"]


def test_a_full_disk_is_one_line(run_dir, tmp_path, monkeypatch):
    def save(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "variables; No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(UserError, match=r"--output .*: cannot be written .*No space left"):
        export_saved_models(run_dir, tmp_path, ["ab"])
    assert list((tmp_path / "ab").iterdir()) == []


def test_an_output_that_cannot_be_written(run_dir, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UserError, match=r"--output .*file: cannot be written"):
        export_saved_models(run_dir, tmp_path / "file")
