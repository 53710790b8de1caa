"""The rows of one epoch: their means for the logs of Keras, and the warning of a loss spike."""

import warnings
from collections.abc import Sequence

import numpy as np

from keras_binclf.callbacks.adam_moments._memory import Record
from keras_binclf.callbacks.adam_moments._quantities import QUANTITIES

RMS_RATIO_WARNING = 2.3
"""Level of `rms_ratio` that loss spikes followed in Wortsman et al. (2023), section 3."""

FEWEST_ENTRIES = 100
"""Smallest variable of which a high `rms_ratio` warns: that of few entries is high by chance."""


def summarize(
    values: Sequence[np.ndarray], columns: tuple[str, ...], quantities: tuple[str, ...]
) -> dict[str, float]:
    """Return the entries that an epoch adds to the logs of Keras; NaN if it has no rows.

    Args:
        values: sequence of arrays of shape `(variables, columns)`, one for each logged step.
        columns: tuple of str, names of the columns.
        quantities: tuple of str, names of the quantities.
    """
    rows = np.concatenate([*values, np.empty((0, len(columns)))])
    return {
        f"adam/{name}": float(function(rows[:, columns.index(column)]))
        if len(rows)
        else float("nan")
        for quantity in quantities
        for name, (column, function) in QUANTITIES[quantity].epoch_logs.items()
    }


class SpikeWarning:
    """Warns of a high `rms_ratio`, once for each variable of a training.

    Args:
        columns: tuple of str, names of the columns.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.index = columns.index("rms_ratio") if "rms_ratio" in columns else None
        self.warned: set[str] = set()

    def check(self, record: Record) -> None:
        """Warn of the variables of a record whose ratio is above the level."""
        if self.index is None:
            return
        ratios = record.values[:, self.index]
        high = (ratios > RMS_RATIO_WARNING) & (record.sizes >= FEWEST_ENTRIES)
        for variable, ratio in zip(np.array(record.variables)[high], ratios[high], strict=True):
            if variable not in self.warned:
                self._warn(str(variable), float(ratio), record.step)

    def _warn(self, variable: str, ratio: float, step: int) -> None:
        self.warned.add(variable)
        warnings.warn(
            f"At step {step} the gradient of {variable!r} was {ratio:.1f} times its running root "
            f"mean square in Adam (`rms_ratio` above {RMS_RATIO_WARNING}): the loss may jump "
            "within the next steps. A lower learning rate or `beta_2`, or `clipnorm`, prevents it.",
            stacklevel=2,
        )
