"""The schema of a table: what was learned of each column, as data that JSON can hold."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_binclf._validation import error_message

Array = np.ndarray[Any, Any]

Name = str | int
"""A column's name, or its number in an array."""

KINDS = ("number", "boolean", "category", "date", "ignored")
SOURCES = ("number", "text", "boolean", "date")
PARTS = {"elapsed": None, "time_of_day": 1.0, "day_of_week": 7.0, "day_of_year": 365.2425}
"""Parts of a date, with the period in days of those that return."""

MISSING, UNKNOWN, RARE, FIRST = 0, 1, 2, 3
"""Codes of no value, of a category never seen, of a rare one, and of the first category."""


@dataclasses.dataclass(frozen=True)
class Column:
    """What `TabularEncoder.adapt` learned of one column.

    Attributes:
        name: name of the column, or its number in an array.
        kind: `"number"`, `"boolean"`, `"category"`, `"date"` or `"ignored"`.
        source: how the values were stored: `"number"`, `"text"`, `"boolean"` or `"date"`.
        has_missing: whether there were gaps.
        offset: what is subtracted from numbers, or from the days since 1970-01-01 of dates, in
            float64.
        quartiles: quartiles of a number column, the median in the middle; to look at.
        first: the first date, in days since 1970-01-01; to look at.
        last: the last date.
        true: the word for True of a boolean column that is stored as text, in lower case.
        false: the word for False.
        categories: the categories that have a code of their own, most frequent first.
        has_rare: whether there were others, which share one code.
        parts: the parts of a date that are encoded.
        has_timezone: whether the dates have a time zone.
        reason: why the column is ignored.
        note: a remark on the kind, or an empty text.
    """

    name: Name
    kind: str
    source: str
    has_missing: bool = False
    offset: float = 0.0
    quartiles: tuple[float, ...] = ()
    first: float | None = None
    last: float | None = None
    true: str | None = None
    false: str | None = None
    categories: tuple[Any, ...] = ()
    has_rare: bool = False
    parts: tuple[str, ...] = ()
    has_timezone: bool = False
    reason: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the column as JSON, with the keys that its kind has."""
        keys = ["name", "kind", "source", "has_missing", *_OWN_KEYS[self.kind]]
        if self.kind == "boolean" and self.source == "text":
            keys += ["true", "false"]
        optional = ("quartiles", "first", "last", "note")
        keys += [key for key in optional if getattr(self, key) not in ((), None, "")]
        values = {key: getattr(self, key) for key in keys}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @property
    def encoded_names(self) -> tuple[str, ...]:
        """The names of the column's part of the encoded matrix."""
        if self.kind == "ignored":
            return ()
        return tuple(f"{self.name}/{part}" for part in self.parts) or (str(self.name),)


_OWN_KEYS: dict[str, list[str]] = {
    "number": ["offset"],
    "boolean": [],
    "category": ["categories", "has_rare"],
    "date": ["offset", "parts", "has_timezone"],
    "ignored": ["reason"],
}


def check_columns(value: Any, owner: str) -> tuple[Column, ...]:
    """Return the columns of a schema that `get_config` wrote, or raise."""
    expected = "None or a list of dicts, one for each column, as `get_config` returns it"
    if not isinstance(value, list | tuple) or not value:
        raise TypeError(error_message("columns", owner, expected, value))
    return tuple(_read(one, owner, expected) for one in value)


def _read(value: Any, owner: str, expected: str) -> Column:
    if isinstance(value, Column):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(error_message("columns", owner, expected, value))
    known = {field.name for field in dataclasses.fields(Column)}
    own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    is_known = {"name", "kind", "source"} <= set(own) <= known
    if not is_known or own["kind"] not in KINDS or own["source"] not in SOURCES:
        raise ValueError(error_message("columns", owner, expected, value))
    return Column(**own)
