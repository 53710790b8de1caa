"""The columns of a table in the plain form that an exported graph takes: text, and float64."""

from typing import Any

import numpy as np

from keras_binclf.layers.features._columns import Array, Column, Name
from keras_binclf.layers.features._encoding import spell_booleans
from keras_binclf.layers.features._numbers import read_text
from keras_binclf.layers.features._table import read_table
from keras_binclf.layers.features._values import Values
from keras_binclf.layers.features.tabular_encoder import TabularEncoder

OWNER = "TabularEncoder.encode"


def read_raw_columns(encoder: TabularEncoder, table: Any) -> dict[Name, Array]:
    """Return the columns that an encoder uses, by their names.

    Categories and booleans that are stored as text are text, which is empty for a gap. Everything
    else is float64 with NaN for a gap: numbers, booleans as 0 and 1, dates as days since
    1970-01-01, in UTC where they have a time zone.

    Args:
        encoder: adapted encoder.
        table: a table that its `encode` takes, which checks the values.
    """
    data = read_table(table, OWNER)
    kept = [column for column in encoder.columns or () if column.kind != "ignored"]
    return {column.name: _read(column, data.read(column.name)) for column in kept}


def takes_text(kind: str, source: str) -> bool:
    """Whether a column of this kind, stored so, is text for a graph."""
    return source == "text" and kind in ("category", "boolean")


def _read(column: Column, values: Values) -> Array:
    if takes_text(column.kind, column.source):
        return _read_words(column, values)
    if values.source == "text" and column.kind == "boolean":
        words = spell_booleans(column)
        table = [np.nan if word is None else words[word.lower()] for word in values.words]
        return values.look_up(table, np.nan)
    if values.source == "text":
        values = read_text(values, "date" if column.kind == "date" else "number") or values
    return values.to_numbers().astype("float64")


def _read_words(column: Column, values: Values) -> Array:
    if values.codes is not None:
        return np.array([*(word or "" for word in values.words), ""], str)[values.codes]
    # Gaps only, or True and False for the words that stand for them.
    numbers = values.to_numbers()
    words = np.where(numbers == 1, str(column.true), str(column.false))
    return np.where(np.isnan(numbers), "", words)
