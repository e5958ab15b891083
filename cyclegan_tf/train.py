"""Trains a CycleGAN: ``python -m cyclegan_tf.train``.

Without flags it trains the built-in portraits, photographs to anime, in a few minutes. With
``--data FOLDER`` it trains on the pictures in FOLDER/trainA and FOLDER/trainB. The same command on
the same run directory goes on where the run stopped.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from cyclegan_tf.cluster import VARIABLE, Cluster
from cyclegan_tf.config import Config
from cyclegan_tf.data.shards import MENDED, Shards
from cyclegan_tf.environment import enough_memory, prepare_environment, start_tensorflow
from cyclegan_tf.errors import UserError, check_local, first_line, run_command
from cyclegan_tf.flags import Parser, add_setting_flags, given_settings
from cyclegan_tf.presets import make_config, refuse_idle
from cyclegan_tf.training.run_directory import (
    CONFIG_FILE,
    check_data,
    check_init_from,
    check_place,
    check_run_directory,
    check_writable,
    claimed,
    create_run_directory,
    holds_run,
    note_data,
    with_begun_precision,
)

_DEFAULT_PRESET = "demo"
_INTERRUPTED = 130  # the shell's status for a command ended by Ctrl-C
_TERMINATED = 143  # and by SIGTERM
_LONGEST_NAME = 200  # of the 255 bytes that a folder's name may have


def main(argv: list[str] | None = None) -> int:
    """Runs the command; the exit status is 0, 130 after Ctrl-C, or that of ``_stopped``."""
    parser = Parser(prog="python -m cyclegan_tf.train", description=__doc__)
    parser.add_argument(
        "--run-dir", type=Path, help="where the run is kept (default: runs/PRESET-DATA)"
    )
    parser.add_argument(
        "--export-dir",
        type=Path,
        help="where the finished generators go (default: saved_models/NAME OF THE RUN)",
    )
    add_setting_flags(parser, _DEFAULT_PRESET)
    arguments = parser.parse_args(argv)
    given = given_settings(arguments)
    is_auto = arguments.preset == "auto"
    # `auto` picks the batch later; until then, one that may be shared out.
    first = {"batch_size": given.get("replicas") or 1, **given} if is_auto else given
    config = make_config(arguments.preset, **first)
    run_dir = arguments.run_dir or Path("runs") / _run_name(config)
    check_local(run_dir, "--run-dir")
    # Path.resolve would raise at a link that leads to itself.
    name = Path(os.path.realpath(run_dir)).name
    export_dir = arguments.export_dir or Path("saved_models") / name
    check_local(export_dir, "--export-dir")
    if is_auto:
        check_writable(run_dir, "--run-dir")
        check_place(run_dir)
        check_writable(export_dir, "--export-dir")
        start_tensorflow(in_halves=config.has_halves())
        from cyclegan_tf.automatic import pick

        config = pick(config, given, run_dir)
    if not (run_dir / CONFIG_FILE).exists():
        refuse_idle(config, given)
    try:
        with _terminable():
            return train(config, run_dir, export_dir)
    except (KeyboardInterrupt, _Terminated) as stop:  # outside of the steps
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return _stopped(by_interrupt=isinstance(stop, KeyboardInterrupt))


def _stopped(by_interrupt: bool) -> int:
    """The exit status of a run that was stopped before its last step.

    After SIGTERM that is 0, as all went as asked, but not for a worker of a cluster, be it the only
    one: Kubernetes and Slurm start again what has not ended with 0.
    """
    if by_interrupt:
        return _INTERRUPTED
    return _TERMINATED if os.environ.get(VARIABLE) else 0


class _Terminated(BaseException):
    """SIGTERM, where there is no step to finish first."""


@contextmanager
def _terminable() -> Iterator[None]:
    def stop(_number: int, _frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def train(config: Config, run_dir: Path, export_dir: Path) -> int:
    """Trains, exports and says what came of it; returns the exit status.

    Args:
        config: the settings.
        run_dir: a new folder, or one whose run has these settings and goes on.
        export_dir: where the SavedModels go.

    Raises:
        UserError: for anything the user can mend; nothing is half-written then.
    """
    from cyclegan_tf.exporting.serving_files import check_guides

    config = with_begun_precision(config, run_dir)
    prepare_environment(in_halves=config.has_halves())
    if not Cluster.from_environment().is_chief:
        return _train_as_worker(config, run_dir)
    check_writable(export_dir, "--export-dir")
    check_guides(export_dir, "--export-dir")
    with claimed(run_dir):
        return _train(config, run_dir, export_dir)


def _train_as_worker(config: Config, run_dir: Path) -> int:
    """Trains along with the chief, which alone writes, exports and talks.

    What the chief refuses before it waits for the others is refused here as well, as nobody would
    come to whom this one could wait for.
    """
    shards = _checked_shards(config, run_dir, is_new=not holds_run(run_dir, config))
    from cyclegan_tf.training.mending import DAMAGE, mended

    strategy = _start_devices(config)
    try:
        with _other_workers(), _enough_memory(config):
            training = _set_up(config, run_dir, shards, strategy)
            finished = training.finished() or training.run()
    except DAMAGE as error:
        mended(config, run_dir, error)
        raise
    return 0 if finished else _stopped(training.interrupted)


@contextmanager
def _other_workers() -> Iterator[None]:
    """Where there are several workers, an error that came of another one's end is one line."""
    import tensorflow as tf

    of_network = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.InternalError,
        tf.errors.DeadlineExceededError,
        tf.errors.FailedPreconditionError,
    )
    cluster = Cluster.from_environment()
    try:
        yield
    except of_network as error:
        if cluster.workers == 1:
            raise
        raise UserError(
            f"worker {cluster.index}: another worker has ended or cannot be reached "
            f"({first_line(error)}); start all workers again with the same command, and they go on "
            "from the last checkpoint"
        ) from None


