"""Checks of the labels and weights of rows."""

from typing import Any

import numpy as np

from keras_binclf._data.tables import NUMBERS, Array, is_missing, to_array


def check_labels(owner: str, y: Any, shape: tuple[int, ...], present: Array) -> Array:
    """Return labels as a vector of 0.0 and 1.0; those of absent rows are not checked."""
    labels = _fit(to_array(y, "y", owner, allow_text=True), shape)
    if labels is None:
        raise ValueError(
            f"{owner} needs one label a row, of shape {shape} or {(*shape, 1)}. Received: labels "
            f"of shape {np.shape(y)}."
        )
    counted = labels[present]
    if counted.dtype.kind not in NUMBERS:
        raise TypeError(
            f"Labels of {owner} must be the numbers 0 and 1. Received: {_some(counted)}, of dtype "
            f"{counted.dtype}. {_map_hint(counted)}"
        )
    values = np.unique(counted)
    if not np.isin(values, (0, 1)).all():
        hint = "Find out the meaning of the other values before mapping them."
        if np.isnan(values).any():
            hint = "Leave out the rows without a label."
        elif len(values) <= 2:
            hint = f"Map them, as in `y = (y == {values[-1].item()!r}).astype('int32')`."
        raise ValueError(f"Labels of {owner} must be 0 and 1. Received: {_some(counted)}. {hint}")
    fitted = np.zeros(shape)
    fitted[present] = counted
    return fitted.ravel()


def check_weights(owner: str, sample_weight: Any, shape: tuple[int, ...]) -> Array:
    """Return weights in `shape`; the weight of an example applies to all its steps."""
    weights = to_array(sample_weight, "sample_weight", owner, hint="")
    fitted = _fit(weights, shape)
    if fitted is None and len(shape) > 1:
        fitted = _fit(weights, shape[:1])
        if fitted is not None:
            fitted = np.broadcast_to(fitted.reshape(-1, *(1,) * (len(shape) - 1)), shape)
    if fitted is None:
        raise ValueError(
            f"{owner} needs one weight a row, of shape {shape} or {(*shape, 1)}. Received: "
            f"`sample_weight` of shape {weights.shape}."
        )
    if not (np.isfinite(fitted).all() and (fitted >= 0).all()):
        raise ValueError(
            f"`sample_weight` of {owner} must be finite and not negative. Received: values from "
            f"{fitted.min()} to {fitted.max()}."
        )
    return fitted.astype("float64")


def _fit(values: Array, shape: tuple[int, ...]) -> Array | None:
    """Return `values` in `shape`, dropping a last dimension of 1; None where they do not fit."""
    if values.ndim == len(shape) + 1 and values.shape[-1] == 1:
        values = values[..., 0]
    return values if values.shape == shape else None


def _some(values: Array) -> str:
    """Return a text with up to five distinct values."""
    distinct = _list_distinct(values)
    return ", ".join(map(repr, distinct[:5])) + (", …" if len(distinct) > 5 else "")


def _list_distinct(values: Array) -> list[Any]:
    if values.dtype.kind == "O":  # Values of different types cannot be compared.
        by_text = {repr(value): value for value in values.flat}
        return [by_text[text] for text in sorted(by_text)]
    return [value.item() for value in np.unique(values)]


def _map_hint(labels: Array) -> str:
    """Return advice on mapping labels that are not numeric to 0 and 1."""
    distinct = _list_distinct(labels)
    known = [value for value in distinct if not is_missing(value)]
    if len(known) < len(distinct):
        return "Leave out the rows without a label, and map the others to 0 and 1."
    if len({type(value) for value in known}) > 1:
        return "They are of several types: find out why before mapping them."
    return f"Map them, as in `y = (y == {known[-1]!r}).astype('int32')`."
