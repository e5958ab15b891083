"""Generators to and from PyTorch, beside PyTorch itself."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf import import_pytorch
from cyclegan_tf.config import Config
from cyclegan_tf.data.pipeline import to_pixels, to_range
from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting.pytorch import export_pytorch
from cyclegan_tf.exporting.translator import load
from cyclegan_tf.torch_file import read_tensors
from cyclegan_tf.training.checkpoints import (
    Checkpoints,
    directions_of,
    find_checkpoint,
    load_generators,
    start_from,
)
from cyclegan_tf.training.run_directory import claimed, create_run_directory
from tests.exporting.helpers import make_run, pixels

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tests.models import torch_reference as reference  # noqa: E402


def oldest(filters: int, blocks: int) -> nn.Sequential:
    """A generator of the authors' first code: zero padding, a scale and a shift in every norm."""

    def norm(channels):
        layer = nn.InstanceNorm2d(channels, affine=True)
        nn.init.normal_(layer.weight, 1.0, 0.3)
        nn.init.normal_(layer.bias, 0.0, 0.3)
        return layer

    def layers(convolution):
        return [convolution, norm(convolution.out_channels), nn.ReLU()]

    class Residual(nn.Module):
        def __init__(self, wide):
            super().__init__()
            first, second = (nn.Conv2d(wide, wide, 3, padding=1) for _ in range(2))
            self.conv_block = nn.Sequential(*layers(first), *layers(second)[:2])

        def forward(self, x):
            return x + self.conv_block(x)

    modules = layers(nn.Conv2d(3, filters, 7, padding=3))
    for wide in (filters, 2 * filters):
        modules += layers(nn.Conv2d(wide, 2 * wide, 3, stride=2, padding=1))
    modules += [Residual(4 * filters) for _ in range(blocks)]
    for wide in (4 * filters, 2 * filters):
        up = nn.ConvTranspose2d(wide, wide // 2, 3, stride=2, padding=1, output_padding=1)
        modules += layers(up)
    return nn.Sequential(*modules, nn.Conv2d(filters, 3, 7, padding=3), nn.Tanh())


def widened(network: nn.Module) -> nn.Module:
    """Weights large enough for pictures with contrast."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.weight.normal_(0.0, 0.15)
                module.bias.normal_(0.0, 0.1)
    return network.eval()


def state_of(network: nn.Module, prefix: str = "model.", statistics: bool = False) -> OrderedDict:
    """The state dict as the authors' code saves it, with the running means of old PyTorch."""
    state = OrderedDict((prefix + key, value) for key, value in network.state_dict().items())
    if statistics:
        for name, module in network.named_modules():
            if isinstance(module, nn.InstanceNorm2d):
                state[f"{prefix}{name}.running_mean"] = torch.zeros(module.num_features)
                state[f"{prefix}{name}.running_var"] = torch.ones(module.num_features)
                state[f"{prefix}{name}.num_batches_tracked"] = torch.tensor(7)
    return state


def pictures_of(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """uint8 [batch, height, width, 3] through a PyTorch generator."""
    inputs = reference.to_torch(images.astype(np.float32) / 127.5 - 1.0)
    with torch.no_grad():
        outputs = reference.to_numpy(network(inputs))
    return np.rint((outputs + 1.0) * 127.5).clip(0, 255).astype(np.uint8)


def ours(run_dir, images: np.ndarray, direction: str = "ab") -> np.ndarray:
    """The same through a run's generator, operation by operation."""
    generator = getattr(load_generators(run_dir, Config.load(run_dir), [direction]), direction)
    return to_pixels(generator(to_range(images.astype(np.float32)), training=False)).numpy()


def close(one: np.ndarray, other: np.ndarray, least_contrast: float = 20.0) -> bool:
    """Whether no pixel differs by more than one level, in pictures that show something."""
    assert other.std() > least_contrast
    return np.abs(one.astype(int) - other).max() <= 1


def take(file, output, *flags) -> None:
    assert import_pytorch.main([str(file), "--output", str(output), *flags]) == 0


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("filters", "blocks", "dropout", "prefix", "statistics", "legacy"),
    [
        (4, 9, False, "model.", False, False),
        (3, 2, True, "model.", False, True),
        (2, 2, False, "module.model.", True, True),
        (2, 1, True, "model.", True, False),
    ],
)
def test_an_imported_generator_gives_pytorchs_pictures(
    filters, blocks, dropout, prefix, statistics, legacy, tmp_path
):
    network = widened(reference.generator(filters, blocks, dropout))
    file = tmp_path / "latest_net_G.pth"
    state = state_of(network, prefix, statistics)
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    take(file, tmp_path / "run", "--image-size", "64")
    config = Config.load(tmp_path / "run")
    settings = config.generator
    assert (settings.filters, settings.blocks, settings.dropout > 0) == (filters, blocks, dropout)
    assert (config.data.image_size, config.data.data) == (64, "demo")
    images = np.stack([pixels(32, 48, seed) for seed in range(2)])
    assert close(ours(tmp_path / "run", images), pictures_of(network, images))


def test_the_first_code_of_2017(tmp_path):
    network = widened(oldest(3, 6))
    torch.save(state_of(network), tmp_path / "net.pth")
    take(tmp_path / "net.pth", tmp_path / "run")
    settings = Config.load(tmp_path / "run").generator
    assert (settings.padding, settings.affine) == ("zero", True)
    images = pixels(32, 32)[None]
    assert close(ours(tmp_path / "run", images), pictures_of(network, images))


def test_both_directions_one_after_the_other(tmp_path):
    networks = {direction: widened(reference.generator(2, 1)) for direction in ("ba", "ab")}
    images = pixels(16, 16)[None]
    for number, (direction, network) in enumerate(networks.items()):
        torch.save(state_of(network), tmp_path / "net.pth")
        take(tmp_path / "net.pth", tmp_path / "run", "--direction", direction)
        found = find_checkpoint(tmp_path / "run")
        assert len(directions_of(found, Config.load(tmp_path / "run"))) == number + 1
        if direction == "ba":
            assert close(load(tmp_path / "run").translate(images), pictures_of(network, images))
            with pytest.raises(UserError, match=r"--direction ab: .*run holds only ba"):
                load(tmp_path / "run", "ab")
    for direction, network in networks.items():
        assert close(ours(tmp_path / "run", images, direction), pictures_of(network, images))
    with pytest.raises(UserError, match="holds a generator for ab already"):
        take(tmp_path / "net.pth", tmp_path / "run")
    torch.save(state_of(reference.generator(3, 1)), tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"--generator-filters: 3, not 2"):
        take(tmp_path / "net.pth", tmp_path / "run")


def test_two_imports_into_one_run_do_not_meet(tmp_path):
    torch.save(state_of(widened(reference.generator(2, 1))), tmp_path / "net.pth")
    taken = pytest.raises(UserError, match=r"--output .*run: another process is working there")
    with claimed(tmp_path / "run"), taken:
        take(tmp_path / "net.pth", tmp_path / "run")
    take(tmp_path / "net.pth", tmp_path / "run")


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    torch.save(state_of(widened(reference.generator(2, 1))), tmp_path / "net.pth")

    def write(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", write)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
            take(tmp_path / "net.pth", tmp_path / "run")
    take(tmp_path / "net.pth", tmp_path / "run")


def test_a_run_can_start_from_an_import_but_not_go_on(tmp_path, new_training, tiny_config, capsys):
    network = widened(reference.generator(2, 1))
    torch.save(state_of(network), tmp_path / "net.pth")
    take(tmp_path / "net.pth", tmp_path / "run", "--image-size", "32", "--direction", "ba")
    settings = {"generator_filters": 2, "generator_blocks": 1, "average": 0.9, "image_size": 32}
    settings |= {"discriminator_filters": 64, "discriminator_strided": 3}  # as in the paper
    config = tiny_config(init_from=str(tmp_path / "run"), **settings)
    state = new_training(config).state
    before = [weight.numpy() for weight in state.networks.generator_ab.weights]
    start_from(state, config)
    assert "holds generator_ba alone; all else starts anew" in capsys.readouterr().err
    imported = load_generators(tmp_path / "run", Config.load(tmp_path / "run")).ba.get_weights()
    for model in (state.networks.generator_ba, state.averages.ba):
        for weight, right in zip(model.get_weights(), imported):
            np.testing.assert_array_equal(weight, right)
    for weight, same in zip(state.networks.generator_ab.weights, before):
        np.testing.assert_array_equal(weight.numpy(), same)
    with pytest.raises(UserError, match=r"run: holds generators alone, as an import does"):
        Checkpoints(state, tmp_path / "run", 3).restore_latest()


def test_neither_pytorch_nor_a_pickle_is_run(tmp_path):
    network = widened(reference.generator(2, 6))
    torch.save(state_of(network), tmp_path / "net.pth")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from cyclegan_tf.torch_file import read_tensors\n"
        "assert len(read_tensors(sys.argv[1])) == 36\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "net.pth")], check=True)


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickles"])
def test_what_is_pickled_is_not_run(legacy, tmp_path):
    state = {"model.1.weight": torch.zeros(2), "x": Harmful(tmp_path / "made")}
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=r"net.pth: holds (posix|nt)\.mkdir, not only tensors"):
        read_tensors(tmp_path / "net.pth")
    assert not (tmp_path / "made").exists()


def test_whole_networks_are_refused(tmp_path):
    torch.save(reference.generator(2, 6), tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"save it anew with torch.save\(network.state_dict"):
        read_tensors(tmp_path / "net.pth")


def test_tensors_keep_type_and_strides(tmp_path):
    right = {
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
        "part": torch.arange(10)[3:7],
        "half": torch.tensor([0.5, -1.5], dtype=torch.float16),
        "parameter": nn.Parameter(torch.tensor([1.0])),
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(3),
    }
    for legacy in (False, True):
        torch.save(right, tmp_path / "t.pth", _use_new_zipfile_serialization=not legacy)
        found = read_tensors(tmp_path / "t.pth")
        assert list(found) == list(right)
        for name, tensor in right.items():
            expected = tensor.detach().numpy()
            assert found[name].dtype == expected.dtype
            np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickles"])
def test_damaged_files_are_refused_in_one_line(legacy, tmp_path):
    torch.save(
        state_of(reference.generator(1, 1)),
        tmp_path / "net.pth",
        _use_new_zipfile_serialization=not legacy,
    )
    whole = (tmp_path / "net.pth").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for number in range(150):
        damaged = bytearray(whole)
        if number % 3 == 0:
            del damaged[int(random.integers(0, len(whole))) :]
        for place in random.integers(0, len(damaged) or 1, 20 if damaged else 0):
            damaged[place] = random.integers(0, 256)
        (tmp_path / "net.pth").write_bytes(damaged)
        try:
            read_tensors(tmp_path / "net.pth")
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{tmp_path / 'net.pth'}: ")
    assert refused > 50


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    torch.save({"x": torch.arange(6.0).reshape(2, 3)}, tmp_path / "net.pth")
    with zipfile.ZipFile(tmp_path / "net.pth") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (storage,) = (name for name in entries if "/data/" in name)
    entries[storage] = entries[storage][:-4]
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="a tensor ends behind the file"):
        read_tensors(tmp_path / "net.pth")


