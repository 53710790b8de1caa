"""A score of the decisions, at a fixed threshold or at the best one."""

from typing import Any, Unpack

from keras_binclf._registry import register
from keras_binclf._validation import Tensor, check_threshold, error_message
from keras_binclf.metrics import _histogram
from keras_binclf.metrics._criterion_metric import CriterionMetric
from keras_binclf.metrics.scores import Criterion, Parameters, name_parameters

BEST = "best"


@register
class ThresholdMetric(CriterionMetric):
    """Score of binary decisions, such as F1, MCC or cost, at a fixed or at the best threshold.

    Give a number as `threshold` to score the decisions made with it. A row is positive if and only
    if `probability > threshold`, as in all Keras metrics, and the value is exact, as scikit-learn
    computes it. Give `"best"` to compare epochs or models whose thresholds are tuned later: the
    value is the score at the best threshold for all rows seen so far. `BestThreshold` returns that
    threshold, and `ThresholdTuner` sets it in the model.

    The best threshold is searched among `num_bins - 1` candidates, evenly spaced in the logit from
    -16 to 16, so that a rare class, with all scores under 0.01, is resolved as finely as a balanced
    one. The value is within one bin of the exact optimum: on a million rows with 0.1 % positives,
    at most 0.0003 from it. Of equal values, the one with the larger sum of recall and specificity
    wins, then the one with the higher threshold. `keras_binclf.tune_threshold` is exact.

    The scores, of true and false positives and negatives `TP`, `FP`, `TN`, `FN`, `P = TP + FN`,
    `N = TN + FP`:

    - `accuracy`: `(TP + TN) / (P + N)`;
    - `precision`: `TP / (TP + FP)`; `npv`, the negative predictive value: `TN / (TN + FN)`;
    - `recall`: `TP / P`; `specificity`: `TN / N`; `balanced_accuracy`: their mean; `g_mean`: the
      root of their product; `youden_j`: their sum minus 1;
    - `f1`, `fbeta`: `(1 + beta²) TP / ((1 + beta²) TP + beta² FN + FP)`; `jaccard`:
      `TP / (TP + FP + FN)`;
    - `mcc`: `(TP TN - FP FN) / sqrt((TP + FP) P N (TN + FN))`; `cohen_kappa`: agreement beyond
      chance;
    - `cost`: `(cost_fp FP + cost_fn FN) / (P + N)`, the expected cost per row; lower is better.

    A score that divides by the rows of a missing class is NaN. `precision` (or `npv`) is 0 where no
    row is predicted positive (or negative), as in scikit-learn and Keras. The best value is NaN
    unless both classes occur. Every value is NaN without rows, and after an invalid row: a label
    other than 0 and 1, a score that is NaN or no probability, a negative weight.

    Pass it to `compile(weighted_metrics=[...])` rather than `metrics` where `class_weight` or
    `sample_weight` should count: Keras gives weights to the former only. Validation rows are
    weighted by `validation_data=(x, y, sample_weight)` alone, so with `class_weight` the weighted
    metrics of training and validation are not comparable.

    Args:
        score: str, one of the names above, or a `keras_binclf.metrics.Criterion` that holds it
            with its parameters. Defaults to `"f1"`.
        threshold: float in (0, 1), a probability also with `from_logits`; or `"best"`. Defaults to
            `0.5`.
        beta: positive float, how many times as important recall is as precision; for
            `score="fbeta"` only. Defaults to `None`.
        cost_fp: float, the cost of a false positive, for `score="cost"` only: 0, or from 1e-30 to
            1e30 in any unit. Defaults to `None`.
        cost_fn: float, the cost of a false negative, in the same range. Defaults to `None`.
        min_precision: float in [0, 1]; thresholds with less precision are excluded, and the value
            is NaN if none is left. Defaults to `None`.
        min_recall: float in [0, 1]; thresholds with less recall are excluded, likewise. Defaults to
            `None`.
        from_logits: bool, whether `y_pred` are logits rather than probabilities. Defaults to
            `False`.
        num_bins: int of at least 64, the resolution of `"best"`. Defaults to `8192`.
        name: str, or `None` for the score, after `"best_"` where `threshold="best"`. Two metrics of
            a model need different names. Defaults to `None`.
        dtype: dtype of the computation; any other than float64 becomes float32. Defaults to
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

    References:
        - `balanced_accuracy`: Brodersen et al. 2010, https://doi.org/10.1109/ICPR.2010.764
        - `g_mean`: Kubat and Matwin 1997, "Addressing the Curse of Imbalanced Training Sets"
        - `youden_j`: Youden 1950, "Index for Rating Diagnostic Tests"
        - `f1`, `fbeta`: van Rijsbergen 1979, "Information Retrieval"
        - `mcc`: Matthews 1975, https://doi.org/10.1016/0005-2795(75)90109-9
        - `cohen_kappa`: Cohen 1960, https://doi.org/10.1177/001316446002000104
        - `cost`: Elkan 2001, "The Foundations of Cost-Sensitive Learning",
          https://cseweb.ucsd.edu/~elkan/rescale.pdf
    """

    @name_parameters
    def __init__(
        self,
        score: str | Criterion = "f1",
        threshold: float | str = 0.5,
        *,
        from_logits: bool = False,
        num_bins: int = 8192,
        name: str | None = None,
        dtype: Any = None,
        **parameters: Unpack[Parameters],
    ) -> None:
        self.threshold = _check_threshold(threshold, type(self).__name__)
        prefix = f"{BEST}_" if self.threshold == BEST else ""
        super().__init__(prefix, score, parameters, from_logits, num_bins, name, dtype)
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


def _check_threshold(value: Any, owner: str) -> float | str:
    hint = 'A threshold is a probability, also with `from_logits`; or "best".'
    if isinstance(value, str):
        if value != BEST:
            expected = 'a float in (0, 1) or "best"'
            raise ValueError(error_message("threshold", owner, expected, value))
        return BEST
    return check_threshold(value, owner, hint)
