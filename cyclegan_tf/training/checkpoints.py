"""Checkpoints of a run: everything in, everything out, and never a part of one.

A checkpoint is TensorFlow's two files and a seal, a small JSON file with their sizes and SHA-256.
They are written in a folder of their own and renamed into place: a checkpoint whose index is there
is whole, whenever the process died. Whether the files have changed since, the seal tells; then the
checkpoint before is used.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from tensorflow import keras

from cyclegan_tf.config import Config
from cyclegan_tf.errors import UserError
from cyclegan_tf.files import to_disk, write_atomically
from cyclegan_tf.models.generator import build_generator
from cyclegan_tf.models.layers import variables_by_layer
from cyclegan_tf.models.networks import DIRECTIONS, Generators, present
from cyclegan_tf.training.gathering import Histories
from cyclegan_tf.training.run_directory import check_init_from
from cyclegan_tf.training.state import TrainingState

FOLDER = "checkpoints"
BEST = "best.json"
ROLLED_BACK = "rolled_back.json"
_UNFINISHED, _DAMAGED = ".unfinished", "damaged"
_DATA, _INDEX, _SEAL = ".data-00000-of-00001", ".index", ".json"
_FILES = (_DATA, _INDEX, _SEAL)  # in the order of renaming
# A weight's key where models are saved by layer: generator_ab/stem_conv/0/.ATTRIBUTES/…
_BY_LAYER = re.compile(r"(generator|average)_(ab|ba)/\w+/\d+/\.ATTRIBUTES/VARIABLE_VALUE")
# What TensorFlow raises for files that do not match or are cut short.
_UNREADABLE = (AssertionError, IndexError, KeyError, ValueError, tf.errors.OpError)


class Checkpoints:
    """Saves and restores a ``TrainingState`` in ``run_dir/checkpoints``.

    Args:
        state: what is saved.
        run_dir: the run directory.
        keep: how many to keep, the newest ones; the best one is kept besides.
        histories: those of all workers, where there are several.
        is_chief: whether this is the one of several workers that writes.
    """

    def __init__(
        self,
        state: TrainingState,
        run_dir: Path,
        keep: int,
        histories: Histories | None = None,
        is_chief: bool = True,
    ) -> None:
        self.state, self.keep = state, keep
        self.histories, self.is_chief = histories, is_chief
        self.folder = Path(run_dir) / FOLDER
        self.checkpoint = tf.train.Checkpoint(
            **_by_layer(_models(state)), **_rest(state, histories)
        )
        self.saved_step: int | None = None
        self.rolled_back_to: int | None = None

    def save(self) -> None:
        """Writes a checkpoint named after the step, unless it is there already.

        Every worker has to call it at the same step; the chief writes.

        Raises:
            UserError: if it cannot be written, as when the disk is full. The checkpoints before it
                stay as they are.
        """
        step = self.state.steps_done()
        if step == self.saved_step:
            return
        if self.histories:
            self.histories.gather()
        if self.is_chief:
            self._write(step)
        self.saved_step = step

    def _write(self, step: int) -> None:
        try:
            _write(self.checkpoint, self.folder, step)
        except (OSError, tf.errors.OpError) as error:
            raise UserError(
                f"{self.folder}: the checkpoint of step {step} cannot be written "
                f"({_reason(error)}); make room, and the same command goes on from step "
                f"{self.saved_step or 0}"
            ) from None
        self._remove_old()

    def mark_best(self, step: int) -> None:
        """Keeps a checkpoint, as the best so far, until another one is marked."""
        write_atomically(self.folder / BEST, json.dumps({"step": step}).encode())
        self._remove_old()

    def give_up_newest(self) -> None:
        """To be called before a roll-back: sets the newest checkpoint aside if it failed twice.

        It failed twice if the last roll-back came to it and nothing was saved since. The only
        checkpoint stays.
        """
        if self.rolled_back_to == self.saved_step and len(steps_saved(self.folder)) > 1:
            self._set_aside((self.saved_step,))

    def note_roll_back(self, factor: float) -> None:
        """To be called after a roll-back: what it left of the rate outlives the process.

        The checkpoint that it came to holds the rate of before, and no other is made at once.
        """
        self.rolled_back_to = self.saved_step
        self.state.rate_factor.assign(factor)
        if self.is_chief:
            note = json.dumps({"step": self.saved_step, "rate_factor": factor})
            write_atomically(self.folder / ROLLED_BACK, note.encode())

    def _recall_roll_back(self) -> None:
        """Where a roll-back came to the restored checkpoint, and nothing was saved since."""
        if self.state.rate_factor is None:
            return
        note = _read_note(self.folder / ROLLED_BACK)
        factor = note.get("rate_factor")
        if note.get("step") == self.saved_step and type(factor) is float and 0.0 < factor <= 1.0:
            self.rolled_back_to = self.saved_step
            self.state.rate_factor.assign(factor)

    def restore_latest(self) -> bool:
        """Restores the newest whole checkpoint; False if the run has none yet.

        A damaged one is set aside with a warning, and the one before is taken.

        Raises:
            UserError: if none is whole, or it does not hold exactly this state.
        """
        found = find_checkpoint(self.folder.parent)
        if found is None:
            return False
        self._set_aside(found.damaged)
        if not is_of_training(found):
            raise UserError(
                f"--run-dir {self.folder.parent}: holds generators alone, as an import does; it "
                "cannot be trained on, but a new run can start from it with --init-from"
            )
        checkpoint = self.checkpoint
        if not _is_by_layer(found):
            models = _models(self.state)
            checkpoint = tf.train.Checkpoint(**models, **_rest(self.state, self.histories))
        try:
            self._check_replicas(found.path)
            _restore(checkpoint, found.path).assert_consumed()
        except _UNREADABLE as error:
            raise UserError(
                f"{found.path}: does not hold this run's state ({_reason(error)})"
            ) from None
        if self.histories:
            self.histories.scatter()
        self.saved_step = found.step
        self._recall_roll_back()
        return True

    def _check_replicas(self, path: str) -> None:
        names = _reader(path).get_variable_to_shape_map()
        saved = len({name.split("/")[1] for name in names if name.startswith("histories_a/")})
        here = len(self.histories.a if self.histories else self.state.histories_a)
        if saved != here:
            raise UserError(
                f"{path}: was saved by {saved} replica(s), and here are {here}; each has pictures "
                f"of its own, so go on with {saved} (--replicas, or as many GPUs), or start "
                "another run with --init-from"
            )

    def _remove_old(self) -> None:
        kept = set(steps_saved(self.folder)[: self.keep]) | {best_step(self.folder)}
        for path in self.folder.glob("step-*"):
            if _step_of(path.name) not in kept:
                path.unlink(missing_ok=True)

    def _set_aside(self, steps: tuple[int, ...]) -> None:
        """Moves bad checkpoints out of the way, where one can still look at them."""
        if not self.is_chief:
            return
        if best_step(self.folder) in steps:  # else what takes its place would be the best unseen
            (self.folder / BEST).unlink()
        for step in steps:
            for kind in _FILES:
                path = self.folder / (_name(step) + kind)
                if path.exists():
                    (self.folder / _DAMAGED).mkdir(exist_ok=True)
                    path.replace(self.folder / _DAMAGED / path.name)


@dataclass(frozen=True)
class Found:
    """The newest whole checkpoint of a run.

    Attributes:
        path: as TensorFlow wants it, without the ends of the files' names.
        step: the steps it holds.
        damaged: the steps of newer ones that are not whole.
    """

    path: str
    step: int
    damaged: tuple[int, ...]


def find_checkpoint(run_dir: Path) -> Found | None:
    """The newest whole checkpoint of a run; None if it has none yet.

    Warns on stderr of newer ones that are damaged, and says which steps are lost. Changes nothing.

    Raises:
        UserError: if there are checkpoints but all are damaged.
    """
    folder = Path(run_dir) / FOLDER
    damaged: list[str] = []
    steps = steps_saved(folder)
    for number, step in enumerate(steps):
        problem = _damage(folder, step)
        if problem is None:
            if damaged:
                warn(
                    f"{'; '.join(damaged)}; going back to step {step}, so what was learnt in the "
                    f"steps {step + 1} to {steps[0]} is lost and they have to be taken again"
                )
            return Found(str(folder / _name(step)), step, tuple(steps[:number]))
        damaged.append(problem)
    if damaged:
        raise UserError(
            f"{'; '.join(damaged)}: no checkpoint is whole; restore one from a backup, or delete "
            f"{folder} to start from step 0"
        )
    return None


def steps_saved(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, the newest first; damaged ones are among them."""
    names = [path.name for kind in (_INDEX, _SEAL) for path in Path(folder).glob("step-*" + kind)]
    return sorted({step for step in map(_step_of, names) if step is not None}, reverse=True)


