"""Values of a column in several batches, put together."""

from typing import Any

import numpy as np

from keras_binclf.layers.features._columns import Array, Name
from keras_binclf.layers.features._values import Values


def join_values(parts: list[Values], name: Name, owner: str) -> Values:
    """Return the values of one column of several batches as one.

    Raises:
        ValueError: for batches in which the column is of different types.
    """
    first = next((part for part in parts if part.source != "missing"), None)
    if first is None:
        return Values("missing", num_rows=sum(map(len, parts)))
    for part in parts:
        forms = (part.source, part.has_timezone, part.is_category)
        if part.source != "missing" and forms != (
            first.source,
            first.has_timezone,
            first.is_category,
        ):
            raise ValueError(
                f"Column {name!r} of the table for {owner} must be of one type in all batches. "
                f"Received: {_describe(first)} and {_describe(part)}."
            )
    if first.codes is None:
        numbers = np.concatenate([part.to_numbers() for part in parts])
        return Values(first.source, numbers, has_timezone=first.has_timezone)
    index: dict[Any, int] = {}
    codes = [_recode(part, index) for part in parts]
    return Values(
        first.source,
        codes=np.concatenate(codes),
        words=list(index),
        is_category=first.is_category,
    )


def _recode(part: Values, index: dict[Any, int]) -> Array:
    """Return the codes of a batch in the common `index`, which gets its new words."""
    if part.source == "missing":
        return np.full(len(part), -1)
    table = [-1 if w is None else index.setdefault(w, len(index)) for w in part.words]
    return part.look_up(table, -1, "int64")


def _describe(values: Values) -> str:
    zone = " with a time zone" if values.has_timezone else ""
    return values.source + zone + (", as a category" if values.is_category else "")
