"""Conversion of tables, sparse matrices, tensors and lists to NumPy arrays."""

import inspect
import numbers
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_binclf._validation import check_plain_numbers

Array = np.ndarray[Any, Any]

ENCODE = (
    "Let a `keras_binclf.TabularEncoder` take the table: "
    "`binary_classifier(encoder)` holds it in the model."
)
NUMBERS = "fiub"
"""Kinds of NumPy dtypes that count as numbers."""


def is_dataset(value: Any) -> bool:
    """Whether `value` yields batches, and is not an array, a table or a structure of them."""
    if isinstance(value, keras.utils.PyDataset) or inspect.isgenerator(value):
        return True
    is_rows = hasattr(value, "shape") or isinstance(value, list | tuple | dict | str | bytes)
    return not is_rows and isinstance(value, Iterable) and not hasattr(value, "__array__")


def is_empty_dataset(data: Any) -> bool:
    """Whether a data set is known to have no batches; the number of batches may be unknown."""
    if isinstance(data, keras.utils.PyDataset):
        return bool(data.num_batches == 0)
    cardinality = read_cardinality(data)
    if cardinality is not None:
        return cardinality == 0
    try:
        return len(data) == 0
    except TypeError:  # Also a torch DataLoader has no length where its data set has none.
        return False


def read_cardinality(data: Any) -> int | None:
    """Return the `cardinality` of a data set of TensorFlow, negative where it is not known."""
    cardinality = getattr(data, "cardinality", None)
    if cardinality is None:
        return None
    # That of a distributed data set is a number.
    return int(cardinality() if callable(cardinality) else cardinality)


def is_frame(value: Any) -> bool:
    """Whether `value` is a table with named columns, of pandas, polars, pyarrow or narwhals."""
    return is_pandas_frame(value) or _is_arrow_frame(value)


def is_pandas_frame(value: Any) -> bool:
    """Whether `value` is a table of pandas, or of a library with the same methods."""
    return hasattr(value, "iloc") and hasattr(value, "columns")


def _is_arrow_frame(value: Any) -> bool:
    is_table = hasattr(value, "get_column") or hasattr(value, "column_names")
    return is_table and hasattr(value, "__arrow_c_stream__")


def is_sparse(value: Any) -> bool:
    """Whether `value` is a sparse matrix or array of SciPy."""
    return hasattr(value, "tocsr") and hasattr(value, "toarray")


def is_ragged(value: Any) -> bool:
    """Whether `value` is a tensor whose rows differ in length."""
    return hasattr(value, "row_splits") and hasattr(value, "ragged_rank")


def split_columns(frame: Any) -> dict[Any, Any]:
    """Return the columns of a table by name, each as it is in pandas, else as an array."""
    if is_pandas_frame(frame):
        return dict(frame.items())
    import narwhals

    table = narwhals.from_native(frame, eager_only=True)
    return {name: table.get_column(name).to_numpy() for name in table.columns}


def to_array(
    value: Any, name: str, owner: str, *, allow_text: bool = False, hint: str = ENCODE
) -> Array:
    """Return the values of an array, tensor, table, sparse matrix or list as a NumPy array.

    Tables are converted column by column, so that columns of different numeric types can stand
    side by side. Missing values of a nullable column become NaN.

    Args:
        value: array-like.
        name: name of the argument, for messages.
        owner: name of the public function, for messages.
        allow_text: bool, whether text is returned unchanged; otherwise it is an error.
        hint: the way out for an array that is not numeric.

    Raises:
        TypeError: for masked values, complex numbers and anything that is not numeric; the message
            names the columns of a table.
        ValueError: for rows that differ in length.
    """
    if value is None:
        raise TypeError(f"`{name}` of {owner} must be numbers. Received: None.")
    check_plain_numbers(value, name, owner)
    if is_frame(value):
        return _stack_columns(value, name, owner, allow_text)
    array = _convert(value, name, owner)
    if array.dtype.kind == "V" and "float" in array.dtype.name:
        array = array.astype("float32")  # bfloat16 and float8, which NumPy does not know.
    if array.dtype.kind == "O":
        array = _read_objects(array)
    if array.dtype.kind in NUMBERS or (allow_text and array.dtype.kind in "OSU"):
        return array
    check_plain_numbers(array, name, owner)
    text = f"`{name}` of {owner} must be numbers. Received: dtype {array.dtype}{_quote(array)}."
    raise TypeError(f"{text} {hint}" if hint else text)


