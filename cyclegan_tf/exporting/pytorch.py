"""Generators to and from the authors' PyTorch code: its resnet generators' state dicts.

Their keys are places in a row of modules. The first code of 2017 padded with zeros and had a learnt
scale and shift in each norm; since then, reflection stands as a module of its own before the
convolutions. A norm may have left running means, which the authors' code drops as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tensorflow import keras

from cyclegan_tf.config import Config, flag
from cyclegan_tf.errors import UserError
from cyclegan_tf.exporting.pictures import reason_of, unfinished_file
from cyclegan_tf.models.generator import build_generator
from cyclegan_tf.models.networks import present
from cyclegan_tf.torch_file import read_tensors
from cyclegan_tf.training.checkpoints import (
    find_checkpoint,
    generators_of,
    load_generators,
    save_generators,
)
from cyclegan_tf.training.run_directory import (
    check_run_directory,
    claimed,
    create_run_directory,
)

# What the authors' code calls the generators: A translates A to B.
FILE_NAMES = {"ab": "latest_net_G_A.pth", "ba": "latest_net_G_B.pth"}
_STATISTICS = re.compile(r"\.(running_mean|running_var|num_batches_tracked)$")
_BLOCK = re.compile(r"model\.\d+(?=\.conv_block\.)")
_DATA_PARALLEL = "module."
_LISTED = 3
_DROPOUT = 0.5  # the authors' only rate
_AUTHORS_BLOCKS = (6, 9)


@dataclass(frozen=True)
class Layout:
    """The network that a state dict belongs to.

    Attributes:
        padding: "reflect", or "zero" as in the first code.
        affine: whether the norms have a learnt scale and shift.
        filters: channels after the first convolution.
        blocks: residual blocks.
        dropout: whether dropout stands between the convolutions of a block.
    """

    padding: str
    affine: bool
    filters: int
    blocks: int
    dropout: bool

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> Layout:
        """The layout that a state dict comes nearest to; ``differences`` tells how near that is."""
        pad = int(_is_kernel(tensors, "model.1"))
        block = f"model.{pad + 9}.conv_block"
        kernel = tensors.get(f"model.{pad}.weight", np.zeros([0]))
        return cls(
            padding="reflect" if pad else "zero",
            affine=f"model.{pad + 1}.weight" in tensors,
            filters=kernel.shape[0] if kernel.ndim else 0,
            blocks=len({match[0] for key in tensors if (match := _BLOCK.match(key))}),
            dropout=_is_kernel(tensors, f"{block}.{2 * pad + 4}"),
        )

    def convolutions(self) -> Iterator[tuple[str, str]]:
        """(the key of a convolution, the name of ours without "_conv"), from input to output."""
        pad = int(self.padding == "reflect")  # A reflection takes a place of its own.
        yield f"model.{pad}", "stem"
        yield f"model.{pad + 3}", "down_1"
        yield f"model.{pad + 6}", "down_2"
        second = 2 * pad + 3 + self.dropout
        for i in range(self.blocks):
            block = f"model.{pad + 9 + i}.conv_block"
            yield f"{block}.{pad}", f"block_{i + 1}_1"
            yield f"{block}.{second}", f"block_{i + 1}_2"
        after = pad + 9 + self.blocks
        yield f"model.{after}", "up_1"
        yield f"model.{after + 3}", "up_2"
        yield f"model.{after + 6 + pad}", "output"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The keys of such a network's state dict, with the shapes of their tensors."""
        shapes: dict[str, tuple[int, ...]] = {}
        for (key, name), (wide, narrow, side) in zip(self.convolutions(), self._channels()):
            transposed = name.startswith("up")
            pair = (narrow, wide) if transposed else (wide, narrow)
            shapes.update({f"{key}.weight": (*pair, side, side), f"{key}.bias": (wide,)})
            if self.affine and name != "output":
                norm = _next_place(key)
                shapes.update({f"{norm}.weight": (wide,), f"{norm}.bias": (wide,)})
        return shapes

    def _channels(self) -> list[tuple[int, int, int]]:
        """(channels out, channels in, side of the kernel) of each convolution."""
        one, two, four = self.filters, 2 * self.filters, 4 * self.filters
        blocks = [(four, four, 3)] * (2 * self.blocks)
        start = [(one, 3, 7), (two, one, 3), (four, two, 3)]
        return [*start, *blocks, (two, four, 3), (one, two, 3), (3, one, 7)]

    def differences(self, tensors: Mapping[str, np.ndarray]) -> list[str]:
        """What keeps a state dict from belonging to this network, in a few words each."""
        shapes = self.shapes()
        wrong = [
            f"{key} is {list(tensors[key].shape)}, not {list(shape)}"
            for key, shape in shapes.items()
            if key in tensors and tensors[key].shape != shape
        ]
        lists = {
            "missing": [key for key in shapes if key not in tensors],
            "not expected": [key for key in tensors if key not in shapes],
            "of another shape": wrong,
        }
        return [
            f"{kind}: {', '.join(keys[:_LISTED])}"
            + (f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else "")
            for kind, keys in lists.items()
            if keys
        ]

    def settings(self) -> dict[str, object]:
        """Our settings for such a network, by flat name."""
        return {
            "generator_padding": self.padding,
            "generator_affine": self.affine,
            "generator_filters": self.filters,
            "generator_blocks": self.blocks,
            "generator_dropout": _DROPOUT if self.dropout else 0.0,
        }


