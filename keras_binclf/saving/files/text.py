"""Text from a file of unknown origin: made short, and printable on a terminal."""

from typing import Any

MAX_TEXT = 200
"""Characters of a name that are kept."""


def shorten(text: str, limit: int = MAX_TEXT) -> str:
    """Return at most `limit` characters of a text, marked where it was cut."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def read_text(value: Any) -> str | None:
    """Return a string from a file, shortened; None for a value of another type."""
    return shorten(value) if isinstance(value, str) else None


def escape(text: str) -> str:
    """Return text in which no character controls a terminal, as escape codes would."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
