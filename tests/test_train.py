"""The command cyclegan_tf.train: its errors, its names, and every preset."""

from __future__ import annotations

import functools
import json
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from cyclegan_tf import train as command
from cyclegan_tf.config import Config
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.errors import UserError, run_command
from cyclegan_tf.presets import make_config
from cyclegan_tf.reporting.progress import Progress
from cyclegan_tf.training import devices
from cyclegan_tf.training.loop import Training
from cyclegan_tf.training.mending import mended
from cyclegan_tf.training.run_directory import create_run_directory, note_data
from tests.tiny import chart, content, pack_charts


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """``shards`` and ``pictures``; not to be written to."""
    folder = tmp_path_factory.mktemp("data")
    pack_charts(folder, trainA=6, trainB=5, testA=2, testB=1)
    return folder


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> Path:
    """The current folder, empty; shards are packed beside it."""
    monkeypatch.setenv("CYCLEGAN_TF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def refused(capsys, workplace):
    """A function: runs the command, which must say one line, exit with 2 and leave no trace."""

    def run(*arguments: object) -> str:
        before = content(workplace)
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run_command(lambda _: command.main([str(argument) for argument in arguments]))
        assert caught.value.code == 2
        assert content(workplace) == before
        errors = capsys.readouterr().err
        line = errors.replace("\r", "\n").strip().splitlines()[-1]  # below a progress bar
        assert line.startswith("error: ")
        assert errors.count("error: ") == 1
        return line[len("error: ") :]

    return run


@pytest.fixture
def called(monkeypatch):
    """A function: what the command would train."""
    calls = []
    monkeypatch.setattr(command, "train", lambda *arguments: calls.append(arguments) or 0)

    def run(*arguments: object):
        assert command.main([*map(str, arguments)]) == 0
        return calls.pop()

    return run


# --- Names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "demo"),
        (["--preset", "fast"], "fast-demo"),
        (["--data", "my/selfies & co", "--preset", "fast"], "fast-selfies-co"),
        (["--data", "tfds:cycle_gan/horse2zebra", "--preset", "paper"], "paper-horse2zebra"),
        (["--data", "."], "demo-data"),
        (["--data", "my/" + 300 * "x"], "demo-" + 195 * "x"),  # a folder can have that name
    ],
)
def test_a_run_is_named_after_preset_and_data(called, arguments, name):
    _, run_dir, export_dir = called(*arguments)
    assert (run_dir, export_dir) == (Path("runs") / name, Path("saved_models") / name)


def test_exports_are_named_after_the_run(called):
    _, run_dir, export_dir = called("--run-dir", "elsewhere/mine")
    assert (run_dir, export_dir) == (Path("elsewhere/mine"), Path("saved_models/mine"))
    assert called("--export-dir", "there")[2] == Path("there")


def test_flags_become_settings(called):
    config, *_ = called("--preset", "paper", "--epochs", 50, "--batch-size", 4)
    assert config == make_config("paper", epochs=50, batch_size=4)


@pytest.mark.parametrize("asked", [False, True])
def test_operations_are_deterministic_where_asked(
    asked, data, tiny_config, workplace, monkeypatch, eager
):
    calls = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append(1))
    monkeypatch.setattr(Training, "run", lambda _: True)
    monkeypatch.setattr(command, "_finish", lambda *_: None)
    config = tiny_config(data=str(data / "shards"), steps=1, deterministic=asked)
    assert command.train(config, workplace / "run", workplace / "models") == 0
    assert len(calls) == asked


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "--data nowhere: does not exist"),
        (["--image-size", "66"], "--image-size 66: must be divisible by 4"),
        (["--run-dir", "/dev/null/run"], "--run-dir /dev/null/run: /dev/null is no folder"),
        (["--export-dir", "/dev/null"], "--export-dir /dev/null: /dev/null is no folder"),
        (["--run-dir", 300 * "r"], f"--run-dir {300 * 'r'}: cannot be read or written (File name"),
        (["--export-dir", 300 * "e"], f"--export-dir {300 * 'e'}: cannot be read or written (Fi"),
        (["--data", 300 * "d"], f"--data {300 * 'd'}: cannot be read (File name too long)"),
        (["--run-dir", "gs://b/run"], "--run-dir gs://b/run: must be a local folder, not a URL"),
        (["--export-dir", "s3://b"], "--export-dir s3://b: must be a local folder, not a URL"),
        (
            ["--identity-every", 4, "--data", "nowhere"],
            "--identity-every 4: does nothing without --lambda-identity",
        ),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_made(refused, arguments, message):
    assert refused(*arguments).startswith(message)


