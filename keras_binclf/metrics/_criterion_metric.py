"""The base of the metrics that judge thresholds by a criterion."""

from typing import Any

from keras_binclf._validation import Tensor
from keras_binclf.metrics import _histogram
from keras_binclf.metrics.base import BinaryMetric, check_num_bins
from keras_binclf.metrics.scores import Parameters, make_criterion, take_any_cost


class CriterionMetric(BinaryMetric):
    """A metric that judges thresholds by a criterion."""

    def __init__(
        self,
        prefix: str,
        score: Any,
        parameters: Parameters,
        from_logits: Any,
        num_bins: Any,
        name: Any,
        dtype: Any,
    ) -> None:
        owner = type(self).__name__
        self.criterion = make_criterion(owner, score, parameters)
        self.num_bins = check_num_bins(num_bins, owner)
        super().__init__(f"{prefix}{self.criterion.score}", from_logits, name, dtype)

    def _count(self, positive: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
        bins = _histogram.find_bins(scores, self.num_bins, self.from_logits)
        return _histogram.count(positive, bins, weights, self.num_bins)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Return a new metric; costs may have any size, as in the files of version 0.1.0."""
        with take_any_cost():
            return super().from_config(config)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), **vars(self.criterion), "num_bins": self.num_bins}
