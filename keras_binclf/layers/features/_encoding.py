"""From the values of a column to its part of the encoded matrix."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_binclf._validation import suggest_nearest
from keras_binclf.layers.features._columns import (
    FIRST,
    MISSING,
    RARE,
    UNKNOWN,
    Array,
    Column,
    Name,
)
from keras_binclf.layers.features._dates import compute_part
from keras_binclf.layers.features._layout import Layout
from keras_binclf.layers.features._numbers import check_finite, read_text
from keras_binclf.layers.features._table import Table
from keras_binclf.layers.features._text import BOOLEANS, is_number
from keras_binclf.layers.features._values import Values, quote

OWNER = "TabularEncoder.encode"


def encode_column(column: Column, values: Values, out: Array) -> None:
    """Write the values of a column into its part of the matrix.

    Args:
        column: what was learned of the column; not ignored.
        values: values of the column.
        out: float32 array of one row for each value, and one column for each of `encoded_names`.

    Raises:
        ValueError: for values of another kind, infinite numbers and dates that have a time zone
            where those of `adapt` had none, or the other way round.
    """
    if values.source == "missing":
        out[:] = MISSING if column.kind == "category" else np.nan
    elif column.kind == "category":
        out[:, 0] = _encode_category(column, values)
    elif column.kind == "boolean":
        out[:, 0] = _read_boolean(column, values)
    else:
        _write_numbers(column, _read_numbers(column, values), out)


def encode_table(layout: Layout, num_rows: int, read: Callable[[Name], Values]) -> Array:
    """Return the encoded table.

    Args:
        layout: its columns, and their places.
        num_rows: the number of rows.
        read: returns the values of a column.
    """
    matrix = np.empty((num_rows, len(layout.encoded_names)), "float32")
    for column, place in layout.places:
        encode_column(column, read(column.name), matrix[:, place])
    return matrix


def check_names(layout: Layout, table: Table) -> None:
    """Raise `ValueError` if a table does not have the columns that are to be encoded."""
    if table.is_named != layout.is_named:
        forms = ("an array of numbered columns", "a table of named columns")
        raise ValueError(
            f"`table` of {OWNER} must be {forms[layout.is_named]}, as in `adapt`. Received: "
            f"{forms[table.is_named]}."
        )
    if not table.is_named and len(table.names) != len(layout.columns):
        raise ValueError(
            f"`table` of {OWNER} must have {len(layout.columns)} columns, as in `adapt`. Received: "
            f"{len(table.names)}."
        )
    known = set(table.names)
    for column in layout.kept:
        if column.name not in known:
            raise refuse_missing(column.name, [str(name) for name in table.names], OWNER)


def refuse_missing(name: Name, names: Sequence[str], owner: str) -> ValueError:
    """Return the error for a column that is not there."""
    found = suggest_nearest(name, names) or f"It has {', '.join(map(repr, names[:10]))}."
    return ValueError(f"The table for {owner} must have column {name!r}, as in `adapt`. {found}")


def index_categories(column: Column) -> dict[Any, int]:
    """Return the code of each category."""
    return {category: FIRST + i for i, category in enumerate(column.categories)}


def spell_booleans(column: Column) -> dict[str, float]:
    """Return the number of each word that a boolean column may hold, in lower case."""
    own = column.true is not None and column.false is not None
    pairs = ((column.true, column.false),) if own else BOOLEANS
    return {str(w): value for pair in pairs for w, value in zip(pair, (1.0, 0.0), strict=True)}


def _refuse(column: Column, value: Any, expected: str) -> ValueError:
    return ValueError(
        f"Column {column.name!r} of the table for {OWNER} must hold {expected}, as in `adapt`. "
        f"Received: {quote(value)}."
    )


def _find_example(values: Values) -> Any:
    """Return the first value that is there."""
    if values.codes is not None:
        return next(word for word in values.words if word is not None)
    numbers = values.to_numbers()
    example = numbers[~np.isnan(numbers)][0].item()
    if values.source == "boolean":
        return bool(example)
    if values.source == "date":
        return str(np.datetime64(round(example * 86_400), "s"))
    return example


def _is_empty(values: Values) -> bool:
    """Whether there are only gaps, of whatever type the column is in its library."""
    return values.codes is None and bool(np.isnan(values.to_numbers()).all())


# ---- numbers and dates


def _read_numbers(column: Column, values: Values) -> Array:
    """Return the numbers of a number column, or the days of a date column."""
    kind = column.kind
    expected = "numbers" if kind == "number" else "dates"
    read: Values | None = values
    if values.source == "text":
        read = read_text(values, kind)
        if read is None:
            words = [word for word in values.words if word is not None]
            if kind == "number":
                words = [word for word in words if not is_number(word)]
            raise _refuse(column, words[0], expected)
    if read is None or _is_empty(read):
        return np.full(len(values), np.nan)
    if (read.source == "date") != (kind == "date"):
        raise _refuse(column, _find_example(values), expected)
    if kind == "date" and read.has_timezone != column.has_timezone:
        expected = f"dates {'with' if column.has_timezone else 'without'} a time zone"
        raise _refuse(column, _find_example(values), expected)
    return read.to_numbers()


def _write_numbers(column: Column, numbers: Array, out: Array) -> None:
    if column.offset or column.parts:
        # float32 numbers would stay so.
        numbers = numbers.astype("float64", copy=False)
    for i, part in enumerate(column.parts or ("elapsed",)):
        is_plain = part == "elapsed" and not column.offset
        shifted = numbers if is_plain else compute_part(numbers, part, column.offset)
        with np.errstate(over="ignore"):
            encoded = shifted.astype("float32")
        if part == "elapsed":
            # Before it is in the matrix, where a column lies scattered.
            check_finite(encoded, numbers, column.name, OWNER)
        out[:, i] = encoded


# ---- booleans


def _read_boolean(column: Column, values: Values) -> Array:
    if values.source == "text":
        words = spell_booleans(column)
        table = [np.nan if w is None else words.get(w.lower(), -1.0) for w in values.words]
        if -1.0 in table:
            raise _refuse(column, values.words[table.index(-1.0)], _expect_booleans(column))
        return values.look_up(table, np.nan)
    numbers = values.to_numbers()
    wrong = ~np.isnan(numbers) & (numbers != 0) & (numbers != 1)
    if values.source == "date" and not _is_empty(values):
        raise _refuse(column, _find_example(values), _expect_booleans(column))
    if wrong.any():
        raise _refuse(column, numbers[wrong][0].item(), _expect_booleans(column))
    return numbers


def _expect_booleans(column: Column) -> str:
    return "booleans" if column.true is None else f"{column.true!r}, {column.false!r} or booleans"


# ---- categories


def _find_other_code(column: Column) -> int:
    """Return the code of all other categories.

    Rare words are not kept, so that new words cannot be told from them where there were some.
    """
    return RARE if column.has_rare else UNKNOWN


def _encode_category(column: Column, values: Values) -> Array:
    if column.source != "text":
        return _encode_numbers(column, values)
    if values.source != "text":
        if _is_empty(values):
            return np.zeros(len(values))
        raise _refuse(column, _find_example(values), "text")
    codes, other = index_categories(column), _find_other_code(column)
    table = [MISSING if word is None else codes.get(word, other) for word in values.words]
    return values.look_up(table, MISSING, "float32")


def _encode_numbers(column: Column, values: Values) -> Array:
    """Return the codes of numbers and booleans that are categories."""
    read = read_text(values, "number") if values.source == "text" else values
    if read is None or read.source == "date":
        expected = "booleans" if column.source == "boolean" else "numbers"
        raise _refuse(column, _find_example(values), expected)
    numbers = read.to_numbers()
    categories = np.array(column.categories, "float64")
    order = np.argsort(categories)
    places = np.minimum(np.searchsorted(categories[order], numbers), len(order) - 1)
    is_known = categories[order][places] == numbers
    codes = np.where(is_known, FIRST + order[places], _find_other_code(column))
    return np.where(np.isnan(numbers), MISSING, codes)
