"""Shapes of rows: fitting them to an input, and describing them."""

from typing import Any

import numpy as np

from keras_binclf._validation import Shape


def fit_rows(array: Any, shape: Shape, *, may_expand: bool = True) -> Any | None:
    """Return rows of the given shape each, with a last dimension of 1 added or dropped as in Keras.

    Args:
        array: array or tensor of rows.
        shape: of one row, with None for a size that varies.
        may_expand: bool, whether a dimension may be added. Defaults to `True`.

    Returns:
        The rows, or None where they do not fit.
    """
    rank = len(array.shape) - 1
    if may_expand and rank == len(shape) - 1 and shape[-1] == 1:
        array = array[..., None]
    elif rank == len(shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    return array if len(array.shape) > 0 and shapes_agree(shape, array.shape[1:]) else None


def count_dimensions(value: Any) -> int:
    """Return the rank of an array or of nested lists, or -1 for lists of different lengths."""
    if hasattr(value, "shape"):
        return len(value.shape)
    try:
        return np.ndim(value)
    except ValueError:  # lists of different lengths
        return -1


def describe_shape(shape: Shape, allow_one: bool) -> str:
    """Return a text with the shapes that rows may have."""
    sizes = ["?" if size is None else str(size) for size in shape]
    row = f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"
    rows = f"({', '.join(['n', *sizes])})" if sizes else "(n,)"
    return f"of shape {rows}, or {row} for one row" if allow_one else f"of shape {rows}"


def shapes_agree(expected: Shape, shape: tuple[int, ...]) -> bool:
    """Whether a shape equals the expected one, in which None stands for any size."""
    return len(expected) == len(shape) and all(
        size in (None, given) for size, given in zip(expected, shape, strict=True)
    )
