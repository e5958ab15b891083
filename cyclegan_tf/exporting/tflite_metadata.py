"""The metadata that Android apps and model viewers read from a .tflite file.

It is written with the ``flatbuffers`` library, which TensorFlow brings along, after the public
schema (tensorflow/tflite-support, metadata_schema.fbs). The packages with a ready-made writer do
not fit: tflite-support ends at Python 3.11 and a protobuf older than TensorFlow's; mediapipe 1.2.2
has lost a part that its writer imports, and its OpenCV replaces the NumPy that TensorFlow 2.15
needs. A test expects each field at its number in the schema, where mediapipe 0.10.21 reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np

_NAME = b"TFLITE_METADATA"
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # Every field below is in the schema's first version.
_RGB = np.uint8(1)
_IMAGE_PROPERTIES = np.uint8(2)  # among the union of content properties
_NORMALIZATION = np.uint8(1)  # among the union of process units


@dataclass(frozen=True)
class Description:
    """What the metadata say.

    Attributes:
        name: of the model.
        text: one sentence on it.
        version: of the model.
        license: of the model.
        source: what the input shows, e.g. "a picture of domain A".
        result: what the output shows.
        image_size: side of both pictures.
        is_uint8: whether pictures are uint8; else they are float32 in [-1, 1].
    """

    name: str
    text: str
    version: str
    license: str
    source: str
    result: str
    image_size: int
    is_uint8: bool


def add_metadata(model: bytes, description: Description) -> bytes:
    """A .tflite file's bytes with metadata added."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    tree = flatbuffer_utils.convert_bytearray_to_object(model)
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = _NAME, len(tree.buffers)
    buffer.data = np.frombuffer(metadata_bytes(description), np.uint8)
    tree.buffers.append(buffer)
    tree.metadata = [*(tree.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(tree))


def metadata_bytes(description: Description) -> bytes:
    """The metadata alone: a flatbuffer of the schema's ModelMetadata."""
    # Keys are the places of the fields in the schema's tables.
    subgraph = {
        0: description.name,
        2: [_picture("image", description.source, description)],
        3: [_picture("translated", description.result, description)],
    }
    model = {
        0: description.name,
        1: description.text,
        2: description.version,
        3: [subgraph],
        5: description.license,
        7: _PARSER_VERSION,
    }
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, model), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _picture(name: str, text: str, description: Description) -> dict[int, Any]:
    """TensorMetadata of an RGB picture."""
    side = np.uint32(description.image_size)
    low, high = (0.0, 255.0) if description.is_uint8 else (-1.0, 1.0)
    mean, deviation = (0.0, 1.0) if description.is_uint8 else (127.5, 127.5)
    return {
        0: name,
        1: text,
        3: {0: _IMAGE_PROPERTIES, 1: {0: _RGB, 1: {0: side, 1: side}}},
        4: [{0: _NORMALIZATION, 1: {0: [mean], 1: [deviation]}}],
        5: {0: [high], 1: [low]},
    }


def _write(builder: flatbuffers.Builder, value: Any) -> int:
    """Writes a text, a list of floats or of tables, or a table; returns its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, dict):
        return _write_table(builder, value)
    if isinstance(value[0], float):
        return builder.CreateNumpyVector(np.array(value, np.float32))
    offsets = [_write(builder, item) for item in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _write_table(builder: flatbuffers.Builder, table: dict[int, Any]) -> int:
    numbers = {place: value for place, value in table.items() if isinstance(value, np.generic)}
    offsets = {
        place: _write(builder, value) for place, value in table.items() if place not in numbers
    }
    builder.StartObject(max(table) + 1)
    for place, number in numbers.items():
        prepend = builder.PrependUint8Slot if number.nbytes == 1 else builder.PrependUint32Slot
        prepend(place, int(number), 0)
    for place, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(place, offset, 0)
    return builder.EndObject()
