"""Conversion of rows in any form to the arrays of a model's inputs."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_binclf._data.encoders import is_one_row
from keras_binclf._data.inputs import InputSpec, ModelInputs
from keras_binclf._data.shapes import count_dimensions, describe_shape, fit_rows, shapes_agree
from keras_binclf._data.sparse import convert_values, find_rows, keep_sparse, take_rows
from keras_binclf._data.tables import (
    Array,
    is_frame,
    is_pandas_frame,
    is_ragged,
    is_sparse,
    split_columns,
    to_array,
    to_array_or_tensor,
)

NOT_FINITE_HINT = (
    "A hidden layer can turn either into a plausible number: replace missing values as was done "
    "for training."
)


@dataclasses.dataclass(slots=True)
class Rows:
    """Arrays in the order of the model's inputs, all with a batch dimension.

    Attributes:
        arrays: one array for each input, all of the same length.
        is_one: whether they were given as one row without batch dimension.
    """

    arrays: list[Array]
    is_one: bool

    def __len__(self) -> int:
        return len(self.arrays[0])


class RowReader:
    """Converts rows in any form to the arrays of a model's inputs, and checks them.

    Args:
        inputs: the inputs of the model.
        owner: name of the public function or class that takes the rows, for messages.
        name: str, name of the argument. Defaults to `"x"`.
        allow_one: bool, whether one row without batch dimension is accepted. Defaults to `False`.
        finite: bool, whether NaN and infinity are refused. Defaults to `False`.
        is_batch: bool, whether the rows are a batch of a data set, as `fit` takes it: a dict may
            have keys of no input, which are left out, and an array for an encoder is the encoded
            matrix. Defaults to `False`.
    """

    def __init__(
        self,
        inputs: ModelInputs,
        owner: str,
        name: str = "x",
        *,
        allow_one: bool = False,
        finite: bool = False,
        is_batch: bool = False,
    ) -> None:
        self.inputs = inputs
        self.specs = inputs.specs
        self.owner = owner
        self.name = name
        self._allow_one = allow_one
        self._finite = finite
        self._is_batch = is_batch
        self._host_dtypes = [spec.host_dtype for spec in inputs.specs]

    def read(self, x: Any) -> Rows:
        """Return the rows in `x`.

        Args:
            x: array, table, sparse matrix or tensor; for a model with several inputs, a list or
                dict of them, or a table with a column for each input; for an input with an
                encoder, a table as the encoder was adapted to.

        Raises:
            TypeError: for values that are not numeric.
            ValueError: for wrong names, shapes and values.
        """
        usual = self._read_usual(x)
        if usual is not None:
            return usual
        return self._fit_all(list(map(self._read_part, self.specs, self.collect(x))))

    def read_in_chunks(self, x: Any, size: int) -> Iterator[Rows]:
        """Yield the rows in `x`, `size` at a time if a matrix is sparse, else all at once.

        Args:
            x: rows, as for `read`.
            size: int, number of rows of a sparse matrix that are made dense together.

        Raises:
            TypeError: for values that are not numeric.
            ValueError: for wrong names, shapes and values.
        """
        usual = self._read_usual(x)
        if usual is not None:
            yield usual
            return
        values = self.collect(x)
        kept = list(map(self._keep_sparse, self.specs, values))
        if not any(map(is_sparse, kept)):
            yield self._fit_all(list(map(self._read_part, self.specs, values)))
            return
        parts = [
            self._read_part(spec, value) if matrix is None else self._check_stored(spec, matrix)
            for spec, value, matrix in zip(self.specs, values, kept, strict=True)
        ]
        self._is_one_row(parts)  # Raises for one row beside the many of the matrix.
        self.check_lengths(parts)
        for start in range(0, parts[0].shape[0], size):
            yield self._fit_all([take_rows(part, start, size) for part in parts])

    def _read_part(self, spec: InputSpec, value: Any) -> Array:
        return to_array(value, self.name, self.owner, allow_text=spec.dtype == "string")

    def _fit_all(self, arrays: list[Array]) -> Rows:
        """Return arrays in the shapes and dtypes of the inputs, checked."""
        is_one = self._is_one_row(arrays)
        if is_one:
            arrays = [array[None] for array in arrays]
        arrays = list(map(self.fit, self.specs, arrays))
        self.check_lengths(arrays)
        return Rows(list(map(self._convert, self.specs, arrays)), is_one)

    def arrange(self, x: Any) -> Any:
        """Return the rows in `x` in the structure of the inputs, for `model.predict`.

        Dtypes are left for Keras to cast, and tensors of the backend are not copied. Sparse
        matrices stay sparse, for `sparse.predict`. Optional inputs may be None.

        Args:
            x: rows, as for `read`.

        Raises:
            TypeError: for values that are not numeric.
            ValueError: for wrong names and shapes.
        """
        values = list(map(self._arrange_one, self.specs, self.collect(x)))
        if all(value is None for value in values):
            raise self._error("given in one input at least", "None in all")
        self.check_lengths(values)
        return self.inputs.pack(values)

    def _arrange_one(self, spec: InputSpec, value: Any) -> Any:
        if value is None and len(self.specs) > 1:
            return None
        if spec.is_ragged and is_ragged(value):
            return value
        matrix = self._keep_sparse(spec, value)
        if matrix is not None:
            return convert_values(matrix, lambda values: self._convert_whole(spec, values))
        array = to_array_or_tensor(value, self.name, self.owner, spec.dtype in (None, "string"))
        if spec.dtype is None and len(array.shape) > 0:
            return array  # A subclassed model may take other shapes than the first.
        return self._convert_whole(spec, self.fit(spec, array))

    def _keep_sparse(self, spec: InputSpec, value: Any) -> Any | None:
        """Return a sparse matrix of a right shape in CSR form, or None for anything else."""
        matrix = keep_sparse(value)
        if matrix is None or spec.dtype == "string":
            return None
        if spec.dtype is not None:  # A subclassed model may take other shapes than the first.
            self.fit(spec, np.broadcast_to(0, matrix.shape))
        return matrix

    def _convert_whole(self, spec: InputSpec, array: Any) -> Any:
        """Return an array in the dtype of an input of whole numbers, else unchanged."""
        dtype = spec.host_dtype
        if isinstance(array, np.ndarray) and dtype is not None and dtype.kind in "iub":
            # Keras would make 1 of 1.7, and of 2**32 + 1 in int32.
            return self._convert(spec, array)
        return array

    def _read_usual(self, x: Any) -> Rows | None:
        """Return the rows of an array that needs no conversion, or None for anything else.

        The general path takes as long as a small network.
        """
        spec, dtype = self.specs[0], self._host_dtypes[0]
        # The dtype is asked for None on its own, which to NumPy is float64.
        if len(self.specs) > 1 or dtype is None or type(x) is not np.ndarray or dtype.kind == "O":
            return None
        if spec.encoder is not None:
            return None
        is_one = self._allow_one and x.shape == spec.shape  # No array has a shape with None in it.
        if not is_one and (x.ndim == 0 or x.shape[1:] != spec.shape):
            return None
        if x.dtype != dtype:
            return None
        array = np.ascontiguousarray(x[None] if is_one else x)
        if array.dtype.kind == "f":
            self._check_finite(spec, array)
        return Rows([array], is_one)

    def collect(self, x: Any) -> list[Any]:
        """Return the part of `x` for each input, tables encoded and anything else unchanged."""
        parts = zip(self.specs, self.collect_parts(x), strict=True)
        return [part if spec.encoder is None else self._encode(spec, part) for spec, part in parts]

    def _encode(self, spec: InputSpec, table: Any) -> Any:
        """Return the matrix of a table for the encoder of an input, or the vector of one row."""
        encoder: Any = spec.encoder
        is_matrix = isinstance(table, np.ndarray) or is_sparse(table)
        if keras.ops.is_tensor(table) or (self._is_batch and is_matrix):
            return table  # It is encoded already.
        if isinstance(table, dict):
            table = {name: _to_host(column) for name, column in table.items()}
        if not is_one_row(table, encoder):
            return encoder.encode(table)
        if not self._allow_one:
            raise self._error("a table of rows", "one row", spec, "Give a table of one row.")
        return encoder.encode_row(table)[0]

    def collect_parts(self, x: Any) -> list[Any]:
        """Return the part of `x` for each input, unchanged."""
        if len(self.specs) == 1 and self.specs[0].encoder is not None:
            name = self.specs[0].name
            is_named = isinstance(x, dict) and list(x) == [name] and count_dimensions(x[name]) > 1
            return [x[name] if is_named else x]
        if is_frame(x) and len(self.specs) > 1:
            x = self._split_frame(x)
        if isinstance(x, dict):
            return self._collect_named(x)
        if len(self.specs) > 1:
            return self._collect_nested(x)
        (spec,) = self.specs
        is_wrapped = isinstance(x, list | tuple) and len(x) == 1 and spec.shape is not None
        if is_wrapped and count_dimensions(x[0]) == len(spec.shape or ()) + 1:
            return list(x)  # Keras takes `[x]` for `x`, too.
        return [x]

    def _split_frame(self, frame: Any) -> dict[Any, Any]:
        """Return the columns of a table as matrices of one column, by name."""
        if not is_pandas_frame(frame):
            return {name: column[:, None] for name, column in split_columns(frame).items()}
        if not frame.columns.is_unique:
            twice = frame.columns[frame.columns.duplicated()].unique()
            raise self._error("a table that has each column once", f"several of {_join(twice)}")
        return {name: column.to_frame() for name, column in split_columns(frame).items()}

    def _collect_named(self, x: dict[Any, Any]) -> list[Any]:
        names = [spec.name for spec in self.specs]
        aliases = [spec.alias for spec in self.specs]
        if self._has_names(x, aliases):
            return [x[alias] for alias in aliases]
        structure = self.inputs.structure
        if isinstance(structure, dict) and set(structure) != set(names):
            if self._has_names(x, names):
                return [x[name] for name in names]
            return self._collect_nested(x)
        self._check_names(x, names)
        return [x[name] for name in names]

    def _has_names(self, x: dict[Any, Any], names: list[str]) -> bool:
        return set(names) <= set(x) if self._is_batch else set(names) == set(x)

    def _collect_nested(self, x: Any) -> list[Any]:
        found: dict[str, Any] = {}
        self._walk(self.inputs.structure, x, found)
        return [found[spec.name] for spec in self.specs]

    def _walk(self, structure: Any, x: Any, found: dict[str, Any]) -> None:
        """Collect the parts of `x` by name, along the structure of the inputs."""
        if isinstance(structure, InputSpec):
            found[structure.name] = x
            return
        if isinstance(structure, dict):
            names = sorted(structure)  # Backends keep the order of a dict or sort it.
            self._check_names(x, names)
            parts = [(structure[name], x[name]) for name in names]
        else:
            if not isinstance(x, list | tuple) or len(x) != len(structure):
                given = f"{len(x)} parts" if isinstance(x, list | tuple) else type(x).__name__
                raise self._error(f"a list of {len(structure)} inputs", given)
            parts = list(zip(structure, x, strict=True))
        for part, given in parts:
            self._walk(part, given, found)

    def _check_names(self, x: Any, names: list[str]) -> None:
        expected = "a dict with the keys " + _join(names)
        if not isinstance(x, dict):
            raise self._error(expected, type(x).__name__)
        missing = [name for name in names if name not in x]
        unexpected = [] if self._is_batch else [name for name in x if name not in names]
        received = [f"without {_join(missing)}"] * bool(missing)
        received += [f"with {_join(unexpected)}"] * bool(unexpected)
        if received:
            raise self._error(expected, "a dict " + " and ".join(received))

    def _is_one_row(self, arrays: list[Array]) -> bool:
        if not self._allow_one:
            return False
        known = [
            (spec, array)
            for spec, array in zip(self.specs, arrays, strict=True)
            if spec.shape is not None
        ]
        single = [
            array.ndim == len(spec.shape or ()) and shapes_agree(spec.shape or (), array.shape)
            for spec, array in known
        ]
        if any(single) and not all(single):
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise self._error("one row in all inputs, or many in all", f"the shapes {shapes}")
        return bool(single) and single[0]

    def fit(self, spec: InputSpec, array: Any) -> Any:
        """Return rows in the shape of an input, with a last dimension of 1 added or dropped."""
        if spec.shape is None:
            if len(array.shape) == 0:
                raise self._error("of shape (n, ...)", "shape ()", spec)
            return array
        # A vector could also be one row.
        fitted = fit_rows(array, spec.shape, may_expand=not self._allow_one)
        if fitted is None:
            received = f"shape {tuple(array.shape)}"
            raise self._error(describe_shape(spec.shape, self._allow_one), received, spec)
        return fitted

    def check_lengths(self, arrays: list[Any]) -> None:
        """Raise `ValueError` for inputs with different numbers of rows."""
        pairs = [(s, x) for s, x in zip(self.specs, arrays, strict=True) if x is not None]
        if len({array.shape[0] for _, array in pairs}) > 1:
            counts = ", ".join(f"{array.shape[0]} rows of {spec.name!r}" for spec, array in pairs)
            raise self._error("of equal length in all inputs", counts)

    def _convert(self, spec: InputSpec, array: Array) -> Array:
        """Return the array in the dtype of its input; raise if that changes values."""
        dtype = spec.host_dtype
        if array.dtype.kind in "OSU":
            return array
        if dtype is None:
            dtype = _usual_dtype(array)
        if array.dtype == dtype:
            converted = array
        else:
            with np.errstate(all="ignore"):  # Values that do not fit are an error below.
                converted = array.astype(dtype)
        if array.dtype.kind == "f":
            self._check_finite(spec, converted if dtype.kind == "f" else array)
        if dtype.kind != "f" and converted is not array and not (converted == array).all():
            raise self._error(f"whole numbers that {dtype} holds", f"dtype {array.dtype}", spec)
        return np.ascontiguousarray(converted)

    def _check_finite(self, spec: InputSpec, array: Array) -> None:
        if not self._finite or spec.encoder is not None or np.isfinite(array).all():
            return  # An encoder refuses infinity, and the model replaces NaN.
        rows = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        raise self._not_finite(spec, array.dtype, rows, len(array))

    def _check_stored(self, spec: InputSpec, matrix: Any) -> Any:
        """Return a CSR matrix; raise if a value is not finite in the dtype of its input."""
        if self._finite and matrix.dtype.kind == "f":
            with np.errstate(all="ignore"):
                values = matrix.data.astype(spec.host_dtype or _usual_dtype(matrix.data))
            places = np.flatnonzero(~np.isfinite(values))
            if len(places):
                rows = find_rows(matrix, places)
                raise self._not_finite(spec, values.dtype, rows, matrix.shape[0])
        return matrix

    def _not_finite(
        self, spec: InputSpec, dtype: np.dtype[Any], rows: Array, num_rows: int
    ) -> ValueError:
        received = (
            f"NaN or infinity in {len(rows)} of {num_rows} rows, the first at index {rows[0]}"
        )
        return self._error(f"finite in {dtype}", received, spec, NOT_FINITE_HINT)

    def _error(
        self, expected: str, received: str, spec: InputSpec | None = None, hint: str = ""
    ) -> ValueError:
        where = f" (input {spec.name!r})" if spec and len(self.specs) > 1 else ""
        text = f"`{self.name}` of {self.owner} must be {expected}{where}. Received: {received}."
        return ValueError(f"{text} {hint}" if hint else text)


def _to_host(column: Any) -> Any:
    return keras.ops.convert_to_numpy(column) if keras.ops.is_tensor(column) else column


def _join(names: Iterable[Any]) -> str:
    return ", ".join(repr(name) for name in names)


def _usual_dtype(array: Array) -> np.dtype[Any]:
    """Return the dtype of numbers of this kind for an input that accepts any."""
    # JAX has no int64 by default, and would truncate the numbers.
    integer = "int32" if keras.backend.backend() == "jax" else "int64"
    names = {"f": keras.config.floatx(), "b": "bool"}
    dtype: np.dtype[Any] = np.dtype(names.get(array.dtype.kind, integer))
    return dtype