def test_a_run_that_has_begun_still_takes_a_flag_that_does_nothing(called, workplace):
    create_run_directory(workplace / "run", make_config("demo", identity_every=4))
    config, *_ = called("--run-dir", "run", "--identity-every", 4)
    assert config.losses.identity_every == 4


def test_an_export_folder_with_a_readme_of_somebody_else_is_refused(refused, workplace):
    (workplace / "mine").mkdir()
    (workplace / "mine" / "README.md").write_text("# My thesis\n", encoding="utf-8")
    line = refused("--export-dir", "mine", "--data", "nowhere")
    assert line.startswith("--export-dir mine: the README.md there was not written by an export")


def test_an_unwritable_folder_is_one_line(refused, data):
    line = refused("--data", data / "shards", "--image-size", 16, "--run-dir", "/proc/run")
    assert line.startswith("--run-dir /proc/run: cannot be written")


@pytest.mark.parametrize(("count", "words"), [(0, "trainB holds no files"), (1, "trainB has 1 ")])
def test_too_few_pictures_are_one_line(refused, tmp_path, count, words):
    for split in ("trainA", "trainB", "testB"):
        (tmp_path / "few" / split).mkdir(parents=True)
        for number in range(count if split == "trainB" else 3):
            chart(number).save(tmp_path / "few" / split / f"{number}.png")
    assert refused("--data", tmp_path / "few").startswith(f"--data {tmp_path / 'few'}: {words}")


def test_a_run_with_other_settings_is_named_and_left_as_it_is(refused, workplace):
    create_run_directory(workplace / "run", make_config("demo", lambda_cycle=7.0))
    line = refused("--run-dir", "run", "--seed", 3)
    assert f"--lambda-cycle: {make_config('demo').losses.lambda_cycle}, not 7.0" in line
    assert "--seed: 3, not 0" in line


