"""The score that a search optimizes, and the metrics of each trial."""

from collections.abc import Callable
from typing import Any

import keras

from keras_binclf._registry import drop_sharing
from keras_binclf._validation import error_message, suggest_nearest
from keras_binclf.metrics import (
    BestThreshold,
    BinaryAUC,
    BrierScore,
    ExpectedCalibrationError,
    ThresholdMetric,
)
from keras_binclf.metrics.base import get_direction
from keras_binclf.metrics.scores import SCORES, Criterion

BEST = "best_"
RANKINGS: dict[str, Callable[[], keras.metrics.Metric]] = {
    "auc": BinaryAUC,
    "pr_auc": lambda: BinaryAUC("PR"),
    "brier_score": BrierScore,
    "expected_calibration_error": ExpectedCalibrationError,
}
EXAMPLES = {"cost_fp": 1, "cost_fn": 10, "beta": 2}
"""Values of the parameters of scores, for messages."""


def make_score(score: Any, owner: str) -> keras.metrics.Metric:
    """Return the metric that a search optimizes.

    Args:
        score: name of the metric; a `Criterion`, which is optimized over the thresholds; or a
            metric.
        owner: name of the class that takes the argument, for messages.

    Raises:
        TypeError: for anything else.
        ValueError: for an unknown name, a score that needs more than a name, a metric that reads
            logits, and one that does not say which way is better.
    """
    if isinstance(score, str):
        return _make_named(score, owner)
    if isinstance(score, Criterion):
        return ThresholdMetric(score, "best")
    if not isinstance(score, keras.metrics.Metric):
        expected = "the name of a score, a Criterion, or a metric such as `BinaryAUC()`"
        raise TypeError(error_message("score", owner, expected, score))
    if get_direction(score) is None:
        expected = "a metric that says which way is better"
        hint = "Set `metric._direction` to 'up' or 'down', as the metrics of Keras do."
        raise ValueError(error_message("score", owner, expected, score, hint))
    if getattr(score, "from_logits", False):
        expected = "a metric with `from_logits=False`"
        hint = "The models of the search emit probabilities."
        raise ValueError(error_message("score", owner, expected, score, hint))
    return score


def _make_named(name: str, owner: str) -> keras.metrics.Metric:
    if name in RANKINGS:
        return RANKINGS[name]()
    base = name.removeprefix(BEST)
    names = [*RANKINGS, *SCORES, *(BEST + score for score in SCORES)]
    if base not in SCORES:
        hint = suggest_nearest(name.lower().removeprefix("val_"), names)
        expected = "one of " + ", ".join(map(repr, names))
        raise ValueError(error_message("score", owner, expected, name, hint))
    if SCORES[base].parameters:
        needed = SCORES[base].parameters
        values = ", ".join(f"{parameter}={EXAMPLES[parameter]}" for parameter in needed)
        hint = f'Give `keras_binclf.metrics.Criterion("{base}", {values})`.'
        expected = "a Criterion with " + " and ".join(map("`{}`".format, needed))
        raise ValueError(error_message("score", owner, expected, name, hint))
    return ThresholdMetric(base, "best" if name.startswith(BEST) else 0.5)


def explain_undefined(score: keras.metrics.Metric, objective: str) -> str:
    """Return why the objective may have no value in any epoch, and the way out.

    Args:
        score: metric that the hypermodel optimizes.
        objective: name of the objective, of which nothing is known if it is another one.
    """
    if objective != f"val_{score.name}":
        return ""
    criterion = getattr(score, "criterion", None)
    constraints = criterion.constraints() if isinstance(criterion, Criterion) else []
    if constraints:
        named = " and ".join(f"`{name}={least}`" for name, least, _ in constraints)
        return (
            f"No threshold satisfies {named} on the validation rows: ask for less, or "
            "validate on more rows."
        )
    return (
        "The score has no value for the predictions on the validation rows: validate on more rows, "
        "or search for another score."
    )


def serialize_score(score: Any) -> Any:
    """Return a name as it is, and a metric, or the one of a `Criterion`, as its config."""
    if isinstance(score, str):
        return score
    if isinstance(score, Criterion):
        return serialize_score(ThresholdMetric(score, "best"))
    return drop_sharing(keras.saving.serialize_keras_object(score))


def make_metrics(score: keras.metrics.Metric) -> list[keras.metrics.Metric]:
    """Return the metrics of a trial: those of `binary_classifier`, with `score` among them.

    The threshold that the trial's model will carry is the best one for `score`, where that is
    taken at a threshold, else for F1.
    """
    threshold = BestThreshold("f1")
    if isinstance(score, ThresholdMetric):
        threshold = BestThreshold(score.criterion, num_bins=score.num_bins)
    metrics = {
        metric.name: metric
        for metric in (
            ThresholdMetric("accuracy"),
            BinaryAUC("ROC"),
            BinaryAUC("PR"),
            ThresholdMetric("f1", "best"),
            threshold,
            type(score).from_config(score.get_config()),
        )
    }
    return list(metrics.values())
