"""Where the values of a hyperparameter stand on its axis, which goes from 0 to 1."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from keras_binclf._validation import is_integer, is_real

Tick = tuple[float, str]

MOST_VALUES = 12
"""Number of values up to which a range in steps has a place for each of them."""

MOST_LABELS = 16
"""Number of labels for which an axis has the height; of more places some have none."""

CLOSEST = 0.07
"""How near a label may come to that of an end."""

WIDEST_BAND = 0.12
"""Most of the height of an axis that the lines through one place are spread over."""

LONGEST = 22
"""Number of characters of a label from which some are left out in the middle."""


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The axis of a range, on the scale that its values are sampled on.

    Attributes:
        low: the number at 0.
        high: the number at 1.
        sampling: `"linear"`, `"log"` or `"reverse_log"`, as in Keras Tuner.
    """

    low: float
    high: float
    sampling: str = "linear"
    band: ClassVar[float] = 0.0

    def place(self, value: Any) -> float:
        """Return where a number stands."""
        if self.sampling == "linear":
            return float((value - self.low) / (self.high - self.low))
        if self.sampling == "log":
            return self._place_logarithm(value)
        return 1.0 - self._place_logarithm(self.low + self.high - value)

    def list_ticks(self) -> list[Tick]:
        """Return the places and labels of both ends and of what is between them."""
        places = [(self.place(value), write(value)) for value in self._list_inner()]
        inner = [tick for tick in places if CLOSEST <= tick[0] <= 1.0 - CLOSEST]
        return [(0.0, write(self.low)), *inner, (1.0, write(self.high))]

    def _place_logarithm(self, value: Any) -> float:
        return math.log(value / self.low) / math.log(self.high / self.low)

    def _list_inner(self) -> list[float]:
        if self.sampling == "linear":
            return [self._round((self.low + self.high) / 2)]
        middle = math.sqrt(self.low * self.high)
        if self.sampling == "reverse_log":
            return [self._round(self.low + self.high - middle)]
        first, last = math.floor(math.log10(self.low)) + 1, math.ceil(math.log10(self.high))
        decades = [10.0**exponent for exponent in range(first, last)]
        return _thin(decades, MOST_LABELS // 2) or [self._round(middle)]

    def _round(self, value: float) -> float:
        """Return a number that its label says in full, whole between whole ends."""
        rounded = float(f"{value:.3g}")
        return round(rounded) if is_integer(self.low) and is_integer(self.high) else rounded


@dataclasses.dataclass(frozen=True)
class Categories:
    """The axis of a few values, which have places in equal distances.

    Attributes:
        values: from the bottom to the top.
    """

    values: Sequence[Any]

    @property
    def band(self) -> float:
        """The height that the lines through one place are spread over."""
        return min(0.5 / len(self.values), WIDEST_BAND)

    def place(self, value: Any) -> float:
        """Return where a value stands."""
        index = next(i for i, known in enumerate(self.values) if _is_same(known, value))
        return (index + 0.5) / len(self.values)

    def list_ticks(self) -> list[Tick]:
        """Return the places and labels of the values."""
        return [(self.place(value), write(value)) for value in _thin(self.values, MOST_LABELS)]


Scale = Numbers | Categories


def make_scale(entries: Sequence[Any], seen: Sequence[Any]) -> Scale:
    """Return the axis of a hyperparameter.

    Args:
        entries: what Keras Tuner's space has of its name: several where conditions differ.
        seen: the values that the trials had, for which there is a place in any case: a search that
            was resumed may have had another space.
    """
    is_number = all(hasattr(entry, "min_value") for entry in entries) and all(map(is_real, seen))
    listed = [_list_values(entry) for entry in entries]
    if is_number and None in listed:
        ends = [end for entry in entries for end in (entry.min_value, entry.max_value)]
        low, high = min([*ends, *seen]), max([*ends, *seen])
        samplings = {entry.sampling for entry in entries}
        is_possible = len(samplings) == 1 and low > 0
        return Numbers(low, high, samplings.pop() if is_possible else "linear")
    values = _drop_repeated([*itertools.chain(*(values or () for values in listed)), *seen])
    if all(isinstance(value, bool) or is_real(value) for value in values):
        values.sort()
    return Categories(values)


def write(value: Any) -> str:
    """Return the label of a value."""
    if is_real(value):
        return write_number(value, 6)
    text = str(value)
    half = (LONGEST - 1) // 2
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1 - half]}…{text[-half:]}"


def write_number(value: float, digits: int) -> str:
    """Return a number with so many significant digits, and no zeros that say nothing."""
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _list_values(entry: Any) -> list[Any] | None:
    """Return the values that a hyperparameter can have; None if there are too many."""
    if not hasattr(entry, "min_value"):
        return list(entry.values)
    if entry.min_value == entry.max_value:
        return [entry.min_value]
    if entry.step is None:  # Keras Tuner would list ten of them.
        return None
    values = list(itertools.islice(entry.values, MOST_VALUES + 1))
    return values if len(values) <= MOST_VALUES else None


def _drop_repeated(values: Iterable[Any]) -> list[Any]:
    kept: list[Any] = []
    for value in values:
        if not any(_is_same(value, known) for known in kept):
            kept.append(value)
    return kept


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, but for the rounding of sums of steps."""
    if is_real(one) and is_real(other):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)


def _thin(values: Sequence[Any], most: int) -> list[Any]:
    """Return every value, or every second or third, such that there are no more than `most`."""
    return list(values[:: max(1, math.ceil(len(values) / most))])
