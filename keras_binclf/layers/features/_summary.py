"""The schema as text."""

from collections.abc import Sequence

from keras_binclf.layers.features._columns import Column

MOST_COLUMNS = 60
MOST_LETTERS = 24
WIDTH = 100


def write_summary(columns: Sequence[Column]) -> str:
    """Return a table with one line for each column: kind, what was learned, what happens."""
    rows = [_describe(column) for column in columns]
    head = ("column", "kind", "learned", "gap", "unknown word")
    shown = [head, *rows[:MOST_COLUMNS]]
    widths = [max(len(row[i]) for row in shown if len(row) > 3 or i < 2) for i in range(len(head))]
    # The third cell of an ignored column is the reason, which may reach to the end.
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=False)) for r in shown]
    if len(rows) > MOST_COLUMNS:
        lines.append(_summarise(columns[MOST_COLUMNS:]))
    return "\n".join(line.rstrip() for line in lines)


def _describe(column: Column) -> tuple[str, ...]:
    name, kind = _shorten(str(column.name), MOST_LETTERS), column.kind
    if kind == "ignored":
        return (name, kind, _shorten(column.reason, WIDTH - MOST_LETTERS - 12))
    learned, gap, unknown = _DESCRIPTIONS[kind](column)
    if column.source == "text" and kind in ("number", "date"):
        learned = f"written as text; {learned}" if learned else "written as text"
    return (name, kind, learned, gap, unknown)


def _describe_number(column: Column) -> tuple[str, str, str]:
    learned = f"less {column.offset:g}" if column.offset else ""
    return learned, _tell_gap(column, "median"), "error"


def _describe_boolean(column: Column) -> tuple[str, str, str]:
    learned = f"{column.true} or {column.false}" if column.true else ""
    return learned, _tell_gap(column, "median"), "error"


def _describe_date(column: Column) -> tuple[str, str, str]:
    learned = ", ".join(part.replace("_", " ") for part in column.parts)
    return learned, _tell_gap(column, "median"), "error"


def _describe_category(column: Column) -> tuple[str, str, str]:
    count = len(column.categories)
    learned = f"{count:,} categories" if count > 1 else "1 category"
    if column.has_rare:
        learned += " and rare ones"
    if column.note:
        learned = f"{learned}; {column.note}"
    gap = "own vector" if column.has_missing else "as unknown"
    return _shorten(learned, 52), gap, "as a rare one" if column.has_rare else "zeros"


_DESCRIPTIONS = {
    "number": _describe_number,
    "boolean": _describe_boolean,
    "date": _describe_date,
    "category": _describe_category,
}


def _tell_gap(column: Column, filled: str) -> str:
    return f"{filled} + mark" if column.has_missing else filled


def _summarise(columns: Sequence[Column]) -> str:
    kinds = [column.kind for column in columns]
    counts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
    return f"and {len(columns):,} more: {', '.join(counts)}"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
