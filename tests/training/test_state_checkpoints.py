"""The state of a training, and what its checkpoints bring back."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.data.shards import Shards
from cyclegan_tf.errors import UserError
from cyclegan_tf.models.generator import build_generator
from cyclegan_tf.models.layers import Dropout
from cyclegan_tf.training import checkpoints
from cyclegan_tf.training.checkpoints import (
    BEST,
    FOLDER,
    ROLLED_BACK,
    Checkpoints,
    best_step,
    find_weights,
    load_generators,
    start_from,
    steps_saved,
)
from cyclegan_tf.training.gathering import Histories
from cyclegan_tf.training.run_directory import (
    DATA_FILE,
    check_data,
    check_init_from,
    create_run_directory,
)
from tfrecords_tools.manifest import Manifest

ROOT = Path(__file__).parents[2]
# Another Python with the other TensorFlow, to check that each goes on from what the other saved.
OTHER_PYTHON = os.environ.get("CYCLEGAN_TF_OTHER_PYTHON")
# All that a state can hold: averages, dropout counters, pictures in the history.
FULL = {"history_size": 2, "average": 0.9, "generator_blocks": 1, "batch_size": 2}


@pytest.fixture
def full_config(tiny_config):
    return tiny_config("face2anime", **FULL)


def contents(run_dir: Path) -> dict[str, np.ndarray]:
    """Every number in the newest checkpoint, by name."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run_dir / FOLDER)))
    names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


def assert_equal_contents(one: dict, other: dict) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def variables_of(state) -> list:
    """Every variable of a state."""
    models = [*state.networks, *(state.averages or ())]
    histories = [*state.histories_a, *state.histories_b]
    optimizers = [state.generator_optimizer, state.discriminator_optimizer]
    return [
        state.step,
        *(weight for model in models for weight in model.weights),
        *(moment for each in optimizers for moment in [*each.first_moments, *each.second_moments]),
        *(variable for each in histories for variable in (each.images, each.seen, each.queries)),
    ]


def scrambled(state) -> None:
    """Another number in every variable, as if the state had trained."""
    for i, variable in enumerate(variables_of(state)):
        value = np.random.default_rng(i).uniform(1, 100, variable.shape)
        variable.assign(tf.cast(value, variable.dtype))


def refusal(function, *args) -> str:
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_resumed_training_is_the_uninterrupted_one(
    full_config, new_training, pairs, pictures, tmp_path, eager
):
    a, b = pictures(12), pictures(12, seed=1)
    whole = new_training(full_config)
    whole.run(pairs(whole, a, b), tf.constant(6))
    Checkpoints(whole.state, tmp_path / "whole", 3).save()

    first = new_training(full_config)
    first.run(pairs(first, a, b), tf.constant(3))
    Checkpoints(first.state, tmp_path / "parts", 3).save()
    second = new_training(full_config)
    checkpoints = Checkpoints(second.state, tmp_path / "parts", 3)
    assert checkpoints.restore_latest()
    assert second.state.steps_done() == 3
    second.run(pairs(second, a[6:], b[6:]), tf.constant(3))
    checkpoints.save()

    found, right = contents(tmp_path / "parts"), contents(tmp_path / "whole")
    assert_equal_contents(found, right)
    assert any("dropout" in name for name in right)  # how often each was called


@pytest.mark.parametrize("spectral", [False, True])
def test_everything_comes_back(full_config, new_training, tmp_path, spectral):
    full_config = full_config.replace(discriminator_spectral_norm=spectral)
    saved = new_training(full_config, replicas=2).state
    scrambled(saved)
    Checkpoints(saved, tmp_path, 3).save()
    restored = new_training(full_config, replicas=2).state
    assert Checkpoints(restored, tmp_path, 3).restore_latest()
    before, after = variables_of(saved), variables_of(restored)
    assert len(before) == len(after)
    for one, other in zip(before, after):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert len(restored.histories_a) == 2


