"""One column of a table in one form, whatever library and type it is stored in."""

import dataclasses
import datetime
import decimal
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_binclf.layers.features._columns import Array, Name

DAY = 86_400_000_000.0
"""Microseconds of a day."""


@dataclasses.dataclass(frozen=True)
class Values:
    """The values of one column.

    Attributes:
        source: `"number"`, `"boolean"`, `"date"`, `"text"`, or `"missing"` if there are only gaps.
        numbers: an array with NaN for gaps: numbers, booleans as 0 and 1, dates as days since
            1970-01-01; None for text and for declared categories.
        codes: for each row the index of its word, or -1 for a gap.
        words: the distinct words; a gap is None. Words are numbers in a column that declares
            numbers as categories.
        is_category: whether the table declares the column as one of categories.
        has_timezone: whether dates have a time zone.
        num_rows: the number of rows of a column of gaps.
    """

    source: str
    numbers: Array | None = None
    codes: Array | None = None
    words: Sequence[Any] = ()
    is_category: bool = False
    has_timezone: bool = False
    num_rows: int = 0

    def __len__(self) -> int:
        if self.codes is not None:
            return len(self.codes)
        return self.num_rows if self.numbers is None else len(self.numbers)

    def look_up(self, table: Iterable[float], missing: float, dtype: str = "float64") -> Array:
        """Return a number for each row, from one for each word."""
        return np.array([*table, missing], dtype)[self.codes]

    def to_numbers(self) -> Array:
        """Return numbers, booleans or days with NaN for gaps, also of declared categories."""
        if self.numbers is not None:
            return self.numbers
        if self.codes is None:
            return np.full(len(self), np.nan)
        return self.look_up((np.nan if w is None else float(w) for w in self.words), np.nan)


def read_values(codes: Array, uniques: Sequence[Any], name: Name, owner: str) -> Values:
    """Return the values of a column of objects, from its distinct objects.

    Args:
        codes: for each row the index of its object, or -1 for a gap.
        uniques: the distinct objects, of which some may be gaps too.
        name: name of the column, for messages.
        owner: name of the public method, for messages.

    Raises:
        TypeError: for objects of types that no column can have.
        ValueError: for objects of several types.
    """
    words = [None if is_gap(value) else value for value in uniques]
    source = _find_source(words, name, owner)
    if source == "missing":
        return Values("missing", num_rows=len(codes))
    if source == "text":
        return read_words(codes, [_decode(word, name, owner) for word in words])
    has_timezone = False
    if source == "date":
        has_timezone, words = _list_days(words, name, owner)
    table = Values(source, codes=codes, words=words)
    return Values(source, table.to_numbers(), has_timezone=has_timezone)


def read_words(codes: Array, words: Sequence[str | None]) -> Values:
    """Return the values of a column that holds nothing but text and gaps."""
    kept = [word if word is not None and word.strip() else None for word in words]
    if all(word is None for word in kept):
        return Values("missing", num_rows=len(codes))
    return Values("text", codes=codes, words=kept)


def count_objects(objects: list[Any], name: Name, owner: str) -> tuple[Array, list[Any]]:
    """Return for each object the index of its distinct value, and the distinct values."""
    try:
        uniques = list(dict.fromkeys(objects))
        index = {value: i for i, value in enumerate(uniques)}
        return np.fromiter(map(index.__getitem__, objects), "int64", len(objects)), uniques
    except TypeError:
        nested = next(item for item in objects if not _is_hashable(item))
        raise refuse_type(nested, name, owner) from None


def refuse_type(value: Any, name: Name, owner: str) -> TypeError:
    """Return the error for a value that no column can have."""
    return TypeError(
        f"Column {name!r} of the table for {owner} must hold numbers, booleans, text or dates. "
        f"Received: {type(value).__name__}, such as {quote(value)}. Split it into columns of their "
        "own, turn it into one of those, or leave the column out."
    )


def quote(value: Any) -> str:
    """Return a short text of a value for a message."""
    text = repr(value)
    return text if len(text) <= 50 else text[:47] + "..."


def is_gap(value: Any) -> bool:
    """Whether an object is a missing value: None, NaN, NA or NaT."""
    # pandas need not be installed, and `pandas.NA` has no truth value.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, float | np.floating | decimal.Decimal):
        return bool(value != value)
    return isinstance(value, np.datetime64 | np.timedelta64) and bool(np.isnat(value))


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _name_source(value: Any) -> str | None:
    """Return how a value counts, None for one that no column can have."""
    if isinstance(value, str | bytes):
        return "text"
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, numbers.Real | decimal.Decimal):
        return "number"
    return "date" if isinstance(value, datetime.date | np.datetime64) else None


def _find_source(words: Sequence[Any], name: Name, owner: str) -> str:
    first: dict[type, Any] = {}
    for word in words:
        first.setdefault(type(word), word)
    first.pop(type(None), None)
    examples: dict[str, Any] = {}
    for word in first.values():
        source = _name_source(word)
        if source is None:
            raise refuse_type(word, name, owner)
        examples.setdefault(source, word)
    if len(examples) > 1:
        one, other = list(examples.values())[:2]
        raise ValueError(
            f"Column {name!r} of the table for {owner} must hold values of one type. Received: "
            f"{quote(one)}, of type {type(one).__name__}, and {quote(other)}, of type "
            f"{type(other).__name__}. Convert it, as with `column.astype(str)`."
        )
    return next(iter(examples), "missing")


def _decode(value: Any, name: Name, owner: str) -> str | None:
    """Return text: bytes as some files and TensorFlow have them are read as UTF-8."""
    if not isinstance(value, bytes):
        return None if value is None else str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"Column {name!r} of the table for {owner} must hold text in UTF-8. Received: "
            f"{quote(value)}. Decode it first."
        ) from None


def _list_days(words: Sequence[Any], name: Name, owner: str) -> tuple[bool, list[Any]]:
    """Return whether dates have a time zone, and the days of each since 1970-01-01."""
    aware = {getattr(word, "tzinfo", None) is not None for word in words if word is not None}
    if len(aware) > 1:
        raise ValueError(
            f"Column {name!r} of the table for {owner} must hold dates that all have a time zone, "
            "or none. Received: both. Give all of them one."
        )
    return aware == {True}, [None if word is None else to_days(word) for word in words]


def to_days(value: Any) -> float:
    """Return the days from 1970-01-01, in UTC where there is a time zone, to a date."""
    if isinstance(value, np.datetime64):
        return float(value.astype("datetime64[us]").astype("int64")) / DAY
    if not isinstance(value, datetime.datetime):
        return float((value - datetime.date(1970, 1, 1)).days)
    # A difference of two dates of pandas would have nanoseconds.
    since = datetime.timedelta(
        days=value.toordinal() - datetime.date(1970, 1, 1).toordinal(),
        hours=value.hour,
        minutes=value.minute,
        seconds=value.second,
        microseconds=value.microsecond,
    )
    return ((since - (value.utcoffset() or datetime.timedelta())) // _MICROSECOND) / DAY


_MICROSECOND = datetime.timedelta(microseconds=1)