def test_a_folder_with_something_else_is_left_as_it_is(refused, workplace):
    (workplace / "run").mkdir()
    (workplace / "run" / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert refused("--run-dir", "run").startswith("--run-dir run: is not empty and holds no run")


def test_ctrl_c_before_the_first_step_is_no_traceback(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", interrupted)
    assert command.main([]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def as_worker(monkeypatch, index: int, workers: int = 2) -> None:
    """What is called runs as one of so many workers."""
    cluster = {"worker": [f"localhost:{number + 1}" for number in range(workers)]}
    task = {"type": "worker", "index": index}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))


@pytest.mark.parametrize(("workers", "status"), [(0, 0), (1, 143), (2, 143)])
def test_sigterm_before_the_first_step(workers, status, monkeypatch, capsys):
    monkeypatch.setattr(command, "train", lambda *_: signal.raise_signal(signal.SIGTERM))
    if workers:
        as_worker(monkeypatch, workers - 1, workers)
    assert command.main([]) == status
    assert "the same command goes on" in capsys.readouterr().err


@pytest.fixture
def as_one_of(monkeypatch, workplace):
    """A function: trains as a worker, with all but a made-up ``run`` left out."""

    def train(index: int, workers: int, run, interrupted: bool = False) -> int:
        config = make_config("demo")
        training = SimpleNamespace(
            config=config, finished=lambda: False, run=run, interrupted=interrupted
        )
        monkeypatch.setattr(command, "_checked_shards", lambda *_, **__: None)
        monkeypatch.setattr(command, "_start_devices", lambda _: None)
        monkeypatch.setattr(command, "_set_up", lambda *_: training)
        monkeypatch.setattr(command, "note_data", lambda *_: None)
        as_worker(monkeypatch, index, workers)
        return command.train(config, workplace / "run", workplace / "models")

    return train


@pytest.mark.parametrize(
    ("finished", "interrupted", "status"),
    [(False, False, 143), (False, True, 130), (True, True, 0), (True, False, 0)],
)
def test_a_worker_that_has_steps_left_does_not_end_with_0(finished, interrupted, status, as_one_of):
    """Whichever worker got the signal: else Kubernetes would take the run to be finished."""
    assert as_one_of(1, 2, lambda: finished, interrupted) == status


def unreachable() -> bool:
    raise tf.errors.UnavailableError(None, None, "Socket closed\nand more")


@pytest.mark.parametrize("index", [0, 1])
def test_the_end_of_another_worker_is_one_line(index, as_one_of):
    with pytest.raises(UserError) as caught:
        as_one_of(index, 2, unreachable)
    assert str(caught.value) == (
        f"worker {index}: another worker has ended or cannot be reached (Socket closed); start all "
        "workers again with the same command, and they go on from the last checkpoint"
    )


def test_of_one_worker_alone_no_other_is_blamed(as_one_of):
    with pytest.raises(tf.errors.UnavailableError, match="and more"):
        as_one_of(0, 1, unreachable)


# --- Closing lines -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executable", "found", "shown"),
    [
        ("/usr/bin/python3", "/usr/bin/python3", "python3"),
        ("/usr/bin/python3", "/opt/bin/python3", "/usr/bin/python3"),
        ("{here}/.venv/bin/python", "/usr/bin/python", ".venv/bin/python"),
        ("{here}/.venv/bin/python", None, ".venv/bin/python"),
    ],
)
def test_printed_commands_run_with_this_python(monkeypatch, workplace, executable, found, shown):
    monkeypatch.setattr(sys, "executable", executable.format(here=workplace))
    monkeypatch.setattr("shutil.which", lambda name: found)
    line = command._command("translate", "--run-dir", Path("my runs/a"), "photo.jpg")
    assert line == f"{shown} -m cyclegan_tf.translate --run-dir 'my runs/a' photo.jpg"


# --- Training ------------------------------------------------------------------------------------


def stop_after_the_first_call(monkeypatch) -> None:
    """Ctrl-C as soon as steps were taken."""
    update = Progress.update

    def update_and_stop(self, steps, losses):
        update(self, steps, losses)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "update", update_and_stop)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions")
def test_every_preset_trains_stops_goes_on_and_exports(
    preset, data, tiny_config, workplace, monkeypatch, capsys, eager
):
    config = tiny_config(preset, data=str(data / "shards"), steps=2, generator_blocks=1)
    run_dir, export_dir = workplace / "run", workplace / "models"
    with monkeypatch.context() as patch:
        stop_after_the_first_call(patch)
        assert command.train(config, run_dir, export_dir) == 130
    assert "Stopped after step 1 of 2; everything is saved." in capsys.readouterr().out
    assert not export_dir.exists()

    if preset == "selfie2anime-v2":  # The largest graph; tracing them all would take minutes.
        tf.config.run_functions_eagerly(False)
    assert command.train(config, run_dir, export_dir) == 0
    printed = capsys.readouterr().out
    assert "Going on from step 1 of " in printed
    assert "Done: 2 steps." in printed
    photos = tf.zeros([1, 10, 13, 3], tf.uint8)
    directions = ("ab",) if config.one_sided() else ("ab", "ba")
    assert {path.name for path in export_dir.iterdir() if path.is_dir()} == set(directions)
    for direction in directions:
        folder = export_dir / direction / "1"
        assert f"Export:    {folder}\n" in printed
        translated = tf.saved_model.load(str(folder))(photos)
        assert (translated.shape, translated.dtype) == (photos.shape, tf.uint8)


