"""Tables that come in batches, read as one."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_binclf.layers.features._columns import Name
from keras_binclf.layers.features._joining import join_values
from keras_binclf.layers.features._table import EXPECTED, Table, is_table, read_table
from keras_binclf.layers.features._values import Values


def read_labelled(data: Any, y: Any, owner: str) -> tuple[Table, Any]:
    """Return a table and its labels, of a table or of batches of tables.

    Args:
        data: table, or a data set, data loader or generator that yields tables, or tuples of a
            table, its labels and perhaps their weights.
        y: labels of a table, or None.
        owner: name of the public method, for messages.

    Raises:
        TypeError: for anything else, and for `y` beside batches.
        ValueError: for no batches, for a data set without end, and for batches of different
            columns.
    """
    if is_table(data) or not _is_stream(data):
        return read_table(data, owner), y
    if y is not None:
        raise TypeError(f"`y` of {owner} must be None for a data set, whose batches hold labels.")
    tables, labels = [], []
    for batch in _iterate_batches(data, owner):
        parts = batch if isinstance(batch, tuple | list) else (batch,)
        tables.append(read_table(_to_table(parts[0]), owner))
        labels.append(parts[1] if len(parts) > 1 else None)
    if not tables:
        raise ValueError(f"`table` of {owner} must have rows. Received: a data set of no batches.")
    _check_names(tables, owner)
    if any(one is None for one in labels):
        return _join(tables, owner), None
    return _join(tables, owner), np.concatenate([_flatten(one) for one in labels])


def _is_stream(data: Any) -> bool:
    if isinstance(data, keras.utils.PyDataset) or inspect.isgenerator(data):
        return True
    is_rows = hasattr(data, "shape") or isinstance(data, list | tuple | str | bytes)
    return isinstance(data, Iterable) and not is_rows and not hasattr(data, "__array__")


def _iterate_batches(data: Any, owner: str) -> Iterator[Any]:
    message = f"`table` of {owner} must be {EXPECTED}. Received: a data set without end."
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise ValueError(message)
        yield from (data[i] for i in range(data.num_batches))
        return
    cardinality = getattr(data, "cardinality", None)
    if callable(cardinality) and int(cardinality()) == -1:
        raise ValueError(f"{message} Give a part of it, as with `data.take(100)`.")
    yield from data


def _to_table(batch: Any) -> Any:
    """Return tensors as arrays, and anything else as it is."""
    return keras.ops.convert_to_numpy(batch) if keras.ops.is_tensor(batch) else batch


def _flatten(labels: Any) -> Any:
    return np.asarray(_to_table(labels)).reshape(-1)


def _check_names(tables: list[Table], owner: str) -> None:
    for table in tables:
        if set(table.names) != set(tables[0].names):
            first, other = list(tables[0].names), list(table.names)
            raise ValueError(
                f"`table` of {owner} must have batches of the same columns. Received: {first} and "
                f"{other}."
            )


def _join(tables: list[Table], owner: str) -> Table:
    def read(name: Name) -> Values:
        return join_values([table.read(name) for table in tables], name, owner)

    num_rows = sum(table.num_rows for table in tables)
    return Table(tables[0].names, tables[0].is_named, num_rows, read)
