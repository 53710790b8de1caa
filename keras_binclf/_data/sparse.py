"""Sparse matrices of SciPy and sparse tables of pandas, made dense one batch at a time."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_binclf._data.tables import NUMBERS, Array, is_pandas_frame, is_sparse, read_column

BATCH_SIZE = 32  # The default of Keras.


def keep_sparse(value: Any) -> Any | None:
    """Return a sparse matrix or table of numbers in canonical CSR form, None for anything else.

    The matrix that was given does not change. One without rows, or of another number of dimensions
    than two, is left to the conversion to an array.
    """
    if _is_sparse_table(value):
        value = _join_columns(value)
    if not is_sparse(value) or len(value.shape) != 2 or value.shape[0] == 0:
        return None
    if value.dtype.kind not in NUMBERS:
        return None
    matrix = value.tocsr()
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def convert_values(matrix: Any, convert: Callable[[Array], Array]) -> Any:
    """Return a CSR matrix with its stored values converted; the others stay 0."""
    values = convert(matrix.data)
    if values is matrix.data:
        return matrix
    return type(matrix)((values, matrix.indices, matrix.indptr), shape=matrix.shape)


def find_rows(matrix: Any, places: Array) -> Array:
    """Return the rows of a CSR matrix that hold the stored values at these places, each once."""
    return np.unique(np.searchsorted(matrix.indptr, places, side="right") - 1)


def to_dense(value: Any) -> Any:
    """Return a sparse matrix as an array, and anything else unchanged."""
    return np.asarray(value.toarray()) if is_sparse(value) else value


def take_rows(part: Any, start: int, size: int) -> Any:
    """Return some rows of an array or sparse matrix as an array, and None for None."""
    return None if part is None else to_dense(part[start : start + size])


def predict(model: keras.Model, x: Any, batch_size: int | None, **options: Any) -> Any:
    """Return `model.predict(x)`, with sparse matrices in `x` made dense batch by batch.

    Args:
        model: any Keras model.
        x: rows in the structure of the inputs of the model, or a data set.
        batch_size: rows per batch, or None for the default of Keras.
        **options: other arguments of `model.predict`.
    """
    if any(map(is_sparse, keras.tree.flatten(x))):
        return model.predict(_Batches(x, batch_size or BATCH_SIZE), **options)
    return model.predict(x, batch_size=batch_size, **options)


class _Batches(keras.utils.PyDataset):
    """Batches of rows in which no matrix is sparse.

    Keras takes sparse matrices, too, but on JAX it compiles anew for each number of stored values.
    """

    def __init__(self, x: Any, batch_size: int) -> None:
        super().__init__()
        self._x = x
        self._batch_size = batch_size
        sizes = (part.shape[0] for part in keras.tree.flatten(x) if part is not None)
        self._num_rows: int = next(sizes)

    def __len__(self) -> int:
        return -(-self._num_rows // self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any]:
        start = index * self._batch_size
        batch = keras.tree.map_structure(lambda part: self._take(part, start), self._x)
        return (keras.tree.lists_to_tuples(batch),)  # TensorFlow makes one tensor of a list.

    def _take(self, part: Any, start: int) -> Any:
        taken = take_rows(part, start, self._batch_size)
        is_float = isinstance(taken, np.ndarray) and taken.dtype.kind == "f"
        # As Keras converts arrays.
        return taken.astype(keras.config.floatx(), copy=False) if is_float else taken


def _is_sparse_table(value: Any) -> bool:
    """Whether `value` is a pandas table with a sparse column."""
    return is_pandas_frame(value) and any(map(_is_sparse_type, value.dtypes))


def _is_sparse_type(dtype: Any) -> bool:
    return type(dtype).__name__ == "SparseDtype"


def _join_columns(frame: Any) -> Any | None:
    """Return the columns of a pandas table as a sparse matrix.

    None is returned if one is not numeric, and where SciPy is missing.
    """
    try:
        import scipy.sparse
    except ModuleNotFoundError:
        return None
    columns = [_read_stored(column) for _, column in frame.items()]
    if any(values.dtype.kind not in NUMBERS for _, values in columns):
        return None
    dtype = np.result_type(*(values.dtype for _, values in columns))
    matrix = scipy.sparse.csc_matrix(
        (
            np.concatenate([values.astype(dtype) for _, values in columns]),
            np.concatenate([places for places, _ in columns]),
            np.cumsum([0, *(len(places) for places, _ in columns)]),
        ),
        shape=frame.shape,
    )
    return matrix.tocsr()


def _read_stored(column: Any) -> tuple[Array, Array]:
    """Return the places of the values in a column that may be other than 0, and these values."""
    if _is_sparse_type(column.dtype) and column.dtype.fill_value == 0:
        stored = column.array
        return stored.sp_index.to_int_index().indices, stored.sp_values
    values = read_column(column)
    if values.dtype.kind not in NUMBERS:
        return np.arange(0), values
    places = np.flatnonzero(values)
    return places, values[places]
