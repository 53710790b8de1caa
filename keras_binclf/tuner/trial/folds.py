"""Folds of the rows: stratified ones, or those that the user gives."""

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_binclf._validation import error_message, is_integer

Array = np.ndarray[Any, Any]
Fold = tuple[Array, Array]
OWNER = "BinaryClassifierHyperModel.fit"


def make_folds(folds: Any, labels: Array) -> list[Fold]:
    """Return the rows to train on and those to validate on, for each fold.

    Args:
        folds: the number of folds, or a list of pairs of row numbers.
        labels: vector of 0.0 and 1.0.
    """
    if not is_integer(folds):
        return [_check_fold(pair, folds, labels) for pair in _list_pairs(folds)]
    smaller = int(min(labels.sum(), len(labels) - labels.sum()))
    if not 2 <= folds <= smaller:
        expected = "at least 2, and at most the number of rows of the rarer class"
        hint = f"There are {smaller} such rows."
        raise ValueError(error_message("folds", OWNER, expected, folds, hint))
    # Stratified: the rows of each class are dealt out in turn, from where the last class ended.
    random = np.random.default_rng(0)
    shuffled = [random.permutation(np.flatnonzero(labels == value)) for value in (0, 1)]
    member = np.empty(len(labels), "int64")
    member[np.concatenate(shuffled)] = np.arange(len(labels)) % folds
    return [(np.flatnonzero(member != k), np.flatnonzero(member == k)) for k in range(folds)]


def _list_pairs(folds: Any) -> list[Any]:
    if isinstance(folds, str) or not isinstance(folds, Iterable) or inspect.isgenerator(folds):
        expected = "an int of at least 2, or a list of (rows to train on, rows to validate on)"
        hint = "A generator ends with the first trial: `folds=list(splitter.split(x, y))`."
        hint = hint if inspect.isgenerator(folds) else ""
        raise TypeError(error_message("folds", OWNER, expected, folds, hint))
    return list(folds)


def _check_fold(pair: Any, folds: Any, labels: Array) -> Fold:
    expected = "an int of at least 2, or a list of (rows to train on, rows to validate on)"
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(error_message("folds", OWNER, expected, folds))
    train, held_out = (np.asarray(rows) for rows in pair)
    if np.intersect1d(train, held_out).size:
        expected = "pairs that share no row"
        raise ValueError(error_message("folds", OWNER, expected, folds))
    check_both_classes(labels[train], "folds")
    check_both_classes(labels[held_out], "folds")
    return train, held_out


def check_both_classes(labels: Array, what: str) -> None:
    """Raise `ValueError` if all rows have the same label, or there are none."""
    if len(labels) == 0 or labels.min() == labels.max():
        found = f"all with label {int(labels[0])}" if len(labels) else "no rows"
        raise ValueError(
            f"{OWNER} trains and compares on rows of both classes. Received: `{what}` of "
            f"{len(labels)} rows, {found}. Divide the rows shuffled and stratified by label."
        )
