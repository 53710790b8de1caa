"""Rows in any form, arranged for `model.predict`."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_binclf._data.inputs import find_inputs
from keras_binclf._data.row_reader import RowReader
from keras_binclf._data.sparse import keep_sparse
from keras_binclf._data.tables import to_array_or_tensor


def arrange_rows(model: keras.Model, x: Any, owner: str) -> Any:
    """Return rows in the structure and form that `model.predict` accepts.

    Sparse matrices stay sparse, in CSR form: `sparse.predict` makes them dense batch by batch.

    Args:
        model: any Keras model. If its inputs are unknown, only tables are converted.
        x: rows in any form except a data set.
        owner: name of the public function with the argument `x`, for messages.

    Raises:
        TypeError: for values that are not numeric.
        ValueError: for wrong names and shapes.
    """
    return make_arranger(model, owner)(x)


def make_arranger(
    model: keras.Model, owner: str, *, is_batch: bool = False
) -> Callable[[Any], Any]:
    """Return `arrange_rows` as a function of `x` alone, to arrange many batches.

    Args:
        model: any Keras model.
        owner: name of the public function.
        is_batch: bool, whether `x` are batches of a data set, as in `RowReader`. Defaults to
            `False`.
    """
    inputs = find_inputs(model)
    if inputs is not None and len(inputs.arguments) == 1:
        return RowReader(inputs, owner, is_batch=is_batch).arrange
    return functools.partial(_arrange_any, owner)


def _arrange_any(owner: str, x: Any) -> Any:
    """Return rows for a model whose inputs are unknown."""
    if isinstance(x, dict):
        return {name: _arrange_any(owner, value) for name, value in x.items()}
    if isinstance(x, list | tuple) and all(hasattr(value, "shape") for value in x):
        return type(x)(_arrange_any(owner, value) for value in x)
    matrix = keep_sparse(x)
    return to_array_or_tensor(x, "x", owner, True) if matrix is None else matrix