def test_no_checkpoint_restores_nothing(tiny_config, new_training, tmp_path):
    assert Checkpoints(new_training(tiny_config()).state, tmp_path, 3).restore_latest() is False


def test_the_newest_checkpoints_are_kept_by_step(tiny_config, new_training, tmp_path):
    state = new_training(tiny_config()).state
    checkpoints = Checkpoints(state, tmp_path, 2)
    for step in (10, 20, 30):
        state.step.assign(step)
        checkpoints.save()
    names = {path.stem for path in (tmp_path / FOLDER).glob("*.index")}
    assert names == {"step-20", "step-30"}
    fresh = new_training(tiny_config()).state
    Checkpoints(fresh, tmp_path, 2).restore_latest()
    assert fresh.steps_done() == 30


@pytest.mark.parametrize(
    ("saved", "asked"),
    [
        ({}, {"average": 0.9}),
        ({"average": 0.9}, {}),
        ({}, {"generator_filters": 3}),
        ({}, {"generator_blocks": 3}),
        ({}, {"history_size": 3}),
        ({}, {"generator_dropout": 0.5}),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    saved, asked, tiny_config, new_training, tmp_path
):
    Checkpoints(new_training(tiny_config(**saved)).state, tmp_path, 3).save()
    checkpoints = Checkpoints(new_training(tiny_config(**asked)).state, tmp_path, 3)
    assert refusal(checkpoints.restore_latest).startswith(f"{tmp_path / FOLDER / 'step-0'}: ")


FILES = ("step-20.index", "step-20.data-00000-of-00001", "step-20.json")


@pytest.fixture(scope="module")
def state(tiny_config, new_training):
    """A state that the tests of damaged files share."""
    return new_training(tiny_config()).state


def save_twice(state, run_dir: Path) -> None:
    """Saves steps 10 and 20, with other numbers each time."""
    checkpoints = Checkpoints(state, run_dir, 3)
    for step in (10, 20):
        scrambled(state)
        state.step.assign(step)
        state.histories_a[0].seen.assign(step)
        checkpoints.save()


def damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    middle = len(data) // 2
    if kind == "missing":
        path.unlink()
    else:
        flipped = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
        path.write_bytes(data[:middle] if kind == "cut short" else flipped)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", ["cut short", "flipped", "missing"])
def test_the_one_before_replaces_a_damaged_checkpoint(kind, file, state, tmp_path, capsys):
    save_twice(state, tmp_path)
    damage(tmp_path / FOLDER / file, kind)
    checkpoints = Checkpoints(state, tmp_path, 3)
    assert checkpoints.restore_latest()
    if file == "step-20.json" and kind == "missing":  # as older versions wrote it
        assert state.steps_done() == 20
        return
    assert state.steps_done() == int(state.histories_a[0].seen) == 10
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and warning.count("\n") == 1
    assert "step-20" in warning and "the steps 11 to 20 is lost" in warning
    state.step.assign(15)  # What was set aside neither returns nor counts among those to keep.
    checkpoints.save()
    assert Checkpoints(state, tmp_path, 3).restore_latest()
    assert (state.steps_done(), capsys.readouterr().err) == (15, "")


@pytest.mark.parametrize("kind", ["cut short", "flipped"])
@pytest.mark.parametrize("file", FILES[:2])
def test_tensorflow_tells_where_there_is_no_seal(kind, file, state, tmp_path):
    save_twice(state, tmp_path)
    damage(tmp_path / FOLDER / "step-20.json", "missing")
    damage(tmp_path / FOLDER / file, kind)
    message = refusal(Checkpoints(state, tmp_path, 3).restore_latest)
    assert message.startswith(f"{tmp_path / FOLDER / 'step-20'}: ")


def test_a_run_whose_every_checkpoint_is_damaged_does_not_start_anew(state, tmp_path):
    save_twice(state, tmp_path)
    for step in (10, 20):
        damage(tmp_path / FOLDER / f"step-{step}.index", "missing")
    message = refusal(Checkpoints(state, tmp_path, 3).restore_latest)
    assert "no checkpoint is whole" in message


def test_what_a_kill_leaves_behind_is_ignored_and_tidied_up(state, tmp_path):
    """Killed after the first of the three renames, or before."""
    save_twice(state, tmp_path)
    folder = tmp_path / FOLDER
    (folder / ".unfinished").mkdir()
    (folder / ".unfinished" / "step-30.index").write_bytes(b"half")
    (folder / "step-30.data-00000-of-00001").write_bytes(b"whole, but without an index")
    checkpoints = Checkpoints(state, tmp_path, 3)
    assert checkpoints.restore_latest()
    assert state.steps_done() == 20
    state.step.assign(40)
    checkpoints.save()
    assert not (folder / ".unfinished").exists()
    assert {path.name.split(".")[0] for path in folder.glob("step-*")} == {
        "step-10",
        "step-20",
        "step-40",
    }


def test_a_checkpoint_that_cannot_be_written_leaves_those_before(state, tmp_path):
    save_twice(state, tmp_path)
    before = contents(tmp_path)
    checkpoints = Checkpoints(state, tmp_path, 1)
    assert checkpoints.restore_latest()
    state.step.assign(30)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        message = refusal(checkpoints.save)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert message.startswith(f"{tmp_path / FOLDER}: the checkpoint of step 30 cannot be written")
    assert "goes on from step 20" in message
    assert not (tmp_path / FOLDER / ".unfinished").exists()
    assert_equal_contents(contents(tmp_path), before)


def test_the_best_one_is_kept(state, tmp_path):
    checkpoints = Checkpoints(state, tmp_path, 2)
    for step in (10, 20, 30, 40):
        state.step.assign(step)
        checkpoints.save()
        if step == 20:
            checkpoints.mark_best(10)
    assert steps_saved(tmp_path / FOLDER) == [40, 30, 10]
    assert best_step(tmp_path / FOLDER) == 10
    checkpoints.mark_best(40)
    assert steps_saved(tmp_path / FOLDER) == [40, 30]


@pytest.mark.parametrize(("saved", "here"), [(2, 1), (1, 2)])
def test_another_number_of_replicas_is_named(saved, here, tiny_config, new_training, tmp_path):
    config = tiny_config(batch_size=2)
    Checkpoints(new_training(config, saved).state, tmp_path, 3).save()
    message = refusal(Checkpoints(new_training(config, here).state, tmp_path, 3).restore_latest)
    assert f"saved by {saved} replica(s), and here are {here}" in message


def test_networks_that_were_saved_as_keras_objects_come_back(full_config, new_training, tmp_path):
    """As all were until 2026-11-27."""
    state = new_training(full_config).state
    scrambled(state)
    state.step.assign(7)
    before = tf.train.Checkpoint(**checkpoints._models(state), **checkpoints._rest(state, None))
    checkpoints._write(before, tmp_path / FOLDER, 7)
    fresh = new_training(full_config).state
    restored = Checkpoints(fresh, tmp_path, 3)
    assert restored.restore_latest()
    for variable, right in zip(variables_of(fresh), variables_of(state)):
        np.testing.assert_array_equal(variable.numpy(), right.numpy())
    loaded = load_generators(tmp_path, full_config)
    for model, right in zip(loaded, state.shown_generators()):
        for weight, expected in zip(model.get_weights(), right.get_weights()):
            np.testing.assert_array_equal(weight, expected)
    fresh.step.assign(8)
    restored.save()
    assert "generator_ab/stem_conv/0/.ATTRIBUTES/VARIABLE_VALUE" in contents(tmp_path)


GO_ON = """
import json, sys
from pathlib import Path
import numpy as np
import tensorflow as tf
from cyclegan_tf.config import Config
from cyclegan_tf.training.checkpoints import Checkpoints
from cyclegan_tf.training.state import TrainingState
folder = Path(sys.argv[1])
config = Config.load(folder)
state = TrainingState(config, tf.distribute.MirroredStrategy(["CPU:0"]), "float32")
checkpoints = Checkpoints(state, folder, 3)
assert checkpoints.restore_latest()
picture = tf.constant(np.load(sys.argv[2]))
translated = [model(picture).numpy().tolist() for model in state.shown_generators()]
state.step.assign_add(1)
checkpoints.save()
print(json.dumps(translated))
"""


@pytest.mark.skipif(not OTHER_PYTHON, reason="CYCLEGAN_TF_OTHER_PYTHON is not set")
@pytest.mark.parametrize("preset", ["face2anime", "mobile"])
def test_the_other_keras_goes_on_and_this_one_again(preset, tiny_config, new_training, tmp_path):
    config = tiny_config(preset, **FULL, discriminator_spectral_norm=preset == "mobile")
    create_run_directory(tmp_path, config)
    state = new_training(config).state
    for number, variable in enumerate(variables_of(state)):
        value = np.random.default_rng(number).uniform(-1, 1, variable.shape)
        kind = tf.as_dtype(variable.dtype)
        variable.assign(tf.cast(value if kind.is_floating else 5, kind))
    Checkpoints(state, tmp_path, 3).save()
    right = contents(tmp_path)
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    np.save(tmp_path / "picture.npy", picture)
    arguments = [OTHER_PYTHON, "-c", GO_ON, tmp_path, tmp_path / "picture.npy"]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    translated = json.loads(result.stdout.splitlines()[-1])
    for model, theirs in zip(state.shown_generators(), translated):
        np.testing.assert_allclose(theirs, model(picture), atol=1e-4)
    found = contents(tmp_path)
    step = "step/.ATTRIBUTES/VARIABLE_VALUE"
    assert (right.pop(step), found.pop(step)) == (5, 6)
    assert_equal_contents(found, right)
    assert Checkpoints(new_training(config).state, tmp_path, 3).restore_latest()


def test_what_a_checkpoint_manager_saved_is_restored(tiny_config, new_training, tmp_path):
    state = new_training(tiny_config()).state
    scrambled(state)
    state.step.assign(7)
    right = [variable.numpy() for variable in variables_of(state)]
    tracked = Checkpoints(state, tmp_path, 3).checkpoint
    tf.train.CheckpointManager(
        tracked, str(tmp_path / FOLDER), max_to_keep=3, checkpoint_name="step"
    ).save(checkpoint_number=7)
    fresh = new_training(tiny_config()).state
    assert Checkpoints(fresh, tmp_path, 3).restore_latest()
    for variable, value in zip(variables_of(fresh), right):
        np.testing.assert_array_equal(variable.numpy(), value)


# --- Notes beside the checkpoints ----------------------------------------------------------------

BROKEN = {
    "empty": "",
    "cut short": "{",
    "a list": "[]",
    "a text for a number": '{"step": "x"}',
    "nested": "[" * 100_000,
}


def broken(**more):
    """Parametrises a test over damaged notes, those of ``more`` among them."""
    notes = {**BROKEN, **more}
    return pytest.mark.parametrize("text", notes.values(), ids=notes)


@pytest.fixture(scope="module")
def rolling(tiny_config, new_training, tmp_path_factory):
    """A state that can be rolled back, and a run with its steps 10 and 20; not to be written to."""
    run_dir = tmp_path_factory.mktemp("rolling")
    state = new_training(tiny_config(on_nonfinite="rollback")).state
    save_twice(state, run_dir)
    return state, run_dir


@pytest.fixture
def copied(rolling, tmp_path) -> Path:
    """A copy of that run."""
    return shutil.copytree(rolling[1], tmp_path / "run")


def rate_factor_after(rolling, run_dir: Path, text: str) -> float:
    """The factor that a resumed run has, with such a note of a roll-back."""
    (run_dir / FOLDER / ROLLED_BACK).write_text(text, encoding="utf-8")
    state, _ = rolling
    state.rate_factor.assign(0.125)
    assert Checkpoints(state, run_dir, 3).restore_latest()
    assert state.steps_done() == 20
    return float(state.rate_factor.numpy())


@broken(fraction='{"step": 10.0}', unsaved='{"step": 30}')
def test_a_damaged_note_of_the_best_one_names_none(text, copied, tiny_config):
    (copied / FOLDER / BEST).write_text(text, encoding="utf-8")
    assert best_step(copied / FOLDER) is None
    message = refusal(find_weights, copied, tiny_config(), "best")
    assert message.startswith(f"--weights best: {copied} was not scored while it trained")


@broken(
    no_factor='{"step": 20}',
    a_text='{"step": 20, "rate_factor": "half"}',
    too_much='{"step": 20, "rate_factor": 2.0}',
    not_a_number='{"step": 20, "rate_factor": NaN}',
)
def test_a_damaged_note_of_a_roll_back_leaves_the_rate(text, rolling, copied):
    assert rate_factor_after(rolling, copied, text) == 1.0


@pytest.mark.parametrize(("step", "factor"), [(20, 0.5), (10, 1.0), (30, 1.0)])
def test_a_roll_back_is_recalled_for_the_newest_step_alone(step, factor, rolling, copied):
    note = json.dumps({"step": step, "rate_factor": 0.5})
    assert rate_factor_after(rolling, copied, note) == factor


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        ("", "missing", "a file of it is missing"),
        (".data-00000-of-00001", "flipped", "is not what was written"),
        (".json", "cut short", "cannot be read"),
    ],
)
def test_a_damaged_best_checkpoint_is_refused_and_no_other_taken(
    end, kind, words, copied, tiny_config, capsys
):
    best = copied / FOLDER / "step-10"
    (copied / FOLDER / BEST).write_text('{"step": 10}', encoding="utf-8")
    assert find_weights(copied, tiny_config(), "best").path == str(best)
    damage(Path(f"{best}{end or '.index'}"), kind)
    message = refusal(find_weights, copied, tiny_config(), "best")
    assert message == f"--weights best: {best}{end}: {words}; take last or average"
    assert find_weights(copied, tiny_config(), "last").step == 20
    assert capsys.readouterr().err == ""