def to_array_or_tensor(value: Any, name: str, owner: str, allow_text: bool) -> Any:
    """Return tensors of the backend unchanged, and anything else as `to_array` does."""
    if is_ragged(value) or not keras.ops.is_tensor(value):
        return to_array(value, name, owner, allow_text=allow_text)
    check_plain_numbers(value, name, owner)
    return value


def is_missing(value: Any) -> bool:
    """Whether an element of an object array is a missing value."""
    # pandas need not be installed, and `pandas.NA` has no truth value.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _convert(value: Any, name: str, owner: str) -> Array:
    if isinstance(value, np.ndarray):
        return np.asarray(value)  # A masked array without masked values, or a matrix.
    if hasattr(value, "iloc"):
        return read_column(value)
    if is_sparse(value):
        return np.asarray(value.toarray())
    expected = f"`{name}` of {owner} must be a rectangular array."
    if is_ragged(value):
        raise ValueError(f"{expected} Received: a ragged tensor. Pad its rows to one length.")
    if keras.ops.is_tensor(value):
        return np.asarray(keras.ops.convert_to_numpy(value))
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{expected} Received: parts of different shapes. Pad or cut them."
        ) from None


def _stack_columns(frame: Any, name: str, owner: str, allow_text: bool) -> Array:
    """Return a matrix with one column for each of the table."""
    is_pandas = is_pandas_frame(frame)
    if is_pandas and _is_uniform(frame):
        return np.asarray(frame.to_numpy())
    # pandas may repeat a name.
    items = frame.items() if is_pandas else split_columns(frame).items()
    columns = [(label, read_column(column)) for label, column in items]
    wrong = [(label, column) for label, column in columns if column.dtype.kind not in NUMBERS]
    if wrong and allow_text:
        return np.stack([column.astype(object) for _, column in columns], axis=1)
    if wrong:
        found = [f"column {label!r} of dtype {c.dtype}{_quote(c)}" for label, c in wrong[:5]]
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise TypeError(
            f"`{name}` of {owner} must be numbers. Received: {', '.join(found)}{more}. {ENCODE}"
        )
    return np.stack([column for _, column in columns], axis=1)


def _is_uniform(frame: Any) -> bool:
    """Whether the columns have NumPy number types that join to one, without objects."""
    kinds = {dtype.kind if isinstance(dtype, np.dtype) else "O" for dtype in frame.dtypes}
    return kinds == {"b"} or kinds <= set("fiu")


def read_column(column: Any) -> Array:
    """Return a column of a table as a vector, with dtype object if it is not numeric."""
    kind = getattr(column.dtype, "kind", "O")
    if isinstance(column, np.ndarray):
        array = column
    elif isinstance(column.dtype, np.dtype):
        array = np.asarray(column.to_numpy())
    elif kind not in NUMBERS:
        array = np.asarray(column.to_numpy(dtype=object))
    elif column.isna().any():
        array = np.asarray(column.to_numpy(dtype="float64", na_value=np.nan))
    else:
        array = np.asarray(column.to_numpy(dtype="bool" if kind == "b" else f"{kind}8"))
    return _read_objects(array) if array.dtype.kind == "O" else array


def _read_objects(array: Array) -> Array:
    """Return objects as float64 if all are numbers or missing, else unchanged."""
    # Text that looks like a number stays text.
    if all(isinstance(value, numbers.Real) or is_missing(value) for value in array.flat):
        values = [np.nan if is_missing(value) else float(value) for value in array.flat]
        return np.array(values, "float64").reshape(array.shape)
    return array


def _quote(array: Array) -> str:
    """Return a text with an example of a value that is no number."""
    if array.dtype.kind not in "OSU":
        return ""
    others = (v for v in array.flat if not (isinstance(v, numbers.Real) or is_missing(v)))
    example = next(others, None)
    return "" if example is None else f", such as {str(example)[:40]!r}"
