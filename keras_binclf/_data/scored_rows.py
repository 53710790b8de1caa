"""Outputs of a model for labelled rows, given as arrays or as a data set."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_binclf._data.arrangement import arrange_rows, make_arranger
from keras_binclf._data.forward import Forward, hold
from keras_binclf._data.heads import check_defined, find_output, select_output
from keras_binclf._data.labels import check_labels, check_weights
from keras_binclf._data.sparse import to_dense
from keras_binclf._data.tables import Array as Array
from keras_binclf._data.tables import (
    is_dataset,
    is_frame,
    is_sparse,
    read_cardinality,
    to_array,
)
from keras_binclf._validation import check_integer_at_least
from keras_binclf.layers import BinaryHead

UNENDING = "Say how many batches to take: `steps=100`."


@dataclasses.dataclass(frozen=True)
class ScoredRows:
    """Rows as three vectors of equal length; rows of weight 0 are left out.

    Attributes:
        outputs: the probabilities or logits that the head emitted.
        labels: 0.0 or 1.0.
        weights: positive.
    """

    outputs: Array
    labels: Array
    weights: Array


def score_rows(
    owner: str,
    model: keras.Model,
    head: BinaryHead,
    x: Any,
    y: Any,
    sample_weight: Any,
    batch_size: int | None,
    steps: int | None,
    *,
    logits: bool = False,
) -> ScoredRows:
    """Predict labelled rows once, and return the outputs of `head` with labels and weights.

    Args:
        owner: name of the public function, for messages.
        model: model with `head` among its outputs.
        head: the head.
        x: features, or a data set with batches `(features, labels)` or
            `(features, labels, weights)`.
        y: labels if `x` are features, else None.
        sample_weight: weights if `x` are features, else None.
        batch_size: rows per batch where `x` are features.
        steps: batches to take from a data set.
        logits: whether to return logits, also for a head that emits probabilities.

    Returns:
        The rows, in float64.

    Raises:
        TypeError: for labels that are no numbers, and a data set of an unknown kind.
        ValueError: for labels other than 0 and 1, different lengths, and no rows at all.
    """
    if steps is not None:
        steps = check_integer_at_least(steps, 1, "steps", owner)
    _check_form(owner, x, y, sample_weight)
    with hold(head):
        forward = Forward(model, head, logits=logits)
        if y is not None:
            x = arrange_rows(model, x, owner)
            _check_lengths(owner, x, y, sample_weight)
            found = forward.predict(x, batch_size=batch_size, steps=steps, verbose=0)
            parts = [_score_batch(owner, model, head, *found, y, sample_weight)]
        else:
            parts = [
                _score_batch(
                    owner, model, head, *forward.predict_on_batch(features), labels, weights
                )
                for features, labels, weights in _iterate_rows(owner, model, x, steps)
            ]
    if not parts:
        raise ValueError(f"{owner} needs rows. Received: an empty data set.")
    outputs, labels, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    present = weights > 0
    if not present.any():
        raise ValueError(f"{owner} needs rows. Received: {len(weights)} rows, all of weight 0.")
    return ScoredRows(outputs[present], labels[present], weights[present])


def check_both_classes(owner: str, rows: ScoredRows) -> None:
    """Raise `ValueError` if all rows have the same label."""
    if rows.labels.min() == rows.labels.max():
        raise ValueError(
            f"{owner} needs rows of both classes. Received: {len(rows.labels)} rows, all with "
            f"label {int(rows.labels[0])}. Hold out more rows, stratified by label."
        )


def _check_form(owner: str, x: Any, y: Any, sample_weight: Any) -> None:
    """Raise for labels beside a data set, and for weights without labels."""
    if y is not None and is_dataset(x):
        raise TypeError(
            f"{owner} takes labels `y` beside features that are arrays. Received: x of type "
            f"{type(x).__name__}. Convert it with `numpy.asarray`, or, where it is a data set that "
            "gives (features, labels), leave `y` out."
        )
    if y is None and sample_weight is not None:
        raise ValueError(
            f"`sample_weight` of {owner} goes with arrays `x` and `y`. Received: a data set "
            "without `y`. Let the data set give (features, labels, weights) a batch."
        )


def _iterate_rows(
    owner: str, model: keras.Model, data: Any, steps: int | None
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the batches of a data set, with features arranged for the model.

    Features by names that the model does not have are left out, as in `fit` and `predict`.
    """
    arrange = make_arranger(model, owner, is_batch=True)
    for features, labels, weights in iterate_batches(owner, data, steps):
        yield keras.tree.map_structure(to_dense, arrange(features)), labels, weights


def _score_batch(
    owner: str,
    model: keras.Model,
    head: BinaryHead,
    outputs: Any,
    mask: Array | None,
    y: Any,
    sample_weight: Any,
) -> tuple[Array, Array, Array]:
    emitted = select_output(model, head, outputs)[..., 0]
    y = _select_part("labels", owner, model, head, outputs, y)
    sample_weight = _select_part("weights", owner, model, head, outputs, sample_weight)
    weights = np.ones(emitted.shape)
    if sample_weight is not None:
        weights = check_weights(owner, sample_weight, emitted.shape)
    # A mask of another shape belongs to other rows than those of the head.
    if mask is not None and mask.shape == emitted.shape:
        weights = weights * mask
    present = weights > 0
    labels = check_labels(owner, y, emitted.shape, present)
    check_defined(np.where(present, emitted, 0))
    return emitted.ravel().astype("float64"), labels, weights.ravel()