# --- Notes of the pictures -----------------------------------------------------------------------

NO_PICTURES = Manifest(1, "none", "", False, None, None, {})


@broken(others='{"number of pictures": []}')
def test_a_damaged_note_of_the_pictures_is_refused_in_one_line(text, tiny_config, tmp_path):
    (tmp_path / DATA_FILE).write_text(text, encoding="utf-8")
    shards = Shards(tmp_path / "shards", NO_PICTURES)
    message = refusal(check_data, tmp_path, tiny_config(), shards)
    if text in ("", "{", BROKEN["nested"]):
        assert message.startswith(f"{tmp_path / DATA_FILE}: cannot be read (")
    else:  # It is JSON, and so one of other pictures.
        assert f"does not hold the pictures that {tmp_path} has learnt from" in message


# --- Another run's networks ----------------------------------------------------------------------


@pytest.mark.parametrize(("theirs", "ours"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.9), (0.9, 0.9)])
def test_a_run_starts_with_the_networks_of_another(
    theirs, ours, tiny_config, new_training, tmp_path
):
    config = tiny_config("face2anime", generator_blocks=1, average=theirs)
    other = new_training(config).state
    scrambled(other)
    create_run_directory(tmp_path, config)
    Checkpoints(other, tmp_path, 3).save()
    changed = config.replace(init_from=str(tmp_path), average=ours, image_size=24, seed=3)
    state = new_training(changed).state
    start_from(state, changed)
    assert state.steps_done() == 0
    models = list(zip(state.networks, other.networks))
    if ours:
        models += list(zip(state.averages, other.averages if theirs else other.generators))
    for model, right in models:
        for weight, expected in zip(model.get_weights(), right.get_weights()):
            np.testing.assert_array_equal(weight, expected)
    assert not np.any(state.generator_optimizer.first_moments[0].numpy())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"generator_filters": 3}, "has --generator-filters 2, not 3"),
        ({"generator_blocks": 3}, "has --generator-blocks 2, not 3"),
        ({"discriminator_affine": True}, "has --discriminator-affine False, not True"),
    ],
)
def test_a_run_with_other_networks_is_refused(change, words, tiny_config, tmp_path):
    create_run_directory(tmp_path, tiny_config())
    (tmp_path / DATA_FILE).write_text("{}", encoding="utf-8")  # It has begun to train.
    message = refusal(check_init_from, tiny_config(init_from=str(tmp_path), **change))
    assert message.startswith(f"--init-from {tmp_path}: ") and words in message