def test_a_run_goes_on_only_with_the_pictures_it_has_learnt_from(
    data, tmp_path, tiny_config, workplace, monkeypatch, eager
):
    monkeypatch.setattr(command, "_finish", lambda *_: None)
    shutil.copytree(data / "pictures", tmp_path / "mine")
    config = tiny_config("demo", data=str(tmp_path / "mine"), steps=0, epochs=1, generator_blocks=1)
    run_dir = workplace / "run"
    assert command.train(config, run_dir, workplace / "models") == 0
    before = content(run_dir)
    assert command.train(config, run_dir, workplace / "models") == 0  # It is finished.
    chart(9).save(tmp_path / "mine" / "trainA" / "another.png")
    with pytest.raises(UserError) as caught:
        command.train(config, run_dir, workplace / "models")
    assert str(caught.value).startswith(f"--data {tmp_path / 'mine'}: does not hold the pictures")
    assert "another number of pictures, content of the shards" in str(caught.value)
    assert content(run_dir) == before
    (tmp_path / "mine" / "trainA" / "another.png").unlink()
    (tmp_path / "mine").rename(tmp_path / "moved")
    moved = config.replace(data=str(tmp_path / "moved"))
    assert command.train(moved, run_dir, workplace / "models") == 0
    assert Config.load(run_dir).data == moved.data
    (run_dir / "data.json").unlink()  # as in a run from before it was noted
    (tmp_path / "moved").rename(tmp_path / "mine")
    with pytest.raises(UserError, match=f"give --data {tmp_path / 'moved'}$"):
        command.train(config, run_dir, workplace / "models")
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert command.train(moved, run_dir, workplace / "models") == 0


def test_a_run_goes_on_in_the_precision_it_began_in_on_whatever_machine(
    data, tiny_config, workplace, monkeypatch, capsys, eager
):
    monkeypatch.setattr(command, "_finish", lambda *_: None)
    config = tiny_config("demo", data=str(data / "shards"), steps=2, generator_blocks=1)
    for flags, told in (
        ({"avx512_bf16"}, "bfloat16 (this CPU has avx512_bf16)"),
        (set(), "bfloat16 (as set)"),
    ):
        monkeypatch.setattr(devices, "_cpu_flags", lambda: flags)  # noqa: B023 - called at once
        with monkeypatch.context() as patch:
            stop_after_the_first_call(patch)
            command.train(config, workplace / "run", workplace / "models")
        assert told in capsys.readouterr().out
    with pytest.raises(UserError, match="--precision: float32, not bfloat16"):
        other = config.replace(precision="float32")
        command.train(other, workplace / "run", workplace / "models")


def test_a_run_that_has_begun_no_longer_needs_what_it_started_from(
    data, tiny_config, workplace, monkeypatch, eager
):
    monkeypatch.setattr(command, "_finish", lambda *_: None)
    config = tiny_config("demo", data=str(data / "shards"), steps=2, generator_blocks=1)
    assert command.train(config, workplace / "first", workplace / "models") == 0
    second = config.replace(init_from=str(workplace / "first"))
    with monkeypatch.context() as patch:
        stop_after_the_first_call(patch)
        assert command.train(second, workplace / "second", workplace / "models") == 130
    shutil.rmtree(workplace / "first")
    assert command.train(second, workplace / "second", workplace / "models") == 0


def test_a_run_without_a_checkpoint_is_no_start(data, tiny_config, workplace):
    config = tiny_config("demo", data=str(data / "shards"), steps=2, generator_blocks=1)
    create_run_directory(workplace / "first", config)
    second = config.replace(init_from=str(workplace / "first"))
    with pytest.raises(UserError, match=r"^--init-from .*first: no checkpoint there"):
        command.train(second, workplace / "second", workplace / "models")