# --- From PyTorch --------------------------------------------------------------------------------


def import_pytorch(
    path: Path, run_dir: Path, direction: str, image_size: int, data: str | None = None
) -> Config:
    """Makes a run directory of a generator from the authors' PyTorch code.

    Called again with the other direction, it adds that generator to the same run.

    Args:
        path: the file with the generator's state dict.
        run_dir: a new folder, or one with an imported run of the same settings.
        direction: "ab" or "ba", what the generator does.
        image_size: side of the pictures that it was trained at.
        data: pictures like those that it was trained on, as ``--data`` of the training; None for
            those that the run names already, or none.

    Returns:
        The run's settings.

    Raises:
        UserError: if the file does not fit, saying what differs, or the folder is taken or cannot
            be written.
    """
    tensors = generator_tensors(path)
    layout = Layout.of(tensors)
    pictures = {} if data is None else {"data": data}
    config = Config().replace(image_size=image_size, **pictures, **layout.settings())
    generator = build_generator(config, name=f"generator_{direction}")
    set_weights(generator, layout, tensors)
    with claimed(run_dir, "--output"):
        resumed = check_run_directory(run_dir, config, "--output")
        found = find_checkpoint(run_dir) if resumed else None
        others = present(generators_of(found, config)) if found else {}
        if direction in others:
            raise UserError(f"--output {run_dir}: holds a generator for {direction} already")
        if not resumed or pictures:
            create_run_directory(run_dir, config, "--output")
        save_generators(run_dir, {direction: generator, **others})
    return config


def generator_tensors(path: Path) -> dict[str, np.ndarray]:
    """The weights of a generator of the authors' PyTorch code, by the keys of its newer files.

    Raises:
        UserError: if the file cannot be read, or is of another network, saying what differs.
    """
    tensors = read_tensors(path)
    if all(key.startswith(_DATA_PARALLEL) for key in tensors):
        tensors = {key[len(_DATA_PARALLEL) :]: value for key, value in tensors.items()}
    weights = {key: value for key, value in tensors.items() if not _STATISTICS.search(key)}
    layout = Layout.of(weights)
    if not layout.filters or not layout.blocks:
        raise UserError(
            f"{path}: is no resnet generator of the authors' PyTorch code (its first tensors are "
            f"{', '.join(list(tensors)[:_LISTED])})"
        )
    if layout.affine and len(weights) < len(tensors):
        # Instance norm had both as well in the first months of 2017, but nothing tells it apart.
        raise UserError(f"{path}: is a generator with batch norm; only instance norm can be taken")
    differences = layout.differences(weights)
    if differences:
        raise UserError(
            f"{path}: does not fit a generator of {layout.filters} channels and {layout.blocks} "
            f"blocks ({'; '.join(differences)})"
        )
    for key, value in weights.items():
        if value.dtype.kind != "f" or not np.isfinite(value).all():
            raise UserError(f"{path}: {key} holds values that are no finite fractions")
    return weights


