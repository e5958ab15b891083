"""Tensors out of a PyTorch file, without PyTorch and without running what is pickled in it.

A pickle names functions that loading it calls. Here only those names are known that a dictionary of
tensors needs, and none of them does anything but note down a tensor's place; any other is refused.
Both kinds of file are read: the zip archives that torch.save has written since version 1.6, and the
rows of pickles from before, in which the published CycleGAN models are.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cyclegan_tf.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C  # the first number of a file from before version 1.6
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
# What damaged or hostile bytes make the unpickler, the archive or our own checks raise. zipfile has
# RuntimeError for an encrypted member and for a kind of compression that it does not know.
_UNREADABLE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, TypeError, LookupError),
    *(AttributeError, OverflowError, MemoryError, RuntimeError),
)


class _Storage(NamedTuple):
    """A block of numbers in the file."""

    key: str
    dtype: np.dtype


class _Tensor(NamedTuple):
    """A view of a storage, as the pickle describes it."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file in which torch.save has written a state dict.

    Args:
        path: the file.

    Returns:
        The arrays by name, in the file's order.

    Raises:
        UserError: if it cannot be read, is damaged, or holds anything but tensors by name.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        is_archive = zipfile.is_zipfile(io.BytesIO(data))
        content, storages = _read_archive(data) if is_archive else _read_pickles(data)
        _check_names(content)
        return {name: _array(tensor, storages) for name, tensor in content.items()}
    except _Refused as error:
        raise UserError(f"{path}: {error}") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path}: is no PyTorch file, or is damaged ({reason})") from None


class _Refused(Exception):
    """What a file holds beside tensors; the message follows its name."""


class _Unpickler(pickle.Unpickler):
    """Knows a few harmless names, and refuses every other."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        # Bound methods, on which a pickle cannot set attributes.
        known = {
            "_rebuild_tensor": self._tensor,
            "_rebuild_tensor_v2": self._tensor,
            "_rebuild_parameter": self._parameter,
        }
        if module == "torch._utils" and name in known:
            return known[name]
        raise _Refused(
            f"holds {module}.{name}, not only tensors; save it anew with "
            "torch.save(network.state_dict(), …)"
        )

    def persistent_load(self, place: Any) -> _Storage:
        kind, dtype, key, *_ = place
        if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str):
            raise _Refused("holds more than tensors")
        if len(place) > 5 and place[5] is not None:
            raise _Refused("holds views of storages, which only PyTorch can read; save it anew")
        return _Storage(key, dtype)

    def _tensor(self, storage: _Storage, offset: int, size: tuple, stride: tuple, *_: Any):
        return _Tensor(storage, offset, size, stride)

    def _parameter(self, tensor: _Tensor, *_: Any) -> _Tensor:
        return tensor


def _load(stream: io.BytesIO) -> Any:
    return _Unpickler(stream, encoding="utf-8").load()


def _read_archive(data: bytes) -> tuple[Any, Mapping[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = pickled[: -len("data.pkl")]
        members = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise _Refused("is a compressed archive, which torch.save does not write")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise _Refused("was written on a big-endian machine; save it anew on another")
        prefix = f"{root}data/"
        storages = {
            name[len(prefix) :]: archive.read(name) for name in members if name.startswith(prefix)
        }
        return _load(io.BytesIO(archive.read(pickled))), storages


def _read_pickles(data: bytes) -> tuple[Any, Mapping[str, bytes]]:
    stream = io.BytesIO(data)
    if _load(stream) != _MAGIC:
        raise _Refused("is no PyTorch file")
    _load(stream)  # the format's version
    _load(stream)  # the writing machine's byte order, which the numbers do not follow
    content = _load(stream)
    sizes = {
        tensor.storage.key: tensor.storage.dtype.itemsize
        for tensor in (content.values() if isinstance(content, dict) else ())
        if isinstance(tensor, _Tensor)
    }
    storages = {}
    for key in _load(stream):
        count = int.from_bytes(stream.read(8), "little")
        storages[key] = stream.read(count * sizes.get(key, 0))
    return content, storages


def _check_names(content: Any) -> None:
    if not isinstance(content, dict) or not content:
        kind = "tensor" if isinstance(content, _Tensor) else type(content).__name__
        raise _Refused(f"holds a {kind}, not tensors by name")
    others = [
        str(name)
        for name, value in content.items()
        if not isinstance(value, _Tensor) or not isinstance(name, str)
    ]
    if others:
        raise _Refused(
            f"holds {', '.join(others[:5])} beside tensors by name; save the generator's state "
            "dict alone"
        )


def _array(tensor: _Tensor, storages: Mapping[str, bytes]) -> np.ndarray:
    """A copy of a tensor's numbers, whose place is checked against its storage's end."""
    flat = np.frombuffer(storages[tensor.storage.key], tensor.storage.dtype)
    numbers = (tensor.offset, *tensor.size, *tensor.stride)
    if len(tensor.size) != len(tensor.stride) or any(
        type(number) is not int or number < 0 for number in numbers
    ):
        raise ValueError("a tensor without a place")
    count = int(np.prod(tensor.size, dtype=object))
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.size, tensor.stride)
    )
    if count > flat.size or (count and last >= flat.size):
        raise ValueError("a tensor ends behind the file")
    if not count:
        return np.zeros(tensor.size, flat.dtype)
    strides = [flat.itemsize * stride for stride in tensor.stride]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.size, strides).copy()
