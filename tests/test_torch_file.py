"""Files that PyTorch saved, read without it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from cyclegan_tf.errors import UserError
from cyclegan_tf.torch_file import read_tensors

torch = pytest.importorskip("torch")


@pytest.fixture(params=["zip", "pickles"])
def saved(request, tmp_path):
    """A function: the path of an object saved in the format since PyTorch 1.6, and before it."""

    def save(content):
        path = tmp_path / "file.pth"
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    return save


def test_every_tensor_comes_back(saved):
    whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors = {
        "whole": whole,
        "turned": whole.permute(2, 0, 1),  # with the strides of another order
        "part": whole[1:, 1:, ::2],  # with an offset
        "row": torch.arange(10)[3:7],
        "count": torch.tensor(7),
        "half": torch.tensor([0.5, -1.5], dtype=torch.float16),
        "double": torch.ones(2, dtype=torch.float64) / 3,
        "parameter": torch.nn.Parameter(torch.tensor([1.0])),
        "empty": torch.ones(0, 3),
    }
    found = read_tensors(saved(tensors))
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        right = tensor.detach().numpy()
        assert found[name].dtype == right.dtype
        np.testing.assert_array_equal(found[name], right, err_msg=name)


def test_neither_pytorch_nor_tensorflow_is_needed(tmp_path):
    torch.save({"a": torch.ones(5)}, tmp_path / "file.pth")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['tensorflow'] = None\n"
        "from cyclegan_tf.torch_file import read_tensors\n"
        "assert list(read_tensors(sys.argv[1])) == ['a']"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file.pth")], check=True)


# --- What is refused -----------------------------------------------------------------------------


class _Command:
    """What a bad file would have Python run."""

    def __reduce__(self):
        return os.system, ("touch run-by-the-file",)


def test_nothing_in_the_file_is_run(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"file\.pth: holds \w+\.system, not only tensors"):
        read_tensors(saved({"a": torch.ones(5), "bad": _Command()}))
    assert not (tmp_path / "run-by-the-file").exists()


def test_code_before_the_tensors_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(_Command(), protocol=2))
    with pytest.raises(UserError, match=r"holds \w+\.system, not only tensors"):
        read_tensors(tmp_path / "bad.pth")
    assert not (tmp_path / "run-by-the-file").exists()


def test_whole_networks_are_refused_saying_how_to_save_them(saved):
    message = r"holds torch\.\S+\.Linear, .*save it anew with torch\.save\(network\.state_dict"
    with pytest.raises(UserError, match=message):
        read_tensors(saved(torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("kept", [0, 5, 100, 300, -4])
def test_a_file_cut_short_is_an_error(saved, kept):
    path = saved({"a": torch.ones(5, 5), "b": torch.ones(5)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="is no PyTorch file"):
        read_tensors(path)


def test_damaged_files_are_read_or_refused_in_one_line(saved):
    path = saved({f"layer{number}.weight": torch.ones(4, 3, 3, 3) for number in range(9)})
    whole = path.read_bytes()
    random, refused = np.random.default_rng(0), 0
    for number in range(150):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 1 + number % 20):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
    assert refused > 75  # damage to the numbers alone is not seen in the older format


def rezip(path, change=lambda name, content: content, compression=zipfile.ZIP_STORED):
    """Writes an archive anew, with its members' contents changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"a": torch.arange(6.0).reshape(2, 3)}, path)
    rezip(path, lambda name, content: content[:-4] if "/data/" in name else content)
    with pytest.raises(UserError, match="a tensor ends behind the file"):
        read_tensors(path)


def compressed(path):
    torch.save({"a": torch.ones(5)}, path)
    rezip(path, compression=zipfile.ZIP_DEFLATED)


def big_endian(path):
    torch.save({"a": torch.ones(5)}, path)
    rezip(path, lambda name, content: b"big" if name.endswith("/byteorder") else content)


class _Placed(pickle.Pickler):
    """Writes a list as the place of something that lies elsewhere in the file."""

    def persistent_id(self, value):
        return tuple(value) if isinstance(value, list) else None


def placed(*place):
    """A function: writes a file in the older format with such a place in it."""

    def write(path):
        with path.open("wb") as file:
            for start in (torch.serialization.MAGIC_NUMBER, 1001, {}):
                pickle.dump(start, file, protocol=2)
            _Placed(file, protocol=2).dump({"a": list(place)})

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (compressed, "is a compressed archive, which torch.save does not write"),
        (big_endian, "was written on a big-endian machine; save it anew on another"),
        (placed("module", "Net", "net.py", "class Net: …"), "holds more than tensors"),
        (
            placed("storage", torch.FloatStorage, "0", "cpu", 2, ("1", 0, 2)),
            "holds views of storages, which only PyTorch can read; save it anew",
        ),
        (lambda path: torch.save([torch.ones(5)], path), "holds a list, not tensors by name"),
        (lambda path: torch.save(torch.ones(5), path), "not tensors by name"),
    ],
    ids=["compressed", "big-endian", "module", "view", "list", "tensor"],
)
def test_what_pytorch_alone_could_read_is_refused_by_its_kind(write, message, tmp_path):
    write(tmp_path / "file.pth")
    with pytest.raises(UserError, match=rf"file\.pth: .*{message}"):
        read_tensors(tmp_path / "file.pth")


def test_other_files_are_refused_saying_why(tmp_path):
    (tmp_path / "text.pth").write_text("not a tensor")
    (tmp_path / "list.pth").write_bytes(pickle.dumps([1, 2]))
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("a.txt", "a")
    reasons = {
        "text.pth": r"is no PyTorch file, or is damaged \(invalid load key",
        "list.pth": r"is no PyTorch file$",
        "zip.pth": r"is no PyTorch file, or is damaged \(not enough values",
        "missing.pth": r"cannot be read \(No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=f"{name}: {reason}"):
            read_tensors(tmp_path / name)