def best_step(folder: Path) -> int | None:
    """The step of the checkpoint that was marked as the best; None if there is none."""
    step = _read_note(Path(folder) / BEST).get("step")
    return step if type(step) is int and step in steps_saved(folder) else None


def _read_note(path: Path) -> dict[str, object]:
    """What a small file beside the checkpoints says; nothing if it is missing or damaged."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def load_generators(
    run_dir: Path,
    config: Config,
    directions: Sequence[str] | None = None,
    image_size: int | None = None,
    weights: str | None = None,
) -> Generators:
    """The generators of ``find_weights``; the rest as for ``generators_of``."""
    found = find_weights(run_dir, config, weights)
    return generators_of(found, config, directions, image_size, weights)


def find_weights(run_dir: Path, config: Config, weights: str | None = None) -> Found:
    """The checkpoint that holds the weights asked for: the best one for "best", else the newest.

    A run that trains makes newer ones all the time, so what belongs together is to be loaded from
    one that was found once.

    Raises:
        UserError: if there is none, or the run keeps no averages and weights is "average".
    """
    if weights == "average" and not config.run.average:
        raise UserError(f"--weights average: {run_dir} keeps none (--average 0); take last")
    return _best(run_dir) if weights == "best" else _newest(run_dir)


def generators_of(
    found: Found,
    config: Config,
    directions: Sequence[str] | None = None,
    image_size: int | None = None,
    weights: str | None = None,
) -> Generators:
    """The generators that a checkpoint holds: their averages where the run keeps them.

    Args:
        found: the checkpoint.
        config: the run's settings.
        directions: "ab", "ba" or both; None for all that are there.
        image_size: side of the pictures; None for any height and width.
        weights: "last" for those that are trained, even where there are averages.

    Raises:
        UserError: if the checkpoint cannot be read, or has no such generator.
    """
    kind, held = _kind(config, weights), directions_of(found, config, weights)
    for direction in directions or ():
        if held and direction not in held:
            run_dir = Path(found.path).parent.parent
            raise UserError(f"--direction {direction}: {run_dir} holds only {held[0]}")
    names = directions or held or DIRECTIONS
    made = {name: _generator(found, config, kind, name, image_size) for name in names}
    return Generators(made.get("ab"), made.get("ba"))


def directions_of(found: Found, config: Config, weights: str | None = None) -> tuple[str, ...]:
    """The directions whose generators a checkpoint holds.

    A training saves both, or only A to B if it is one-sided; a run that was imported may have one.

    Raises:
        UserError: if it cannot be read.
    """
    saved = {name.split("/")[0] for name in _names_in(found)}
    kind = _kind(config, weights)
    return tuple(name for name in DIRECTIONS if f"{kind}_{name}" in saved)


def is_of_training(found: Found) -> bool:
    """Whether a checkpoint holds a training's state, not generators alone, as an import's does.

    Raises:
        UserError: if it cannot be read.
    """
    return "step/.ATTRIBUTES/VARIABLE_VALUE" in _names_in(found)


def check_pictures_known(
    run_dir: Path, found: Found, config: Config, other: str | None = None
) -> None:
    """UserError where a run was imported without its pictures, and ``other`` names none instead."""
    is_told = other or config.data.data != Config().data.data
    if not is_told and not is_of_training(found):
        raise UserError(
            f"--data: is needed, as {run_dir} was imported without; name pictures like those that "
            "it was trained on"
        )


def save_generators(run_dir: Path, generators: Mapping[str, keras.Model]) -> None:
    """Makes a checkpoint of generators alone, by direction: it can be exported, not trained on.

    One of both directions follows one of a single direction, which it replaces.

    Raises:
        UserError: if it cannot be written, as when the disk is full.
    """
    folder, number = Path(run_dir) / FOLDER, len(generators) - 1
    models = {f"generator_{direction}": model for direction, model in generators.items()}
    try:
        _write(tf.train.Checkpoint(**_by_layer(models)), folder, number)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"{folder}: the generators cannot be written ({_reason(error)}); make room, and give "
            "the same command again"
        ) from None
    for path in folder.glob("step-*"):
        if _step_of(path.name) != number:
            path.unlink(missing_ok=True)


def start_from(state: TrainingState, config: Config) -> None:
    """Gives a new run the networks of the run that ``config.run.init_from`` names.

    Averages start as the other run's, if it keeps any; optimizers, history and step start anew, and
    so do, with a warning, the networks that an imported run lacks, and the projector of a one-sided
    training where the other was none.

    Raises:
        UserError: if there is no such run, its networks are others, or it has no checkpoint.
    """
    other_dir = Path(config.run.init_from)
    other = check_init_from(config)
    found = _newest(other_dir, "--init-from")
    models = present(state.networks)
    averages = present(state.averages) if state.averages else {}
    if not is_of_training(found):
        held = [f"generator_{direction}" for direction in directions_of(found, other)]
        warn(f"--init-from {other_dir}: holds {' and '.join(held)} alone; all else starts anew")
        models = {name: model for name, model in models.items() if name in held}
        averages = {name: model for name, model in averages.items() if f"generator_{name}" in held}
        if not models:
            raise UserError(
                f"--init-from {other_dir}: holds {' and '.join(held)} alone, which this training "
                "lacks; name another run, or train both directions"
            )
    elif state.projector is not None:
        if other.one_sided():
            models = {**models, "projector": state.projector}
        else:
            warn(f"--init-from {other_dir}: is not one-sided; the projector starts anew")
    _load_models(found, models)
    kind = "average" if other.run.average else "generator"
    _load_models(found, {f"{kind}_{name}": model for name, model in averages.items()})


def warn(text: str) -> None:
    """Prints one line on stderr."""
    print(f"warning: {text}", file=sys.stderr)


def _best(run_dir: Path) -> Found:
    folder = Path(run_dir) / FOLDER
    step = best_step(folder)
    if step is None:
        raise UserError(
            f"--weights best: {run_dir} was not scored while it trained (--evaluate-every); "
            "take last or average"
        )
    problem = _damage(folder, step)
    if problem is not None:
        raise UserError(f"--weights best: {problem}; take last or average")
    return Found(str(folder / _name(step)), step, ())


def _newest(run_dir: Path, flag: str = "--run-dir") -> Found:
    found = find_checkpoint(run_dir)
    if found is None:
        raise UserError(f"{flag} {run_dir}: no checkpoint there; train it first")
    return found


def _kind(config: Config, weights: str | None = None) -> str:
    """What generators are called in a checkpoint, before the direction."""
    return "average" if config.run.average and weights != "last" else "generator"


def _names_in(found: Found) -> Collection[str]:
    try:
        return _reader(found.path).get_variable_to_shape_map()
    except _UNREADABLE as error:
        raise UserError(f"{found.path}: cannot be read ({_reason(error)})") from None


def _generator(
    found: Found, config: Config, kind: str, direction: str, image_size: int | None
) -> keras.Model:
    generator = build_generator(config, image_size=image_size, name=f"generator_{direction}")
    _load_models(found, {f"{kind}_{direction}": generator})
    return generator


def _write(checkpoint: tf.train.Checkpoint, folder: Path, step: int) -> None:
    """Writes a checkpoint into a folder of its own and publishes it."""
    unfinished = folder / _UNFINISHED
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        checkpoint.write(str(unfinished / _name(step)))
        _publish(unfinished, folder, step)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _publish(unfinished: Path, folder: Path, step: int) -> None:
    """Makes a written checkpoint durable and renames it into place."""
    name = _name(step)
    files = {name + kind: _described(unfinished / (name + kind)) for kind in (_DATA, _INDEX)}
    (unfinished / (name + _SEAL)).write_text(json.dumps({"files": files}), encoding="utf-8")
    for kind in _FILES:
        to_disk(unfinished / (name + kind))
        (unfinished / (name + kind)).replace(folder / (name + kind))
    to_disk(folder)
    # Nothing here reads this file, but TensorFlow's own tools find the newest one by it.
    tf.compat.v1.train.update_checkpoint_state(str(folder), str(folder / name))


def _load_models(found: Found, models: dict[str, tf.keras.Model]) -> None:
    """Restores models from a checkpoint by their names in it."""
    tracked = _by_layer(models) if _is_by_layer(found) else models
    try:
        status = _restore(tf.train.Checkpoint(**tracked), found.path).expect_partial()
        status.assert_existing_objects_matched()
    except _UNREADABLE as error:
        raise UserError(
            f"{found.path}: does not hold this run's weights ({_reason(error)})"
        ) from None


def _by_layer(models: Mapping[str, keras.Model]) -> dict[str, dict[str, list[tf.Variable]]]:
    """What is saved of models: Keras's own structure is another one in each of its versions."""
    return {name: variables_by_layer(model) for name, model in models.items()}


