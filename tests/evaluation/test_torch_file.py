"""Files that PyTorch saved, read without it."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from cyclegan_tf.errors import UserError
from cyclegan_tf.evaluation.torch_file import read_torch_file


@pytest.fixture
def saved(tmp_path):
    """A function: the path of an object saved in the format of PyTorch before 1.6."""

    def save(content, name="file.pth"):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=False)
        return tmp_path / name

    return save


def test_every_tensor_comes_back(saved):
    whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors = {
        "whole": whole,
        "turned": whole.permute(2, 0, 1),  # with the strides of another order
        "part": whole[1:, 1:, ::2],  # with an offset
        "count": torch.tensor(7),
        "half": torch.ones(3, dtype=torch.float16),
        "double": torch.ones(2, dtype=torch.float64) / 3,
        "empty": torch.ones(0, 3),
    }
    found = read_torch_file(saved(tensors))
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)


class _Command:
    """What a bad file would have Python run."""

    def __reduce__(self):
        return os.system, ("touch run-by-the-file",)


def test_nothing_in_the_file_is_run(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is no state dict"):
        read_torch_file(saved({"bad": _Command()}))
    assert not (tmp_path / "run-by-the-file").exists()


@pytest.mark.parametrize("kept", [0, 5, 100, 300, -4])
def test_a_file_cut_short_is_an_error(saved, kept):
    path = saved({"a": torch.ones(5, 5), "b": torch.ones(5)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="is no state dict"):
        read_torch_file(path)


def test_other_files_are_errors(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "newer.pth")
    (tmp_path / "text.pth").write_text("not a tensor")
    for name in ("newer.pth", "text.pth"):
        with pytest.raises(UserError, match=f"{name}: is no state dict"):
            read_torch_file(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        read_torch_file(tmp_path / "missing.pth")
