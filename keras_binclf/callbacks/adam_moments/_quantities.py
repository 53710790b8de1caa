"""What can be logged: one table. To add a quantity is to add an entry."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_binclf.callbacks.adam_moments._observation import EDGES, SCALE, Total
from keras_binclf.callbacks.adam_moments._optimizers import Rule

Numbers = Mapping[Total, np.ndarray]
"""What came back from the device: for each total an array with one number a variable."""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something to know about a variable at a step.

    Attributes:
        name: str, what users ask for.
        columns: tuple of str, what it is called in the history; one quantity may give several.
        totals: tuple of Total, what the device computes for it.
        derive: function of `(numbers, sizes)` that gives an array for each column. `sizes` is the
            number of entries of each variable.
        epoch_logs: dict from a name in Keras's logs to a pair: the column, and the function that
            makes one number of all its values of an epoch.
        scalar: bool, whether its columns are curves that are worth looking at one by one.
    """

    name: str
    columns: tuple[str, ...]
    totals: tuple[Total, ...]
    derive: Callable[[Numbers, np.ndarray], Sequence[np.ndarray]]
    epoch_logs: Mapping[str, tuple[str, Callable[..., Any]]] = dataclasses.field(
        default_factory=dict
    )
    scalar: bool = True


def _norm(numbers: Numbers, tensor: str) -> np.ndarray:
    scaled = numbers.get(Total(tensor, "scaled_square"))
    square = numbers[Total(tensor, "square")]
    # The scaled sum is precise where the other is lost, and the other way round.
    square = square if scaled is None else np.where(np.isinf(scaled), square, scaled / SCALE**2)
    return np.sqrt(square)


def _four(name: str, *, squared: bool = False, **options: Any) -> Quantity:
    """Norm, mean, root mean square and largest absolute value of a tensor of the step."""
    reductions = ["sum", "square", "max"] + ["scaled_square"] * squared

    def derive(numbers: Numbers, sizes: np.ndarray) -> Sequence[np.ndarray]:
        norm = _norm(numbers, name)
        total, largest = numbers[Total(name, "sum")], numbers[Total(name, "max")]
        return norm, total / sizes, norm / np.sqrt(sizes), largest

    columns = tuple(f"{name}_{statistic}" for statistic in ("norm", "mean", "rms", "max"))
    totals = tuple(Total(name, reduction) for reduction in reductions)
    return Quantity(name, columns, totals, derive, **options)


def _derive_update_ratio(numbers: Numbers, sizes: np.ndarray) -> Sequence[np.ndarray]:
    update, weight = _norm(numbers, "update"), _norm(numbers, "weight")
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.where(update == 0, 0.0, update / weight),)


def _histogram(name: str) -> Quantity:
    totals = tuple(Total(name, f"above_{i}") for i in range(len(EDGES)))

    def derive(numbers: Numbers, sizes: np.ndarray) -> Sequence[np.ndarray]:
        above = [sizes, *(numbers[total] for total in totals), np.zeros_like(sizes)]
        return [low - high for low, high in itertools.pairwise(above)]

    columns = tuple(f"{name}_histogram_{i:02}" for i in range(len(EDGES) + 1))
    return Quantity(f"{name}_histogram", columns, totals, derive, scalar=False)


_ALL = (
    _four("gradient", epoch_logs={"gradient_norm": ("gradient_norm", np.mean)}),
    _four("m"),
    _four("v", squared=True),
    _four("m_hat"),
    _four("v_hat", squared=True),
    _four("update"),
    Quantity(
        "update_ratio",
        ("update_ratio",),
        (Total("update", "square"), Total("weight", "square")),
        _derive_update_ratio,
        {"update_ratio": ("update_ratio", np.mean)},
    ),
    Quantity(
        "rms_ratio",
        ("rms_ratio",),
        (Total("surprise", "sum"),),
        lambda numbers, sizes: (np.sqrt(numbers[Total("surprise", "sum")] / sizes),),
        {"rms_ratio": ("rms_ratio", np.mean), "rms_ratio_max": ("rms_ratio", np.max)},
    ),
    Quantity(
        "epsilon_share",
        ("epsilon_share",),
        (Total("under_epsilon", "sum"),),
        lambda numbers, sizes: (numbers[Total("under_epsilon", "sum")] / sizes,),
        {"epsilon_share": ("epsilon_share", np.mean)},
    ),
    _four("weight"),
    *(_histogram(name) for name in ("gradient", "m", "v", "update")),
)

QUANTITIES: dict[str, Quantity] = {quantity.name: quantity for quantity in _ALL}
"""All quantities by name."""

DEFAULT = (
    *("gradient", "m", "v", "m_hat", "v_hat", "update"),
    *("update_ratio", "rms_ratio", "epsilon_share"),
)
"""The quantities that are logged unasked: all but the weights and the histograms."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the device computes for the quantities that are wanted of an optimizer.

    Args:
        quantities: tuple of str, names of quantities.
        rule: Rule, the numbers of the optimizer.
    """

    quantities: tuple[str, ...]
    rule: Rule

    @functools.cached_property
    def totals(self) -> tuple[Total, ...]:
        """Each total once, though several quantities may need it; those of a kind together."""
        totals = dict.fromkeys(self._find_source(total)[0] for total in self._wanted())
        return tuple(sorted(totals, key=lambda total: total.reduction == "max"))

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return list_columns(self.quantities)

    def derive(self, numbers: np.ndarray, step: int, sizes: np.ndarray) -> np.ndarray:
        """Return the columns of each variable.

        Args:
            numbers: array of shape `(variables, totals)`, from the device.
            step: int, the last step.
            sizes: array of shape `(variables,)`, number of entries of each variable.

        Returns:
            Array of float64, of shape `(variables, columns)`.
        """
        by_total = dict(zip(self.totals, numbers.astype("float64").T, strict=True))
        wanted = {}
        for total in self._wanted():
            source, scale_of = self._find_source(total)
            power = {"square": 2, "scaled_square": 2}.get(total.reduction, 1)
            wanted[total] = by_total[source] * scale_of(step) ** power
        columns: list[np.ndarray] = []
        for name in self.quantities:
            columns += QUANTITIES[name].derive(wanted, sizes)
        return np.stack(columns, axis=1)

    def _wanted(self) -> Iterable[Total]:
        return (total for name in self.quantities for total in QUANTITIES[name].totals)

    def _find_source(self, total: Total) -> tuple[Total, Callable[[int], float]]:
        """Return what the device computes for a total, and the factor between the two.

        Bias correction is a factor for all entries, so it needs no pass of its own. That of Nadam
        adds a share of the gradient, and is another tensor.
        """
        rule = self.rule
        if total.tensor == "m_hat" and not rule.nesterov:
            return total._replace(tensor="m"), lambda step: 1 / (1 - rule.beta_1**step)
        if total.tensor == "v_hat":
            source = total._replace(tensor="v_max" if rule.amsgrad else "v")
            return source, lambda step: 1.0 if rule.norm else 1 / (1 - rule.beta_2**step)
        return total, lambda step: 1.0


def list_columns(quantities: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of the quantities, in order."""
    return tuple(column for name in quantities for column in QUANTITIES[name].columns)
