"""The training loop: takes a run from its newest checkpoint to its last step."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import nan
from pathlib import Path
from typing import Callable

import numpy as np
import tensorflow as tf

from cyclegan_tf.cluster import Cluster
from cyclegan_tf.config import Config
from cyclegan_tf.data.pipeline import batch_names, training_pairs
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.errors import UserError
from cyclegan_tf.models.layers import precision_scope
from cyclegan_tf.reporting.metrics import MetricsLog, read_metrics
from cyclegan_tf.reporting.progress import Progress
from cyclegan_tf.reporting.report import write_report
from cyclegan_tf.training.checkpoints import Checkpoints, best_step, start_from, steps_saved, warn
from cyclegan_tf.training.contrastive import make_step
from cyclegan_tf.training.distillation import keep_teacher, load_teacher
from cyclegan_tf.training.examiner import Examiner, step_of_best
from cyclegan_tf.training.gathering import Histories
from cyclegan_tf.training.run_directory import data_identity
from cyclegan_tf.training.sampler import Sampler
from cyclegan_tf.training.schedule import (
    identity_share,
    learning_rate,
    steps_per_epoch,
    total_steps,
)
from cyclegan_tf.training.state import TrainingState

_LEAST_RATE = 1 / 32  # of the learning rate: after so many roll-backs, another one is vain.
_SECONDS_PER_CALL = 1.0  # so that Ctrl-C never waits long, and the progress bar moves

# Without AutoGraph, which looks through all code that comes into a graph for `if` and `for`:
# nothing here needs it, and it took 3 s of every start.
_as_written = tf.autograph.experimental.do_not_convert


class Training:
    """A run in progress, made new or restored from its newest checkpoint.

    Args:
        config: the settings.
        run_dir: where everything is written; it exists.
        shards: the data set.
        strategy: the devices.
        precision: "float32" or "bfloat16".

    Raises:
        UserError: if the newest checkpoint does not fit the settings, or the teacher that they name
            is no trained run.
    """

    @_as_written
    def __init__(
        self,
        config: Config,
        run_dir: Path,
        shards: Shards,
        strategy: tf.distribute.Strategy,
        precision: str,
    ) -> None:
        self.config, self.run_dir = config, run_dir
        self.cluster = Cluster.from_environment()
        part = (self.cluster.index, self.cluster.workers)
        self.shards, self.strategy = dataclasses.replace(shards, part=part), strategy
        self._check_same_settings(precision)
        pairs = shards.pairs_per_epoch()
        self.steps_per_epoch = steps_per_epoch(config, pairs)
        self.total = total_steps(config, pairs)
        self.state = TrainingState(config, strategy, precision)
        with strategy.scope(), precision_scope(precision):
            self.teacher = load_teacher(config, run_dir)
        self.step = make_step(config, self.state, strategy, self.total, self.teacher)
        self.checkpoints = Checkpoints(
            self.state,
            run_dir,
            config.run.keep_checkpoints,
            Histories(self.state, config, strategy),
            self.cluster.is_chief,
        )
        if not self.checkpoints.restore_latest() and config.run.init_from:
            start_from(self.state, config)
        self._check_same_step()
        self._check_same_networks()
        self.interrupted = False  # by Ctrl-C, when ``run`` comes back early
        self._checkpoint_waits = False
        self.sampler = Sampler(shards, self.state.shown_generators(), config.data)
        self.examiner = Examiner(config, self.state, shards, self.total)
        self._mark_best()

    def finished(self) -> bool:
        """Whether every step has been taken."""
        return self.state.steps_done() >= self.total

    @_as_written
    def run(self) -> bool:
        """Trains to the last step, or until SIGINT or SIGTERM; True if it came to the last step.

        Raises:
            UserError: after too many steps in a row whose loss or gradient is not finite.
        """
        if self.teacher and self.cluster.is_chief:
            keep_teacher(self.teacher, self.run_dir)
        note = ""
        with stop_signals() as received:
            while True:
                try:
                    return self._run(received, note)
                except _NotFinite as error:
                    text = str(error)
                    if not self._rolled_back():
                        self._write_report()
                        other = " or with --on-nonfinite rollback"
                        raise UserError(
                            f"{text}: look at the pictures, or start another run with a lower "
                            f"--learning-rate{other * (self.state.rate_factor is None)}"
                        ) from None
                rate = f"{float(self.state.rate_factor.numpy()):g} of the learning rate"
                # In this order, as the report cuts what names the pictures of a large batch.
                note = f"going back to step {self.state.steps_done()} with {rate}: {text}"
                warn(note)

    def _run(self, received: list[int], note: str) -> bool:
        """``note``: what the log shall say first, of a session that failed before."""
        done, batch_size = self.state.steps_done(), self.config.run.batch_size
        if self.cluster.is_chief:
            log = MetricsLog(self.run_dir, done)
            bar = Progress(self.total, done, self.steps_per_epoch, batch_size)
        else:
            log = bar = _Nothing()
        with log, bar:
            if note:
                log.warn(done, note)
            if done == 0:
                self._save_first()
                self._show(log)
            means = Means()
            bad = int(self.step.nonfinite.total.numpy())
            for steps, seconds, losses in self._calls(received):
                bad, before = int(self.step.nonfinite.total.numpy()), bad
                means.add(steps, seconds, losses, skipped=bad - before)
                bar.update(steps, losses if bad - before < steps else {})
                if self.step.nonfinite.longest.numpy() >= self.config.run.max_nonfinite:
                    text = self._describe_nonfinite()
                    log.warn(self.state.steps_done(), text)
                    raise _NotFinite(text)
                self._write_what_is_due(log, means, bar)
            if self.finished() or self._is_sound():
                self.checkpoints.save()
            self.interrupted = signal.SIGINT in received
        self._write_report()
        return self.finished()

    def _write_report(self) -> None:
        if self.cluster.is_chief:
            write_report(self.run_dir)

    def _show(self, log: MetricsLog) -> None:
        if self.cluster.is_chief:
            self.sampler.save(self.run_dir, self.state.steps_done(), log)

    def _report(self, log: MetricsLog, bar: Progress) -> None:
        """Says what is wrong with the run, and writes the report."""
        if not self.cluster.is_chief:
            return
        done = self.state.steps_done()
        for complaint in self.examiner.complaints(read_metrics(self.run_dir)):
            log.warn(done, complaint.text, complaint.check)
            bar.note(f"step {done}: {complaint.text}")
        self._write_report()

    def _mark_best(self) -> None:
        """Marks the best of the checkpoints that are there.

        Another one is marked where the process died between saving and marking, or where the one
        that was marked has been set aside.
        """
        if not (self.cluster.is_chief and self.examiner.evaluator):
            return
        folder = self.checkpoints.folder
        best = step_of_best(read_metrics(self.run_dir), steps_saved(folder))
        if best is not None and best != best_step(folder):
            self.checkpoints.mark_best(best)

    def _save_first(self) -> None:
        """A checkpoint of step 0, where it could not be made again or may be gone back to."""
        if self.config.run.init_from or self.state.rate_factor is not None:
            self.checkpoints.save()

    def _rolled_back(self) -> bool:
        """Goes back to an earlier checkpoint with half the rate, if that is wanted and not vain."""
        factor = self.state.rate_factor
        if factor is None or factor.numpy() <= _LEAST_RATE:
            return False
        half = float(factor.numpy()) / 2
        self.checkpoints.give_up_newest()
        self._over_workers(0.0)  # so that no worker looks for the newest one before that
        self.checkpoints.restore_latest()
        self.checkpoints.note_roll_back(half)
        self._mark_best()
        self.step.nonfinite.forget()
        self._checkpoint_waits = False
        return True

    def _is_sound(self) -> bool:
        """Whether the last step was finite: other weights would take a place to go back to."""
        return not self.step.nonfinite.in_row.numpy()

    def _describe_nonfinite(self) -> str:
        found, run = self.step.nonfinite, self.config.run
        step, row = int(found.step.numpy()), int(found.longest.numpy())
        values = zip(self.step.metric_names(), found.terms.numpy())
        bad = [f"{name} {value}" for name, value in values if not np.isfinite(value)]
        own = run.batch_size // self.cluster.workers
        names = batch_names(self.shards, self.config.data, own, run.seed, step)
        return (
            f"--run-dir {self.run_dir}: step {step + 1}: {', '.join(bad) or 'a gradient'} not "
            f"finite, for {row} steps in a row; its pictures: {', '.join(names)}; they changed no "
            "weight"
        )

    def _calls(self, received: list[int]) -> Iterator[tuple[int, float, dict[str, float]]]:
        """Calls the step for about a second at a time: (steps, seconds, mean losses) of each call.

        A call ends wherever something is due. How steps are grouped into calls changes no weight.
        """
        pairs, group = self._pairs(), 1
        traced = False
        while not self.finished() and not self._stopping(received):
            steps = min(group, self._steps_until_due())
            start = time.monotonic()
            losses = self.step.run(pairs, tf.constant(steps))
            losses = {name: float(value) for name, value in losses.items()}
            seconds = time.monotonic() - start
            if self.cluster.workers > 1:  # All workers have to take the same number of steps.
                group = self.config.run.steps_per_call
            elif traced:
                fitting = int(_SECONDS_PER_CALL * steps / seconds)
                group = max(1, min(self.config.run.steps_per_call, fitting))
            traced = True  # The first call's time is mostly tracing, and says nothing of the next.
            yield steps, seconds, losses

    def _stopping(self, received: list[int]) -> bool:
        """Whether this or any other worker was told to stop."""
        if self.cluster.workers == 1:
            return bool(received)
        return self._over_workers(float(bool(received))) > 0

    def _check_same_settings(self, precision: str) -> None:
        """What workers do differently must not go unnoticed: each would learn something else."""
        settings = self.config.replace(data="").to_json()  # Paths may differ.
        text = json.dumps([settings, precision, data_identity(self.shards)])
        own = float(zlib.crc32(text.encode()))
        if self._over_workers(own) != own * self.strategy.num_replicas_in_sync:
            raise UserError(
                f"worker {self.cluster.index}: another worker has other settings or pictures, or "
                f"computes in another precision than {precision}; give all workers the same "
                "command, with --precision, and the same --data"
            )
        for split in ("trainA", "trainB"):
            count = self.shards.manifest.count(split)
            if count < self.cluster.workers:
                raise UserError(
                    f"--data {self.config.data.data}: {split} has {count} pictures, fewer than "
                    f"there are workers ({self.cluster.workers}); start fewer"
                )

    def _check_same_step(self) -> None:
        done = self.state.steps_done()
        if self._over_workers(float(done)) != done * self.strategy.num_replicas_in_sync:
            raise UserError(
                f"--run-dir {self.run_dir}: worker {self.cluster.index} found step {done} there, "
                "another worker another one; all workers need the same folder, on a shared disk"
            )

    def _check_same_networks(self) -> None:
        """A run that is started from could be another one for each worker, or go on meanwhile.

        Every worker would then add the same updates to other weights.
        """
        if self.cluster.workers == 1:
            return
        weights = [
            *self.state.generator_variables(),
            *self.state.discriminator_variables(),
            *self.state.average_variables(),
        ]
        if self.teacher:
            weights += [w for model in self.teacher.generators.values() for w in model.weights]
        own = 0
        for weight in weights:
            own = zlib.crc32(weight.numpy().tobytes(), own)
        if self._over_workers(float(own)) != float(own) * self.strategy.num_replicas_in_sync:
            raise UserError(
                f"worker {self.cluster.index}: another worker starts from other networks; give all "
                "the same --init-from and --teacher, runs that do not go on meanwhile"
            )

    def _over_workers(self, value: float) -> float:
        """The sum over all replicas; it waits until every worker has called it."""
        if self.cluster.workers == 1:
            return value * self.strategy.num_replicas_in_sync
        return float(self._sum(tf.constant(value, tf.float64)))

    @tf.function
    def _sum(self, value: tf.Tensor) -> tf.Tensor:
        values = self.strategy.run(lambda: tf.identity(value))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    def _steps_until_due(self) -> int:
        run, done = self.config.run, self.state.steps_done()
        dues = [run.log_every, run.sample_every, run.checkpoint_every]
        dues += [self.config.evaluate.every] if self.examiner.evaluator else []
        return min(self.total - done, *(due - done % due for due in dues))

    def _is_due(self, every: int) -> bool:
        done = self.state.steps_done()
        return done % every == 0 or done == self.total

    def _pairs(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Batches for all replicas of this worker."""
        return iter(
            training_pairs(
                self.shards,
                self.config.data,
                batch_size=self.config.run.batch_size // self.cluster.workers,
                seed=self.config.run.seed,
                start_step=self.state.steps_done(),
            )
        )

    def _write_what_is_due(self, log: MetricsLog, means: Means, bar: Progress) -> None:
        run, done = self.config.run, self.state.steps_done()
        values: dict[str, float] = {}
        if self._is_due(run.log_every):
            if means.skipped:
                text = (
                    f"{means.skipped} steps whose loss or gradient was not finite changed nothing"
                )
                log.warn(done, text)
                bar.note(f"warning: step {done}: {text}")
            values.update({**self._losses(done, means), **self._pace(done, means)})
        show = self._is_due(run.sample_every)
        evaluate = bool(self.examiner.evaluator) and self._is_due(self.config.evaluate.every)
        if self.cluster.is_chief:
            values.update(self.examiner.health() if show or evaluate else {})
            values.update(self.examiner.scores() if evaluate else {})
        if values:
            log.write(done, values, self.examiner.evaluator.protocol() if evaluate else None)
        if show:
            self._show(log)
        if show or evaluate:
            self._report(log, bar)
        is_sound = self._is_sound()
        self._checkpoint_waits |= done % run.checkpoint_every == 0
        if self._checkpoint_waits and is_sound:
            self.checkpoints.save()
            self._checkpoint_waits = False
        if evaluate and is_sound and self._is_best():
            self.checkpoints.save()
            self._mark_best()

    def _is_best(self) -> bool:
        """Whether the newest scores, which the chief has taken, are the best so far."""
        done, best = self.state.steps_done(), False
        if self.cluster.is_chief:
            rivals = {best_step(self.checkpoints.folder), done}
            best = step_of_best(read_metrics(self.run_dir), rivals) == done
        return self._over_workers(float(best)) > 0

    def _losses(self, done: int, means: Means) -> dict[str, float]:
        """The mean losses since the last line; the identity's over the steps that took it."""
        share = identity_share(self.config, done - means.steps, done, self.total)
        values = means.take()
        of_identity = [name for name in values if name.startswith("identity_")]
        for name in of_identity:
            value = values.pop(name)
            if share:
                values[name] = value / share
        return values

    def _pace(self, done: int, means: Means) -> dict[str, float]:
        rate = float(learning_rate(self.config, tf.constant(done, tf.int64), self.total))
        if self.state.rate_factor is not None:
            rate *= float(self.state.rate_factor.numpy())
        return {
            "learning_rate": rate,
            "images_per_second": means.steps_per_second * self.config.run.batch_size,
            "epoch": done / self.steps_per_epoch,
        }


