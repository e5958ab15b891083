"""Files that PyTorch saved, read without it."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from cyclegan_tf.errors import UserError
from cyclegan_tf.torch_file import read_tensors


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
    found = read_tensors(saved(tensors))
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
    with pytest.raises(UserError, match=r"holds \w+\.system, not only tensors"):
        read_tensors(saved({"bad": _Command()}))
    assert not (tmp_path / "run-by-the-file").exists()


@pytest.mark.parametrize("kept", [0, 5, 100, 300, -4])
def test_a_file_cut_short_is_an_error(saved, kept):
    path = saved({"a": torch.ones(5, 5), "b": torch.ones(5)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="is no PyTorch file"):
        read_tensors(path)


def test_code_before_the_tensors_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(_Command(), protocol=2))
    with pytest.raises(UserError, match=r"holds \w+\.system, not only tensors"):
        read_tensors(tmp_path / "bad.pth")
    assert not (tmp_path / "run-by-the-file").exists()


def test_other_files_are_errors(tmp_path):
    (tmp_path / "text.pth").write_text("not a tensor")
    with pytest.raises(UserError, match=r"text\.pth: is no PyTorch file"):
        read_tensors(tmp_path / "text.pth")
    with pytest.raises(UserError, match="cannot be read"):
        read_tensors(tmp_path / "missing.pth")
