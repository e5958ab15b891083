"""The training step: the right gradients, applied once per step, in one graph."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from cyclegan_tf.models.layers import Dropout, trainable_variables
from cyclegan_tf.models.networks import build_generators
from cyclegan_tf.training import losses
from cyclegan_tf.training import step as step_module
from cyclegan_tf.training.devices import sums_roughly
from cyclegan_tf.training.history import ImageHistory

GAN_METRICS = {
    "generator_ab", "generator_ba", "cycle_a", "cycle_b", "discriminator_a", "discriminator_b"
}  # fmt: skip
CONTRAST_METRICS = {"generator_ab", "contrast_a", "contrast_b", "discriminator_b"}
IDENTITY_METRICS = {"identity_a", "identity_b"}
PENALTY_METRICS = {"penalty_a", "penalty_b"}
# Presets that are another one but for their names and lengths, with networks as small.
SAME_STEPS = {"auto": "fast", "anime-scene": "paper"}


def distance(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.abs(one - other))


def squared(decisions: tf.Tensor, target: float) -> tf.Tensor:
    return tf.reduce_mean((decisions - target) ** 2)


def sum_of_gradients(terms, models) -> list[np.ndarray]:
    """The weighted sum of every term's own gradient, one tape per term."""
    variables = [variable for model in models for variable in trainable_variables(model)]
    total = [np.zeros(variable.shape) for variable in variables]
    for weight, term in terms:
        with tf.GradientTape() as tape:
            loss = term()
        found = tape.gradient(loss, variables, unconnected_gradients="zero")
        total = [sum_ + weight * gradient.numpy() for sum_, gradient in zip(total, found)]
    return total


def assert_close(found, right) -> None:
    """Equal but for rounding, each tensor measured by its own length."""
    assert len(found) == len(right)
    for one, other in zip(found, right):
        assert np.linalg.norm(other) > 0
        assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(other)


def weights_of(models) -> list[np.ndarray]:
    """All weights, in order."""
    return [weight for model in models for weight in model.get_weights()]


def weights_by_layer(models) -> dict[str, np.ndarray]:
    """The first weight, a kernel or a scale, of every layer that has any but a dropout's count."""
    layers = [(model.name, layer) for model in models for layer in model.layers]
    return {
        f"{model}/{layer.name}": layer.get_weights()[0]
        for model, layer in layers
        if layer.trainable_variables
    }


def enlarged(step) -> None:
    """Weights ten times those of the start: gradients far from rounding errors."""
    for model in step.state.networks:
        model.set_weights([10 * weight for weight in model.get_weights()])


@pytest.mark.parametrize("identity", [5.0, 0.0])
@pytest.mark.parametrize("preset", ["paper", "selfie2anime-v1"])
def test_generators_get_the_gradient_of_every_term(
    preset, identity, tiny_config, new_training, pictures
):
    config = tiny_config(preset, batch_size=2, lambda_cycle=7.0, lambda_identity=identity)
    step, a, b = new_training(config), pictures(2), pictures(2, seed=1)
    enlarged(step)
    to_b, to_a, judge_a, judge_b = step.state.networks
    terms = [
        (1.0, lambda: squared(judge_b(to_b(a)), 1.0)),
        (1.0, lambda: squared(judge_a(to_a(b)), 1.0)),
        (7.0, lambda: distance(to_a(to_b(a)), a)),
        (7.0, lambda: distance(to_b(to_a(b)), b)),
        (identity, lambda: distance(to_a(a), a)),
        (identity, lambda: distance(to_b(b), b)),
    ]
    found, fake_a, fake_b, _ = step.strategy.run(step.generator_gradients, args=(a, b, 1.0))
    assert_close(found, sum_of_gradients(terms, [to_b, to_a]))
    np.testing.assert_allclose(fake_a, to_a(b), atol=1e-4)
    np.testing.assert_allclose(fake_b, to_b(a), atol=1e-4)


