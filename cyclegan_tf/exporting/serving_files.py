"""What goes with a SavedModel for TensorFlow Serving: configuration, README, warm-up requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting.pictures import unfinished_file

_WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
_MODEL = """\
  config {{
    name: "{model}"
    base_path: "/models/{name}/{direction}"
    model_platform: "tensorflow"
  }}
"""
_README = """\
# {name}: a CycleGAN for TensorFlow Serving

{directions}Each holds numbered versions; the server serves the newest.

Start the server, in this folder:

    docker run --rm -p 8500:8500 -p 8501:8501 -v "$PWD:/models/{name}:ro" \\
      tensorflow/serving --model_config_file=/models/{name}/models.config \\
      --rest_api_timeout_in_ms=3600000

Translate a picture (JPEG, PNG, BMP or GIF, of any size up to 4096 × 4096 pixels; a generator of 64
channels needs about 1 GB of memory for 1024 × 1024 pixels, and 16 GB for 4096 × 4096):

    (printf '{{"signature_name": "serving_default", "instances": [{{"image_bytes": {{"b64": "'
     base64 < photo.jpg | tr -d '\\n'; printf '"}}}}]}}') |
      curl -s -d @- http://localhost:8501/v1/models/{model}:predict > answer.json

What comes back is a PNG of the same size, in base64:

    {{"predictions": [{{"b64": "iVBORw0KGgo…"}}]}}

    python3 -c "import base64, json; open('translated.png', 'wb').write(
      base64.b64decode(json.load(open('answer.json'))['predictions'][0]['b64']))"

A damaged picture is answered with status 400 and {{"error": "…"}}. Orientation in EXIF data and
transparency are not looked at: send pictures upright.

| signature | in | out |
|---|---|---|
| `serving_default` | `image_bytes`: string [batch], files | `image_bytes`: string [batch], PNG |
| `translate` | `images`: uint8 [batch, height, width, 3] | `images`: the same |
| `translate_float` | `images`: float32 [batch, height, width, 3] in [-1, 1] | `images`: the same |

gRPC (port 8500), with `pip install tensorflow tensorflow-serving-api`:

    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "{model}"
    request.model_spec.signature_name = "serving_default"
    photo = open("photo.jpg", "rb").read()
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([photo]))
    options = [("grpc.max_receive_message_length", -1)]  # A PNG can exceed the usual 4 MiB.
    channel = grpc.insecure_channel("localhost:8500", options)
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    png = service.Predict(request).outputs["image_bytes"].string_val[0]

Without a server, in Python:

    import tensorflow as tf

    translate = tf.saved_model.load("{direction}/{version}")
    images = translate(photos)  # uint8 [batch, height, width, 3]
"""
# What the guides of any export of ours look like.
_GUIDES = {
    "README.md": re.compile(r"# \S+: a CycleGAN for TensorFlow Serving\n"),
    "models.config": re.compile(
        r'model_config_list \{\n(  config \{\n    name: "\S+_(ab|ba)"\n'
        r'    base_path: "/models/\S+/\2"\n    model_platform: "tensorflow"\n  \}\n)+\}\n\Z'
    ),
}


def check_guides(output: Path, flag: str) -> None:
    """Changes nothing; the name of the flag is for the message.

    Raises:
        UserError: if ``write_guides`` would replace a file in ``output`` that it has not written.
    """
    for name, form in _GUIDES.items():
        try:
            is_ours = form.match((output / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):
            is_ours = False
        if not is_ours:
            raise UserError(
                f"{flag} {output}: the {name} there was not written by an export, which would "
                "replace it; name another folder"
            )


def write_guides(output: Path, directions: Sequence[str]) -> None:
    """Writes ``models.config`` and README.md for the models in ``output``.

    Args:
        output: the folder that is served; its name becomes part of the models' names.
        directions: which of "ab" and "ba" are there, with a version or more.
    """
    name = model_name(output)
    blocks = [
        _MODEL.format(model=f"{name}_{direction}", name=name, direction=direction)
        for direction in directions
    ]
    config = "model_config_list {\n" + "".join(blocks) + "}\n"
    lines = [
        f"- `{direction}/` translates {direction[0].upper()} to {direction[1].upper()}; the server"
        f" calls it `{name}_{direction}`.\n"
        for direction in directions
    ]
    readme = _README.format(
        name=name,
        model=f"{name}_{directions[0]}",
        direction=directions[0],
        version=versions(output / directions[0])[-1].name,
        directions="".join(lines) + "\n",
    )
    for file, text in (("models.config", config), ("README.md", readme)):
        with unfinished_file(output / file) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def versions(folder: Path) -> list[Path]:
    """The numbered SavedModels in a folder, the newest last; none if there is no such folder."""
    found = (file.parent for file in folder.glob("*/saved_model.pb"))
    return sorted(
        (path for path in found if path.name.isdecimal()), key=lambda path: int(path.name)
    )


def model_name(output: Path) -> str:
    """The folder's name in letters that need no quoting in a URL or on a command line."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(output).resolve().name) or "cyclegan"


def has_warmup(version: Path) -> bool:
    """Whether a SavedModel carries requests to warm up with."""
    return (version / _WARMUP).is_file()


def write_warmup(version: Path, image_size: int) -> None:
    """Adds requests that the server runs before it reports a new version as ready.

    Nothing is added if tensorflow-serving-api, which defines the requests, is not installed.

    Args:
        version: a SavedModel's folder.
        image_size: side of the pictures in the requests.
    """
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        return
    import tensorflow as tf

    picture = tf.fill([image_size, image_size, 3], tf.constant(128, tf.uint8))
    inputs = {
        "serving_default": {"image_bytes": tf.io.encode_png(picture)[tf.newaxis]},
        "translate": {"images": picture[tf.newaxis]},
    }
    (version / _WARMUP).parent.mkdir()
    with tf.io.TFRecordWriter(str(version / _WARMUP)) as writer:
        for signature, tensors in inputs.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            for key, tensor in tensors.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
            writer.write(log.SerializeToString())