def test_too_little_memory_is_one_line(data, tiny_config, workplace, monkeypatch):
    def run(_training):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nand more")

    monkeypatch.setattr(Training, "run", run)
    config = tiny_config(data=str(data / "shards"), steps=2)
    with pytest.raises(UserError, match=r"too little memory \(OOM when") as caught:
        command.train(config, workplace / "run", workplace / "models")
    assert str(caught.value).startswith("--image-size 16, --batch-size 1: ")
    assert "--recompute true takes less" in str(caught.value)
    config = config.replace(recompute=True)
    with pytest.raises(UserError, match="too little memory") as caught:
        command.train(config, workplace / "run", workplace / "models")
    assert "--recompute" not in str(caught.value)


@pytest.mark.parametrize("change", [{"learning_rate": 0.5}, {"data": "others"}])
def test_a_worker_refuses_what_its_chief_refuses_and_waits_for_nobody(
    change, data, tiny_config, workplace, monkeypatch
):
    config = tiny_config(data=str(data / "shards"), steps=2)
    create_run_directory(workplace / "run", config)
    note_data(workplace / "run", Shards.open(data / "shards"))
    pack_charts(workplace, trainA=2, trainB=2, testA=1, testB=1)
    as_worker(monkeypatch, 1)
    if "data" in change:
        change = {"data": str(workplace / "shards")}
    with pytest.raises(UserError, match=r"other settings|does not hold the pictures that"):
        command.train(config.replace(**change), workplace / "run", workplace / "models")


def test_a_teacher_that_is_none_is_found_before_packing(refused, data):
    line = refused("--data", data / "pictures", "--teacher", "nowhere")
    assert line.startswith("--teacher nowhere: no run there")


def test_scores_that_nothing_could_give_are_one_line(data, tiny_config, workplace):
    config = tiny_config(data=str(data / "shards"), steps=2, evaluate_every=1)
    with pytest.raises(UserError, match=r"--evaluate-every 1: .* add --evaluate-features eff"):
        command.train(config, workplace / "run", workplace / "models")
    assert not (workplace / "run").exists()


def test_a_number_of_pictures_without_scores_is_one_line(data, tiny_config, workplace):
    config = tiny_config(data=str(data / "shards"), steps=2, evaluate_images=20)
    with pytest.raises(UserError, match="--evaluate-images 20: does nothing without --evaluate-ev"):
        command.train(config, workplace / "run", workplace / "models")
    assert not (workplace / "run").exists()


@pytest.mark.parametrize("evaluate_every", [0, 1])
def test_pairs_of_ones_own_are_scored(
    evaluate_every, data, tiny_config, workplace, capsys, eager, monkeypatch
):
    monkeypatch.setattr(command, "_finish", lambda *given: print(*given[-1], sep="\n"))
    settings = {"steps": 2, "evaluate_every": evaluate_every}
    settings |= {"evaluate_paired": True, "evaluate_images": 2}
    config = tiny_config("demo", data=str(data / "shards"), **settings)
    with pytest.raises(UserError, match=r"--evaluate-paired: .*: testB has no \d.png, which testA"):
        command.train(config, workplace / "run", workplace / "models")
    assert not (workplace / "run").exists()
    shards = pack_charts(workplace, trainA=3, trainB=3, testA=4, testB=4)
    config = config.replace(data=str(shards.folder))
    assert command.train(config, workplace / "paired", workplace / "models") == 0
    printed = capsys.readouterr().out
    assert "Against the truth of 2 test pairs, bicubic to 16 px:\nA to B: mean absolute" in printed
    best = workplace / "paired" / "checkpoints" / "best.json"
    assert best.exists() == bool(evaluate_every)