def _is_by_layer(found: Found) -> bool:
    """Whether models were saved so, or, as until 2026-11-27, as Keras's objects.

    Those can be read with the Keras that has written them alone.
    """
    return any(_BY_LAYER.match(name) for name in _names_in(found))


def _models(state: TrainingState) -> dict[str, keras.Model]:
    """All networks of a training by their names in a checkpoint."""
    averages = present(state.averages) if state.averages else {}
    projector = {"projector": state.projector} if state.projector is not None else {}
    named = {f"average_{name}": model for name, model in averages.items()}
    return {**present(state.networks), **projector, **named}


def _rest(state: TrainingState, histories: Histories | None) -> dict[str, object]:
    """All else that a checkpoint holds."""
    tracked = {
        "generator_optimizer": state.generator_optimizer,
        "discriminator_optimizer": state.discriminator_optimizer,
        "histories_a": histories.a if histories else state.histories_a,
        "histories_b": histories.b if histories else state.histories_b,
        "step": state.step,
    }
    if state.rate_factor is not None:
        tracked["rate_factor"] = state.rate_factor
    return tracked


def _name(step: int) -> str:
    return f"step-{step}"


def _step_of(name: str) -> int | None:
    """The step in a file's name; None if it is no file of a checkpoint."""
    match = re.fullmatch(r"step-(\d{1,18})\.(index|json|data-\d{5}-of-\d{5})", name, re.ASCII)
    return int(match[1]) if match else None


