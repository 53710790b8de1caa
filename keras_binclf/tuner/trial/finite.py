"""NaN and infinity in the rows of a search: whether there are any, and in which row and column."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_binclf.tuner.trial.folds import OWNER, Array

LARGEST = float(np.finfo("float32").max)
CHUNK_SIZE = 2**22
"""Numbers that are checked at once, so that the check needs little memory."""

MAX_ROWS = 1024
"""Rows with NaN or infinity on which a scaler or a backbone is tried."""

Accepts = Callable[[Sequence[Array]], bool]
"""Whether a scaler or backbone returns finite features for rows with NaN or infinity.

It takes the rows of all inputs, in the order of `keras.tree.flatten`."""

NO_ROWS = np.array([], "int64")

HINT = "Replace these values, or give a `scaler` or a `backbone` that maps them to numbers."


def check_finite(values: Array, name: str, hint: str) -> None:
    """Raise `ValueError` for a label or a weight that is NaN or infinite in float32.

    Args:
        values: array of any dtype; the first dimension counts rows.
        name: name of the argument.
        hint: the way out.
    """
    rows = find_rows(values)
    if len(rows):
        raise ValueError(_describe(values, rows, name, None, hint))


@dataclasses.dataclass(frozen=True)
class Part:
    """The features of one input.

    Attributes:
        values: their array.
        name: name of the argument, or of the part of it.
        columns: names of the columns, where there are any.
        is_encoded: whether an encoder made it of a table: it refuses infinity, and NaN is a gap.
    """

    values: Array
    name: str
    columns: Sequence[Any] | None
    is_encoded: bool = False


def check_features(parts: Sequence[Part], accepts: Accepts | None) -> None:
    """Raise `ValueError` for NaN or infinity, unless the scaler or backbone maps it to numbers.

    Args:
        parts: the features of each input.
        accepts: whether the scaler or backbone maps such rows to numbers, or `None` without them.
    """
    found = [NO_ROWS if part.is_encoded else find_rows(part.values) for part in parts]
    rows = np.unique(np.concatenate(found))[:MAX_ROWS]
    if len(rows) == 0 or (accepts and accepts([part.values[rows] for part in parts])):
        return
    affected = [i for i, of_part in enumerate(found) if len(of_part)]
    place = affected[0]
    if len(affected) > 1 and accepts:
        refused = (i for i in affected if not _accepts_part(i, parts, found[i], accepts))
        place = next(refused, place)
    part = parts[place]
    raise ValueError(_describe(part.values, found[place], part.name, part.columns, HINT))


def _accepts_part(place: int, parts: Sequence[Part], rows: Array, accepts: Accepts) -> bool:
    """Whether these rows are accepted with zeros for NaN and infinity in the other inputs."""
    taken = [part.values[rows[:MAX_ROWS]] for part in parts]
    return accepts(
        [array if i == place else _fill_with_zeros(array) for i, array in enumerate(taken)]
    )


def _fill_with_zeros(values: Array) -> Array:
    return values if values.dtype.kind != "f" else np.where(np.abs(values) <= LARGEST, values, 0)


def find_rows(values: Array) -> Array:
    """Return the numbers of the rows that hold a value that is NaN or infinite in float32."""
    if values.dtype.kind != "f" or not values.size:
        return NO_ROWS
    step = max(1, CHUNK_SIZE * len(values) // values.size)
    parts = range(0, len(values), step)
    found = [start + _find_in_part(values[start : start + step]) for start in parts]
    return np.concatenate(found)


def _find_in_part(values: Array) -> Array:
    finite = np.abs(values) <= LARGEST
    if finite.all():
        return NO_ROWS
    return np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))


def _describe(
    values: Array, rows: Array, name: str, columns: Sequence[Any] | None, hint: str
) -> str:
    row = values[rows[0]]
    place = tuple(np.argwhere(~(np.abs(row) <= LARGEST))[0]) if row.ndim else ()
    location = f"row {rows[0]}{_name_place(place, row.shape, columns)}"
    count = f"{len(rows)} of {len(values)} rows " + ("has" if len(rows) == 1 else "have")
    return (
        f"`{name}` of {OWNER} must be finite in float32. Received: {float(row[place])} in "
        f"{location}; {count} such values. {hint}"
    )


def _name_place(place: Any, shape: tuple[int, ...], columns: Sequence[Any] | None) -> str:
    """Return the words for a place within a row; labels and weights have one value a row."""
    if len(shape) == 0 or shape == (1,):
        return "" if columns is None else f", column {columns[0]!r}"
    if len(shape) > 1:
        return f", position {tuple(map(int, place))}"
    return f", column {int(place[0]) if columns is None else repr(columns[place[0]])}"