def test_a_failed_export_names_its_flag_and_the_same_command_exports(
    data, tiny_config, workplace, monkeypatch, eager
):
    def full(*_):
        raise OSError(28, "No space left on device")

    config = tiny_config("demo", data=str(data / "shards"), steps=1, generator_blocks=1)
    places = workplace / "run", workplace / "models"
    monkeypatch.setattr("cyclegan_tf.exporting.serving_files.write_warmup", lambda *_: None)
    saved_model = "cyclegan_tf.exporting.saved_model.save_generator"
    with monkeypatch.context() as patch:
        patch.setattr(saved_model, full)
        with pytest.raises(UserError) as caught:
            command.train(config, *places)
    assert str(caught.value) == (
        f"--export-dir {places[1]}: cannot be written (No space left on device); the training is "
        "finished and saved, and the same command exports it"
    )
    monkeypatch.setattr(saved_model, lambda _, folder: (folder / "saved_model.pb").touch())
    assert command.train(config, *places) == 0
    assert (places[1] / "ab" / "1" / "saved_model.pb").exists()


# --- Damaged shards ------------------------------------------------------------------------------


@pytest.fixture
def damaged(data, tiny_config, workplace, monkeypatch, eager):
    """(config, shard): a run's settings, and one of its shards with a broken record."""
    shutil.copytree(data / "shards", workplace.parent / "shards")
    path = Shards.open(workplace.parent / "shards").paths("trainA")[0]
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(command, "_finish", lambda *_: None)
    settings = {"data": str(workplace.parent / "shards"), "steps": 3, "generator_blocks": 1}
    return functools.partial(tiny_config, "demo", **settings), path


def test_a_broken_record_is_named_and_left_out(damaged, workplace, capsys):
    make, path = damaged
    run_dir = workplace / "run"
    assert command.train(make(), run_dir, workplace / "models") == 0
    errors = capsys.readouterr().err
    assert f"{path.name}, record 0 (its checksum is wrong) is left out" in errors
    assert [one.name for one in run_dir.glob("mended_shards/*.tfrecord")] == [path.name]
    assert command.train(make(), run_dir, workplace / "models") == 0
    assert "left out" not in capsys.readouterr().err


def test_of_several_workers_none_goes_on_with_what_another_has_mended(
    damaged, workplace, monkeypatch
):
    """Though it finds nothing broken by then, it has read something that was."""
    make, _ = damaged
    monkeypatch.setattr("cyclegan_tf.training.mending.mend", lambda *_: [])
    as_worker(monkeypatch, 1)
    error = tf.errors.DataLossError(None, None, "corrupted record")
    again = "what was broken is mended; start all workers again"
    with pytest.raises(UserError, match=rf"not be read \(corrupted record\); {again}"):
        mended(make(), workplace / "run", error)
    other = tf.errors.InvalidArgumentError(None, None, "of our own making")
    with pytest.raises(tf.errors.InvalidArgumentError, match="of our own making"):
        mended(make(), workplace / "run", other)
    (workplace / "run" / "mended_shards").mkdir(parents=True)
    (workplace / "run" / "mended_shards" / "left_out.json").touch()
    with pytest.raises(UserError, match=rf"not be read \(of our own making\); {again}"):
        mended(make(), workplace / "run", other)


def test_more_than_the_allowance_and_a_shard_that_is_gone_are_one_line(damaged, workplace):
    make, path = damaged
    with pytest.raises(UserError, match=r"1 records are broken, more than --max-damaged 0"):
        command.train(make(max_damaged=0), workplace / "run", workplace / "models")
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: is missing"):
        command.train(make(max_damaged=0), workplace / "run", workplace / "models")