def test_discriminators_get_their_gradient_from_the_history(
    tiny_config, new_training, pictures, monkeypatch
):
    monkeypatch.setattr(ImageHistory, "query", lambda self, images, seed: -images)
    step = new_training(tiny_config(batch_size=2, discriminator_weight=0.3))
    enlarged(step)
    real_a, real_b, fake_a, fake_b = (pictures(2, seed=seed) for seed in range(4))
    judge_a, judge_b = step.state.networks[2:]
    terms = [
        (0.3, lambda: squared(judge_a(real_a), 1.0) + squared(judge_a(-fake_a), 0.0)),
        (0.3, lambda: squared(judge_b(real_b), 1.0) + squared(judge_b(-fake_b), 0.0)),
    ]
    arguments = (real_a, real_b, fake_a, fake_b, 1.0)
    found, metrics = step.strategy.run(step.discriminator_gradients, args=arguments)
    assert_close(found, sum_of_gradients(terms, [judge_a, judge_b]))
    losses = [float(weight * term()) for weight, term in terms]
    found_losses = [float(metrics["discriminator_a"]), float(metrics["discriminator_b"])]
    assert found_losses == pytest.approx(losses, rel=1e-4)


def check_penalties(step, arguments, terms) -> None:
    """The discriminators' gradients and logged penalties are those of the terms."""
    found, metrics = step.strategy.run(step.discriminator_gradients, args=arguments)
    right = sum_of_gradients(terms, step.state.networks[2:])
    moved = [i for i, gradient in enumerate(right) if gradient.any()]
    assert len(moved) >= 6
    assert_close([found[i] for i in moved], [right[i] for i in moved])
    penalties = [float(metrics["penalty_a"]), float(metrics["penalty_b"])]
    assert penalties == pytest.approx([float(term()) for _, term in terms], rel=1e-4)


def pale(images: tf.Tensor, *_of_augment: object) -> tf.Tensor:
    """An augmentation that can be done by hand."""
    return 0.5 * images + 0.25


@pytest.fixture(params=["none", "color"])
def shown(request, monkeypatch):
    """The augmentation to set, and what it makes of pictures that a discriminator sees."""
    monkeypatch.setattr(step_module, "augment", pale)
    return request.param, (pale if request.param == "color" else tf.identity)


def test_discriminators_get_the_gradient_of_the_penalty(tiny_config, new_training, pictures, shown):
    """With generated pictures equal to real ones, every interpolate is the real one."""
    augment, see = shown
    config = tiny_config(
        "selfie2anime-v2", batch_size=2, discriminator_weight=0.0, discriminator_augment=augment
    )
    step, real = new_training(config), pictures(2)
    enlarged(step)
    judges = step.state.networks[2:]

    def penalty_of(judge):
        images = see(tf.constant(real))
        with tf.GradientTape() as tape:
            tape.watch(images)
            decisions = tf.reduce_mean(judge(images), axis=[1, 2, 3])
        slopes = tf.reshape(tape.gradient(decisions, images), [2, -1])
        return tf.reduce_mean((tf.norm(slopes, axis=1) - 1.0) ** 2)

    terms = [(10.0, lambda judge=judge: penalty_of(judge)) for judge in judges]
    arguments = (real, real, real, real, 1.0)
    check_penalties(step, arguments, terms)


@pytest.mark.parametrize(
    ("identity", "cycle", "passes"),
    [(5.0, 10.0, [2, 1]), (0.0, 10.0, [1, 1]), (5.0, 0.0, [2]), (0.0, 0.0, [1])],
)
def test_no_passes_for_losses_of_weight_0(
    identity, cycle, passes, tiny_config, new_training, pictures, monkeypatch
):
    """Counted in pictures that go through a generator."""
    step = new_training(tiny_config(lambda_identity=identity, lambda_cycle=cycle))
    seen = []
    for generator in step.state.networks[:2]:
        call = generator.call

        def spy(images, *args, call=call, **kwargs):
            seen.append(images.shape[0])
            return call(images, *args, **kwargs)

        monkeypatch.setattr(generator, "call", spy)
    step.strategy.run(step.generator_gradients, args=(pictures(), pictures(), 1.0))
    assert sorted(seen) == sorted(2 * passes)


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("paper", {"generator_blocks": 5}),
        ("paper", {"generator_mask": True}),
        ("paper", {"identity_every": 2}),
        ("paper", {"lambda_cycle": 0.0}),
        ("demo", {}),
        ("selfie2anime-v1", {}),
    ],
)
def test_recomputing_changes_no_gradient(preset, changes, tiny_config, new_training, pictures):
    """Compiled, as only there could the graph's optimizer merge the two forward passes."""
    results, arguments = [], (pictures(2), pictures(2, seed=1), 1.0)
    for recompute in (False, True):
        config = tiny_config(preset, batch_size=2, recompute=recompute, **changes)
        step = new_training(config)
        enlarged(step)
        compiled = tf.function(lambda *given, step=step: step.strategy.run(
            step.generator_gradients, args=given
        ))  # fmt: skip
        results.append(compiled(*arguments)[0])
    assert_close([gradient.numpy() for gradient in results[1]], [g.numpy() for g in results[0]])


