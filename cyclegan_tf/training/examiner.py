"""What is looked at from time to time while a run trains: its scores and its health."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cyclegan_tf.config import Config
from cyclegan_tf.data.shards import Shards
from cyclegan_tf.evaluation.evaluator import Evaluator
from cyclegan_tf.evaluation.features import FeatureNetwork, load_feature_network
from cyclegan_tf.reporting.metrics import content_of, list_protocols
from cyclegan_tf.training.health import Complaint, HealthMonitor, Record, complaints
from cyclegan_tf.training.state import TrainingState


class Examiner:
    """Evaluates a training and measures its health.

    Args:
        config: the settings.
        state: what is trained; scores are those of the averaged weights where there are any.
        shards: the data set.
        total_steps: the length of the training.

    Attributes:
        evaluator: None where there are no scores to take while it trains.
        closing_evaluator: of the errors to the truth, when all is done; None where there is none.

    Raises:
        UserError: if evaluation is asked for and there are too few test pictures, or the feature
            network's weights are not to be had.
    """

    def __init__(
        self, config: Config, state: TrainingState, shards: Shards, total_steps: int
    ) -> None:
        self.config, self.state, self.total_steps = config, state, total_steps
        self.monitor = HealthMonitor(config, state, shards)
        self.evaluator = _evaluator(config, shards)
        # Made before the first step, which is when names that are no pairs can still be mended.
        self.closing_evaluator = (
            _make_evaluator(None, config, shards) if shards.has_truth(config) else None
        )

    def health(self) -> dict[str, float]:
        """The health measures, by name."""
        return self.monitor.measure()

    def scores(self) -> dict[str, float]:
        """The scores of both directions, by name: "mae_ab", "kid_inceptionv3_ba"."""
        scores = self.evaluator.evaluate(self.state.exported_generators())
        return {
            f"{name}_{direction}": value
            for direction, values in scores.items()
            for name, value in values.items()
        }

    def complaints(self, records: list[Record]) -> list[Complaint]:
        """What is wrong with the run, judged by all that it has logged so far."""
        return complaints(records, self.total_steps, self.config)


def step_of_best(records: list[Record], steps: Collection[int | None]) -> int | None:
    """The step, of ``steps``, whose scores are the best, the first of equals; None without any.

    KIDs by other weights of the feature network do not compare: those of the newest scores count.

    Args:
        records: all lines of metrics.jsonl so far, oldest first.
        steps: where there are checkpoints to choose from.
    """
    scored = [r for r in records if r["step"] in steps and criterion(r) is not None]
    rivals = [r for r in scored if _weights(records, r) == _weights(records, scored[-1])]
    return min(rivals, key=criterion)["step"] if rivals else None


def criterion(record: Record) -> float | None:
    """What the best checkpoint is chosen by: the mean of both directions, lower being better.

    The mean absolute error to the truth where there is one, else KID; None without either, or if
    it was not finite.
    """
    values = _judged_by(record)
    return None if None in values or not values else sum(values) / len(values)


def _weights(records: list[Record], record: Record) -> str | None:
    """Of the feature network's weights by which a record was judged the content, whatever the
    file's name; None if it was judged by the truth.
    """
    if any(name.startswith("mae_") for name in record):
        return None
    told = [protocol for step, protocol in list_protocols(records) if step <= record["step"]]
    return content_of(str(told[-1].get("feature weights"))) if told else None


def _judged_by(record: Record) -> list[float | None]:
    """The scores of a record that count; none if it holds no scores."""
    for kind in ("mae_", "kid_"):
        values = [
            value
            for name, value in record.items()
            if name.startswith(kind) and not name.startswith("kid_sd_")
        ]
        if values:
            return values
    return []


def _evaluator(config: Config, shards: Shards) -> Evaluator | None:
    """None without evaluation, or where neither a truth nor a network could be the judge."""
    settings, network = config.evaluate, None
    if not settings.every or (settings.features == "none" and not shards.has_truth(config)):
        return None
    if settings.features != "none":
        weights = Path(settings.feature_weights) if settings.feature_weights else None
        network = load_feature_network(settings.features, weights, flags="--evaluate-")
    return _make_evaluator(network, config, shards)


def _make_evaluator(network: FeatureNetwork | None, config: Config, shards: Shards) -> Evaluator:
    return Evaluator(
        shards,
        config.data,
        network,
        max_images=config.evaluate.images,
        paired=shards.has_truth(config),
        paired_flag="--evaluate-paired",
        limit_flag="--evaluate-images",
    )