def _enough_memory(config: Config) -> AbstractContextManager[None]:
    """Where a device has too little memory, says what takes less."""
    can_recompute = not (config.run.recompute or config.one_sided() or config.generator.dropout)
    return enough_memory(
        f"--image-size {config.data.image_size}, --batch-size {config.run.batch_size}: too little "
        "memory",
        "--recompute true takes less, also in a run that has begun; " * can_recompute
        + "smaller ones need another --run-dir",
    )


def _train(config: Config, run_dir: Path, export_dir: Path) -> int:
    is_new = not check_run_directory(run_dir, config)
    shards = _checked_shards(config, run_dir, is_new)
    from cyclegan_tf.training.mending import DAMAGE, mended

    strategy, was_sound = _start_devices(config), False
    while True:
        try:
            with _other_workers(), _enough_memory(config):
                training = _set_up(config, run_dir, shards, strategy)
                create_run_directory(run_dir, training.config)
                note_data(run_dir, shards)
                finished = training.finished() or training.run()
                scores = _closing_scores(training) if finished else []
            break
        except DAMAGE as error:
            # The step that was under way may be half taken, so all starts from the checkpoint.
            shards, was_sound = mended(config, run_dir, error, was_sound)
    if not finished:
        done, total = training.checkpoints.saved_step or 0, training.total
        print(f"Stopped after step {done} of {total}; everything is saved. To go on:")
        print(f"  {_command('train', *sys.argv[1:])}")
        return _stopped(training.interrupted)
    _finish(training, run_dir, export_dir, scores)
    return 0


def _checked_shards(config: Config, run_dir: Path, is_new: bool) -> Shards:
    """The shards, once all is checked that needs no other worker."""
    shards = _open_shards(config, run_dir)
    check_data(run_dir, config, shards)
    if is_new:
        _check_judge(config, shards)
    return shards


def _check_judge(config: Config, shards: Shards) -> None:
    """UserError where scores were asked for and nothing could give any; presets ask as well."""
    own, asked = config.evaluate, make_config(config.preset).evaluate
    if own.features != "none" or shards.has_truth(config):
        return
    if not own.every and own.images != asked.images:
        raise UserError(f"--evaluate-images {own.images}: does nothing without --evaluate-every")
    if own.every and own.every != asked.every:
        raise UserError(
            f"--evaluate-every {own.every}: the test pictures of --data {config.data.data} are not "
            "known to be pairs, so a network must judge; add --evaluate-features "
            "efficientnet-lite0, or --evaluate-paired"
        )


def _open_shards(config: Config, run_dir: Path) -> Shards:
    """The shards, packed if need be, and TensorFlow, which is imported while the demo is drawn.

    Raises:
        UserError: for a mistake that can be found before that, too.
    """
    from cyclegan_tf.data.sources import open_data

    # A run that has begun holds what it started from.
    if not (run_dir / CONFIG_FILE).exists():
        if config.run.init_from:
            check_init_from(config)
        if config.distillation.teacher:
            Config.load(Path(config.distillation.teacher), "--teacher ")
    many_devices = config.run.replicas > 1 or Cluster.from_environment().workers > 1
    shards = open_data(config.data.data, run_dir / MENDED, apart=many_devices)
    start_tensorflow()
    return shards


def _start_devices(config: Config):
    """The strategy; once in a process, as a second one would use the first one's collectives."""
    import tensorflow as tf

    from cyclegan_tf.training.devices import make_strategy

    tf.get_logger().setLevel("ERROR")
    with _other_workers():
        return make_strategy(config.run)