def test_recomputed_generators_run_again(tiny_config, new_training, pictures):
    """Once in 4 passes; recomputed, twice in 6, as there the identity's are passes of their own."""

    def convolutions(blocks: int, recompute: bool) -> int:
        step = new_training(tiny_config(generator_blocks=blocks, recompute=recompute))
        run = tf.function(lambda images: step.strategy.run(
            step.generator_gradients, args=(images, images, 1.0)
        )[0])  # fmt: skip
        graph = run.get_concrete_function(tf.constant(pictures())).graph.as_graph_def()
        parts = [graph.node, *(function.node_def for function in graph.library.function)]
        return sum(node.op == "Conv2D" for part in parts for node in part)

    blocks = 3
    forward = 4 + 2 * blocks  # 3 on the way down and the last one
    backward = 2  # the gradients of the transposed ones
    once, twice = (convolutions(blocks, recompute) for recompute in (False, True))
    assert twice - once == 6 * (2 * forward + backward) - 4 * (forward + backward)


@pytest.mark.parametrize("recompute", [False, True])
def test_recomputed_directions_take_turns(recompute, tiny_config, new_training, pictures):
    """So that they do not need memory at once: nothing of B to A before A to B's gradients."""
    step = new_training(tiny_config(recompute=recompute, lambda_identity=0.0))

    @tf.function
    def of_second_direction(images):
        *_, metrics = step.strategy.run(step.generator_gradients, args=(images, images, 1.0))
        return metrics["generator_ba"]

    graph = of_second_direction.get_concrete_function(tf.constant(pictures())).graph
    before = {operation.type for operation in ancestors(graph.outputs[0].op)}
    assert ("Conv2DBackpropFilter" in before) == recompute


def ancestors(operation) -> set:
    """Operations that must be done before this one."""
    found, left = set(), [operation]
    while left:
        one = left.pop()
        for other in (*one.control_inputs, *(tensor.op for tensor in one.inputs)):
            if other not in found:
                found.add(other)
                left.append(other)
    return found


@pytest.mark.parametrize("settings", [{}, {"discriminator_spectral_norm": True}])
def test_xla_takes_the_same_step(settings, tiny_config, new_training, pairs, pictures):
    moments, metrics = [], []
    for jit in ("off", "on"):
        config = tiny_config("demo", generator_blocks=1, jit=jit, **settings)
        step = new_training(config)
        assert hasattr(step.generator_gradients, "get_concrete_function") == (jit == "on")
        enlarged(step)
        batches = pairs(step, pictures(2), pictures(2, seed=1))
        metrics.append(
            {name: float(value) for name, value in step.run(batches, tf.constant(1)).items()}
        )
        moments.append([each.numpy() for each in step.state.generator_optimizer.first_moments])
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-3)
    assert_close(moments[1], moments[0])


@pytest.mark.parametrize(
    "settings", [{"identity_every": 2}, {"identity_decay": 0.5}, {"jit": "on"}]
)
def test_a_dropout_counts_its_calls_on_every_replica(
    settings, tiny_config, new_training, pairs, pictures
):
    config = tiny_config(generator_dropout=0.5, generator_blocks=1, batch_size=2, **settings)
    step = new_training(config, replicas=2)
    step.run(pairs(step, pictures(4), pictures(4, seed=1)), tf.constant(2))
    for generator in (step.state.networks.generator_ab, step.state.networks.generator_ba):
        (dropout,) = (layer for layer in generator.layers if isinstance(layer, Dropout))
        calls = step.strategy.run(lambda one=dropout: tf.convert_to_tensor(one.calls))
        first, second = map(int, step.strategy.experimental_local_results(calls))
        assert first == second >= 2 * 2  # two passes a step, and those of the identity loss


def test_every_preset_trains(preset, tiny_config, new_training, pairs, pictures, eager):
    config = tiny_config(preset)
    if preset in SAME_STEPS:
        other = tiny_config(SAME_STEPS[preset])
        assert config.replace(epochs=1).flat() == other.replace(epochs=1).flat()
        return
    assert config.run.batch_size in (1, 5)
    step = new_training(config)
    models = [model for model in (*step.state.networks, step.state.projector) if model]
    before = weights_by_layer(models)
    metrics = step.run(pairs(step, pictures(10), pictures(10, seed=1)), tf.constant(1))
    identity = IDENTITY_METRICS if config.losses.lambda_identity else set()
    penalty = PENALTY_METRICS if config.losses.gradient_penalty else set()
    own = CONTRAST_METRICS if config.one_sided() else GAN_METRICS
    assert set(metrics) == own | identity | penalty
    assert np.isfinite([float(value) for value in metrics.values()]).all()
    for name, kernel in weights_by_layer(models).items():
        assert np.isfinite(kernel).all(), name
        # The single ReLU of a tiny squeeze may rest.
        assert (kernel != before[name]).any() or "_se_" in name, name
    assert step.state.steps_done() == 1


