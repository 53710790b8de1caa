"""The confusion table of a decision, and the rates made of it."""

import dataclasses
import math
from typing import Any

from keras_binclf._validation import Tensor


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Weighted counts of true and false positives and negatives, and the rates made of them.

    A rate of a class is NaN (0 / 0) where that class has no row. A predictive value is 0 where
    nothing is predicted, as in scikit-learn and Keras.

    All values are ratios of counts, so that a common factor of the weights cancels, and no
    product of two counts leaves the range of float32.
    """

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor
    xp: Any

    @property
    def total(self) -> Tensor:
        """Return the weight of all rows."""
        return (self.tp + self.fn) + (self.tn + self.fp)

    @property
    def tpr(self) -> Tensor:
        """Return the true positive rate: recall, sensitivity."""
        return self.tp / (self.tp + self.fn)

    @property
    def fnr(self) -> Tensor:
        """Return the false negative rate."""
        return self.fn / (self.tp + self.fn)

    @property
    def tnr(self) -> Tensor:
        """Return the true negative rate: specificity."""
        return self.tn / (self.tn + self.fp)

    @property
    def fpr(self) -> Tensor:
        """Return the false positive rate."""
        return self.fp / (self.tn + self.fp)

    @property
    def ppv(self) -> Tensor:
        """Return the positive predictive value: precision."""
        return self._share_of_predicted(self.tp, self.fp)

    @property
    def npv(self) -> Tensor:
        """Return the negative predictive value."""
        return self._share_of_predicted(self.tn, self.fn)

    def fbeta(self, beta: float) -> Tensor:
        """Return the F-beta score."""
        # (1 + beta²) tp / ((1 + beta²) tp + beta² fn + fp), divided by 1 + beta²: beta² may
        # overflow, these shares cannot.
        share_fn = (beta / math.hypot(1.0, beta)) ** 2
        share_fp = (1.0 / math.hypot(1.0, beta)) ** 2
        value = self.tp / self._not_zero(self.tp + (share_fn * self.fn + share_fp * self.fp))
        # Without a hit the score is 0, also where a share has underflowed, and NaN without rows.
        return self.xp.where(self.tp + (self.fn + self.fp) == 0, math.nan, value)

    def mcc(self) -> Tensor:
        """Return the Matthews correlation coefficient."""
        # (tp·tn − fp·fn) / √(…), written with rates.
        false_discovery = self._share_of_predicted(self.fp, self.tp)
        false_omission = self._share_of_predicted(self.fn, self.tn)
        agreement = self.xp.sqrt(self.ppv * self.tpr * self.tnr * self.npv)
        return agreement - self.xp.sqrt(false_discovery * self.fnr * self.fpr * false_omission)

    def cohen_kappa(self) -> Tensor:
        """Return Cohen's kappa."""
        # 2 (tp·tn − fp·fn) / (…), divided by the product of the class sizes.
        predicted = (self.tp + self.fp) / (self.tp + self.fn)
        rejected = (self.tn + self.fn) / (self.tn + self.fp)
        return 2 * (self.tpr - self.fpr) / (predicted + rejected)

    def cost(self, cost_fp: float, cost_fn: float) -> Tensor:
        """Return the expected cost of a row."""
        return cost_fp * (self.fp / self.total) + cost_fn * (self.fn / self.total)

    def _share_of_predicted(self, part: Tensor, rest: Tensor) -> Tensor:
        return part / self._not_zero(part + rest)

    def _not_zero(self, sums: Tensor) -> Tensor:
        """Return denominators with 1 in place of 0; NaN stays."""
        return self.xp.where(sums == 0, 1.0, sums)
