"""Reads tensors from a file that PyTorch saved, without PyTorch.

PyTorch before 1.6 wrote a row of pickles: a magic number, the version of the format, facts about
the machine, the objects (whose tensors only name their storages), the storages' names, and then
each storage: its length as int64 and its numbers. Newer files, zip archives, are not read here.
"""

from __future__ import annotations

import collections
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_tf.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
}


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict saved by ``torch.save`` before version 1.6, by name.

    Nothing in the file is run: it may name only tensors, their storages and ordered dicts.

    Raises:
        UserError: if it cannot be read or holds anything else.
    """
    try:
        with Path(path).open("rb") as file:
            tensors = _read(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError):
        raise UserError(f"{path}: is no state dict in PyTorch's format before 1.6") from None
    return tensors


def _read(file) -> dict[str, np.ndarray]:
    if pickle.load(file) != _MAGIC:
        raise ValueError("no magic number")
    _, machine = pickle.load(file), pickle.load(file)
    if not machine["little_endian"] or sys.byteorder != "little":
        raise ValueError("big-endian")
    reader = _Reader(file)
    described = reader.load()
    for key in pickle.load(file):
        kind, length = reader.storages[key]
        (stored,) = np.fromfile(file, np.int64, 1)
        if stored != length:
            raise ValueError("a storage of another length")
        reader.storages[key] = np.fromfile(file, kind, length)
    return {name: tensor.fill(reader.storages) for name, tensor in described.items()}


class _Tensor:
    """A tensor as the pickle describes it; its storage comes later in the file."""

    def __init__(self, storage: str, offset: int, shape: tuple, strides: tuple, *_: Any) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def fill(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        numbers = storages[self.storage][self.offset :]
        last = sum((side - 1) * stride for side, stride in zip(self.shape, self.strides))
        if last >= len(numbers):
            raise ValueError("a tensor larger than its storage")
        strides = [stride * numbers.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(numbers, self.shape, strides).copy()


class _Reader(pickle.Unpickler):
    """Unpickles the objects; ``storages`` gets (type, length) of each storage they name."""

    def __init__(self, file) -> None:
        super().__init__(file)
        self.storages: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, description: tuple) -> str:
        _, kind, key, _, length, *_ = description
        self.storages[key] = (kind, length)
        return key
