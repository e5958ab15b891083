"""Evaluation while training: what is logged, and which checkpoint is the best."""

from __future__ import annotations

import pytest

from cyclegan_tf.errors import UserError
from cyclegan_tf.training.examiner import Examiner, criterion, step_of_best
from tests.tiny import pack_charts, pack_demo


def scored(mae: float | None = None, kid: float | None = None) -> dict:
    record: dict = {"step": 1, "cycle_error_ab": 3.0, "fid_net_ab": 70.0, "kid_sd_net_ab": 0.01}
    if kid is not None:
        record.update({"kid_net_ab": kid - 0.1, "kid_net_ba": kid + 0.1})
    if mae is not None:
        record.update({"mae_ab": mae - 1, "mae_ba": mae + 1})
    return record


def test_the_error_to_the_truth_goes_before_kid():
    assert criterion(scored(mae=30, kid=0.2)) == pytest.approx(30)
    assert criterion(scored(kid=0.2)) == pytest.approx(0.2)
    assert criterion(scored()) is None
    assert criterion({**scored(mae=30), "mae_ba": None}) is None  # was not finite


def test_the_best_is_the_first_of_the_lowest_whose_checkpoint_is_there():
    records = [scored(mae=28), {"step": 2}]
    assert step_of_best(records, [1, 2]) == 1
    for mae, best in ((27, 3), (28, 1), (29, 1)):
        newest = {**scored(mae=mae), "step": 3}
        assert step_of_best([*records, newest], {3, 2, 1}) == best
        assert step_of_best([*records, newest], {None, 3}) == 3
    assert step_of_best([{"step": 1}], [1]) is None
    assert step_of_best(records, []) is None
    unscored = {**scored(mae=1), "mae_ba": None, "step": 3}  # was not finite
    assert step_of_best([*records, unscored], [1, 3]) == 1
    assert step_of_best([*records, unscored], [3]) is None


def test_scores_by_other_feature_weights_do_not_stand_in_the_way():
    first, second = ({"feature weights": f"{name} ({name})"} for name in ("a.h5", "b.h5"))
    kept = {**scored(kid=0.2), "protocol": first}
    newer = [{**scored(kid=0.3), "step": step} for step in (2, 3)]
    assert step_of_best([kept, newer[0]], [1, 2]) == 1
    changed = {**newer[0], "protocol": second}
    assert step_of_best([kept, changed], [1, 2]) == 2
    assert step_of_best([kept, changed, {**newer[1], "kid_net_ab": 0.4}], [1, 2, 3]) == 2
    renamed = {**newer[0], "protocol": {"feature weights": "c.h5 (a.h5)"}}
    assert step_of_best([kept, renamed], [1, 2]) == 1
    moved = {**newer[0], "protocol": {**first, "data": "elsewhere"}}
    assert step_of_best([kept, moved], [1, 2]) == 1
    true = [{**one, "mae_ab": 20.0 + one["step"]} for one in (kept, changed)]
    assert step_of_best(true, [1, 2]) == 1


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return pack_demo(tmp_path_factory.mktemp("data") / "shards", train=2, test=3)


def examiner(config, shards, new_training) -> Examiner:
    return Examiner(config, new_training(config).state, shards, 10)


def test_scores_are_those_of_the_averages_against_the_truth(tiny_config, new_training, demo):
    config = tiny_config("demo", evaluate_every=5)
    found = examiner(config, demo, new_training)
    scores = found.scores()
    assert {"mae_ab", "ssim_ba", "cycle_error_ab", "identity_error_ba"} <= set(scores)
    for weight in found.state.generator_variables():
        weight.assign(0.0 * weight)
    assert found.scores() == scores
    for weight in found.state.average_variables():
        weight.assign(0.0 * weight)
    assert found.scores() != scores


def test_pairs_of_ones_own_are_judged_by_their_truth(tiny_config, new_training, tmp_path):
    shards = pack_charts(tmp_path, trainA=2, trainB=2, testA=3, testB=3)
    config = tiny_config("demo", evaluate_every=5, evaluate_paired=True)
    scores = examiner(config, shards, new_training).scores()
    assert criterion({"step": 5, **scores}) == (scores["mae_ab"] + scores["mae_ba"]) / 2


def test_nothing_is_evaluated_without_a_judge(tiny_config, new_training, demo, tmp_path):
    unpaired = pack_charts(tmp_path, trainA=2, trainB=2, testA=2, testB=2)
    config = tiny_config("demo", evaluate_every=5)
    assert examiner(config, unpaired, new_training).evaluator is None
    assert examiner(config, demo, new_training).evaluator is not None
    assert examiner(tiny_config("demo", evaluate_every=0), demo, new_training).evaluator is None


def test_a_network_that_is_not_to_be_had_is_an_error(tiny_config, new_training, demo):
    config = tiny_config(
        evaluate_every=5, evaluate_features="inceptionv3", evaluate_feature_weights="none.h5"
    )
    with pytest.raises(UserError, match=r"--evaluate-feature-weights none\.h5: no such file"):
        examiner(config, demo, new_training)
