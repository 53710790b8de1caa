"""Bins of numbers: their edges, learned of rows, and how far a number has passed each."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_binclf._validation import Tensor
from keras_binclf.layers.features._feature_layer import Array
from keras_binclf.layers.features._rows import Rows


def find_edges(rows: Rows, num_bins: int) -> list[Array]:
    """Return the edges of the bins of each column, none for columns of up to two values.

    Raises:
        ValueError: for gaps, and for bins whose width is infinite in the type of the layer.
    """
    _check_gaps(rows)
    edges = [_find_quantiles(column, num_bins) for column in rows.values.T]
    _check_widths(rows, edges)
    return edges


def stack_edges(edges: Sequence[Array]) -> Array:
    """Return the edges of several columns as one array, in which the last of each is repeated."""
    length = max(map(len, edges))
    return np.stack([np.pad(one, (0, length - len(one)), mode="edge") for one in edges])


def list_bins(counts: Sequence[int]) -> list[list[bool]]:
    """Return which bins there are, of shape `(features, bins)`; the others pad.

    Args:
        counts: the number of bins of each feature.
    """
    # Lists, since `torch.compile` cannot follow arrays of NumPy.
    return [[i < count for i in range(max(counts))] for count in counts]


def measure_slopes(edges: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return left edge and 1 over the width of each bin; of bins that pad, the latter is 0."""
    left = edges[:, :-1]
    widths = ops.subtract(edges[:, 1:], left)
    is_bin = ops.convert_to_tensor(list_bins(counts))
    return left, ops.where(is_bin, ops.divide(1.0, ops.where(is_bin, widths, 1.0)), 0.0)


def encode_bins(x: Tensor, left: Tensor, slopes: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the share of each bin that `x` has passed.

    Args:
        x: tensor of shape `(..., features)`.
        left: left edges, of shape `(features, bins)`.
        slopes: 1 over the widths, of the same shape.
        counts: the number of bins of each feature.

    Returns:
        Tensor of shape `(..., features, bins)`: within 0 and 1, but below 0 in the first bin and
        above 1 in the last one of each feature.
    """
    shares = ops.multiply(ops.subtract(ops.expand_dims(x, -1), left), slopes)
    dtype = keras.backend.standardize_dtype(shares.dtype)
    largest = float(np.finfo(dtype).max)
    lower = [[-largest] + [0.0] * (max(counts) - 1) for _ in counts]
    upper = [[largest if i + 1 == n else 1.0 for i in range(max(counts))] for n in counts]
    bounds = (ops.convert_to_tensor(bound, dtype) for bound in (upper, lower))
    return ops.maximum(ops.minimum(shares, next(bounds)), next(bounds))


def _find_quantiles(column: Array, num_bins: int) -> Array:
    """Return the distinct quantiles, as rtdl_num_embeddings does."""
    lowest, highest = column.min(), column.max()
    if ((column == lowest) | (column == highest)).all():
        return np.empty(0, column.dtype)
    quantiles = np.quantile(column.astype("float64"), np.linspace(0, 1, num_bins + 1))
    edges = np.unique(quantiles.astype(column.dtype))
    # 1 over a smaller width would be infinite.
    is_apart = np.diff(edges.astype("float64")) >= np.finfo(column.dtype).tiny
    return edges[np.append(True, is_apart)] if is_apart.any() else edges[:0]


def _check_gaps(rows: Rows) -> None:
    gaps = np.isnan(rows.values)
    if gaps.any():
        raise ValueError(
            f"`data` of {rows.owner}.adapt must have no gaps. Received: NaN in "
            f"{rows.describe_cell(gaps)}. Put `keras_binclf.FeatureScaler` before it, and adapt to "
            "its outputs."
        )


def _check_widths(rows: Rows, edges: Sequence[Array]) -> None:
    largest = float(np.finfo(rows.values.dtype).max)
    for name, one in zip(rows.names, edges, strict=True):
        width = float(np.diff(one.astype("float64")).max(initial=0.0))
        if width > largest:
            raise ValueError(
                f"`data` of {rows.owner}.adapt must have bins of column {name!r} whose widths are "
                f"in the range of {rows.values.dtype}. Received: {width!r}. Put "
                "`keras_binclf.FeatureScaler` before it, and adapt to its outputs."
            )
