"""Text that stands for something else: numbers, booleans and dates."""

import datetime
import re
from collections.abc import Iterable

import numpy as np

from keras_binclf.layers.features._columns import Array
from keras_binclf.layers.features._values import DAY, to_days

BOOLEANS = (("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"))
"""Words for True and False. "1" and "0" are numbers."""

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?", re.ASCII)
_ZONE = re.compile(r"(.*:\d\d(?:\.\d+)?)(Z|[+-]\d\d:?\d\d)", re.ASCII)


def is_number(word: str) -> bool:
    """Whether a word is a number in digits: "12", "-1.5e3", but not "1,234.5", "nan" or "1_000"."""
    return _NUMBER.fullmatch(word) is not None


def find_booleans(words: Iterable[str]) -> tuple[str, str] | None:
    """Return the words for True and False, if `words` are those two, in any case."""
    lower = {word.lower() for word in words}
    return next((pair for pair in BOOLEANS if lower == set(pair)), None)


def parse_dates(words: list[str]) -> tuple[bool, Array] | None:
    """Return whether dates of ISO 8601 have a time zone, and their days since 1970-01-01.

    Args:
        words: such as "2024-05-31", "2024-05-31 12:30", "2024-05-31T12:30:00.5+02:00".

    Returns:
        None if not all are dates, or only some have a time zone.
    """
    zones = [_ZONE.fullmatch(word) for word in words]
    aware = {zone is not None for zone in zones}
    naive = [word if zone is None else zone[1] for word, zone in zip(words, zones, strict=True)]
    if len(aware) != 1 or not all(map(_DATE.fullmatch, naive)):
        return None
    try:
        if aware == {True}:
            return True, np.array([to_days(datetime.datetime.fromisoformat(w)) for w in words])
        return False, np.array(naive, "datetime64[us]").astype("int64") / DAY
    except ValueError:  # Such as the 31st of February.
        return None
