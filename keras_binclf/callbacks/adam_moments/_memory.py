"""The logged rows in memory, and as arrays or a data frame."""

from typing import Any, NamedTuple

import numpy as np

KEYS = ("run", "epoch", "step", "variable")
"""The columns before those of the quantities, in each row of a file or a data frame."""


class Record(NamedTuple):
    """The values of all columns and variables at one step.

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
    """The logged rows of each variable.

    Args:
        columns: tuple of str, names of the columns of the values.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.rows: dict[str, list[tuple[int, int, int, np.ndarray]]] = {}

    def add(self, record: Record) -> None:
        """Add the rows of a record."""
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

    def to_dataframe(self) -> Any:
        """Return all rows as a `pandas.DataFrame`, in the order of logging."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "`AdamMomentLogger.to_dataframe` needs pandas: `pip install pandas`. "
                "`AdamMomentLogger.history` has the same rows as arrays."
            ) from error
        parts = [
            pd.DataFrame({"variable": variable, **columns})
            for variable, columns in self.to_arrays().items()
        ]
        if not parts:
            return pd.DataFrame(columns=[*KEYS, *self.columns])
        frame = pd.concat(parts, ignore_index=True)[[*KEYS, *self.columns]]
        return frame.sort_values(["run", "step"], kind="stable", ignore_index=True)
