"""The columns of the tables that a saved model takes, read from the configs of its encoders."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from keras_binclf._registry import PACKAGE
from keras_binclf._validation import is_integer
from keras_binclf.saving.files._config import Entry
from keras_binclf.saving.files.text import read_text, shorten

ENCODER = f"{PACKAGE}>TabularEncoder"
ENCODER_KEYS = {"columns", "kinds", "max_categories", "min_count"}
"""An encoder that users derived from ours has these too, under a name of its own."""
IGNORED = "ignored"
USUAL_SOURCES = {"category": "text"}
"""How a kind is mostly stored, where that is not the name of the kind."""


@dataclasses.dataclass(frozen=True)
class ColumnDescription:
    """One column of a table that a saved model takes; None for a fact that is not in the file."""

    encoder: str
    """The names of the layers that hold its `TabularEncoder`, and the encoder's own."""
    name: str | int | None
    """Its name in the table, a number in a table without names."""
    kind: str | None
    """`"number"`, `"boolean"`, `"category"`, `"date"` or `"ignored"`."""
    source: str | None
    """How it was stored: `"number"`, `"text"`, `"boolean"` or `"date"`."""
    num_categories: int | None
    """The number of categories that are known by name; None for other kinds."""
    has_missing: bool | None
    """Whether values were missing when the encoder was adapted."""
    reason: str | None
    """Why it is ignored."""

    def __str__(self) -> str:
        """Return it on one line."""
        parts = [f"{'(no name)' if self.name is None else self.name}: {self.kind or 'unknown'}"]
        if self.kind == IGNORED:
            return f"{parts[0]}, {self.reason}" if self.reason else parts[0]
        if self.num_categories is not None:
            parts.append(f"{self.num_categories:,} categories")
        if self.source not in (None, self.kind, USUAL_SOURCES.get(str(self.kind))):
            parts.append(f"from {self.source}")
        if self.has_missing is not None:
            parts.append("with gaps" if self.has_missing else "without gaps")
        return ", ".join(parts)


def list_encoders(entries: Iterable[Entry]) -> list[Entry]:
    """Return the encoders among the objects of a config."""
    return [
        entry
        for entry in entries
        if entry.class_name == ENCODER or entry.config.keys() >= ENCODER_KEYS
    ]


def count_columns(encoder: Entry) -> int:
    """Return the number of columns that an encoder has learned."""
    return len(_get_columns(encoder))


def iterate_columns(encoders: Iterable[Entry]) -> Iterator[ColumnDescription]:
    """Yield a description of each column of some encoders."""
    for encoder in encoders:
        columns = _get_columns(encoder)
        path = shorten("/".join(shorten(name) for _, name in encoder.way)) if columns else ""
        for column in columns:
            yield _describe(path, column if isinstance(column, dict) else {})


def _get_columns(encoder: Entry) -> list[Any]:
    columns = encoder.config.get("columns")
    return columns if isinstance(columns, list) else []


def _describe(encoder: str, column: dict[str, Any]) -> ColumnDescription:
    name: Any = column.get("name")
    kind = read_text(column.get("kind"))
    categories, has_missing = column.get("categories"), column.get("has_missing")
    is_counted = kind == "category" and isinstance(categories, list)
    return ColumnDescription(
        encoder=encoder,
        name=name if is_integer(name) and abs(name) < 2**63 else read_text(name),
        kind=kind,
        source=read_text(column.get("source")),
        num_categories=len(categories or ()) if is_counted else None,
        has_missing=has_missing if isinstance(has_missing, bool) else None,
        reason=read_text(column.get("reason")) if kind == IGNORED else None,
    )
