"""Where the logged rows go: to memory, to a file, to TensorBoard."""

import csv
import io
import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_binclf.callbacks.adam_moments._quantities import QUANTITIES

KEYS = ("run", "epoch", "step", "variable")
"""What comes before the columns of the quantities in each row of a file."""

SUFFIXES = (".csv", ".jsonl")


class Record(NamedTuple):
    """The columns of all variables at one step.

    Attributes:
        run: int, number of the training since the logger was made, from 1.
        epoch: int, from 0 as in Keras.
        step: int, `optimizer.iterations` after the step.
        variables: tuple of str, keys of the variables.
        sizes: array of shape `(variables,)`, number of entries of each.
        values: array of shape `(variables, columns)`.
    """

    run: int
    epoch: int
    step: int
    variables: tuple[str, ...]
    sizes: np.ndarray
    values: np.ndarray


class Memory:
    """Rows by variable, as arrays.

    Args:
        columns: tuple of str, names of the columns of the values.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.rows: dict[str, list[tuple[int, int, int, np.ndarray]]] = {}

    def add(self, record: Record) -> None:
        """Keep the rows of a record."""
        for variable, values in zip(record.variables, record.values, strict=True):
            row = (record.run, record.epoch, record.step, values)
            self.rows.setdefault(variable, []).append(row)

    def to_arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the columns of each variable as arrays, integers for run, epoch and step."""
        history = {}
        for variable, rows in self.rows.items():
            *keys, values = zip(*rows, strict=True)
            named: dict[str, np.ndarray] = {
                name: np.array(key) for name, key in zip(KEYS, keys, strict=False)
            }
            history[variable] = named | dict(zip(self.columns, np.stack(values).T, strict=True))
        return history


class File:
    """A file of comma-separated values or of JSON lines, one row for each variable and step.

    Rows are written at the end of each epoch in one go, after what the file already holds.

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
                f"The last line of {self.path!r} is not complete. It was left as it is, and what "
                "follows begins on a new line.",
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
        """Keep the rows of a record until `flush`."""
        for variable, values in zip(record.variables, record.values.tolist(), strict=True):
            keys = (self.first_run, record.epoch, record.step, variable)
            self.waiting.append((*keys, *values))

    def flush(self) -> None:
        """Write what waits, so that it survives the process."""
        if not self.waiting:
            return
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(self._format(self.waiting))
        self.waiting = []

    def _format(self, rows: Iterable[Sequence[Any]]) -> str:
        if self.as_json:
            lines = (dict(zip(self.columns, map(_to_json, row), strict=True)) for row in rows)
            return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def close(self) -> None:
        """Write what waits."""
        self.flush()


class TensorBoard:
    """Scalars that TensorBoard shows, tagged `adam/column/variable`.

    Histograms are left out; they are in the other places.

    Args:
        path: str, directory.
        quantities: tuple of str, names of the quantities.
    """

    def __init__(self, path: str, quantities: tuple[str, ...]) -> None:
        from tensorboard import summary  # it takes a second to import

        self.writer = summary.Writer(path)
        self.columns = [
            (column, QUANTITIES[name].scalar)
            for name in quantities
            for column in QUANTITIES[name].columns
        ]

    def add(self, record: Record) -> None:
        """Write the scalars of a record."""
        for variable, values in zip(record.variables, record.values, strict=True):
            for (column, scalar), value in zip(self.columns, values, strict=True):
                if scalar:
                    self.writer.add_scalar(f"adam/{column}/{variable}", value, record.step)

    def flush(self) -> None:
        """Write what waits."""
        self.writer.flush()

    def close(self) -> None:
        """Write what waits, and close the file."""
        self.writer.close()


def _to_json(value: Any) -> Any:
    """JSON knows no numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return value


def _find_run(line: str) -> int:
    """Return the run of a row; 0 for the header, and for what is left of a row that was cut."""
    found = re.match(r'(?:\{"run": )?(\d+),.*\n', line)
    return int(found[1]) if found else 0
