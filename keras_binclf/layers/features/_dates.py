"""Dates as numbers: the days since an offset, and the parts that return."""

import numpy as np

from keras_binclf.layers.features._columns import PARTS, Array


def find_parts(days: Array) -> tuple[str, ...]:
    """Return the parts of dates that tell something: the days, and each part that comes again.

    A part that returns is left out where the dates do not span more than one period, since the
    days tell it, and where it does not vary.
    """
    span = float(days.max() - days.min())
    parts = ["elapsed"]
    for part, period in PARTS.items():
        if period is not None and span > period and np.ptp(compute_part(days, part, 0.0)) > 0:
            parts.append(part)
    return tuple(parts)


def compute_part(days: Array, part: str, offset: float) -> Array:
    """Return one part of dates, given in days since 1970-01-01, which was a Thursday."""
    if part == "elapsed":
        return days - offset
    if part == "time_of_day":
        return np.mod(days, 1.0)
    if part == "day_of_week":
        return np.mod(np.floor(days) + 3.0, 7.0)
    return np.mod(days, 365.2425)
