"""The rows that a trial trains on: checked, weighted, divided into folds."""

import dataclasses
import inspect
from typing import Any

import keras
import numpy as np

from keras_binclf._data.inputs import fit_rows
from keras_binclf._data.scored_rows import check_labels, check_weights, iterate_batches
from keras_binclf._data.tables import is_dataset, to_array
from keras_binclf._validation import error_message
from keras_binclf.tuner.trial.folds import OWNER, Array, Fold, check_both_classes, make_folds


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
    """What a trial gets.

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


def check_data(given: Given, shape: tuple[int, ...]) -> Data:
    """Return what a trial needs of the arguments of `fit`.

    Args:
        given: those arguments.
        shape: that of one example.

    Raises:
        TypeError: for data of the wrong kind.
        ValueError: for labels other than 0 and 1, shapes that do not fit, and no validation rows.
    """
    x, folds = given.x, given.folds
    _check_repeatable(x)
    if is_dataset(x):
        return _check_dataset(given, shape)
    if given.y is None:
        hint = "Give arrays `x` and `y`, or a tf.data.Dataset, PyDataset or DataLoader."
        received = type(x).__name__
        raise TypeError(f"{OWNER} needs labels `y`. Received: x of type {received}, y=None. {hint}")
    x, labels, weights = _check_rows("x", x, given.y, given.sample_weight, shape)
    if folds is not None:
        if given.validation_data is not None or given.validation_split:
            hint = "Every fold validates on rows of `x`."
            expected = "left out beside validation data"
            raise ValueError(error_message("folds", OWNER, expected, folds, hint))
        pairs = make_folds(folds, labels)
        return Data(x, labels, weights, None, pairs)
    if given.validation_data is None and given.validation_split:
        return _split(x, labels, weights, given.validation_split)
    validation = _check_validation(given.validation_data, shape)
    check_both_classes(labels, "y")
    return Data(x, labels, weights, validation, None)


def _check_repeatable(x: Any) -> None:
    if inspect.isgenerator(x):
        hint = "Give arrays, or a tf.data.Dataset, PyDataset or DataLoader."
        raise TypeError(
            f"{OWNER} reads its data once for each trial, and a generator ends with the first. "
            f"{hint}"
        )


def _check_dataset(given: Given, shape: tuple[int, ...]) -> Data:
    x = given.x
    of_arrays = {"y": given.y, "sample_weight": given.sample_weight, "folds": given.folds}
    of_arrays["validation_split"] = given.validation_split or None
    for name, value in of_arrays.items():
        if value is not None:
            hint = "Give arrays, or let the data set give (features, labels[, weights]) a batch."
            text = f"`{name}` of {OWNER} goes with arrays. Received: x of type {type(x).__name__}."
            raise ValueError(f"{text} {hint}")
    _check_batch(x, shape)
    return Data(x, None, None, _check_validation(given.validation_data, shape), None)


def _check_validation(given: Any, shape: tuple[int, ...]) -> Any:
    if given is None:
        raise ValueError(
            f"{OWNER} needs validation rows: the trials are compared on them. Received: none. "
            "Give `validation_data=(x, y)`, `validation_split=0.2`, or `folds=5` for small tables."
        )
    _check_repeatable(given)
    if isinstance(given, tuple | list):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(tuple(given))
        x, labels, weights = _check_rows("validation_data", x, y, weights, shape)
        check_both_classes(labels, "validation_data")
        return (x, labels) if weights is None else (x, labels, weights)
    if not is_dataset(given):
        expected = "a tuple (x, y) or (x, y, sample_weight), or a data set"
        raise TypeError(error_message("validation_data", OWNER, expected, type(given).__name__))
    _check_batch(given, shape)
    return given


def _check_rows(
    name: str, x: Any, y: Any, sample_weight: Any, shape: tuple[int, ...]
) -> tuple[Array, Array, Array | None]:
    """Return features, and labels and weights as vectors, or raise where they do not fit."""
    array = to_array(x, name, OWNER)
    fitted = fit_rows(array, shape)
    if fitted is None:
        raise ValueError(
            f"`{name}` of {OWNER} must be of shape (n, {', '.join(map(str, shape))}), as "
            f"`input_shape` says. Received: shape {array.shape}."
        )
    rows = len(fitted)
    length = None if y is None else len(to_array(y, "y", OWNER, allow_text=True))
    if length != rows:
        raise ValueError(
            f"{OWNER} needs one label for each row. Received: `{name}` with {rows} rows, {length} "
            "labels."
        )
    labels = check_labels(OWNER, y, (rows,), np.ones(rows, "bool"))
    weights = None
    if sample_weight is not None:
        weights = check_weights(OWNER, sample_weight, (rows,)).astype("float32")
    return fitted, labels.astype("float32"), weights


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


def _check_batch(dataset: Any, shape: tuple[int, ...]) -> None:
    x, y, weights = peek(dataset)
    _check_rows("x", x, y, weights, shape)


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
