"""The `kinds` of a `TabularEncoder`: kinds of single columns and their parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_binclf._validation import (
    check_choice,
    check_integer_at_least,
    error_message,
    is_integer,
    suggest_nearest,
)
from keras_binclf.layers.features._columns import KINDS, Name
from keras_binclf.layers.features._kinds import Options

PARAMETERS = ("max_categories", "min_count")
MOST_CATEGORIES = 16_000_000
"""float32, in which codes are written, tells whole numbers up to 16,777,216."""


def check_max_categories(value: Any, owner: str) -> int:
    """Return `max_categories`, or raise."""
    count = check_integer_at_least(value, 1, "max_categories", owner)
    if count > MOST_CATEGORIES:
        expected = f"an int of at most {MOST_CATEGORIES:,}"
        raise ValueError(error_message("max_categories", owner, expected, value))
    return count


def check_kinds(value: Any, owner: str) -> dict[Name, dict[str, Any]]:
    """Return for each named column a dict of its kind and parameters, or raise.

    Args:
        value: dict of kinds, or of dicts of kinds and parameters, by column; None for none.
            JSON has no numbers as names, so that a config holds pairs of name and kind then.
        owner: name of the class, for messages.
    """
    expected = "None or a dict of kinds, or of dicts with 'kind' and parameters, by column"
    items = list(value.items()) if isinstance(value, Mapping) else value or []
    is_pairs = isinstance(items, Sequence) and all(
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and (isinstance(pair[0], str) or is_integer(pair[0]))
        for pair in items
    )
    if not is_pairs:
        raise TypeError(error_message("kinds", owner, expected, value))
    return {
        name if isinstance(name, str) else int(name): _check_one(one, name, owner)
        for name, one in items
    }


def _check_one(value: Any, name: Name, owner: str) -> dict[str, Any]:
    where = f"`kinds` of {owner} for column {name!r}"
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        raise TypeError(error_message("kind", where, "a text or a dict", value))
    known = ("kind", *PARAMETERS)
    for key in value:
        check_choice(key, "parameter", where, known, suggest_nearest(key, known))
    kind = value.get("kind")
    check_choice(kind, "kind", where, (None, *KINDS), suggest_nearest(kind, KINDS))
    given = {key: value[key] for key in PARAMETERS if key in value}
    if given and kind not in (None, "category"):
        raise ValueError(
            f"{where} must have {', '.join(map(repr, given))} for categories only. Received: "
            f"kind={kind!r}."
        )
    if "max_categories" in given:
        check_max_categories(given["max_categories"], where)
    if "min_count" in given:
        check_integer_at_least(given["min_count"], 1, "min_count", where)
    return ({} if kind is None else {"kind": kind}) | given


def find_options(
    kinds: Mapping[Name, Mapping[str, Any]],
    names: Sequence[Name],
    max_categories: int,
    min_count: int,
) -> dict[Name, Options]:
    """Return how to learn each column of a table.

    Raises:
        ValueError: for a name in `kinds` that is no column.
    """
    # Tables made of arrays have numbers as names, which are read as text.
    by_text = {str(name): one for name, one in kinds.items()}
    texts = [str(name) for name in names]
    for name in kinds:
        if str(name) not in texts:
            hint = suggest_nearest(name, texts)
            raise ValueError(
                f"`kinds` of TabularEncoder must name columns of the table. Received: {name!r}. "
                + (hint or f"The table has {', '.join(map(repr, names[:10]))}.")
            )
    default = {"kind": None, "max_categories": max_categories, "min_count": min_count}
    return {name: Options(**{**default, **by_text.get(str(name), {})}) for name in names}


def kinds_to_json(kinds: Mapping[Name, dict[str, Any]]) -> Any:
    """Return `kinds` as JSON can hold it: pairs where names are numbers."""
    if all(isinstance(name, str) for name in kinds):
        return {name: dict(one) for name, one in kinds.items()} or None
    return [[name, dict(one)] for name, one in kinds.items()]