def iterate_batches(
    owner: str, data: Any, steps: int | None, unending: str = UNENDING
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the batches of a data set as features, labels and weights.

    Args:
        owner: name of the public function, for messages.
        data: the data set.
        steps: batches to take, or None for all.
        unending: the way out in the message for a data set without end.

    Raises:
        TypeError: for anything but a data set.
        ValueError: for a batch without labels, and for a data set without end.
    """
    for features, labels, weights in _unpack_batches(owner, data, steps, unending):
        if labels is None:
            raise ValueError(
                f"{owner} needs labels. Received: a batch without them. Let the data set give "
                "(features, labels) a batch, or give arrays `x` and `y`."
            )
        yield features, labels, weights


def iterate_features(owner: str, model: keras.Model, data: Any) -> Iterator[Any]:
    """Yield the features in each batch of a data set, arranged for the model.

    A model with an encoder needs them so: the batches may be tables.

    Args:
        owner: name of the public function, for messages.
        model: the model.
        data: a data set with an end, with or without labels.
    """
    arrange = make_arranger(model, owner, is_batch=True)
    for features, _, _ in _unpack_batches(owner, data, None, "Take some of its batches."):
        yield keras.tree.map_structure(to_dense, arrange(features))


def _unpack_batches(
    owner: str, data: Any, steps: int | None, unending: str
) -> Iterator[tuple[Any, Any, Any]]:
    for batch in itertools.islice(_open(owner, data, steps, unending), steps):
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(batch)
        yield keras.tree.map_structure(_to_tensor_or_array, features), labels, weights


def _open(owner: str, data: Any, steps: int | None, unending: str) -> Iterator[Any]:
    """Return an iterator over batches; raise for a data set without end unless `steps` cuts it."""
    if not (is_dataset(data) or isinstance(data, list)):
        raise TypeError(
            f"{owner} needs labels: give `y` beside the features, or, as `x`, a data set such as a "
            f"tf.data.Dataset, a keras.utils.PyDataset, a torch DataLoader or a generator of "
            f"(features, labels). Received: x of type {type(data).__name__}, y=None."
        )
    if isinstance(data, keras.utils.PyDataset):
        num_batches = data.num_batches
        if num_batches is None and steps is None:
            raise ValueError(f"{owner} was given a PyDataset without end. {unending}")
        return (data[i] for i in (itertools.count() if num_batches is None else range(num_batches)))
    if steps is None and read_cardinality(data) == -1:
        raise ValueError(f"{owner} was given a tf.data.Dataset without end. {unending}")
    batches: Iterator[Any] = iter(data)
    return batches


def _to_tensor_or_array(value: Any) -> Any:
    """Return tensors of the backend, tables and sparse matrices unchanged, else an array."""
    is_kept = value is None or ops.is_tensor(value) or is_frame(value) or is_sparse(value)
    return value if is_kept else np.asarray(value)


def _select_part(
    kind: str, owner: str, model: keras.Model, head: BinaryHead, outputs: Any, value: Any
) -> Any:
    """Return the labels or weights of `head`, if `value` has some for each output."""
    if not _is_structure(value):
        return value
    parts = keras.tree.flatten(value)
    if isinstance(value, dict) and head.name in value:
        return value[head.name]
    num_outputs = len(keras.tree.flatten(outputs))
    if len(parts) != num_outputs:
        raise ValueError(
            f"{owner} was given {kind} for {len(parts)} outputs, but model {model.name!r} has "
            f"{num_outputs}. Expected: those of BinaryHead {head.name!r} alone, or of all outputs "
            "in the structure that the model returns."
        )
    return parts[find_output(model, head, outputs)]


def _is_structure(value: Any) -> bool:
    """Whether `value` is a structure of arrays for several outputs, not one array."""
    if isinstance(value, list):
        return bool(value) and np.ndim(value[0]) > 0 and hasattr(value[0], "shape")
    return isinstance(value, dict | tuple)


def _check_lengths(owner: str, x: Any, y: Any, sample_weight: Any) -> None:
    """Raise for no rows and for different lengths, before the model runs."""
    rows = next(part.shape[0] for part in keras.tree.flatten(x) if part is not None)
    if rows == 0:
        raise ValueError(f"{owner} needs rows. Received: x with 0 rows.")
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        for part in keras.tree.flatten(value) if _is_structure(value) else [value]:
            if value is None:
                continue
            if to_array(part, name, owner, allow_text=True).shape[:1] != (rows,):
                raise ValueError(
                    f"{owner} needs as many labels and weights as rows. Received: x with {rows} "
                    f"rows, {name} of shape {np.shape(part)}."
                )