def test_a_two_sided_training_cannot_start_from_a_one_sided(tiny_config, tmp_path):
    create_run_directory(tmp_path, tiny_config("cut"))
    (tmp_path / DATA_FILE).write_text("{}", encoding="utf-8")
    message = refusal(check_init_from, tiny_config(init_from=str(tmp_path)))
    assert message.startswith(f"--init-from {tmp_path}: is one-sided, A to B alone; train one-")


def test_an_import_has_no_discriminators_that_could_be_others(tiny_config, tmp_path):
    create_run_directory(tmp_path, tiny_config())
    ours = tiny_config(init_from=str(tmp_path), discriminator_filters=3)
    assert check_init_from(ours) == tiny_config()


@pytest.mark.parametrize("theirs", ["cut", "paper"])
def test_a_one_sided_training_takes_the_projector_of_another(
    theirs, tiny_config, new_training, tmp_path, capsys
):
    other = tiny_config(theirs)
    state = new_training(other).state
    for weight in state.projector.weights if state.projector else ():
        weight.assign(weight + 0.5)
    create_run_directory(tmp_path, other)
    Checkpoints(state, tmp_path, 3).save()
    config = tiny_config("cut", init_from=str(tmp_path), seed=3)
    new = new_training(config).state
    before = new.projector.get_weights()
    start_from(new, config)
    warned = "is not one-sided; the projector starts anew" in capsys.readouterr().err
    assert warned == (theirs == "paper")
    for found, expected in zip(
        new.projector.get_weights(), before if warned else state.projector.get_weights()
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("first_kind", ["chief", "worker"])
def test_each_worker_takes_its_own_histories_back(
    first_kind, tiny_config, new_training, monkeypatch
):
    config = tiny_config(history_size=2, batch_size=2)
    state = new_training(config).state
    hosts = {"worker": ["a:1", "b:1"]} if first_kind == "worker" else {"chief": ["a:1"]}
    task = {"type": "worker", "index": 1 if first_kind == "worker" else 0}  # the second of two
    cluster = {"worker": ["b:1"], **hosts}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    histories = Histories(state, config, SimpleNamespace(num_replicas_in_sync=2))
    for copies, first in ((histories.a, 1), (histories.b, 3)):
        for number, copy in enumerate(copies):
            copy.seen.assign(first + number)
    histories.scatter()
    assert [int(own[0].seen) for own in (state.histories_a, state.histories_b)] == [2, 4]


def test_what_discriminators_see_is_no_part_of_them(tiny_config, tmp_path):
    create_run_directory(tmp_path, tiny_config())
    ours = tiny_config(init_from=str(tmp_path), discriminator_augment="color")
    assert check_init_from(ours) == tiny_config()


def test_no_run_to_start_from_is_named(tiny_config, tmp_path):
    message = refusal(check_init_from, tiny_config(init_from=str(tmp_path / "none")))
    assert message.startswith(f"--init-from {tmp_path / 'none'}: no run there")


@pytest.mark.parametrize(
    ("average", "replicas", "size"), [(0.0, 1, None), (0.9, 1, 16), (0.9, 2, None)]
)
def test_load_generators_are_those_to_show(
    average, replicas, size, tiny_config, new_training, tmp_path
):
    config = tiny_config("face2anime", batch_size=2, generator_blocks=1, average=average)
    state = new_training(config, replicas).state
    scrambled(state)
    Checkpoints(state, tmp_path, 3).save()
    loaded = load_generators(tmp_path, config, image_size=size)
    assert loaded._fields == state.shown_generators()._fields == ("ab", "ba")
    for model, right in zip(loaded, state.shown_generators()):
        assert model.input_shape[1] == size
        for weight, expected in zip(model.get_weights(), right.get_weights()):
            np.testing.assert_array_equal(weight, expected)


def test_generators_are_of_one_checkpoint_while_the_run_goes_on(
    state, tiny_config, monkeypatch, tmp_path
):
    save_twice(state, tmp_path)
    right = [model.get_weights() for model in state.shown_generators()]

    def build_while_it_trains(*args, **options):
        for weight in state.generator_variables():
            weight.assign(2.0 * weight)
        state.step.assign_add(10)
        Checkpoints(state, tmp_path, 3).save()
        return build_generator(*args, **options)

    monkeypatch.setattr(checkpoints, "build_generator", build_while_it_trains)
    for model, weights in zip(load_generators(tmp_path, tiny_config()), right):
        for found, expected in zip(model.get_weights(), weights):
            np.testing.assert_array_equal(found, expected)


def test_load_generators_names_a_run_without_checkpoints(tiny_config, tmp_path):
    assert refusal(load_generators, tmp_path, tiny_config()).startswith(f"--run-dir {tmp_path}: ")


@pytest.mark.parametrize(
    "asked", [{"generator_filters": 3}, {"average": 0.9}, {"generator_blocks": 3}]
)
def test_load_generators_refuses_other_generators(asked, tiny_config, new_training, tmp_path):
    Checkpoints(new_training(tiny_config()).state, tmp_path, 3).save()
    message = refusal(load_generators, tmp_path, tiny_config(**asked))
    assert message.startswith(f"{tmp_path / FOLDER / 'step-0'}: ")


def test_a_fresh_state_is_a_function_of_the_config(tiny_config, new_training):
    first, again, other = (new_training(tiny_config(seed=seed)).state for seed in (0, 0, 1))
    for one, two in zip(variables_of(first), variables_of(again)):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    kernels = [
        (one.numpy(), two.numpy())
        for one, two in zip(first.generator_variables(), other.generator_variables())
        if len(one.shape) == 4
    ]
    assert all((one != two).all() for one, two in kernels)


def test_averages_start_as_the_generators(full_config, new_training):
    state = new_training(full_config).state
    assert state.shown_generators() == state.averages
    assert len(state.average_variables()) == len(state.generator_variables()) > 0
    for average, weight in zip(state.average_variables(), state.generator_variables()):
        np.testing.assert_array_equal(average.numpy(), weight.numpy())


def test_without_averages_the_generators_are_shown(tiny_config, new_training):
    state = new_training(tiny_config()).state
    assert state.averages is None
    assert state.average_variables() == []
    assert state.shown_generators() == state.generators == state.networks[:2]


def test_each_replica_has_histories_of_its_own(tiny_config, new_training):
    config = tiny_config("face2anime", history_size=4, batch_size=2)
    state = new_training(config, replicas=2).state
    devices = [history.images.device[-5:] for history in [*state.histories_a, *state.histories_b]]
    assert devices == ["CPU:0", "CPU:1", "CPU:0", "CPU:1"]
    assert all(history.images.shape == (4, 16, 16, 3) for history in state.histories_a)


def test_the_optimizers_train_every_weight(full_config, new_training):
    state = new_training(full_config).state
    trained = [*state.generator_optimizer.trained, *state.discriminator_optimizer.trained]
    total = sum(int(np.prod(variable.shape)) for variable in trained)
    dropouts = sum(isinstance(layer, Dropout) for model in state.networks for layer in model.layers)
    assert total == sum(model.count_params() for model in state.networks) - dropouts
