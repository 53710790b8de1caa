"""Numbers of a column: read from text, centred, checked."""

import numpy as np

from keras_binclf.layers.features._columns import Array, Name
from keras_binclf.layers.features._text import is_number, parse_dates
from keras_binclf.layers.features._values import Values

MIN_ROWS = 50
"""Whole numbers are taken for numbers of rows from so many rows on."""
FAR = 100.0
"""Numbers whose size is more than this times their spread are centred: of the 7 digits of float32
at least 5 are left for the spread."""


def read_text(values: Values, kind: str) -> Values | None:
    """Return text as numbers or dates, or None if not all that is not blank can be read."""
    words = [word for word in values.words if word is not None]
    has_timezone = False
    if kind == "number":
        if not all(map(is_number, words)):
            return None
        numbers = [float(word) for word in words]
    else:
        dates = parse_dates(words)
        if dates is None:
            return None
        has_timezone, numbers = dates[0], dates[1].tolist()
    read = iter(numbers)
    table = [np.nan if word is None else next(read) for word in values.words]
    return Values(kind, values.look_up(table, np.nan), has_timezone=has_timezone)


def counts_rows(seen: Array) -> bool:
    """Whether numbers are whole, all different and close together, as those of rows are."""
    rows, low = len(seen), seen.min()
    if rows < MIN_ROWS or not rows - 1 <= float(seen.max()) - float(low) < 2 * rows:
        return False
    # One pass over a table as long as the numbers, in place of sorting them.
    positions = seen - low
    if seen.dtype.kind == "f" and (np.floor(positions) != positions).any():
        return False
    return int(np.bincount(positions.astype("int64")).max()) == 1


def find_quartiles(seen: Array) -> tuple[float, float, float]:
    """Return the three quartiles of numbers."""
    quartiles = np.quantile(seen.astype("float64", copy=False), (0.25, 0.5, 0.75))
    lower, median, upper = quartiles.tolist()
    return lower, median, upper


def find_offset(seen: Array, quartiles: tuple[float, float, float]) -> float:
    """Return the number to subtract so that float32 keeps the digits that vary, 0 for none."""
    low, high = float(seen.min()), float(seen.max())
    lower, median, upper = quartiles
    spread = (upper - lower) or (high - low) / 2
    if spread == 0 or max(abs(low), abs(high)) <= FAR * spread:
        return 0.0
    return float(np.floor(median)) if spread > 1 else median


def check_finite(encoded: Array, numbers: Array, name: Name, owner: str) -> None:
    """Raise `ValueError` for infinite numbers, and for those that become so in `encoded`."""
    wrong = np.isinf(encoded)
    if wrong.any():
        row = int(wrong.argmax())
        expected = "finite" if np.isinf(numbers[row]) else "within ±3.4e38, the range of float32"
        raise ValueError(
            f"Column {name!r} of the table for {owner} must be {expected}. Received: "
            f"{float(numbers[row])!r} in row {row}. Replace it, by NaN where it stands for a "
            "missing value."
        )
