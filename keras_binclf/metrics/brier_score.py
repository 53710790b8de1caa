"""The mean squared error of the probability."""

from typing import Any

from keras import ops

from keras_binclf._registry import register
from keras_binclf._validation import Tensor
from keras_binclf.metrics.base import BinaryMetric


@register
class BrierScore(BinaryMetric):
    """Mean squared difference between probability and label; lower is better.

    Use it to judge ranking and calibration together: it is a proper score, so that only the true
    probabilities minimise it. It is exact, not binned.

    The value is NaN without rows, and after an invalid row: a label other than 0 and 1, a score
    that is NaN or no probability, a negative weight.

    Args:
        from_logits: bool, whether `y_pred` are logits rather than probabilities. Defaults to
            `False`.
        name: str, or `None` for `"brier_score"`. Defaults to `None`.
        dtype: dtype of the computation; any other than float64 becomes float32. Defaults to
            `None`.

    Raises:
        TypeError: for an argument of the wrong kind.

    Example:

    ```python
    from keras_binclf import BrierScore

    assert abs(float(BrierScore()([1, 0], [0.8, 0.4])) - 0.1) < 1e-6
    ```

    References:
        - Brier 1950, "Verification of Forecasts Expressed in Terms of Probability",
          https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """

    def __init__(
        self, from_logits: bool = False, *, name: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__("brier_score", from_logits, name, dtype)
        self._direction = "down"
        self._start(2)

    def _measure(self, positive: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
        errors = self._probabilities(scores) - ops.cast(positive, scores.dtype)
        return ops.sum(ops.stack([weights * ops.square(errors), weights]), axis=1)

    def _evaluate(self, sums: Tensor) -> Tensor:
        return sums[0] / sums[1]
