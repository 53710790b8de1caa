"""The schema as text."""

import datetime
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_binclf.layers.features._columns import Column

MOST_COLUMNS = 60
MOST_LETTERS = 20
WIDTH = 100
WORDS = 3
"""How many of the most frequent categories are named."""

HEAD = ("column", "kind", "learned", "gap", "new word")
LEARNED = HEAD.index("learned")
CYCLES = {"time_of_day": "day", "day_of_week": "week", "day_of_year": "year"}


def write_summary(columns: Sequence[Column]) -> str:
    """Return a table with one line for each column: kind, what was learned, what happens."""
    rows = [_describe(column) for column in columns[:MOST_COLUMNS]]
    # The third cell of an ignored column is the reason, which may reach to the end.
    full = [HEAD, *(row for row in rows if len(row) == len(HEAD))]
    widths = [max(len(row[i]) for row in (full if i > 1 else [HEAD, *rows])) for i in range(5)]
    gaps = 2 * (len(HEAD) - 1)
    widths[LEARNED] = min(widths[LEARNED], WIDTH - gaps - sum(widths) + widths[LEARNED])
    rule = ["-" * width for width in widths]
    lines = [_write_row(row, widths) for row in (HEAD, rule, *rows)]
    if len(columns) > MOST_COLUMNS:
        lines.append(f"and {len(columns) - MOST_COLUMNS:,} more")
    return "\n".join([*lines, _count_kinds(columns)])


def _write_row(row: Sequence[str], widths: Sequence[int]) -> str:
    if len(row) <= LEARNED + 1:
        widths = [*widths[:LEARNED], WIDTH - sum(widths[:LEARNED]) - 2 * LEARNED]
    cells = [_shorten(cell, w).ljust(w) for cell, w in zip(row, widths, strict=True)]
    return "  ".join(cells).rstrip()


def _count_kinds(columns: Sequence[Column]) -> str:
    kinds = [column.kind for column in columns]
    counts = [f"{kinds.count(kind):,} {kind}" for kind in dict.fromkeys(kinds)]
    total = "1 column" if len(columns) == 1 else f"{len(columns):,} columns"
    return f"{total}: {', '.join(counts)}"


def _describe(column: Column) -> tuple[str, ...]:
    name, kind = _shorten(_show(str(column.name)), MOST_LETTERS), column.kind
    if kind == "ignored":
        return (name, kind, column.reason)
    learned = _DESCRIPTIONS[kind](column)
    if column.source == "text" and kind in ("number", "date"):
        learned = f"text; {learned}" if learned else "text"
    return (name, kind, learned, *_tell_fate(column))


def _tell_fate(column: Column) -> tuple[str, str]:
    """Return what becomes of a gap, and of a word that was not there in `adapt`."""
    if column.kind != "category":
        return ("median + mark" if column.has_missing else "median"), "error"
    gap = "own vector" if column.has_missing else "as unknown"
    return gap, "as rare" if column.has_rare else "zeros"


# ---- what was learned


def _describe_number(column: Column) -> str:
    if not column.quartiles:
        return ""
    return f"quartiles {', '.join(_write_numbers(column.quartiles))}"


def _describe_boolean(column: Column) -> str:
    if column.true is None:
        return "0 or 1" if column.source == "number" else "True or False"
    return f"{column.true} or {column.false}"


def _describe_date(column: Column) -> str:
    cycles = [CYCLES[part] for part in column.parts if part in CYCLES]
    learned = f"by {', '.join(cycles)}" if cycles else ""
    if column.first is None or column.last is None:
        return learned
    span = f"{_write_day(column.first)} to {_write_day(column.last)}"
    return "; ".join(filter(None, [span, learned]))


def _describe_category(column: Column) -> str:
    count = len(column.categories)
    learned = f"{count:,} and rare ones" if column.has_rare else f"{count:,}"
    if column.note:
        return f"{learned}; {column.note}"
    words = [_shorten(_show(word), MOST_LETTERS) for word in column.categories[:WORDS]]
    return f"{learned}: {', '.join(words)}" + (", ..." if count > WORDS else "")


_DESCRIPTIONS: dict[str, Callable[[Column], str]] = {
    "number": _describe_number,
    "boolean": _describe_boolean,
    "date": _describe_date,
    "category": _describe_category,
}


def _write_numbers(numbers: Sequence[float]) -> list[str]:
    """Return numbers with 4 digits, or with as many as tell them apart."""
    for digits in range(4, 18):
        texts = [_write_number(number, digits) for number in numbers]
        if len(set(texts)) == len(set(numbers)):
            break
    return texts


def _write_number(number: float, digits: int) -> str:
    if number and not 1e-4 <= abs(number) < 1e12:
        return f"{number:.{digits}g}"
    return np.format_float_positional(number, digits, unique=False, fractional=False, trim="-")


def _write_day(days: float) -> str:
    try:
        return str(datetime.date(1970, 1, 1) + datetime.timedelta(days=days))
    except OverflowError:  # Other libraries have years beyond 9999.
        return f"day {days:.0f}"


def _show(value: Any) -> str:
    """Return a value as it is, and in quotes where it could be misread."""
    text = str(value)
    is_plain = text.isprintable() and text == text.strip() and "," not in text
    return text if is_plain else repr(text)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
