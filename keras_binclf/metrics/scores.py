"""Every score of a binary decision, stated once.

A score is a function of the four cells of the confusion table. The table `SCORES` serves the
streaming metrics (tensors, through `keras.ops`) and the exact search of `tune_threshold` (float64,
through NumPy) alike: whatever works on the arrays comes in as `xp`. A new score is one line there.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_binclf._validation import (
    Tensor,
    check_non_negative,
    check_positive,
    check_unit,
    error_message,
    suggest_nearest,
)

TINY = 1e-37
"""Less than any sum of weights that is not 0, and a normal float32."""


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Weighted counts of true and false positives and negatives, and the rates made of them.

    A rate is NaN (0 / 0) where there is nothing to predict, no row of that class, and 0 where
    nothing is predicted, which is what scikit-learn and Keras say of it too.
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
        hits = (1 + beta**2) * self.tp
        return hits / (hits + beta**2 * self.fn + self.fp)

    def mcc(self) -> Tensor:
        """Return the Matthews correlation coefficient."""
        # (tp·tn − fp·fn) / √(…), written with rates: products of four counts leave float32.
        false_discovery = self._share_of_predicted(self.fp, self.tp)
        false_omission = self._share_of_predicted(self.fn, self.tn)
        agreement = self.xp.sqrt(self.ppv * self.tpr * self.tnr * self.npv)
        return agreement - self.xp.sqrt(false_discovery * self.fnr * self.fpr * false_omission)

    def cohen_kappa(self) -> Tensor:
        """Return Cohen's kappa."""
        # 2 (tp·tn − fp·fn) / (…), divided by the product of the class sizes, for the same reason.
        predicted = (self.tp + self.fp) / (self.tp + self.fn)
        rejected = (self.tn + self.fn) / (self.tn + self.fp)
        return 2 * (self.tpr - self.fpr) / (predicted + rejected)

    def _share_of_predicted(self, part: Tensor, rest: Tensor) -> Tensor:
        return part / self.xp.maximum(part + rest, TINY)


@dataclasses.dataclass(frozen=True)
class Score:
    """A score: its function of a `Confusion` and of the `Criterion` that holds its parameters."""

    function: Callable[[Confusion, Any], Tensor]
    direction: str = "up"
    parameters: tuple[str, ...] = ()