def test_the_penalty_at_real_pictures_takes_no_generated_ones(
    tiny_config, new_training, pictures, shown
):
    augment, see = shown
    config = tiny_config(
        batch_size=2,
        discriminator_weight=0.0,
        gradient_penalty=3.0,
        gradient_penalty_at="real",
        discriminator_augment=augment,
    )
    step = new_training(config)
    enlarged(step)
    real_a, real_b, fake = (tf.constant(pictures(2, seed=seed)) for seed in range(3))
    judges = step.state.networks[2:]

    def penalty_of(judge, real):
        real = see(real)
        with tf.GradientTape() as tape:
            tape.watch(real)
            decisions = judge(real)
        slopes = tape.gradient(decisions, real)  # of their sum
        return tf.reduce_sum(slopes**2) / 2 / (decisions.shape[1] * decisions.shape[2])

    terms = [(3.0, lambda each=each: penalty_of(*each)) for each in zip(judges, (real_a, real_b))]
    arguments = (real_a, real_b, fake, fake, 1.0)
    check_penalties(step, arguments, terms)


def adversarial_losses(kind: str, networks, a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """What a step from here on has to log of the adversarial loss, discriminators half of it."""
    to_b, to_a, judge_a, judge_b = networks
    made_a, made_b = to_a(b), to_b(a)
    terms = {
        "generator_ab": losses.generator_loss(kind, judge_b(made_b)),
        "generator_ba": losses.generator_loss(kind, judge_a(made_a)),
        "discriminator_a": 0.5 * losses.discriminator_loss(kind, judge_a(a), judge_a(made_a)),
        "discriminator_b": 0.5 * losses.discriminator_loss(kind, judge_b(b), judge_b(made_b)),
    }
    return {name: float(term) for name, term in terms.items()}


@pytest.mark.parametrize("kind", ["least_squares", "vanilla", "hinge", "wasserstein"])
def test_all_networks_are_trained_by_the_loss_that_was_chosen(
    kind, tiny_config, new_training, pairs, pictures, eager
):
    config = tiny_config(gan_loss=kind, gradient_penalty=10.0, discriminator_weight=0.5)
    step, a, b = new_training(config), pictures(1), pictures(1, seed=1)
    enlarged(step)
    right = adversarial_losses(kind, step.state.networks, a, b)
    metrics = step.run(pairs(step, a, b), tf.constant(1))
    assert np.isfinite([float(value) for value in metrics.values()]).all()
    found = {name: float(metrics[name]) for name in right}
    assert found == pytest.approx(right, rel=1e-4, abs=1e-4)


def test_bfloat16_trains_float32_weights(tiny_config, new_training, pairs, pictures, eager):
    step = new_training(tiny_config(average=0.9), precision="bfloat16")
    metrics = step.run(pairs(step, pictures(4), pictures(4)), tf.constant(1))
    assert all(value.dtype == tf.float32 for value in metrics.values())
    assert np.isfinite([float(value) for value in metrics.values()]).all()
    assert all(weight.dtype == np.float32 for weight in weights_of(step.state.networks))
    for model in step.state.networks:
        inner = next(layer for layer in model.layers if layer.name.endswith("1_conv"))
        assert tf.as_dtype(inner.output.dtype) == tf.bfloat16


def test_what_is_scored_is_what_is_exported_whatever_it_is_trained_in(
    tiny_config, new_training, pictures
):
    config, images = tiny_config(average=0.9), pictures(2)
    state = new_training(config, precision="bfloat16").state
    exported = build_generators(config)
    for amount in (0.1, -0.2):
        for variable in state.average_variables():
            variable.assign_add(amount * tf.ones_like(variable))
        scored = state.exported_generators()
        for ours, theirs, shown in zip(scored, exported, state.shown_generators()):
            theirs.set_weights(shown.get_weights())
            right = theirs(images, training=False)
            np.testing.assert_array_equal(ours(images, training=False), right)
            assert np.any(shown(images, training=False) != right)
    state = new_training(config).state
    assert state.exported_generators() is state.shown_generators()


def test_bfloat16_learns_what_float32_learns(tiny_config, new_training, pairs, pictures):
    """After 30 steps the losses agree within 5 %, and both have learned: the cycle loss fell.

    Within 10 % where the CPU's own sums are rough (docs/performance.md), as 5.3 % was seen there.
    Discriminators that hardly move: their quarrel with the generators would enlarge each rounding.
    """
    ends = []
    small = {"generator_downsamplings": 2, "generator_blocks": 1, "generator_filters": 4}
    rates = {"learning_rate": 2e-3, "discriminator_rate": 0.05, "lambda_cycle": 10.0}
    config = tiny_config("demo", **small, **rates)
    for precision in ("float32", "bfloat16"):
        step = new_training(config, precision=precision)
        batches = pairs(step, pictures(4), pictures(4, seed=1))
        start, _, end = (step.run(batches, tf.constant(steps)) for steps in (4, 26, 4))
        assert float(end["cycle_a"]) < 0.95 * float(start["cycle_a"])
        ends.append({name: float(value) for name, value in end.items()})
    assert ends[1] == pytest.approx(ends[0], rel=0.1 if sums_roughly() else 0.05)


def test_discriminators_get_no_gradient_in_the_generators_update(
    tiny_config, new_training, pictures
):
    """Nothing that the update needs leads to one: what it does not need is pruned, never run."""
    step, images = new_training(tiny_config()), tf.constant(pictures())
    run = tf.function(
        lambda: step.strategy.run(step.generator_gradients, args=(images, images, 1.0))[0]
    )
    graph = run.get_concrete_function().graph
    needed = _operations_behind(graph.outputs)
    made = [one for one in needed if one.type == "Conv2DBackpropFilter"]
    generator_kernels = [
        weight for weight in step.state.generator_variables() if len(weight.shape) == 4
    ]
    passes = 2  # the identity's goes with the translation's
    assert len(made) == passes * len(generator_kernels)


def _operations_behind(tensors: list[tf.Tensor]) -> list[tf.Operation]:
    found, waiting = {}, [tensor.op for tensor in tensors]
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found[operation.name] = operation
            waiting += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return list(found.values())


def test_the_rate_follows_the_length_of_the_training(
    tiny_config, new_training, pairs, pictures, eager
):
    """A training of one step has a rate of zero in its second."""
    step = new_training(tiny_config(), total_steps=1)
    batches = pairs(step, pictures(4), pictures(4))
    weights = [weights_of(step.state.networks)]
    for _ in range(2):
        step.run(batches, tf.constant(1))
        weights.append(weights_of(step.state.networks))
    start, first, second = weights
    assert any((one != two).any() for one, two in zip(start, first))
    assert all((one == two).all() for one, two in zip(first, second))


def test_the_discriminators_have_a_rate_of_their_own(
    tiny_config, new_training, pairs, pictures, eager
):
    config = tiny_config(discriminator_rate=0.0)
    step = new_training(config)
    generators, discriminators = step.state.networks[:2], step.state.networks[2:]
    before = weights_of(generators), weights_of(discriminators)
    step.run(pairs(step, pictures(4), pictures(4, seed=1)), tf.constant(1))
    assert all(np.any(new != old) for new, old in zip(weights_of(generators), before[0]))
    assert all(np.array_equal(new, old) for new, old in zip(weights_of(discriminators), before[1]))


def test_averages_follow_their_formula(tiny_config, new_training, pairs, pictures, eager):
    step = new_training(tiny_config(average=0.15, learning_rate=0.1))
    batches = pairs(step, pictures(4), pictures(4))
    expected = weights_of(step.state.generators)
    for done in range(3):
        step.run(batches, tf.constant(1))
        decay = min(0.15, (1 + done) / (10 + done))
        assert done == 0 or decay == 0.15
        newest = weights_of(step.state.generators)
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, newest)]
        for average, right in zip(weights_of(step.state.averages), expected):
            np.testing.assert_allclose(average, right, rtol=1e-5, atol=1e-6)


