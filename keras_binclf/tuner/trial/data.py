"""The rows that a trial trains on: checked, and divided into training and validation rows."""

import dataclasses
import inspect
from typing import Any

import keras
import numpy as np

from keras_binclf._data.tables import is_dataset
from keras_binclf._validation import error_message
from keras_binclf.tuner.trial.batches import check_batches, count_share, peek
from keras_binclf.tuner.trial.folds import OWNER, Array, Fold, check_both_classes, make_folds
from keras_binclf.tuner.trial.row_check import VALIDATION, RowCheck, name_batch


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
        x: features as an array, or a dict or list of arrays; or a data set that gives batches.
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


def check_data(given: Given, check: RowCheck) -> Data:
    """Return the rows in the arguments of `fit`, checked.

    Of a data set the first batch is checked; `check_all_batches` checks the others.

    Args:
        given: those arguments.
        check: of the rows.

    Raises:
        TypeError: for data of the wrong kind.
        ValueError: for labels other than 0 and 1, NaN or infinity, shapes that do not fit, and no
            validation rows.
    """
    x, folds = given.x, given.folds
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


def _check_dataset(given: Given, check: RowCheck) -> Data:
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


def _check_validation(given: Any, check: RowCheck) -> Any:
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


def _split(x: Any, labels: Array, weights: Array | None, share: Any) -> Data:
    """Divide as `keras.Model.fit` does: the last rows validate."""
    if isinstance(share, bool) or not isinstance(share, float) or not 0 < share < 1:
        expected = "a float in (0, 1)"
        raise ValueError(error_message("validation_split", OWNER, expected, share))
    cut = int(np.floor(len(labels) * (1 - share)))
    check_both_classes(labels[cut:], "validation_split")
    check_both_classes(labels[:cut], "x without the rows of validation_split")
    first, last = slice(None, cut), slice(cut, None)
    return take_data(Data(x, labels, weights, None, None), first, last)


def check_all_batches(data: Data, check: RowCheck) -> None:
    """Read the data sets among the rows once, and raise as `check_data` does for arrays.

    Args:
        data: returned by `check_data`.
        check: of their batches.
    """
    if data.is_dataset:
        check_batches(data.x, check)
    if data.validation is not None and not isinstance(data.validation, tuple):
        check_batches(data.validation, check, "validation ")


def take_data(data: Data, rows: Any, held_out: Any) -> Data:
    """Return some rows to train on, and others to validate on.

    Args:
        data: arrays.
        rows: numbers of the rows to train on, or a slice.
        held_out: those of the rows to validate on.
    """
    x, y, weights = data.x, data.y, data.sample_weight
    assert y is not None
    train_x, x, labels = take_rows(x, rows), take_rows(x, held_out), y[held_out]
    if weights is None:
        return Data(train_x, y[rows], None, (x, labels), None)
    return Data(train_x, y[rows], weights[rows], (x, labels, weights[held_out]), None)


def take_rows(x: Any, rows: Any) -> Any:
    """Return some rows of features, in their structure.

    Args:
        x: array, or a dict or list of arrays.
        rows: row numbers or a slice.
    """
    return keras.tree.map_structure(lambda array: array[rows], x)


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
        share = count_share(data.x)
    if not 0 < share < 1:
        raise ValueError(f"{OWNER} needs rows of both classes. Received: {share:.0%} positives.")
    return 0.5 / (1 - share), 0.5 / share
