"""The state of a training, and what its checkpoints bring back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.errors import UserError
from cyclegan_tf.models.layers import Dropout
from cyclegan_tf.training.checkpoints import FOLDER, Checkpoints, load_generators

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
    assert any("calls" in name for name in right)


def test_everything_comes_back(full_config, new_training, tmp_path):
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


@pytest.mark.parametrize("file", ["step-0.index", "step-0.data-00000-of-00001"])
@pytest.mark.parametrize("damage", ["cut short", "missing"])
def test_a_damaged_checkpoint_is_refused(damage, file, tiny_config, new_training, tmp_path):
    state = new_training(tiny_config()).state
    Checkpoints(state, tmp_path, 3).save()
    path = tmp_path / FOLDER / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = refusal(Checkpoints(state, tmp_path, 3).restore_latest)
    assert message.startswith(f"{tmp_path / FOLDER / 'step-0'}: ")


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
    loaded = load_generators(tmp_path, config, size)
    assert loaded._fields == state.shown_generators()._fields == ("ab", "ba")
    for model, right in zip(loaded, state.shown_generators()):
        assert model.input_shape[1] == size
        for weight, expected in zip(model.get_weights(), right.get_weights()):
            np.testing.assert_array_equal(weight, expected)


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
