"""Tables of any library, read column by column."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_binclf._validation import is_integer
from keras_binclf.layers.features._columns import Array, Name
from keras_binclf.layers.features._series import read_series
from keras_binclf.layers.features._values import (
    DAY,
    Values,
    count_objects,
    read_values,
    refuse_type,
)

EXPECTED = (
    "a pandas, polars or pyarrow table, a dict of columns of equal length, or a NumPy array of two "
    "dimensions"
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose columns are read when they are asked for.

    Attributes:
        names: the names of the columns, or their numbers in an array.
        is_named: whether the columns have names.
        num_rows: the number of rows.
        read: returns the values of a column, given its name.
    """

    names: tuple[Name, ...]
    is_named: bool
    num_rows: int
    read: Callable[[Name], Values]


def read_table(data: Any, owner: str) -> Table:
    """Return a table of any supported form.

    Args:
        data: table, dict of columns, or NumPy array of two dimensions.
        owner: name of the public method, for messages.

    Raises:
        TypeError: for anything else.
        ValueError: for columns of the same name and for columns of different lengths.
    """
    if isinstance(data, Mapping):
        return _read_dict(data, owner)
    if isinstance(data, np.ndarray):
        if data.dtype.names is not None:
            return _read_dict({name: data[name] for name in data.dtype.names}, owner)
        return _read_array(data, owner)
    frame = _to_frame(data, owner)
    if frame is None:
        raise TypeError(
            f"`table` of {owner} must be {EXPECTED}. Received: {type(data).__name__}."
            + _suggest(data)
        )
    labels = list(frame.columns)
    columns = dict(zip(_check_names(labels, owner), labels, strict=True))

    def read(name: Name) -> Values:
        return read_series(frame.get_column(columns[str(name)]), name, owner)

    return Table(tuple(columns), True, len(frame), read)


def is_table(data: Any) -> bool:
    """Whether `data` looks like a table, an array or a dict of columns."""
    return isinstance(data, Mapping | np.ndarray) or hasattr(data, "columns")


def _suggest(data: Any) -> str:
    if hasattr(data, "collect"):
        return " Give `table.collect()`."
    if keras.ops.is_tensor(data):
        return " The layer itself takes tensors, of encoded rows."
    if hasattr(data, "to_frame"):
        return " `encode_row` takes one row."
    return ""


def _to_frame(data: Any, owner: str) -> Any:
    """Return the table as one of narwhals, None if it is none."""
    import narwhals as nw
    from narwhals.exceptions import DuplicateError

    try:
        frame = nw.from_native(data, eager_only=True, pass_through=True)
        return frame if isinstance(frame, nw.DataFrame) else None
    except DuplicateError:
        names = getattr(data, "column_names", None) or list(data.columns)
        raise _refuse_duplicates(names, owner) from None


def _refuse_duplicates(names: list[Any], owner: str) -> ValueError:
    double = next((name for i, name in enumerate(names) if name in names[:i]), None)
    return ValueError(
        f"`table` of {owner} must have columns of different names. Received: {double!r} more than "
        "once. Rename one of them, or drop it."
    )


def _check_names(columns: Any, owner: str) -> tuple[str, ...]:
    """Return the names as text: those of a table that was made of an array are numbers."""
    for name in columns:
        if not (isinstance(name, str) or is_integer(name)):
            raise TypeError(
                f"`table` of {owner} must have names of text, or numbers. Received: {name!r}, of "
                f"type {type(name).__name__}. Rename the columns, as with `table.columns = "
                "[str(name) for name in table.columns]`."
            )
    names = [str(name) for name in columns]
    if len(set(names)) < len(names):
        raise _refuse_duplicates(names, owner)
    return tuple(names)


def _read_dict(data: Mapping[Any, Any], owner: str) -> Table:
    columns = dict(zip(_check_names(data, owner), data.values(), strict=True))
    lengths = {name: _measure(column, name, owner) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"`table` of {owner} must have columns of one length. Received: {lengths!r}."
        )

    def read(name: Name) -> Values:
        return read_column(columns[str(name)], name, owner)

    return Table(tuple(columns), True, next(iter(lengths.values()), 0), read)


def _measure(column: Any, name: Name, owner: str) -> int:
    shape = getattr(column, "shape", None)
    if shape is not None and len(shape) == 1:
        return int(shape[0])
    if isinstance(column, list | tuple) or (shape is None and hasattr(column, "to_pylist")):
        return len(column)
    received = f"an array of shape {tuple(shape)}" if shape else type(column).__name__
    hint = "" if shape else " `encode_row` takes one row as a dict of values."
    raise TypeError(
        f"Column {name!r} of the table for {owner} must be an array of one dimension. Received: "
        f"{received}.{hint}"
    )


def _read_array(data: Array, owner: str) -> Table:
    if data.ndim != 2:
        raise ValueError(f"`table` of {owner} must be {EXPECTED}. Received: shape {data.shape}.")

    def read(name: Name) -> Values:
        return read_column(data[:, int(name)], name, owner)

    return Table(tuple(range(data.shape[1])), False, len(data), read)


def read_column(column: Any, name: Name, owner: str) -> Values:
    """Return the values of one column: an array, a list, a tensor or a column of a table."""
    import narwhals as nw

    if isinstance(column, list | tuple):
        return read_values(*count_objects(list(column), name, owner), name, owner)
    if keras.ops.is_tensor(column):
        column = keras.ops.convert_to_numpy(column)
    if isinstance(column, np.ndarray):
        return _read_vector(column, name, owner)
    if hasattr(column, "to_pylist") and not hasattr(column, "chunks"):
        import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]

        column = pa.chunked_array([column])
    series = nw.from_native(column, series_only=True, pass_through=True)
    if isinstance(series, nw.Series):
        return read_series(series, name, owner)
    return _read_vector(np.asarray(column), name, owner)


def _read_vector(array: Array, name: Name, owner: str) -> Values:
    kind = array.dtype.kind
    if isinstance(array, np.ma.MaskedArray) or kind in "OSUT":
        return read_values(*count_objects(array.tolist(), name, owner), name, owner)
    if kind == "b":
        return Values("boolean", array.astype("float64"))
    if kind in "iuf":
        return Values("number", array)
    if kind in "Mm":
        days = array.astype(f"{array.dtype.str[1]}8[us]").astype("int64") / DAY
        days[np.isnat(array)] = np.nan
        return Values("date" if kind == "M" else "number", days)
    raise refuse_type(next(iter(array.tolist()), None), name, owner)
