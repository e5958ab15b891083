"""Checkpoints of a run: everything in, everything out, and an error where they do not match."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from cyclegan_tf.config import Config
from cyclegan_tf.errors import UserError
from cyclegan_tf.models.networks import Generators, build_generators
from cyclegan_tf.training.state import TrainingState

FOLDER = "checkpoints"
# What TensorFlow raises for files that do not match or are cut short.
_UNREADABLE = (AssertionError, IndexError, KeyError, ValueError, tf.errors.OpError)


class Checkpoints:
    """Saves and restores a ``TrainingState`` in ``run_dir/checkpoints``.

    Args:
        state: what is saved.
        run_dir: the run directory.
        keep: how many to keep, the newest ones.
    """

    def __init__(self, state: TrainingState, run_dir: Path, keep: int) -> None:
        self.state = state
        self.manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(**_tracked(state)),
            str(Path(run_dir) / FOLDER),
            max_to_keep=keep,
            checkpoint_name="step",
        )

    def save(self) -> None:
        """Writes a checkpoint named after the step."""
        self.manager.save(checkpoint_number=self.state.steps_done())

    def restore_latest(self) -> bool:
        """Restores the newest checkpoint; False if there is none.

        Raises:
            UserError: if it cannot be read or does not hold exactly this state.
        """
        path = self.manager.latest_checkpoint
        if path is None:
            return False
        try:
            self.manager.checkpoint.restore(path).assert_consumed()
        except _UNREADABLE as error:
            raise UserError(
                f"{path}: does not hold this run's state ({_first_line(error)})"
            ) from None
        return True


def load_generators(
    run_dir: Path, config: Config, image_size: int | None = None, weights: str | None = None
) -> Generators:
    """The generators of a run's newest checkpoint: the averages where the run keeps them.

    Args:
        run_dir: the run directory.
        config: its settings.
        image_size: side of the pictures; None for any height and width.
        weights: "last" or "average" instead.

    Raises:
        UserError: if there is no checkpoint, it cannot be read, or the run keeps no averages.
    """
    if weights == "average" and not config.run.average:
        raise UserError(f"--weights average: {run_dir} keeps none (--average 0); take last")
    path = tf.train.latest_checkpoint(str(Path(run_dir) / FOLDER))
    if path is None:
        raise UserError(f"--run-dir {run_dir}: no checkpoint there; train it first")
    generators = build_generators(config, image_size)
    kind = "average" if config.run.average and weights != "last" else "generator"
    names = {f"{kind}_{direction}": model for direction, model in generators._asdict().items()}
    try:
        status = tf.train.Checkpoint(**names).restore(path).expect_partial()
        status.assert_existing_objects_matched()
    except _UNREADABLE as error:
        raise UserError(
            f"{path}: does not hold this run's weights ({_first_line(error)})"
        ) from None
    return generators


def newest_step(run_dir: Path) -> int:
    """The steps that the newest checkpoint of a run holds."""
    path = tf.train.latest_checkpoint(str(Path(run_dir) / FOLDER))
    if path is None:
        raise UserError(f"--run-dir {run_dir}: no checkpoint there; train it first")
    return int(path.rsplit("-", 1)[1])


def _tracked(state: TrainingState) -> dict[str, object]:
    tracked = {
        **state.networks._asdict(),
        "generator_optimizer": state.generator_optimizer,
        "discriminator_optimizer": state.discriminator_optimizer,
        "histories_a": state.histories_a,
        "histories_b": state.histories_b,
        "step": state.step,
    }
    if state.averages:
        tracked.update(
            {f"average_{name}": model for name, model in state.averages._asdict().items()}
        )
    return tracked


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
