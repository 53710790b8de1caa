"""Rows for `adapt`, of arrays, tables and data sets, as one matrix."""

import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_binclf._validation import check_plain_numbers
from keras_binclf.layers.features._feature_layer import Array

EXPECTED = "rows of numbers, of shape (rows, features)"


@dataclasses.dataclass(frozen=True)
class Rows:
    """A matrix of one row for each example, and the names of its columns."""

    values: Array
    names: tuple[Any, ...]
    owner: str

    def describe_cell(self, wrong: Array) -> str:
        """Return column and row of the first True in `wrong`, for messages."""
        row, column = np.argwhere(wrong)[0]
        return f"column {self.names[column]!r}, row {row}"


def read_rows(data: Any, owner: str, dtype: str) -> Rows:
    """Return all rows of `data` in `dtype`, in which the layer will see them.

    Args:
        data: array, tensor or numeric table of shape `(rows, ..., features)`, or a data set, data
            loader or generator that yields batches of them, alone or as `(x, y, ...)`.
        owner: name of the layer's class, for messages.
        dtype: float type of the layer.

    Raises:
        TypeError: for anything that is not numeric.
        ValueError: for no rows, rows of different widths, infinite values and data sets without
            end, and for columns whose digits are lost in `dtype`.
    """
    parts = [_read_batch(batch, owner) for batch in _iterate_batches(data, owner)]
    if not sum(len(values) for values, _ in parts):
        raise ValueError(_message(owner, "no rows"))
    widths = sorted({values.shape[-1] for values, _ in parts})
    if len(widths) > 1:
        raise ValueError(_message(owner, f"batches of {' and of '.join(map(str, widths))} columns"))
    raw = np.concatenate([values for values, _ in parts])
    with np.errstate(over="ignore"):
        rows = Rows(raw.astype(dtype), parts[0][1], owner)
    _check_finite(rows, raw)
    _check_digits(rows, raw)
    return rows


def _message(owner: str, received: str, hint: str = "") -> str:
    text = f"`data` of {owner}.adapt must be {EXPECTED}. Received: {received}."
    return f"{text} {hint}" if hint else text


def _iterate_batches(data: Any, owner: str) -> Iterator[Any]:
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise ValueError(_message(owner, "a data set without end", "Give a part of it."))
        yield from (_take_features(data[i]) for i in range(data.num_batches))
    elif _is_stream(data):
        cardinality = getattr(data, "cardinality", None)
        if callable(cardinality) and int(cardinality()) == -1:
            hint = "Give a part of it, as with `data.take(1000)`."
            raise ValueError(_message(owner, "a data set without end", hint))
        yield from (_take_features(batch) for batch in data)
    else:
        yield data


def _is_stream(data: Any) -> bool:
    if inspect.isgenerator(data):
        return True
    is_rows = hasattr(data, "shape") or isinstance(data, list | tuple | dict | str | bytes)
    return isinstance(data, Iterable) and not is_rows and not hasattr(data, "__array__")


def _take_features(batch: Any) -> Any:
    """Return the features of a batch, which may be `(x, y)` or `(x, y, sample_weight)`."""
    return batch[0] if isinstance(batch, tuple | list) else batch


def _read_batch(batch: Any, owner: str) -> tuple[Array, tuple[Any, ...]]:
    """Return a batch as a matrix of float64, and the names or numbers of its columns."""
    check_plain_numbers(batch, "data", f"{owner}.adapt")
    values = _to_float64(batch, owner)
    if values.ndim < 2 or values.shape[-1] == 0:
        hint = "A data set must be batched, as with `data.batch(256)`; one feature is a column."
        raise ValueError(_message(owner, f"an array of shape {values.shape}", hint))
    columns = getattr(batch, "columns", None) if hasattr(batch, "iloc") else None
    names = tuple(range(values.shape[-1]) if columns is None else columns)
    return values.reshape(-1, values.shape[-1]), names


def _to_float64(batch: Any, owner: str) -> Array:
    try:
        if hasattr(batch, "iloc"):
            return np.asarray(batch.to_numpy(dtype="float64", na_value=np.nan))
        if hasattr(batch, "tocsr") and hasattr(batch, "toarray"):
            batch = batch.toarray()
        elif keras.ops.is_tensor(batch):
            batch = keras.ops.convert_to_numpy(batch)
        return np.asarray(batch).astype("float64")
    except (TypeError, ValueError) as error:
        hint = "`keras_binclf.TabularEncoder` takes tables with words and dates."
        received = f"{type(batch).__name__} ({error})"
        raise TypeError(_message(owner, received, hint)) from error


def _check_finite(rows: Rows, raw: Array) -> None:
    wrong = np.isinf(rows.values)
    if wrong.any():
        value = float(raw[tuple(np.argwhere(wrong)[0])])
        raise ValueError(
            f"`data` of {rows.owner}.adapt must be finite in {rows.values.dtype}. Received: "
            f"{value!r} in {rows.describe_cell(wrong)}. Replace it, by NaN where it stands for a "
            "missing value."
        )


def _check_digits(rows: Rows, raw: Array) -> None:
    """Raise for a column that varies, but not in the type in which the layer will see it."""
    for i, name in enumerate(rows.names):
        seen = rows.values[~np.isnan(rows.values[:, i]), i]
        if len(seen) and seen.min() == seen.max():
            given = raw[~np.isnan(raw[:, i]), i]
            low, high = float(given.min()), float(given.max())
            if low != high:
                raise ValueError(
                    f"`data` of {rows.owner}.adapt must vary within the digits of "
                    f"{rows.values.dtype}. Received: {low!r} to {high!r} in column {name!r}, which "
                    "are equal there. Subtract a constant first."
                )
