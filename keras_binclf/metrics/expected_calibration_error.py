"""The distance between predicted probabilities and observed shares."""

from typing import Any

import numpy as np
from keras import ops

from keras_binclf._registry import register
from keras_binclf._validation import Tensor, check_choice, check_integer_at_least
from keras_binclf.metrics import _histogram
from keras_binclf.metrics.base import BinaryMetric, check_num_bins


def _find_edges(num_groups: int, dtype: str) -> np.ndarray[Any, Any]:
    """Return the largest float of `dtype` in each group, after one for the lower end.

    A float is above `i / num_groups` if and only if it is above the largest float up to there.
    """
    exact = np.arange(num_groups + 1) / num_groups
    edges = exact.astype(dtype)
    edges = np.where(edges > exact, np.nextafter(edges, edges.dtype.type(0)), edges)
    edges[-1] = np.inf  # Nothing is above the last group.
    return edges


@register
class ExpectedCalibrationError(BinaryMetric):
    """Mean distance between predicted probabilities and observed shares; lower is better.

    Use it to judge whether probabilities can be taken at face value: 0 means that of the rows given
    30 %, 30 % are positive. Rows are grouped by probability; the error is the mean over the groups,
    by weight, of `|share of positives - mean probability|`.

    Groups of equal width are the default. On rare classes nearly all rows fall into the first of
    them; `strategy="quantile"` makes groups of equal weight. Each consists of whole bins, of
    `num_bins` that are evenly spaced in the logit, so that equal scores stay together.

    With few rows the error of a perfectly calibrated model is not 0 but grows with the number of
    groups: compare only values over the same rows and groups.

    The value is NaN without rows, and after an invalid row: a label other than 0 and 1, a score
    that is NaN or no probability, a negative weight.

    Args:
        num_calibration_bins: positive int, the number of groups. Defaults to `15`.
        strategy: str, `"uniform"` for groups of equal width, `"quantile"` for groups of equal
            weight. Defaults to `"uniform"`.
        from_logits: bool, whether `y_pred` are logits rather than probabilities. Defaults to
            `False`.
        num_bins: int of at least 64, the resolution of `"quantile"`. Defaults to `8192`.
        name: str, or `None` for `"expected_calibration_error"`. Defaults to `None`.
        dtype: dtype of the computation; any other than float64 becomes float32. Defaults to
            `None`.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for an unknown strategy and for too few groups or bins.

    Example:

    ```python
    from keras_binclf import ExpectedCalibrationError

    error = ExpectedCalibrationError()
    assert abs(float(error([0, 1, 1, 1], [0.99, 0.99, 0.99, 0.99])) - 0.24) < 1e-6
    ```

    References:
        - the error: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian
          Binning", https://doi.org/10.1609/aaai.v29i1.9602
        - 15 groups of equal width: Guo et al. 2017, "On Calibration of Modern Neural Networks",
          https://arxiv.org/abs/1706.04599
        - groups of equal weight: Nixon et al. 2019, https://arxiv.org/abs/1904.01685
    """

    def __init__(
        self,
        num_calibration_bins: int = 15,
        strategy: str = "uniform",
        from_logits: bool = False,
        *,
        num_bins: int = 8192,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        owner = type(self).__name__
        self.num_calibration_bins = check_integer_at_least(
            num_calibration_bins, 1, "num_calibration_bins", owner
        )
        self.strategy = check_choice(strategy, "strategy", owner, ("uniform", "quantile"))
        self.num_bins = check_num_bins(num_bins, owner)
        super().__init__("expected_calibration_error", from_logits, name, dtype)
        self._direction = "down"
        self._edges = _find_edges(self.num_calibration_bins, self.dtype)
        self._start(2, self.num_bins if strategy == "quantile" else self.num_calibration_bins)

    def _measure(self, positive: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
        probabilities = self._probabilities(scores)
        if self.strategy == "quantile":
            bins = _histogram.find_bins(scores, self.num_bins, self.from_logits)
        else:
            bins = self._find_uniform_bins(probabilities)
        gaps = weights * (ops.cast(positive, scores.dtype) - probabilities)
        num_bins = self._sums.shape[-1]
        # Two sums of scalars: TensorFlow adds up rows of two numbers seven times as slowly.
        return ops.stack([_histogram.sum_by(part, bins, num_bins) for part in (weights, gaps)])

    def _evaluate(self, sums: Tensor) -> Tensor:
        weights, gaps = sums[0], sums[1]
        if self.strategy == "quantile":
            groups = self._find_groups(weights)
            gaps = _histogram.sum_by(gaps, groups, self.num_calibration_bins)
        return ops.sum(ops.abs(gaps)) / ops.sum(weights)

    def _find_uniform_bins(self, probabilities: Tensor) -> Tensor:
        """Return the group `(i / n, (i + 1) / n]` of each probability; 0 belongs to the first.

        Not by `ops.searchsorted`, which fails in TensorFlow's graphs with Keras 3.11.
        """
        n = self.num_calibration_bins
        places = ops.ceil(probabilities * n) - 1
        places = ops.where(ops.isnan(places), ops.zeros_like(places), places)
        places = ops.cast(ops.clip(places, 0, n - 1), "int32")
        # The product is rounded, so that a probability beside an edge may be one group off.
        edges = ops.convert_to_tensor(self._edges)
        above = probabilities > ops.take(edges, places + 1)
        below = ops.logical_and(probabilities <= ops.take(edges, places), places > 0)
        return places + ops.cast(above, "int32") - ops.cast(below, "int32")

    def _find_groups(self, weights: Tensor) -> Tensor:
        """Return the index of the group of equal weight that holds the middle of each bin."""
        middles = (ops.cumsum(weights) - weights / 2) / ops.sum(weights)
        groups = ops.clip(
            ops.floor(middles * self.num_calibration_bins), 0, self.num_calibration_bins - 1
        )
        return ops.cast(ops.where(ops.isnan(groups), ops.zeros_like(groups), groups), "int32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_calibration_bins": self.num_calibration_bins,
            "strategy": self.strategy,
            "num_bins": self.num_bins,
        }