def _set_up(config: Config, run_dir: Path, shards: Shards, strategy):
    from cyclegan_tf.data.damage import check_sizes
    from cyclegan_tf.training.devices import resolve_precision
    from cyclegan_tf.training.estimate import duration_text, expected_seconds
    from cyclegan_tf.training.loop import Training

    check_sizes(shards)
    precision, reason = resolve_precision(config.run)
    # On another machine, "auto" might be another one.
    config = config.replace(precision=precision)
    training = Training(config, run_dir, shards, strategy, precision)
    if Cluster.from_environment().is_chief:
        _introduce(config, run_dir, training, f"{precision} ({reason})")
        if config.preset == "auto" and not training.finished():
            seconds = expected_seconds(
                config,
                precision,
                training.state.steps_done(),
                training.total,
                training.teacher.generators.values() if training.teacher else (),
            )
            print(f"Expected time: about {duration_text(seconds)}")
    return training


def _introduce(config: Config, run_dir: Path, training, precision: str) -> None:
    shards, workers = training.shards, Cluster.from_environment().workers
    counts = [shards.manifest.count(split) for split in ("trainA", "trainB")]
    print(
        f"{config.preset} on {config.data.data}: {counts[0]} + {counts[1]} pictures at "
        f"{config.data.image_size} px, {training.total} steps of {config.run.batch_size}, "
        f"{training.strategy.num_replicas_in_sync} replica(s) on {_devices(training)}, {precision}"
    )
    if workers > 1:
        for split in ("trainA", "trainB"):
            unit = "shard" if shards.is_parted_by_file(split) else "record"
            print(f"{workers} workers share out {split} by {unit}")
    if config.evaluate.every and training.examiner.evaluator is None:
        print(
            "Not evaluated while training: the test pictures are not known to be pairs; needs a "
            "network, as in"
        )
        print("  --evaluate-features efficientnet-lite0")
    done = training.state.steps_done()
    if done:
        print(f"Going on from step {done} of {run_dir}")


def _devices(training) -> str:
    import tensorflow as tf

    kinds = map(tf.DeviceSpec.from_string, training.strategy.extended.worker_devices)
    return " and ".join(sorted({device.device_type for device in kinds}))


def _closing_scores(training) -> list[str]:
    """Where the test pictures have a truth, what is compared, and a line for each direction."""
    evaluator = training.examiner.closing_evaluator
    if evaluator is None:
        return []
    scores = evaluator.evaluate(training.state.exported_generators())
    without, protocol = evaluator.baselines()["untranslated"], evaluator.protocol()
    return [
        f"Against the truth of {protocol['pairs']} test pairs, {protocol['resize']} px:",
        *(_score_line(" to ".join(way.upper()), scores[way], without[way]) for way in scores),
    ]


def _finish(training, run_dir: Path, export_dir: Path, scores: list[str]) -> None:
    """Exports, and prints the closing lines."""
    from cyclegan_tf.exporting.saved_model import export_saved_models

    try:
        exports = export_saved_models(run_dir, export_dir, flag="--export-dir")
    except UserError as error:
        raise UserError(
            f"{error}; the training is finished and saved, and the same command exports it"
        ) from error
    print(f"\nDone: {training.total} steps.")
    for line in scores:
        print(line)
    print(f"Pictures:  {run_dir / 'samples'}")
    print(f"Report:    {run_dir / 'report.html'}")
    for path in exports:
        print(f"Export:    {path}")
    print("Your own photo:")
    own = ["--run-dir", run_dir, "photo.jpg", "--output", "translated"]
    data = training.config.data
    if data.preprocess != "none":  # Else the pictures' own scale is what was trained.
        own += ["--size", data.image_size]
    print(f"  {_command('translate', *own)}")


def _score_line(name: str, ours: dict[str, float], without: dict[str, float]) -> str:
    return (
        f"{name}: mean absolute error {ours['mae']:.1f} of 255 "
        f"(untranslated {without['mae']:.1f}), "
        f"SSIM {ours['ssim']:.3f} (untranslated {without['ssim']:.3f})"
    )


def _run_name(config: Config) -> str:
    data = re.sub(r"[^A-Za-z0-9]+", "-", Path(config.data.data).name).strip("-") or "data"
    name = config.preset if config.preset == data else f"{config.preset}-{data}"
    return name[:_LONGEST_NAME]


def _command(name: str, *arguments: object) -> str:
    """A line for the user's shell that runs one of our commands with this same Python."""
    return shlex.join([_python(), "-m", f"cyclegan_tf.{name}", *map(str, arguments)])


def _python() -> str:
    """This Python as the user would type it: its name if that finds it, else its path."""
    path = Path(sys.executable)
    if shutil.which(path.name) == str(path):
        return path.name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    run_command(main)
