"""Metrics of the decision: a score at a fixed threshold or at the best one, and that threshold."""

from typing import Any

from keras import ops

from keras_binclf._registry import register
from keras_binclf._validation import Tensor, check_threshold, error_message
from keras_binclf.metrics import _histogram
from keras_binclf.metrics.base import BinaryMetric, check_num_bins
from keras_binclf.metrics.scores import make_criterion

BEST = "best"


class _CriterionMetric(BinaryMetric):
    """A metric that judges thresholds by a criterion."""

    def __init__(
        self,
        default_name: str,
        criterion: dict[str, Any],
        from_logits: Any,
        num_bins: Any,
        name: Any,
        dtype: Any,
    ) -> None:
        owner = type(self).__name__
        self.criterion = make_criterion(owner, **criterion)
        self.num_bins = check_num_bins(num_bins, owner)
        super().__init__(default_name, from_logits, name, dtype)

    def _count(self, positive: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
        bins = _histogram.find_bins(scores, self.num_bins, self.from_logits)
        return _histogram.count(positive, bins, weights, self.num_bins)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), **vars(self.criterion), "num_bins": self.num_bins}


@register
class ThresholdMetric(_CriterionMetric):
    """A score of the decisions, at a fixed threshold or at the best one.

    A row is positive if and only if `probability > threshold`, as in all Keras metrics. With a
    number for a threshold the value is exact, as scikit-learn computes it. With `"best"` it is the
    value at the best threshold for all rows seen so far: what the classifier could do if it were
    cut in the right place, so that training is not judged by where 0.5 happens to lie. Use
    `BestThreshold` for that threshold, `ThresholdTuner` to keep it in the model.

    The best threshold is searched among `num_bins - 1` thresholds, evenly spaced in the logit from
    -16 to 16, so that the scores of a rare class, all under 0.01, are resolved as finely as those
    of a balanced one. The value is within one bin of the exact optimum: on a million rows with
    0.1 % positives, 0.0003 and less from it. Equal values are decided by the larger sum of recall
    and specificity, then by the higher threshold. `keras_binclf.tune_threshold` is exact.

    The scores, of true and false positives and negatives `TP`, `FP`, `TN`, `FN`, `P = TP + FN`,
    `N = TN + FP`:

    - `accuracy`: `(TP + TN) / (P + N)`;
    - `precision`: `TP / (TP + FP)`; `npv`, the negative predictive value: `TN / (TN + FN)`;
    - `recall`: `TP / P`; `specificity`: `TN / N`; `balanced_accuracy`: their mean (Brodersen et al.
      2010, https://doi.org/10.1109/ICPR.2010.764); `g_mean`: the root of their product (Kubat and
      Matwin 1997); `youden_j`: their sum minus 1 (Youden 1950);
    - `f1`, `fbeta`: `(1 + beta²) TP / ((1 + beta²) TP + beta² FN + FP)` (van Rijsbergen 1979);
      `jaccard`: `TP / (TP + FP + FN)`;
    - `mcc`: `(TP TN - FP FN) / sqrt((TP + FP) P N (TN + FN))` (Matthews 1975,
      https://doi.org/10.1016/0005-2795(75)90109-9); `cohen_kappa`: agreement beyond chance
      (Cohen 1960, https://doi.org/10.1177/001316446002000104);
    - `cost`: `(cost_fp FP + cost_fn FN) / (P + N)`, the expected cost a row; lower is better (Elkan
      2001, "The Foundations of Cost-Sensitive Learning",
      https://cseweb.ucsd.edu/~elkan/rescale.pdf).

    A score that divides by the rows of a missing class is NaN. Where nothing is predicted positive
    (or negative), `precision` (or `npv`) is 0, as in scikit-learn and Keras. The best value needs
    both classes, else it is NaN. So is every value without rows, and after a row that is invalid: a
    label other than 0 and 1, a score that is NaN or no probability, a negative weight.

    Give it to `compile(weighted_metrics=[...])` rather than `metrics` where `class_weight` or
    `sample_weight` should count: Keras hands weights to the former only. It weights validation data
    only by what `validation_data=(x, y, sample_weight)` brings, so with `class_weight` alone the
    weighted figures of training and validation do not compare.

    Args:
        score: str, one of the names above. Defaults to `"f1"`.
        threshold: float in (0, 1), a probability also with `from_logits`; or `"best"`. Defaults to
            `0.5`.
        beta: positive float, how many times as important recall is as precision; for
            `score="fbeta"` only. Defaults to `None`.
        cost_fp: non-negative float, what a false positive costs, in any unit; for `score="cost"`
            only. Defaults to `None`.
        cost_fn: non-negative float, what a false negative costs. Defaults to `None`.
        min_precision: float in [0, 1]; thresholds with less precision do not count, and where none
            is left, the value is NaN. Defaults to `None`.
        min_recall: float in [0, 1], likewise of recall. Defaults to `None`.
        from_logits: bool, whether `y_pred` are logits rather than probabilities. Defaults to
            `False`.
        num_bins: int of at least 64, the resolution of `"best"`. Defaults to `8192`.
        name: str, or `None` for the score, after `"best_"` where `threshold="best"`. Two metrics of
            a model need different names. Defaults to `None`.
        dtype: dtype to compute in; float64 is kept, everything else is float32. Defaults to
            `None`.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for an unknown score, a value out of range, a parameter that the score needs and
            lacks, and one that it would ignore.

    Example:

    ```python
    from keras_binclf import ThresholdMetric

    labels, probabilities = [0, 0, 1, 1, 0], [0.01, 0.02, 0.03, 0.30, 0.04]
    assert float(ThresholdMetric("recall")(labels, probabilities)) == 0.0
    assert round(float(ThresholdMetric("f1", "best")(labels, probabilities)), 2) == 0.8

    cost = ThresholdMetric("cost", threshold=0.2, cost_fp=1, cost_fn=20)
    assert float(cost(labels, probabilities)) == 20 / 5
    ```
    """

    def __init__(
        self,
        score: str = "f1",
        threshold: float | str = 0.5,
        *,
        beta: float | None = None,
        cost_fp: float | None = None,
        cost_fn: float | None = None,
        min_precision: float | None = None,
        min_recall: float | None = None,
        from_logits: bool = False,
        num_bins: int = 8192,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.threshold = _check_threshold(threshold, type(self).__name__)
        criterion = {
            "score": score,
            "beta": beta,
            "cost_fp": cost_fp,
            "cost_fn": cost_fn,
            "min_precision": min_precision,
            "min_recall": min_recall,
        }
        default_name = f"best_{score}" if threshold == BEST else str(score)
        super().__init__(default_name, criterion, from_logits, num_bins, name, dtype)
        self._direction = self.criterion.direction
        self._start(2, self.num_bins if self.threshold == BEST else 2)

    def _measure(self, positive: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
        if self.threshold == BEST:
            return self._count(positive, scores, weights)
        return _histogram.count_at(positive, self._probabilities(scores) > self.threshold, weights)

    def _evaluate(self, sums: Tensor) -> Tensor:
        if self.threshold == BEST:
            return self.criterion.find_best(_histogram.tabulate(sums))[1]
        return self.criterion.evaluate(_histogram.tabulate_at(sums))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "threshold": self.threshold}


@register
class BestThreshold(_CriterionMetric):
    """The threshold at which a score is best on the rows seen so far.

    The threshold is a probability, also with `from_logits`, and lies in the middle of the empty
    stretch between the highest score that stays negative and the lowest that becomes positive. As
    a metric on validation data it costs no second pass; `keras_binclf.ThresholdTuner` copies it
    into the model's head after each epoch. See `ThresholdMetric` for the scores, the resolution
    and what is NaN; `keras_binclf.tune_threshold` finds the exact threshold of a trained model.

    A threshold is neither good nor bad: watch `ThresholdMetric(score, "best")` in `EarlyStopping`,
    `ModelCheckpoint` and Keras Tuner.

    Args:
        score: str, one of the scores of `ThresholdMetric`. Defaults to `"f1"`.
        beta: positive float, for `score="fbeta"` only. Defaults to `None`.
        cost_fp: non-negative float, what a false positive costs, for `score="cost"` only. Defaults
            to `None`.
        cost_fn: non-negative float, what a false negative costs. Defaults to `None`.
        min_precision: float in [0, 1], the least precision to accept. Defaults to `None`.
        min_recall: float in [0, 1], the least recall to accept. Defaults to `None`.
        from_logits: bool, whether `y_pred` are logits rather than probabilities. Defaults to
            `False`.
        num_bins: int of at least 64, the resolution. Defaults to `8192`.
        name: str, or `None` for `"best_threshold"`. Defaults to `None`.
        dtype: dtype to compute in; float64 is kept, everything else is float32. Defaults to
            `None`.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: as `ThresholdMetric`.

    Example:

    ```python
    from keras_binclf import BestThreshold

    threshold = BestThreshold("recall", min_precision=1.0)
    assert round(float(threshold([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.9])), 2) == 0.25
    ```
    """

    def __init__(
        self,
        score: str = "f1",
        *,
        beta: float | None = None,
        cost_fp: float | None = None,
        cost_fn: float | None = None,
        min_precision: float | None = None,
        min_recall: float | None = None,
        from_logits: bool = False,
        num_bins: int = 8192,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        criterion = {
            "score": score,
            "beta": beta,
            "cost_fp": cost_fp,
            "cost_fn": cost_fn,
            "min_precision": min_precision,
            "min_recall": min_recall,
        }
        super().__init__("best_threshold", criterion, from_logits, num_bins, name, dtype)
        self._start(2, self.num_bins)

    def _measure(self, positive: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
        return self._count(positive, scores, weights)

    def _evaluate(self, sums: Tensor) -> Tensor:
        edge, value = self.criterion.find_best(_histogram.tabulate(sums))
        threshold = _histogram.find_threshold(sums, edge)
        return ops.where(ops.isnan(value), value, threshold)

    def objective(self) -> Any:
        """Raise: a threshold is neither good nor bad."""
        best = f"ThresholdMetric({self.criterion.score!r}, 'best')"
        raise TypeError(
            f"BestThreshold {self.name!r} has no direction to search in. "
            f"Use the objective of `{best}`, the value at that threshold."
        )


def _check_threshold(value: Any, owner: str) -> float | str:
    hint = 'A threshold is a probability, also with `from_logits`; or "best".'
    if isinstance(value, str):
        if value != BEST:
            expected = 'a float in (0, 1) or "best"'
            raise ValueError(error_message("threshold", owner, expected, value))
        return BEST
    return check_threshold(value, owner, hint)