def _described(path: Path) -> dict[str, object]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _damage(folder: Path, step: int) -> str | None:
    """What is wrong with a checkpoint; None if it is whole as far as one can tell."""
    name = _name(step)
    present = [(folder / (name + kind)).is_file() for kind in (_DATA, _INDEX)]
    if not all(present):
        return f"{folder / name}: a file of it is missing"
    seal = folder / (name + _SEAL)
    if not seal.exists():  # as older versions wrote it, or killed just before the last renaming
        return None
    try:
        wanted = json.loads(seal.read_text(encoding="utf-8"))["files"]
        for kind in (_DATA, _INDEX):
            if wanted[name + kind] != _described(folder / (name + kind)):
                return f"{folder / (name + kind)}: is not what was written"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{seal}: cannot be read"
    return None


def _restore(checkpoint: tf.train.Checkpoint, path: str):
    """Restores what was written here, or what a CheckpointManager saved, which counts its saves."""
    counted = _reader(path).has_tensor("save_counter/.ATTRIBUTES/VARIABLE_VALUE")
    return (checkpoint.restore if counted else checkpoint.read)(path)


def _reader(path: str):
    return tf.train.load_checkpoint(path)


def _reason(error: BaseException) -> str:
    """The first line of an error's message."""
    text = getattr(error, "strerror", None) or str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
