"""The scores of a binary decision, their parameters and the constraints, each stated once.

A score is a function of the four cells of the confusion table. The table `SCORES` serves the
streaming metrics (tensors, through `keras.ops`) and the exact search of `tune_threshold` (float64,
through NumPy) alike: the module of functions for the arrays is passed as `xp`.

A new score is one line in `SCORES`; a new parameter or constraint is one field of `Criterion` and
one of `Parameters`.
"""

import contextlib
import contextvars
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, TypedDict, TypeVar

import keras
import numpy as np

from keras_binclf._validation import (
    Tensor,
    check_non_negative,
    check_positive,
    check_unit,
    error_message,
    is_real,
    suggest_nearest,
)
from keras_binclf.metrics.confusion import Confusion

LARGEST_COST = 1e30
"""Costs lie between this and its inverse, so that float32 holds the cost of a table."""

_TAKES_ANY_COST = contextvars.ContextVar("_TAKES_ANY_COST", default=False)

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


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
        lambda c, p: c.cost(p.cost_fp, p.cost_fn),
        direction="down",
        parameters=("cost_fp", "cost_fn"),
    ),
}


@contextlib.contextmanager
def take_any_cost() -> Iterator[None]:
    """Let costs of any size pass inside of the block, as in the files of version 0.1.0."""
    token = _TAKES_ANY_COST.set(True)
    try:
        yield
    finally:
        _TAKES_ANY_COST.reset(token)


def _check_cost(value: Any, name: str, owner: str) -> float:
    if _TAKES_ANY_COST.get():
        return check_non_negative(value, name, owner)
    expected = f"0 or a positive float from {1 / LARGEST_COST:g} to {LARGEST_COST:g}"
    if not is_real(value):
        raise TypeError(error_message(name, owner, expected, value))
    if not (value == 0 or 1 / LARGEST_COST <= value <= LARGEST_COST):
        hint = "Costs may be in any unit." if value > 0 else ""
        raise ValueError(error_message(name, owner, expected, value, hint))
    return float(value)


def _parameter(check: Callable[[Any, str, str], float]) -> Any:
    """Make a field for a parameter of scores, with its check."""
    return dataclasses.field(default=None, metadata={"check": check})


def _minimum_of(rate: Callable[[Confusion], Tensor]) -> Any:
    """Make a field for a constraint: the least value of a rate."""
    return dataclasses.field(default=None, metadata={"check": check_unit, "rate": rate})


@dataclasses.dataclass(frozen=True)
class Criterion:
    """The score that a threshold is chosen by, its parameters, and the constraints.

    Use it to state once how decisions are judged, and give it as `score` to `ThresholdMetric`,
    `BestThreshold` and `tune_threshold`, which also take the fields as keywords, and to
    `BinaryClassifierHyperModel`.

    Args:
        score: str, one of the scores of `ThresholdMetric`. Defaults to `"f1"`.
        beta: positive float, how many times as important recall is as precision; for
            `score="fbeta"` only. Defaults to `None`.
        cost_fp: float, the cost of a false positive, 0 or from 1e-30 to 1e30 in any unit; for
            `score="cost"` only. Defaults to `None`.
        cost_fn: float, the cost of a false negative, likewise. Defaults to `None`.
        min_precision: float in [0, 1]; thresholds with less precision are excluded. Defaults to
            `None`.
        min_recall: float in [0, 1]; thresholds with less recall are excluded. Defaults to `None`.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for an unknown score, a value out of range, a parameter that the score needs
            and lacks, and one that it would ignore.

    Example:

    ```python
    from keras_binclf import BestThreshold, ThresholdMetric
    from keras_binclf.metrics import Criterion

    triage = Criterion("cost", cost_fp=1, cost_fn=20, min_recall=0.9)
    metrics = [ThresholdMetric(triage, "best"), BestThreshold(triage)]
    assert metrics[0].name == "best_cost"
    assert metrics[1].get_config()["min_recall"] == 0.9
    ```
    """

    score: str = "f1"
    beta: float | None = _parameter(check_positive)
    cost_fp: float | None = _parameter(_check_cost)
    cost_fn: float | None = _parameter(_check_cost)
    min_precision: float | None = _minimum_of(lambda c: c.ppv)
    min_recall: float | None = _minimum_of(lambda c: c.tpr)

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, value in _check(type(self).__name__, vars(self)).items():
            object.__setattr__(self, name, value)

    @property
    def direction(self) -> str:
        """`"up"` where a larger score is better, else `"down"`."""
        return SCORES[self.score].direction

    def constraints(self) -> list[tuple[str, float, Callable[[Confusion], Tensor]]]:
        """Return name, least value and rate of each constraint that is set."""
        return [
            (name, getattr(self, name), field.metadata["rate"])
            for name, field in PARAMETERS.items()
            if "rate" in field.metadata and getattr(self, name) is not None
        ]

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
        # A cost is a sum without cancellation: the least one is exact, however large others are.
        scale = xp.max(xp.abs(scores)) if self.direction == "up" else xp.abs(best)
        rivals = gains >= best - slack * scale
        leads = xp.where(rivals, informedness, -math.inf)
        index = xp.argmax(xp.where(leads >= xp.max(leads) - slack, 1, 0))
        # One class only: the sum is NaN, as after an invalid row.
        found = xp.isfinite(best + xp.sum(informedness))
        return index, xp.where(found, sign * best, math.nan)

    def _keep_admissible(self, values: Tensor, confusion: Confusion, otherwise: float) -> Tensor:
        """Return the values, and `otherwise` for those that a constraint excludes."""
        for _, least, rate in self.constraints():
            values = confusion.xp.where(rate(confusion) >= least, values, otherwise)
        return values


