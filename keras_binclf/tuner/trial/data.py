"""The rows that a trial trains on: checked, and divided into training and validation rows."""

import dataclasses
import inspect
from typing import Any

import keras
import numpy as np

from keras_binclf._data.labels import check_labels, check_weights
from keras_binclf._data.scored_rows import iterate_batches
from keras_binclf._data.shapes import fit_rows
from keras_binclf._data.tables import is_dataset, is_frame, to_array
from keras_binclf._validation import error_message
from keras_binclf.tuner.trial.finite import Accepts, check_features, check_finite
from keras_binclf.tuner.trial.folds import OWNER, Array, Fold, check_both_classes, make_folds

Names = tuple[str, str, str]
"""Names of the features, the labels and the weights, for messages."""

ARGUMENTS: Names = ("x", "y", "sample_weight")
VALIDATION: Names = ("validation_data[0]", "validation_data[1]", "validation_data[2]")
MAX_BATCHES = 1000
"""Batches that are checked of a data set whose length is not known."""


@dataclasses.dataclass(frozen=True)
class Given:
    """Arguments of `fit` and `preflight`, as the user wrote them."""

    x: Any
    y: Any
    sample_weight: Any
    validation_data: Any
    validation_split: Any
    folds: Any


@dataclasses.dataclass(frozen=True)
class Data:
    """Rows that a trial trains and validates on, after all checks.

    Attributes:
        x: features, or a data set that gives batches.
        y: labels as a vector of 0.0 and 1.0; None for a data set.
        sample_weight: weights as a vector, or None.
        validation: `(x, y)`, `(x, y, sample_weight)`, or a data set; None with folds.
        folds: rows to train on and rows to validate on, for each fold; or None.
    """

    x: Any
    y: Array | None
    sample_weight: Array | None
    validation: Any
    folds: list[Fold] | None

    @property
    def is_dataset(self) -> bool:
        """Whether batches come from a data set, in its sizes."""
        return self.y is None


def check_data(given: Given, shape: tuple[int, ...], accepts: Accepts | None = None) -> Data:
    """Return the rows in the arguments of `fit`, checked.

    Of a data set the first batch is checked; `check_all_batches` checks the others.

    Args:
        given: those arguments.
        shape: that of one example.
        accepts: whether rows with NaN or infinity become finite features in the model, or `None`
            where they do not.

    Raises:
        TypeError: for data of the wrong kind.
        ValueError: for labels other than 0 and 1, NaN or infinity, shapes that do not fit, and no
            validation rows.
    """
    x, folds = given.x, given.folds
    check = _RowCheck(shape, accepts)
    _check_repeatable(x)
    if is_dataset(x):
        return _check_dataset(given, check)
    if given.y is None:
        hint = "Give arrays `x` and `y`, or a tf.data.Dataset, PyDataset or DataLoader."
        received = type(x).__name__
        raise TypeError(f"{OWNER} needs labels `y`. Received: x of type {received}, y=None. {hint}")
    x, labels, weights = check.read(x, given.y, given.sample_weight)
    if folds is not None:
        if given.validation_data is not None or given.validation_split:
            hint = "Every fold validates on rows of `x`."
            expected = "left out beside validation data"
            raise ValueError(error_message("folds", OWNER, expected, folds, hint))
        pairs = make_folds(folds, labels)
        return Data(x, labels, weights, None, pairs)
    if given.validation_data is None and given.validation_split:
        return _split(x, labels, weights, given.validation_split)
    validation = _check_validation(given.validation_data, check)
    check_both_classes(labels, "y")
    return Data(x, labels, weights, validation, None)


def _check_repeatable(x: Any) -> None:
    if inspect.isgenerator(x):
        hint = "Give arrays, or a tf.data.Dataset, PyDataset or DataLoader."
        raise TypeError(
            f"{OWNER} reads its data once for each trial, and a generator ends with the first. "
            f"{hint}"
        )


def _check_dataset(given: Given, check: "_RowCheck") -> Data:
    x = given.x
    of_arrays = {"y": given.y, "sample_weight": given.sample_weight, "folds": given.folds}
    of_arrays["validation_split"] = given.validation_split or None
    for name, value in of_arrays.items():
        if value is not None:
            hint = "Give arrays, or let the data set give (features, labels[, weights]) a batch."
            text = f"`{name}` of {OWNER} goes with arrays. Received: x of type {type(x).__name__}."
            raise ValueError(f"{text} {hint}")
    check.read(*peek(x), name_batch(0))
    return Data(x, None, None, _check_validation(given.validation_data, check), None)


def _check_validation(given: Any, check: "_RowCheck") -> Any:
    if given is None:
        raise ValueError(
            f"{OWNER} needs validation rows: the trials are compared on them. Received: none. "
            "Give `validation_data=(x, y)`, `validation_split=0.2`, or `folds=5` for small tables."
        )
    _check_repeatable(given)
    if isinstance(given, tuple | list):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(tuple(given))
        x, labels, weights = check.read(x, y, weights, VALIDATION)
        check_both_classes(labels, "validation_data")
        return (x, labels) if weights is None else (x, labels, weights)
    if not is_dataset(given):
        expected = "a tuple (x, y) or (x, y, sample_weight), or a data set"
        raise TypeError(error_message("validation_data", OWNER, expected, type(given).__name__))
    check.read(*peek(given), name_batch(0, "validation "))
    return given


