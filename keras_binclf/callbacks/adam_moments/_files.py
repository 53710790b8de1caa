"""Logged rows in a file of comma-separated values or of JSON lines."""

import contextlib
import csv
import io
import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from keras_binclf.callbacks.adam_moments._memory import KEYS, Record

SUFFIXES = (".csv", ".jsonl")


class File:
    """A file of comma-separated values or of JSON lines, one row for each variable and step.

    Rows are added to the file at the end of each epoch, in one write. A write that fails leaves the
    file as it was, and its rows are written with the next ones.

    Args:
        path: str, which ends with `".csv"` or `".jsonl"`.
        columns: tuple of str, names of the columns of the values.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if it holds other columns.
    """

    def __init__(self, path: str, columns: tuple[str, ...]) -> None:
        self.path, self.columns = path, (*KEYS, *columns)
        self.as_json = path.endswith(".jsonl")
        self.waiting: list[Sequence[Any]] = []
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            # A crash may have cut a character in two.
            with open(path, "a+", encoding="utf-8", errors="replace", newline="") as file:
                file.seek(0)
                self.first_run = self._check(file) + 1
                if not self.as_json and not file.tell():
                    file.write(self._format([self.columns]))
        except OSError as error:
            raise type(error)(
                error.errno,
                "`filepath` of AdamMomentLogger must be a file that can be written. Received: "
                f"filepath={path!r}. {error.strerror}",
                path,
            ) from error

    def _check(self, file: Any) -> int:
        """Return the number of the last run in the file, 0 if it is empty."""
        first = file.readline()
        if not first:
            return 0
        if self._find_columns(first) != self.columns:
            raise ValueError(
                "`filepath` of AdamMomentLogger must be a new file, or one with the columns of "
                f"its quantities. Received: filepath={self.path!r}, which begins with other ones: "
                f"{first.strip()}. Give another path, or the quantities that it was written with."
            )
        last, run = first, 0
        for line in file:
            last, run = line, max(run, _find_run(line))
        if not last.endswith("\n"):
            warnings.warn(
                f"The last line of {self.path!r} is not complete. It was left as it is, and the "
                "next row begins on a new line.",
                stacklevel=2,
            )
            file.write("\n")
        return max(run, _find_run(first))

    def _find_columns(self, line: str) -> tuple[str, ...] | None:
        """Return the names in the first line, None if there are none."""
        if not self.as_json:
            return tuple(next(csv.reader([line])))
        try:
            row = json.loads(line)
        except ValueError:
            return None
        return tuple(row) if isinstance(row, dict) else None

    def add(self, record: Record) -> None:
        """Hold the rows of a record until `flush`."""
        for variable, values in zip(record.variables, record.values.tolist(), strict=True):
            keys = (self.first_run, record.epoch, record.step, variable)
            self.waiting.append((*keys, *values))

    def flush(self) -> None:
        """Write the waiting rows, so that they survive the process."""
        if not self.waiting:
            return
        text = self._format(self.waiting).encode()
        with open(self.path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                _write_all(file, text)
            except OSError:
                # A part of a row would make the rest of the file unreadable.
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise
        self.waiting = []

    def _format(self, rows: Iterable[Sequence[Any]]) -> str:
        if self.as_json:
            lines = (dict(zip(self.columns, map(_to_json, row), strict=True)) for row in rows)
            return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def close(self) -> None:
        """Write the waiting rows."""
        self.flush()


def _to_json(value: Any) -> Any:
    """Return a value that strict JSON has: NaN becomes null, infinity a string."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return value


def _find_run(line: str) -> int:
    """Return the run of a row; 0 for the header and for a row that was cut."""
    found = re.match(r'(?:\{"run": )?(\d+),.*\n', line)
    return int(found[1]) if found else 0


def _write_all(file: io.RawIOBase, text: bytes) -> None:
    """Write all bytes; a single write to a disk that is nearly full may take only a part."""
    view = memoryview(text)
    while view:
        view = view[file.write(view) or 0 :]
