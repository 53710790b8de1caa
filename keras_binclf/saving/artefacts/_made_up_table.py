"""Random tables of the columns that an encoder was adapted to, with gaps and unknown words."""

from typing import Any

import keras
import numpy as np

from keras_binclf.layers import TabularEncoder

Array = np.ndarray[Any, Any]

GAPS = 0.1
"""The share of gaps in each column."""
SPREAD = 1.5
"""Standard deviation of numbers, in distances between the quartiles of `adapt`."""
UNKNOWN = "a word that no table has"
DAY = 86_400_000_000


def make_up_table(encoder: TabularEncoder, num_rows: int, random: np.random.Generator) -> Any:
    """Return a table that the encoder takes: a dict of columns, or an array for numbered ones."""
    columns = encoder.columns or ()
    centres = _find_centres(encoder)
    table: dict[Any, Array] = {}
    for column in columns:
        drawn = np.full(num_rows, None, object)
        if column.kind != "ignored":
            there = random.random(num_rows) >= GAPS
            size = int(there.sum())
            drawn[there] = _draw(column, centres.get(column.name), size, random)
        table[column.name] = drawn
    if encoder.is_named:
        return table
    return np.stack([table[column.name] for column in columns], axis=1)


def _find_centres(encoder: TabularEncoder) -> dict[Any, tuple[float, float]]:
    """Return median and spread of what is scaled, by name of the column."""
    if encoder.scaler is None:
        return {}
    median, factor = (
        keras.ops.convert_to_numpy(weight).astype("float64")
        for weight in (encoder.scaler.median, encoder.scaler.factor)
    )
    spread = np.divide(1.0, factor, out=np.zeros_like(factor), where=factor != 0)
    scaled = [c for c in encoder.columns or () if c.kind not in ("category", "ignored")]
    return {
        column.name: (float(m), float(s))
        for column, m, s in zip(scaled, median, spread, strict=True)
    }


def _draw(column: Any, centre: Any, size: int, random: np.random.Generator) -> Any:
    """Return values of a column, as objects."""
    if column.kind == "category":
        number = max(map(float, column.categories), default=0.0) if column.source != "text" else 0.0
        others: dict[str, list[Any]] = {"text": [UNKNOWN], "number": [number + 1.0], "boolean": []}
        known = [*column.categories, *others[column.source]]
        return [known[i] for i in random.integers(0, len(known), size)]
    if column.kind == "boolean":
        flags = random.integers(0, 2, size).astype(bool).tolist()
        if column.source != "text":
            return flags
        return [column.true if flag else column.false.upper() for flag in flags]
    median, spread = centre
    numbers = column.offset + random.normal(median, SPREAD * spread, size)
    if column.kind == "number":
        return numbers.tolist()
    zone: Any = "UTC" if column.has_timezone else "naive"
    moments = np.rint(numbers * DAY).astype("int64").astype("datetime64[us]")
    return np.datetime_as_string(moments, timezone=zone).tolist()