def test_a_shard_that_vanishes_in_mid_run_is_named_and_can_come_back(
    damaged, workplace, monkeypatch
):
    make, path = damaged
    config = make(cache_mb=0, checkpoint_every=1, steps_per_call=1, steps=40, max_damaged=1)
    update = Progress.update

    def update_and_remove(self, steps, losses):
        update(self, steps, losses)
        path.rename(path.with_suffix(".away"))
        monkeypatch.setattr(Progress, "update", update)

    # Mended copies would stand in for the broken one, so it is mended by hand here.
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(Progress, "update", update_and_remove)
    with pytest.raises(UserError, match=f"{path}: is missing; put it back or build"):
        command.train(config, workplace / "run", workplace / "models")
    path.with_suffix(".away").rename(path)
    stop_after_the_first_call(monkeypatch)
    assert command.train(config, workplace / "run", workplace / "models") == 130


@pytest.mark.parametrize("times", [1, 2])
def test_packed_pictures_that_vanish_are_packed_again_once(
    times, tiny_config, workplace, monkeypatch, eager, capsys
):
    """As when somebody tidies up ~/.cache while it trains; scores are taken from the files."""
    cache, left = workplace.parent / "cache", list(range(times))
    update = Progress.update

    def update_and_remove(self, steps, losses):
        update(self, steps, losses)
        if left:
            left.pop()
            shutil.rmtree(cache)

    pack_charts(workplace, trainA=3, trainB=3, testA=4, testB=4)
    settings = {"steps": 1, "evaluate_every": 1, "evaluate_paired": True, "generator_blocks": 1}
    config = tiny_config("demo", data=str(workplace / "pictures"), **settings)
    monkeypatch.setattr(command, "_finish", lambda *_: None)
    monkeypatch.setattr(Progress, "update", update_and_remove)
    if times == 1:
        assert command.train(config, workplace / "run", workplace / "models") == 0
    else:
        with pytest.raises(UserError, match=r"read \(.*/cache/.*\), though every record is sound"):
            command.train(config, workplace / "run", workplace / "models")
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    assert len(warnings) == 1
    assert f"--data {workplace / 'pictures'}: could not be read (" in warnings[0]
    assert "is whole by now; going on from the last checkpoint" in warnings[0]
    assert len(list(cache.glob("pictures-*/manifest.json"))) == 1
    assert not (workplace / "run" / "mended_shards").exists()


def test_what_lies_behind_the_last_record_costs_none(damaged, workplace, capsys):
    make, path = damaged
    content = bytearray(path.read_bytes())
    content[60] ^= 1  # sound again
    path.write_bytes(content + b"more")
    assert command.train(make(), workplace / "run", workplace / "models") == 0
    errors = capsys.readouterr().err
    assert f"({path}: missing or not of {len(content)} bytes" in errors
    assert "is left out" not in errors
    assert (workplace / "run" / "mended_shards" / path.name).read_bytes() == content
    assert command.train(make(), workplace / "run", workplace / "models") == 0
    assert "warning" not in capsys.readouterr().err


def test_a_manifest_with_a_wrong_size_is_one_line(data, tiny_config, workplace, refused):
    shutil.copytree(data / "shards", workplace / "shards")
    shards = Shards.open(workplace / "shards")
    path = shards.paths("trainB")[0]
    text = (workplace / "shards" / "manifest.json").read_text(encoding="utf-8")
    size = path.stat().st_size
    changed = text.replace(f'"bytes": {size},', f'"bytes": {size + 1},', 1)
    (workplace / "shards" / "manifest.json").write_text(changed, encoding="utf-8")
    config = tiny_config(data=str(workplace / "shards"), steps=1)
    with pytest.raises(UserError, match=rf"missing or not of {size + 1} bytes; build the shards"):
        command.train(config, workplace / "run", workplace / "models")
    assert not (workplace / "run").exists()


def test_an_error_that_names_no_shard_is_not_blamed_on_them(data, tiny_config, workplace):
    config = tiny_config(data=str(data / "shards"))
    for kind in (tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
        error = kind(None, None, "No algorithm worked!")
        with pytest.raises(kind) as caught:
            mended(config, workplace / "run", error)
        assert caught.value is error