def test_averages_of_another_run_are_not_forgotten_at_once(
    tiny_config, new_training, pairs, pictures, eager
):
    step = new_training(tiny_config(average=0.9, learning_rate=0.0, init_from="another"))
    for average, weight in zip(step.state.average_variables(), step.state.generator_variables()):
        average.assign(weight + 1.0)
    step.run(pairs(step, pictures(4), pictures(4)), tf.constant(3))
    for average, weight in zip(step.state.average_variables(), step.state.generator_variables()):
        np.testing.assert_allclose(average.numpy() - weight.numpy(), 0.9**3, rtol=1e-4)


def test_replicas_share_a_batch_in_order(tiny_config, new_training, pictures):
    step = new_training(tiny_config(batch_size=4), replicas=2)
    batch = pictures(4)
    shared = step.strategy.run(step._own, args=(tf.constant(batch),))
    parts = step.strategy.experimental_local_results(shared)
    np.testing.assert_array_equal(np.stack(parts), batch.reshape(2, 2, 16, 16, 3))


def test_two_replicas_of_1_take_the_step_of_one_of_2(
    tiny_config, new_training, pairs, pictures, eager
):
    config = tiny_config(batch_size=2, history_size=0, average=0.9)
    steps = [new_training(config, replicas) for replicas in (1, 2)]
    metrics = []
    for step in steps:
        # Without momentum's memory, Adam's first step is the gradient's sign: moments tell more.
        metrics.append(step.run(pairs(step, pictures(4), pictures(4, seed=1)), tf.constant(1)))
    for name in metrics[0]:
        assert float(metrics[0][name]) == pytest.approx(float(metrics[1][name]), rel=1e-4)
    for optimizer in ("generator_optimizer", "discriminator_optimizer"):
        one, two = (getattr(step.state, optimizer).first_moments for step in steps)
        assert_close([each.numpy() for each in two], [each.numpy() for each in one])


