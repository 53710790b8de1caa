"""Which kind a column is of, and what has to be known to encode it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_binclf.layers.features._columns import Array, Column, Name
from keras_binclf.layers.features._dates import find_parts
from keras_binclf.layers.features._numbers import (
    check_finite,
    counts_rows,
    find_offset,
    find_quartiles,
    read_text,
)
from keras_binclf.layers.features._text import find_booleans, is_number, parse_dates
from keras_binclf.layers.features._values import Values, quote

OWNER = "TabularEncoder.adapt"

ID_SHARE = 0.95
"""Text with more distinct values than this share of the rows only names the rows,"""
MIN_ROWS_OF_IDS = 20
"""from so many rows on."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How to learn one column.

    Attributes:
        kind: the kind that `kinds` gives, or None to find it.
        max_categories: the largest number of categories with a code of their own.
        min_count: the least number of rows of such a category.
    """

    kind: str | None
    max_categories: int
    min_count: int


def learn_column(name: Name, values: Values, options: Options) -> Column:
    """Return what is learned of a column.

    Raises:
        ValueError: for infinite numbers, and where the values cannot be of the kind that is asked
            for.
    """
    if options.kind == "ignored":
        return _ignore(name, values, "`kinds` says so")
    if values.source == "missing":
        return _ignore(name, values, "it holds nothing but gaps")
    if values.source == "text" and not values.is_category:
        return _learn_text(name, values, options)
    if options.kind == "category" or (values.is_category and options.kind is None):
        return _learn_category(name, values, options)
    if values.source == "text":
        return _learn_text(name, values, options)
    return _learn_numbers(name, values, options)


def _ignore(name: Name, values: Values, reason: str) -> Column:
    source = "text" if values.source == "missing" else values.source
    has_missing = values.source == "missing" or _has_gaps(values)
    return Column(name, "ignored", source, has_missing, reason=reason)


def _has_gaps(values: Values) -> bool:
    if values.codes is None:
        return bool(np.isnan(values.to_numbers()).any())
    return bool(_count_words(values).sum() < len(values))


def _count_words(values: Values) -> Array:
    """Return the number of rows of each word; 0 for those that stand for a gap."""
    codes: Array = np.asarray(values.codes)
    counts = np.bincount(codes + 1, minlength=len(values.words) + 1)[1:]
    return np.where([word is None for word in values.words], 0, counts)


def _refuse(name: Name, kind: str | None, value: Any, hint: str) -> ValueError:
    return ValueError(
        f"Column {name!r} of the table for {OWNER} cannot be of kind {kind!r}, which `kinds` asks "
        f"for. Received: {quote(value)}. {hint}"
    )


# ---- text


def _learn_text(name: Name, values: Values, options: Options) -> Column:
    pairs = zip(values.words, _count_words(values), strict=True)
    words = [word for word, count in pairs if word is not None and count]
    if not words:
        return _ignore(name, values, "it holds nothing but gaps")
    if options.kind is None and len(words) == 1 and not _has_gaps(values):
        return _ignore(name, values, f"its only value is {quote(words[0])}")
    kind = options.kind or _find_kind(words)
    if kind == "boolean":
        return _learn_boolean_text(name, values, words)
    if kind == "category":
        return _learn_words(name, values, words, options)
    numbers = read_text(values, kind)
    if numbers is None:
        raise _refuse(name, kind, _find_wrong(words, kind), _EXPECTED[kind])
    return dataclasses.replace(_learn_numbers(name, numbers, options), source="text")


_EXPECTED = {
    "number": "Numbers are digits with a point, such as '1234.5'.",
    "date": "Dates are of ISO 8601, such as '2024-05-31T12:30', all with a time zone or none.",
}


def _find_kind(words: list[str]) -> str:
    if find_booleans(words):
        return "boolean"
    if all(map(is_number, words)):
        return "number"
    # Most text is told from dates by its first word.
    is_date = parse_dates(words[:1]) is not None and parse_dates(words) is not None
    return "date" if is_date else "category"


def _find_wrong(words: Sequence[str], kind: str) -> str:
    """Return a word that is not of a kind."""
    if kind == "number":
        return next(word for word in words if not is_number(word))
    return next((word for word in words if parse_dates([word]) is None), words[0])


def _learn_boolean_text(name: Name, values: Values, words: Sequence[str]) -> Column:
    pair = find_booleans(words)
    if pair is None:
        hint = "Its words must be one of the pairs true and false, yes and no, t and f, y and n."
        raise _refuse(name, "boolean", list(words)[:3], hint)
    return Column(name, "boolean", "text", _has_gaps(values), true=pair[0], false=pair[1])


def _learn_words(name: Name, values: Values, words: list[str], options: Options) -> Column:
    rows = int(_count_words(values).sum())
    names_rows = rows >= MIN_ROWS_OF_IDS and len(words) > ID_SHARE * rows
    if options.kind is None and names_rows:
        return _ignore(name, values, f"nearly a word a row: {len(words):,} in {rows:,} rows")
    column = _learn_category(name, values, options)
    share = sum(map(is_number, words)) / len(words)
    if column.kind == "category" and options.kind is None and share > 0.5:
        note = f"words, since {quote(_find_wrong(words, 'number'))} is no number"
        return dataclasses.replace(column, note=note)
    return column


# ---- numbers, booleans and dates


def _learn_numbers(name: Name, values: Values, options: Options) -> Column:
    numbers = values.to_numbers()
    check_finite(numbers, numbers, name, OWNER)
    seen = numbers[~np.isnan(numbers)] if numbers.dtype.kind == "f" else numbers
    has_missing = len(seen) < len(numbers)
    if not len(seen):
        return _ignore(name, values, "it holds nothing but gaps")
    if options.kind is None and seen.min() == seen.max() and not has_missing:
        return _ignore(name, values, "all its values are equal")
    if values.source == "date":
        return _learn_date(name, values, options, seen, has_missing)
    if options.kind == "date":
        raise _refuse(name, "date", seen[0].item(), "Give it as dates, such as datetime64.")
    if options.kind == "boolean" or (values.source == "boolean" and options.kind is None):
        wrong = seen[(seen != 0) & (seen != 1)]
        if len(wrong):
            raise _refuse(name, "boolean", wrong[0].item(), "Its numbers must be 0 and 1.")
        return Column(name, "boolean", values.source, has_missing)
    if options.kind is None and not has_missing and counts_rows(seen):
        return _ignore(name, values, "it numbers the rows")
    quartiles = find_quartiles(seen)
    offset = find_offset(seen, quartiles)
    return Column(name, "number", values.source, has_missing, offset=offset, quartiles=quartiles)


def _learn_date(
    name: Name, values: Values, options: Options, seen: Array, has_missing: bool
) -> Column:
    if options.kind not in (None, "date"):
        hint = "Give `kinds` 'date' or 'ignored', or convert the column."
        raise _refuse(name, options.kind, "a date", hint)
    return Column(
        name,
        "date",
        "date",
        has_missing,
        offset=float(np.floor(np.median(seen))),
        first=float(seen.min()),
        last=float(seen.max()),
        parts=find_parts(seen),
        has_timezone=values.has_timezone,
    )


# ---- categories


def _learn_category(name: Name, values: Values, options: Options) -> Column:
    if values.source == "date":
        hint = "Turn its dates into text first, as with `column.astype(str)`."
        raise _refuse(name, "category", "a date", hint)
    if values.source == "number":
        check_finite(values.to_numbers(), values.to_numbers(), name, OWNER)
    categories, counts = _count_categories(values)
    has_missing = bool(counts.sum() < len(values))
    if not categories:
        return _ignore(name, values, "it holds nothing but gaps")
    if options.kind is None and len(categories) == 1 and not has_missing:
        return _ignore(name, values, f"its only value is {quote(categories[0])}")
    order = np.argsort(-counts, kind="stable")
    frequent = order[counts[order] >= options.min_count][: options.max_categories]
    if not len(frequent):
        return _ignore(name, values, f"no value is in {options.min_count} rows or more")
    kept = tuple(categories[i] for i in frequent)
    has_rare = len(kept) < len(categories)
    return Column(name, "category", values.source, has_missing, categories=kept, has_rare=has_rare)


def _count_categories(values: Values) -> tuple[list[Any], Array]:
    """Return the categories in their own order, which breaks ties of counts, and their counts."""
    if values.source == "text":
        counts = _count_words(values).tolist()
        pairs = zip(values.words, counts, strict=True)
        seen = sorted((word, count) for word, count in pairs if word is not None and count)
        return [word for word, _ in seen], np.array([count for _, count in seen], "int64")
    numbers = values.to_numbers()
    uniques, sizes = np.unique(numbers[~np.isnan(numbers)], return_counts=True)
    if values.source == "boolean":
        return [bool(value) for value in uniques], sizes
    whole = all(float(value).is_integer() for value in uniques)
    return [int(value) if whole else float(value) for value in uniques], sizes
