"""The threshold with the best score, as a metric."""

from typing import Any, Unpack

from keras import ops

from keras_binclf._registry import register
from keras_binclf._validation import Tensor
from keras_binclf.metrics import _histogram
from keras_binclf.metrics._criterion_metric import CriterionMetric
from keras_binclf.metrics.scores import Criterion, Parameters, name_parameters


@register
class BestThreshold(CriterionMetric):
    """Threshold with the best score on the rows seen so far.

    Use it during training: `keras_binclf.ThresholdTuner` copies its value on the validation rows
    into the model's head after each epoch, without a second pass over them. For a trained model,
    `keras_binclf.tune_threshold` finds the exact threshold.

    The threshold is a probability, also with `from_logits`: the midpoint between the highest score
    that stays negative and the lowest that becomes positive. `ThresholdMetric` documents the
    scores, the resolution and the cases in which the value is NaN.

    A threshold has no direction. Monitor `ThresholdMetric(score, "best")`, the score at that
    threshold, in `EarlyStopping`, `ModelCheckpoint` and Keras Tuner.

    Args:
        score: str, one of the scores of `ThresholdMetric`, or a `keras_binclf.metrics.Criterion`
            that holds it with its parameters. Defaults to `"f1"`.
        beta: positive float, for `score="fbeta"` only. Defaults to `None`.
        cost_fp: float, the cost of a false positive, for `score="cost"` only: 0, or from 1e-30 to
            1e30 in any unit. Defaults to `None`.
        cost_fn: float, the cost of a false negative, in the same range. Defaults to `None`.
        min_precision: float in [0, 1]; thresholds with less precision are excluded. Defaults to
            `None`.
        min_recall: float in [0, 1]; thresholds with less recall are excluded. Defaults to `None`.
        from_logits: bool, whether `y_pred` are logits rather than probabilities. Defaults to
            `False`.
        num_bins: int of at least 64, the resolution. Defaults to `8192`.
        name: str, or `None` for `"best_threshold"`. Defaults to `None`.
        dtype: dtype of the computation; any other than float64 becomes float32. Defaults to
            `None`.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for the same reasons as `ThresholdMetric`.

    Example:

    ```python
    from keras_binclf import BestThreshold

    threshold = BestThreshold("recall", min_precision=1.0)
    assert round(float(threshold([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.9])), 2) == 0.25
    ```
    """

    @name_parameters
    def __init__(
        self,
        score: str | Criterion = "f1",
        *,
        from_logits: bool = False,
        num_bins: int = 8192,
        name: str | None = None,
        dtype: Any = None,
        **parameters: Unpack[Parameters],
    ) -> None:
        name = "best_threshold" if name is None else name
        super().__init__("", score, parameters, from_logits, num_bins, name, dtype)
        self._start(2, self.num_bins)

    def _measure(self, positive: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
        return self._count(positive, scores, weights)

    def _evaluate(self, sums: Tensor) -> Tensor:
        edge, value = self.criterion.find_best(_histogram.tabulate(sums))
        threshold = _histogram.find_threshold(sums, edge)
        return ops.where(ops.isnan(value), value, threshold)

    def objective(self) -> Any:
        """Raise `TypeError`: a threshold has no direction."""
        best = f"ThresholdMetric({self.criterion.score!r}, 'best')"
        raise TypeError(
            f"BestThreshold {self.name!r} has no direction to search in. "
            f"Use the objective of `{best}`, the value at that threshold."
        )