def unlike(change):
    state = state_of(reference.generator(2, 6))
    change(state)
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: state_of(reference.discriminator(2)), "is no resnet generator"),
        (lambda: {"model.model.0.weight": torch.zeros(4, 3, 4, 4)}, "is no resnet generator"),
        (lambda: {"epoch": 3, "x": torch.zeros(1)}, "holds epoch beside tensors"),
        (lambda: {7: torch.zeros(1), "x": torch.zeros(1)}, "holds 7 beside tensors by name"),
        (
            lambda: unlike(lambda s: s.pop("model.11.conv_block.5.bias")),
            r"channels and 6 blocks \(missing: model.11.conv_block.5.bias\)",
        ),
        (
            lambda: unlike(lambda s: s.update({"model.3.filt": torch.ones(2, 1, 3, 3)})),
            "not expected: model.3.filt",
        ),
        (
            lambda: unlike(lambda s: s.update({"model.1.weight": torch.ones(2, 1, 7, 7)})),
            r"model.1.weight is \[2, 1, 7, 7\], not \[2, 3, 7, 7\]",
        ),
        (
            lambda: unlike(lambda s: s["model.1.weight"].fill_(float("nan"))),
            "model.1.weight holds values that are no finite",
        ),
        (lambda: state_of(oldest(2, 6), statistics=True), "with batch norm"),
    ],
)
def test_other_networks_are_refused(state, message, tmp_path):
    torch.save(state(), tmp_path / "net.pth")
    with pytest.raises(UserError, match=message):
        take(tmp_path / "net.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_that_are_none_of_pytorchs(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "list.pth").write_bytes(pickle.dumps([1, 2]))
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("a.txt", "a")
    for name in ("text.pth", "list.pth", "zip.pth", "missing.pth"):
        with pytest.raises(UserError, match=f"{name}: (is no PyTorch file|cannot be read)"):
            read_tensors(tmp_path / name)


def test_an_exported_file_fits_the_authors_network(tiny_config, tmp_path):
    config = tiny_config(generator_blocks=6, generator_dropout=0.5)
    run_dir = make_run(tmp_path / "run", config)
    paths = export_pytorch(run_dir, tmp_path / "out")
    assert [path.name for path in paths] == ["latest_net_G_A.pth", "latest_net_G_B.pth"]
    images = pixels(16, 16)[None]
    for path, direction in zip(paths, ("ab", "ba")):
        network = nn.ModuleDict({"model": reference.generator(2, 6, dropout=True)}).eval()
        network.load_state_dict(torch.load(path, weights_only=True))
        assert close(ours(run_dir, images, direction), pictures_of(network["model"], images), 1)


def test_there_and_back_is_the_same(tmp_path):
    torch.save(state_of(widened(reference.generator(2, 6))), tmp_path / "net.pth")
    take(tmp_path / "net.pth", tmp_path / "run")
    (path,) = export_pytorch(tmp_path / "run", tmp_path)
    before, after = read_tensors(tmp_path / "net.pth"), read_tensors(path)
    assert list(before) == list(after)
    for key, value in before.items():
        if key.endswith("weight") or key == "model.23.bias":
            np.testing.assert_array_equal(after[key], value)


def test_generators_that_the_authors_code_lacks(tiny_config, tmp_path):
    run_dir = tmp_path / "run"
    create_run_directory(run_dir, tiny_config("mobile", generator_blocks=4))
    with pytest.raises(UserError) as error:
        export_pytorch(run_dir, tmp_path / "out")
    for text in ("--generator-upsampling resize", "--generator-separable True", "4 residual"):
        assert text in str(error.value)
    assert not (tmp_path / "out").exists()