@dataclasses.dataclass(frozen=True)
class _RowCheck:
    """Checks features, labels and weights of some rows.

    Attributes:
        shape: that of one example.
        accepts: as of `check_data`.
    """

    shape: tuple[int, ...]
    accepts: Accepts | None

    def read(
        self, x: Any, y: Any, sample_weight: Any, names: Names = ARGUMENTS
    ) -> tuple[Array, Array, Array | None]:
        """Return features, and labels and weights as vectors, or raise for the first mistake."""
        features = self._read_features(x, names[0])
        rows = len(features)
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

    def _read_features(self, x: Any, name: str) -> Array:
        array = to_array(x, name, OWNER)
        fitted: Array | None = fit_rows(array, self.shape)
        if fitted is None:
            raise ValueError(
                f"`{name}` of {OWNER} must be of shape (n, {', '.join(map(str, self.shape))}), as "
                f"`input_shape` says. Received: shape {array.shape}."
            )
        columns = list(x.columns) if is_frame(x) else None
        check_features(fitted, name, columns, self.accepts)
        return fitted

    def _read_weights(self, sample_weight: Any, rows: int, name: str) -> Array | None:
        if sample_weight is None:
            return None
        weights = to_array(sample_weight, name, OWNER)
        check_finite(weights, name, "Give each row a finite weight; a row of weight 0 is left out.")
        return check_weights(OWNER, weights, (rows,)).astype("float32")


def name_batch(number: int, which: str = "") -> Names:
    """Return the names of features, labels and weights in one batch of a data set."""
    x, y, sample_weight = (f"{name} of {which}batch {number}" for name in ARGUMENTS)
    return x, y, sample_weight


def _split(x: Any, labels: Array, weights: Array | None, share: Any) -> Data:
    """Divide as `keras.Model.fit` does: the last rows validate."""
    if isinstance(share, bool) or not isinstance(share, float) or not 0 < share < 1:
        expected = "a float in (0, 1)"
        raise ValueError(error_message("validation_split", OWNER, expected, share))
    cut = int(np.floor(len(labels) * (1 - share)))
    check_both_classes(labels[cut:], "validation_split")
    check_both_classes(labels[:cut], "x without the rows of validation_split")
    validation = (x[cut:], labels[cut:])
    if weights is None:
        return Data(x[:cut], labels[:cut], None, validation, None)
    return Data(x[:cut], labels[:cut], weights[:cut], (*validation, weights[cut:]), None)


def peek(dataset: Any) -> tuple[Any, Array, Any]:
    """Return features, labels and weights of the first batch of a data set."""
    batch = next(iterate_batches(OWNER, dataset, steps=1), None)
    if batch is None:
        raise ValueError(f"{OWNER} needs rows. Received: an empty data set.")
    x, y, weights = batch
    # Backends take no tensors of each other.
    labels = to_array(y, "y", OWNER, allow_text=True)
    return x, labels, None if weights is None else to_array(weights, "sample_weight", OWNER)


def check_all_batches(data: Data, shape: tuple[int, ...], accepts: Accepts | None) -> None:
    """Read the data sets among the rows once, and raise as `check_data` does for arrays.

    Of a data set whose length is not known `MAX_BATCHES` batches are read.

    Args:
        data: returned by `check_data`.
        shape: that of one example.
        accepts: as of `check_data`.
    """
    check = _RowCheck(shape, accepts)
    if data.is_dataset:
        _check_batches(data.x, check, "")
    if data.validation is not None and not isinstance(data.validation, tuple):
        _check_batches(data.validation, check, "validation ")


def _check_batches(dataset: Any, check: _RowCheck, which: str) -> None:
    is_whole = _has_length(dataset)
    batches = iterate_batches(OWNER, dataset, None if is_whole else MAX_BATCHES)
    labels = [
        check.read(*batch, name_batch(number, which))[1] for number, batch in enumerate(batches)
    ]
    if is_whole:
        check_both_classes(np.concatenate(labels), f"{which}data set")


def _has_length(dataset: Any) -> bool:
    """Whether a data set says after how many batches it ends."""
    if isinstance(dataset, keras.utils.PyDataset):
        return dataset.num_batches is not None
    if hasattr(dataset, "cardinality"):
        return int(dataset.cardinality()) >= 0
    try:
        return len(dataset) >= 0
    except TypeError:  # A DataLoader of an IterableDataset has a `__len__` that raises.
        return False


def find_class_weights(data: Data, prior: float | None) -> tuple[float, float]:
    """Return the weights of negatives and positives that make both classes count alike.

    The share of positives is that of the (weighted) labels; of a data set `prior`, else its
    batches are read once.
    """
    if data.y is not None:
        share = float(np.average(data.y, weights=data.sample_weight))
    elif prior is not None:
        share = prior
    else:
        share = _count_share(data.x)
    if not 0 < share < 1:
        raise ValueError(f"{OWNER} needs rows of both classes. Received: {share:.0%} positives.")
    return 0.5 / (1 - share), 0.5 / share


def _count_share(dataset: Any) -> float:
    unending = "Give `prior`, the share of positives."
    batches = iterate_batches(OWNER, dataset, steps=None, unending=unending)
    return float(np.mean(np.concatenate([to_array(y, "y", OWNER).ravel() for _, y, _ in batches])))
