"""Generators to and from PyTorch, beside PyTorch itself."""

from __future__ import annotations

import sys
from collections import OrderedDict

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf import export, import_pytorch
from cyclegan_tf.config import Config
from cyclegan_tf.data.pipeline import to_pixels, to_range
from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting import tflite
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


def test_an_unknown_direction_is_one_line(tmp_path):
    with pytest.raises(UserError, match="--direction up: must be one of ab, ba"):
        take(tmp_path / "not looked at.pth", tmp_path / "run", "--direction", "up")
    assert not (tmp_path / "run").exists()


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
    one_sided = tiny_config("cut", init_from=str(tmp_path / "run"), **settings)
    with pytest.raises(UserError, match="holds generator_ba alone, which this training lacks"):
        start_from(new_training(one_sided).state, one_sided)
    imported = load_generators(tmp_path / "run", Config.load(tmp_path / "run")).ba.get_weights()
    for model in (state.networks.generator_ba, state.averages.ba):
        for weight, right in zip(model.get_weights(), imported):
            np.testing.assert_array_equal(weight, right)
    for weight, same in zip(state.networks.generator_ab.weights, before):
        np.testing.assert_array_equal(weight.numpy(), same)
    with pytest.raises(UserError, match=r"run: holds generators alone, as an import does"):
        Checkpoints(state, tmp_path / "run", 3).restore_latest()


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


def exported(run_dir, output, *flags) -> int:
    """The status of the export command."""
    return export.main(["--run-dir", str(run_dir), "--output", str(output), *flags])


def test_an_exported_file_fits_the_authors_network(tiny_config, tmp_path, capsys):
    config = tiny_config(generator_blocks=6, generator_dropout=0.5)
    run_dir = make_run(tmp_path / "run", config)
    assert exported(run_dir, tmp_path / "out", "--format", "pytorch") == 0
    paths = [tmp_path / "out" / f"latest_net_G_{name}.pth" for name in "AB"]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
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


def test_without_pytorch_nothing_is_written_for_it(tiny_config, tmp_path, monkeypatch):
    create_run_directory(tmp_path / "run", tiny_config(generator_blocks=6))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="--format pytorch needs PyTorch: pip install torch"):
        exported(tmp_path / "run", tmp_path / "out", "--format", "pytorch")
    assert not (tmp_path / "out").exists()


# --- Pictures to calibrate with ------------------------------------------------------------------


@pytest.fixture
def unconverted(monkeypatch):
    """In place of the conversion, an error that tells of which pictures it would be."""
    pytest.importorskip("ai_edge_litert")

    def convert(generator, size, quantize, is_uint8, calibration=None):
        raise RuntimeError(f"{quantize} with {np.shape(calibration)}")

    monkeypatch.setattr(tflite, "convert", convert)


def test_int8_of_an_import_without_pictures_is_refused_before_any_conversion(tmp_path, unconverted):
    torch.save(state_of(reference.generator(2, 1)), tmp_path / "net.pth")
    take(tmp_path / "net.pth", tmp_path / "run")
    message = r"--data: is needed, as .*run was imported without; name pictures like those"
    with pytest.raises(UserError, match=message):
        exported(tmp_path / "run", tmp_path, "--format", "tflite", "--quantize", "none", "int8")


@pytest.mark.parametrize("named", ["ab", "ba"])
def test_int8_of_an_import_is_calibrated_with_its_data(tmp_path, unconverted, shards, named):
    """They may be named with either direction, and stay."""
    torch.save(state_of(reference.generator(2, 1)), tmp_path / "net.pth")
    for direction in ("ab", "ba"):
        data = ["--data", str(shards)] if direction == named else []
        flags = ["--direction", direction, "--image-size", "32", *data]
        take(tmp_path / "net.pth", tmp_path / "run", *flags)
    with pytest.raises(RuntimeError, match=r"int8 with \(12, 32, 32, 3\)"):
        exported(tmp_path / "run", tmp_path, "--format", "tflite", "--quantize", "int8")
