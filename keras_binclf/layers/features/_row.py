"""Encoding of one row, without the detour over a table."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_binclf.layers.features._columns import MISSING, Array, Column
from keras_binclf.layers.features._encoding import (
    encode_column,
    index_categories,
    refuse_missing,
    spell_booleans,
)
from keras_binclf.layers.features._layout import Layout
from keras_binclf.layers.features._values import count_objects, read_values

OWNER = "TabularEncoder.encode_row"
LARGE = 1e38
"""Larger numbers may be infinite in float32."""


def encode_row(layout: Layout, words: Mapping[Any, Any], row: Any) -> Array:
    """Return an encoded row, of shape `(1, num_encoded)`.

    Args:
        layout: the columns that are encoded.
        words: the result of `list_words`.
        row: dict of the value of each column, Series of pandas, or vector for numbered columns.

    Raises:
        TypeError: for a row of another type, and values that no column can have.
        ValueError: if a column is missing, and for values that the column cannot have.
    """
    values = row if isinstance(row, dict) else _to_dict(layout, row)
    numbers: list[float] = []
    for column, _ in layout.places:
        try:
            value = values[column.name]
        except KeyError:
            raise refuse_missing(column.name, [str(name) for name in values], OWNER) from None
        number = _read_quickly(column, words, value)
        if number is None:
            numbers.extend(_read_slowly(column, value))
        else:
            numbers.append(number)
    return np.array([numbers], "float32")


def list_words(layout: Layout) -> dict[Any, dict[Any, float]]:
    """Return for each column of words the numbers of those that are encoded by looking them up."""
    return {column.name: _list(column) for column in layout.kept}


def _list(column: Column) -> dict[Any, float]:
    if column.kind == "category" and column.source == "text":
        return {word: float(code) for word, code in index_categories(column).items()}
    return spell_booleans(column) if column.kind == "boolean" else {}


def _to_dict(layout: Layout, row: Any) -> Mapping[Any, Any]:
    if isinstance(row, Mapping):
        return row
    if layout.is_named and hasattr(row, "to_dict"):
        named: Mapping[Any, Any] = row.to_dict()
        return named
    shape = np.shape(row)
    if layout.is_named or shape != (len(layout.columns),):
        expected = "a dict of values by column, or a Series of pandas"
        if not layout.is_named:
            expected = f"a vector of {len(layout.columns)} values, or a dict of them by number"
        raise TypeError(f"`row` of {OWNER} must be {expected}. Received: {type(row).__name__}.")
    return dict(enumerate(row))


def _read_quickly(column: Column, words: Mapping[Any, Any], value: Any) -> float | None:
    """Return the number of a value of the usual types, None for any other."""
    if value is None and not column.parts:
        return float(MISSING) if column.kind == "category" else float("nan")
    if column.kind == "number":
        if type(value) in (float, int) and -LARGE < value < LARGE:
            return float(value) - column.offset
    elif type(value) is str:
        number: float | None = words[column.name].get(value)
        return number
    return None


def _read_slowly(column: Column, value: Any) -> list[float]:
    out = np.empty((1, len(column.encoded_names)), "float32")
    values = read_values(*count_objects([value], column.name, OWNER), column.name, OWNER)
    encode_column(column, values, out)
    numbers: list[float] = out[0].tolist()
    return numbers