def set_weights(generator: keras.Model, layout: Layout, tensors: Mapping[str, np.ndarray]) -> None:
    """Gives a generator the weights of a state dict.

    Biases before a norm, which takes any mean away, are left out: ours has none there.
    """
    for key, name in layout.convolutions():
        convolution = generator.get_layer(f"{name}_conv")
        weights = [tensors[f"{key}.weight"].transpose(2, 3, 1, 0)]
        if convolution.use_bias:
            weights.append(tensors[f"{key}.bias"])
        convolution.set_weights(weights)
        if layout.affine and name != "output":
            norm = _next_place(key)
            generator.get_layer(f"{name}_norm").set_weights(
                [tensors[f"{norm}.weight"], tensors[f"{norm}.bias"]]
            )


# --- To PyTorch ----------------------------------------------------------------------------------


def export_pytorch(
    run_dir: Path,
    output: Path,
    directions: Sequence[str] | None = None,
    weights: str | None = None,
) -> list[Path]:
    """Writes a run's generators as files that the authors' PyTorch code loads.

    Args:
        run_dir: the run directory.
        output: the folder for the files, which get the names that that code looks for.
        directions: "ab", "ba" or both; None for all that the run holds.
        weights: "last", "best" or "average"; None for the averages where the run keeps them.

    Returns:
        The files.

    Raises:
        UserError: if that code has no such generator, PyTorch, which writes the files, is not
            installed, or ``output`` cannot be written.
    """
    config = Config.load(run_dir)
    _check_exportable(config)
    torch = _import_torch()
    paths = []
    generators = present(load_generators(run_dir, config, directions, weights=weights))
    for direction, generator in generators.items():
        tensors = state_dict(generator, config)
        path = Path(output) / FILE_NAMES[direction]
        try:
            with unfinished_file(path) as unfinished:
                torch.save({key: torch.from_numpy(t) for key, t in tensors.items()}, unfinished)
        except (OSError, RuntimeError) as error:
            raise UserError(f"--output {output}: cannot be written ({reason_of(error)})") from None
        paths.append(path)
    return paths


def state_dict(generator: keras.Model, config: Config) -> dict[str, np.ndarray]:
    """A generator's weights by the keys of the authors' PyTorch code; biases it lacks are zero."""
    settings = config.generator
    layout = Layout(
        "reflect", False, settings.filters, config.generator_blocks(), settings.dropout > 0
    )
    tensors = {}
    for key, name in layout.convolutions():
        kernel, *bias = generator.get_layer(f"{name}_conv").get_weights()
        tensors[f"{key}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        transposed = name.startswith("up")
        channels = kernel.shape[2 if transposed else 3]
        tensors[f"{key}.bias"] = bias[0] if bias else np.zeros([channels], np.float32)
    return tensors


def _check_exportable(config: Config) -> None:
    """UserError if the authors' code has no such generator."""
    own, theirs = config.flat(), Config().flat()
    free = ("generator_filters", "generator_blocks", "generator_dropout")
    differing = [
        f"{flag(name)} {own[name]}"
        for name in own
        if name.startswith("generator_") and name not in free and own[name] != theirs[name]
    ]
    blocks = config.generator_blocks()
    if blocks not in _AUTHORS_BLOCKS:
        differing.append(f"{blocks} residual blocks, not 6 or 9")
    if differing:
        raise UserError(
            f"--format pytorch: the authors' code has no such generator ({', '.join(differing)})"
        )


def _import_torch():
    try:
        import torch
    except ImportError:
        raise UserError("--format pytorch needs PyTorch: pip install torch") from None
    return torch


def _is_kernel(tensors: Mapping[str, np.ndarray], place: str) -> bool:
    key = f"{place}.weight"
    return key in tensors and tensors[key].ndim == 4


def _next_place(key: str) -> str:
    """The key of the module behind another's: model.1 → model.2."""
    parent, place = key.rsplit(".", 1)
    return f"{parent}.{int(place) + 1}"