class _Nothing:
    """The log and the progress bar of a worker that is not the chief."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_options: None

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


class _NotFinite(Exception):
    """Too many steps in a row had a loss or a gradient that is not finite."""


class Means:
    """Means of the losses over the finite steps since the last ``take``.

    Attributes:
        steps: how many there were since then.
        skipped: how many of them were not finite.
        steps_per_second: over the steps up to the last ``take``.
    """

    def __init__(self) -> None:
        self.steps_per_second = 0.0
        self._clear()

    def _clear(self) -> None:
        self.steps, self._seconds, self.skipped = 0, 0.0, 0
        self._sums: dict[str, float] = {}

    def add(self, steps: int, seconds: float, losses: dict[str, float], skipped: int = 0) -> None:
        """Takes in the mean losses of one call of so many steps, some of which were skipped."""
        finite = steps - skipped
        self.steps += steps
        self._seconds += seconds
        self.skipped += skipped
        for name, value in losses.items():
            added = finite * value if finite else 0.0
            self._sums[name] = self._sums.get(name, 0.0) + added

    def take(self) -> dict[str, float]:
        """The means since the last take, NaN if no step was finite."""
        finite = self.steps - self.skipped
        means = {name: total / finite if finite else nan for name, total in self._sums.items()}
        self.steps_per_second = self.steps / self._seconds
        self._clear()
        return means


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Notes SIGINT and SIGTERM in the list instead; a SIGINT after another one leaves at once."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with _watched_signals():
            yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watched_signals() -> Iterator[None]:
    """Leaves the process at a second Ctrl-C, even in the middle of a long call of TensorFlow.

    Python runs its signal handlers only between such calls; a thread that reads what Python writes
    to the wake-up descriptor does not wait for them.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_leave_at_second_interrupt, args=(reader,), daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writer)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # ends the thread
        thread.join()
        os.close(reader)


def _leave_at_second_interrupt(reader: int) -> None:
    stopping = False
    while number := os.read(reader, 1):
        if stopping and number[0] == signal.SIGINT:
            os.write(2, b"\nstopped at once; the same command goes on from the last checkpoint\n")
            os._exit(128 + signal.SIGINT)  # Nothing is ever half-written, so nothing is tidied up.
        stopping = stopping or number[0] in (signal.SIGINT, signal.SIGTERM)
