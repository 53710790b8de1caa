"""Table of the quantities that can be logged. To add a quantity, add an entry."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_binclf.callbacks.adam_moments._observation import EDGES, SCALE, Total
from keras_binclf.callbacks.adam_moments._optimizers import Rule

Numbers = Mapping[Total, np.ndarray]
"""Results of the device: for each total an array with one number for each variable."""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A quantity of a variable at a step, as users choose it in `quantities`.

    Attributes:
        name: str, its name in the argument `quantities`.
        columns: tuple of str, names of its columns in the history, one or several.
        totals: tuple of Total, computed for it on the device.
        derive: function of `(numbers, sizes)` that returns an array for each column. `sizes` is the
            number of entries of each variable.
        epoch_logs: dict from a name in Keras's logs to a pair: the column, and the function that
            reduces all its values of an epoch to one number.
        scalar: bool, whether its columns are shown as curves in TensorBoard.
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
    # The sum of scaled squares overflows for large values, the unscaled one is 0 for small ones.
    square = square if scaled is None else np.where(np.isinf(scaled), square, scaled / SCALE**2)
    return np.sqrt(square)


def _four(name: str, *, squared: bool = False, **options: Any) -> Quantity:
    """Return a quantity: norm, mean, root mean square and largest absolute value of a tensor."""
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
"""The quantities that are logged by default: all but the weights and the histograms."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The totals that the device computes for the chosen quantities, and the columns from them.

    Args:
        quantities: tuple of str, names of quantities.
        rule: Rule, the numbers of the optimizer.
    """

    quantities: tuple[str, ...]
    rule: Rule

    @functools.cached_property
    def totals(self) -> tuple[Total, ...]:
        """The totals that the device computes, each once; those of the same reduction together."""
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
        """Return the total that the device computes instead of a given one, and their ratio.

        Bias correction multiplies all entries by one factor, so a total of `m` gives that of
        `m_hat`. Nadam's adds a share of the gradient; its `m_hat` is reduced on the device.
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