@pytest.fixture(scope="module")
def compiled(tiny_config, new_training):
    """A step whose graph is made once, and a function that brings its state back to the start."""
    step = new_training(tiny_config(history_size=2, average=0.9))
    variables = all_variables(step.state)
    values = [variable.numpy() for variable in variables]

    def restart():
        for variable, value in zip(variables, values):
            variable.assign(value)
        return step

    return restart


def all_variables(state) -> list:
    models = [*state.networks, *(state.averages or ())]
    return [*(weight for model in models for weight in model.weights), *state.variables]


def test_one_trace_serves_every_call(compiled, pairs, pictures):
    step = compiled()
    batches = pairs(step, pictures(4), pictures(4, seed=1))
    for steps in (1, 3, 2):
        metrics = step.run(batches, tf.constant(steps))
        assert set(metrics) == GAN_METRICS | IDENTITY_METRICS
        assert np.isfinite([float(value) for value in metrics.values()]).all()
    step.run(pairs(step, pictures(4), pictures(4)), tf.constant(1))
    assert step.state.steps_done() == 7
    assert step.run.experimental_get_tracing_count() == 1


def test_six_steps_in_one_call_are_two_calls_of_three(compiled, pairs, pictures):
    results = []
    for calls in ([6], [3, 3]):
        step = compiled()
        assert step.state.steps_done() == 0
        batches = pairs(step, pictures(4), pictures(4, seed=1))
        metrics = [step.run(batches, tf.constant(steps)) for steps in calls]
        assert step.state.steps_done() == 6
        mean = {name: np.mean([each[name] for each in metrics]) for name in metrics[0]}
        results.append((mean, [variable.numpy() for variable in all_variables(step.state)]))
    (metrics, variables), (others, other_variables) = results
    assert metrics == pytest.approx(others, rel=1e-5)
    for one, other in zip(variables, other_variables):
        np.testing.assert_array_equal(one, other)


def test_two_replicas_in_a_graph(tiny_config, new_training, pairs, pictures):
    """With dropout and histories of their own; weights and moments stay the same on both."""
    config = tiny_config("face2anime", batch_size=2, generator_blocks=1, history_size=2)
    step = new_training(config, replicas=2)
    metrics = step.run(pairs(step, pictures(4), pictures(4, seed=1)), tf.constant(3))
    assert np.isfinite([float(value) for value in metrics.values()]).all()
    state = step.state
    mirrored_variables = [
        *state.generator_variables(),
        *state.discriminator_variables(),
        *state.generator_optimizer.second_moments,
    ]
    for variable in mirrored_variables:
        first, second = step.strategy.experimental_local_results(variable)
        np.testing.assert_array_equal(first.numpy(), second.numpy())
    for histories in (state.histories_a, state.histories_b):
        first, second = (history.images.numpy() for history in histories)
        assert (first != second).any()
        assert [int(history.seen) for history in histories] == [3, 3]