class Parameters(TypedDict, total=False):
    """The parameters of a `Criterion` as keywords of a function, for editors and type checkers.

    A function takes them as `**parameters: Unpack[Parameters]`.
    """

    beta: float | None
    cost_fp: float | None
    cost_fn: float | None
    min_precision: float | None
    min_recall: float | None


PARAMETERS = {field.name: field for field in dataclasses.fields(Criterion)[1:]}
"""The fields of a `Criterion` beside the score, by name."""


def make_criterion(owner: str, score: Any, parameters: Parameters) -> Criterion:
    """Return the checked `Criterion` that the arguments of `owner` describe.

    Args:
        owner: name of the public class or function, for messages.
        score: name of a score, or a `Criterion`.
        parameters: the keywords that `name_parameters` put into the signature.

    Raises:
        TypeError: for an argument of the wrong kind and an unknown keyword.
        ValueError: for an unknown score, a value out of range, a parameter that the score needs
            and lacks, one that it would ignore, and parameters beside a `Criterion`.
    """
    given: dict[str, Any] = dict(parameters)
    for name in given:
        if name not in PARAMETERS:
            hint = suggest_nearest(name, PARAMETERS)
            raise TypeError(f"{owner} got an unexpected keyword argument {name!r}. {hint}".rstrip())
    if isinstance(score, Criterion):
        for name, value in given.items():
            if value is not None:
                hint = "The Criterion holds it: set it there."
                expected = "left out where `score` is a Criterion"
                raise ValueError(error_message(name, owner, expected, value, hint))
        return score
    return Criterion(**_check(owner, {"score": score, **given}))


def name_parameters(function: AnyFunction) -> AnyFunction:
    """Name the parameters of a `Criterion` in the signature of a function that takes them.

    `function` takes them as `**parameters: Unpack[Parameters]`. In its signature at run time, which
    `help` and notebooks show, the names stand in their place: first of the keywords, after `score`.
    """
    signature = inspect.signature(function)
    given = list(signature.parameters.values())[:-1]
    is_keyword = [p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "score" for p in given]
    place = is_keyword.index(True)
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=field.type)
        for name, field in PARAMETERS.items()
    ]
    replaced = signature.replace(parameters=[*given[:place], *named, *given[place:]])
    function.__signature__ = replaced  # type: ignore[attr-defined]
    return function


def _check(owner: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a `Criterion`, checked in the name of `owner`."""
    score = given["score"]
    _check_score(score, owner)
    values = {name: given.get(name) for name in PARAMETERS}
    _check_needed(values, score, owner)
    for name, value in values.items():
        if value is not None:
            values[name] = PARAMETERS[name].metadata["check"](value, name, owner)
    if score == "cost" and values["cost_fp"] == 0 == values["cost_fn"]:
        expected = "positive where `cost_fp` is 0"
        raise ValueError(error_message("cost_fn", owner, expected, given["cost_fn"]))
    return {"score": score, **values}


def _check_score(score: Any, owner: str) -> None:
    expected = "one of " + ", ".join(repr(name) for name in SCORES)
    if not isinstance(score, str):
        raise TypeError(error_message("score", owner, expected, score))
    if score not in SCORES:
        hint = suggest_nearest(score.lower(), SCORES, cutoff=0.5)
        if score.lower().endswith("auc"):
            hint = "The area under a curve has no threshold: use `BinaryAUC`."
        raise ValueError(error_message("score", owner, expected, score, hint))


def _check_needed(values: dict[str, Any], score: str, owner: str) -> None:
    """Raise for a parameter that `score` needs and lacks, and for one that it would ignore."""
    needed = SCORES[score].parameters
    for name, value in values.items():
        users = [known for known, entry in SCORES.items() if name in entry.parameters]
        if name in needed and value is None:
            expected = f"given where `score={score!r}`"
            raise ValueError(error_message(name, owner, expected, value))
        if users and name not in needed and value is not None:
            expected = f"left out unless `score={users[0]!r}`"
            hint = f"`score={score!r}` has no use for it."
            raise ValueError(error_message(name, owner, expected, value, hint))
