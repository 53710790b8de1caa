"""Data sets of a search: their first batch, and the checks of all of their batches."""

from typing import Any

import keras
import numpy as np

from keras_binclf._data.scored_rows import iterate_batches
from keras_binclf._data.tables import read_cardinality, to_array
from keras_binclf.tuner.trial.folds import OWNER, Array, check_both_classes
from keras_binclf.tuner.trial.row_check import RowCheck, name_batch

MAX_BATCHES = 1000
"""Batches that are checked of a data set whose length is not known."""


def peek(dataset: Any) -> tuple[Any, Array, Any]:
    """Return features, labels and weights of the first batch of a data set."""
    batch = next(iterate_batches(OWNER, dataset, steps=1), None)
    if batch is None:
        raise ValueError(f"{OWNER} needs rows. Received: an empty data set.")
    x, y, weights = batch
    # Backends take no tensors of each other.
    labels = to_array(y, "y", OWNER, allow_text=True)
    return x, labels, None if weights is None else to_array(weights, "sample_weight", OWNER)


def check_batches(dataset: Any, check: RowCheck, which: str = "") -> None:
    """Read a data set once, and raise for the first mistake in its rows.

    Of a data set whose length is not known `MAX_BATCHES` batches are read.

    Args:
        dataset: the data set.
        check: of its batches.
        which: `"validation "` for the validation rows, for messages.
    """
    is_whole = _has_length(dataset)
    batches = iterate_batches(OWNER, dataset, None if is_whole else MAX_BATCHES)
    labels = [
        check.read(*batch, name_batch(number, which))[1] for number, batch in enumerate(batches)
    ]
    if is_whole:
        check_both_classes(np.concatenate(labels), f"{which}data set")


def count_share(dataset: Any) -> float:
    """Return the share of positives in a data set, which is read once."""
    unending = "Give `prior`, the share of positives."
    batches = iterate_batches(OWNER, dataset, steps=None, unending=unending)
    return float(np.mean(np.concatenate([to_array(y, "y", OWNER).ravel() for _, y, _ in batches])))


def _has_length(dataset: Any) -> bool:
    """Whether a data set says after how many batches it ends."""
    if isinstance(dataset, keras.utils.PyDataset):
        return dataset.num_batches is not None
    cardinality = read_cardinality(dataset)
    if cardinality is not None:
        return cardinality >= 0
    try:
        return len(dataset) >= 0
    except TypeError:  # A DataLoader of an IterableDataset has a `__len__` that raises.
        return False