SCORES: dict[str, Score] = {
    "accuracy": Score(lambda c, _: (c.tp + c.tn) / c.total),
    "balanced_accuracy": Score(lambda c, _: (c.tpr + c.tnr) / 2),
    "precision": Score(lambda c, _: c.ppv),
    "recall": Score(lambda c, _: c.tpr),
    "specificity": Score(lambda c, _: c.tnr),
    "npv": Score(lambda c, _: c.npv),
    "f1": Score(lambda c, _: c.fbeta(1.0)),
    "fbeta": Score(lambda c, p: c.fbeta(p.beta), parameters=("beta",)),
    "jaccard": Score(lambda c, _: c.tp / (c.tp + c.fp + c.fn)),
    "mcc": Score(lambda c, _: c.mcc()),
    "cohen_kappa": Score(lambda c, _: c.cohen_kappa()),
    "youden_j": Score(lambda c, _: c.tpr - c.fpr),
    "g_mean": Score(lambda c, _: c.xp.sqrt(c.tpr * c.tnr)),
    "cost": Score(
        lambda c, p: (p.cost_fp * c.fp + p.cost_fn * c.fn) / c.total,
        direction="down",
        parameters=("cost_fp", "cost_fn"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Criterion:
    """What a threshold is judged by: a score, its parameters, and what must hold besides."""

    score: str = "f1"
    beta: float | None = None
    cost_fp: float | None = None
    cost_fn: float | None = None
    min_precision: float | None = None
    min_recall: float | None = None

    @property
    def direction(self) -> str:
        """`"up"` where a larger score is better, else `"down"`."""
        return SCORES[self.score].direction

    def evaluate(self, confusion: Confusion) -> Tensor:
        """Return the score of each table; NaN where it is undefined or a constraint fails."""
        values = SCORES[self.score].function(confusion, self)
        return self._keep_admissible(values, confusion, math.nan)

    def find_best(self, confusion: Confusion) -> tuple[Tensor, Tensor]:
        """Return the index of the best of many tables, and its score.

        Of tables with equal scores the one with the larger `tpr + tnr`, then the first: where
        recall alone is asked for, the fewest false alarms at the best recall. The score is NaN
        where no table satisfies the constraints, or one class is missing.
        """
        xp = confusion.xp
        sign = 1 if self.direction == "up" else -1
        scores = sign * SCORES[self.score].function(confusion, self)
        # Equal fractions differ in their last digits.
        slack = 8 * np.finfo(keras.backend.standardize_dtype(scores.dtype)).eps
        gains = self._keep_admissible(scores, confusion, -math.inf)
        best = xp.max(gains)
        informedness = confusion.tpr - confusion.fpr
        rivals = gains >= best - slack * xp.max(xp.abs(scores))
        leads = xp.where(rivals, informedness, -math.inf)
        index = xp.argmax(xp.where(leads >= xp.max(leads) - slack, 1, 0))
        # One class only: the sum is NaN, as after an invalid row.
        found = xp.isfinite(best + xp.sum(informedness))
        return index, xp.where(found, sign * best, math.nan)

    def _keep_admissible(self, values: Tensor, confusion: Confusion, otherwise: float) -> Tensor:
        """Return the values, and `otherwise` for those that a constraint excludes."""
        if self.min_precision is not None:
            admissible = confusion.ppv >= self.min_precision
            values = confusion.xp.where(admissible, values, otherwise)
        if self.min_recall is not None:
            admissible = confusion.tpr >= self.min_recall
            values = confusion.xp.where(admissible, values, otherwise)
        return values


def make_criterion(
    owner: str,
    score: Any,
    *,
    beta: Any,
    cost_fp: Any,
    cost_fn: Any,
    min_precision: Any,
    min_recall: Any,
) -> Criterion:
    """Return the checked `Criterion` that the arguments of `owner` describe.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for an unknown score, a value out of range, a parameter that the score needs
            and lacks, and one that it has no use for.
    """
    _check_score(score, owner)
    parameters = {"beta": beta, "cost_fp": cost_fp, "cost_fn": cost_fn}
    _check_parameters(parameters, score, owner)
    return Criterion(
        score,
        beta=None if beta is None else check_positive(beta, "beta", owner),
        cost_fp=None if cost_fp is None else check_non_negative(cost_fp, "cost_fp", owner),
        cost_fn=None if cost_fn is None else check_non_negative(cost_fn, "cost_fn", owner),
        min_precision=_check_share(min_precision, "min_precision", owner),
        min_recall=_check_share(min_recall, "min_recall", owner),
    )


def _check_score(score: Any, owner: str) -> None:
    expected = "one of " + ", ".join(repr(name) for name in SCORES)
    if not isinstance(score, str):
        raise TypeError(error_message("score", owner, expected, score))
    if score not in SCORES:
        hint = suggest_nearest(score.lower(), SCORES, cutoff=0.5)
        if score.lower().endswith("auc"):
            hint = "The area under a curve has no threshold: use `BinaryAUC`."
        raise ValueError(error_message("score", owner, expected, score, hint))


def _check_parameters(parameters: dict[str, Any], score: str, owner: str) -> None:
    """Raise for a parameter that `score` needs and lacks, and for one that it would ignore."""
    needed = SCORES[score].parameters
    for name, value in parameters.items():
        if name in needed and value is None:
            expected = f"given where `score={score!r}`"
            raise ValueError(error_message(name, owner, expected, value))
        if name not in needed and value is not None:
            users = [known for known, entry in SCORES.items() if name in entry.parameters]
            expected = f"left out unless `score={users[0]!r}`"
            hint = f"`score={score!r}` has no use for it."
            raise ValueError(error_message(name, owner, expected, value, hint))
    if score == "cost" and parameters["cost_fp"] == 0 == parameters["cost_fn"]:
        expected = "positive where `cost_fp` is 0"
        raise ValueError(error_message("cost_fn", owner, expected, parameters["cost_fn"]))


def _check_share(value: Any, name: str, owner: str) -> float | None:
    return None if value is None else check_unit(value, name, owner)
