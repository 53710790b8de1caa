"""Checks of the features, labels and weights of a search."""

import dataclasses
from typing import Any

import numpy as np

from keras_binclf._data.labels import check_labels, check_weights
from keras_binclf._data.row_reader import RowReader
from keras_binclf._data.shapes import fit_rows
from keras_binclf._data.tables import is_frame, split_columns, to_array
from keras_binclf.tuner.trial.finite import Accepts, Part, check_features, check_finite
from keras_binclf.tuner.trial.folds import OWNER, Array
from keras_binclf.tuner.trial.inputs import SearchInput, SearchInputs

Names = tuple[str, str, str]
"""Names of the features, the labels and the weights, for messages."""

ARGUMENTS: Names = ("x", "y", "sample_weight")
VALIDATION: Names = ("validation_data[0]", "validation_data[1]", "validation_data[2]")


def name_batch(number: int, which: str = "") -> Names:
    """Return the names of features, labels and weights in one batch of a data set."""
    x, y, sample_weight = (f"{name} of {which}batch {number}" for name in ARGUMENTS)
    return x, y, sample_weight


@dataclasses.dataclass(frozen=True)
class RowCheck:
    """Checks features, labels and weights of some rows.

    Attributes:
        inputs: those of the models.
        accepts: whether rows with NaN or infinity become finite features in the model, or `None`
            where they do not.
    """

    inputs: SearchInputs
    accepts: Accepts | None

    def read(
        self, x: Any, y: Any, sample_weight: Any, names: Names = ARGUMENTS
    ) -> tuple[Any, Array, Array | None]:
        """Return features, and labels and weights as vectors, or raise for the first mistake.

        Args:
            x: features of all inputs.
            y: labels.
            sample_weight: weights, or None.
            names: names of the three, for messages.
        """
        features, rows = self._read_features(x, names[0])
        labels = None if y is None else to_array(y, names[1], OWNER, allow_text=True)
        length = None if labels is None else len(labels)
        if labels is None or length != rows:
            raise ValueError(
                f"{OWNER} needs one label for each row. Received: `{names[0]}` with {rows} rows, "
                f"{length} labels."
            )
        check_finite(labels, names[1], "Leave out the rows without a label.")
        labels = check_labels(OWNER, labels, (rows,), np.ones(rows, "bool")).astype("float32")
        return features, labels, self._read_weights(sample_weight, rows, names[2])

    def _read_features(self, x: Any, name: str) -> tuple[Any, int]:
        """Return the features in the structure of the inputs, and the number of rows."""
        # A name of no input is refused in a data set, too: Keras takes the parts of a dict by their
        # places, and would train on the wrong one.
        reader = RowReader(self.inputs.model_inputs, OWNER, name)
        values = [x] if self.inputs.is_single else reader.collect(x)
        parts = [
            self._read_part(part, value, part.name_part(name))
            for part, value in zip(self.inputs.parts, values, strict=True)
        ]
        arrays = [part.values for part in parts]
        reader.check_lengths(arrays)
        check_features(parts, self.accepts)
        return self.inputs.pack(arrays), len(arrays[0])

    def _read_part(self, part: SearchInput, value: Any, name: str) -> Part:
        array = to_array(value, name, OWNER)
        fitted: Array | None = fit_rows(array, part.shape)
        is_encoded = part.encoder is not None
        if fitted is None:
            source = "the encoder in `input_shape`" if is_encoded else "`input_shape`"
            raise ValueError(
                f"`{name}` of {OWNER} must be of shape (n, {', '.join(map(str, part.shape))}), as "
                f"{source} says. Received: shape {array.shape}."
            )
        columns = list(split_columns(value)) if is_frame(value) else None
        return Part(fitted, name, columns, is_encoded)

    def _read_weights(self, sample_weight: Any, rows: int, name: str) -> Array | None:
        if sample_weight is None:
            return None
        weights = to_array(sample_weight, name, OWNER)
        check_finite(weights, name, "Give each row a finite weight; a row of weight 0 is left out.")
        return check_weights(OWNER, weights, (rows,)).astype("float32")
