"""Rows as users give them, checked and turned into the arrays that a model takes."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_binclf._validation import Shape

Array = np.ndarray[Any, Any]

NUMBERS = "fiub"
"""Kinds of NumPy dtypes that count as numbers."""

NOT_FINITE_HINT = (
    "A hidden layer can turn either into a plausible number: replace missing values as was done "
    "for training."
)


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a model.

    Attributes:
        name: as in `keras.Input`, empty where the model is subclassed.
        shape: of one row, None where a size is not known.
        dtype: of NumPy, None where the model takes any.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any] | None

    def describe(self) -> str:
        """Return the shapes that rows can have, in words."""
        sizes = ["?" if size is None else str(size) for size in self.shape]
        row = f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"
        rows = f"({', '.join(['n', *sizes])})" if sizes else "(n,)"
        return f"of shape {rows}, or {row} for one row"


@dataclasses.dataclass(slots=True)
class Rows:
    """Arrays in the order of the model's inputs, all with a batch dimension.

    Attributes:
        arrays: one for each input, of the same length.
        is_one: whether they came as one row without batch dimension.
    """

    arrays: list[Array]
    is_one: bool

    def __len__(self) -> int:
        return len(self.arrays[0])


def describe_inputs(model: keras.Model, owner: str) -> Any:
    """Return the inputs of a built model: an `Input`, or lists and dicts of them."""
    if not model.built:
        raise ValueError(
            f"{owner} needs a built model. Received: model {model.name!r}, which has no weights "
            "yet. Call it once on a few rows, or start it with `keras.Input`."
        )
    if isinstance(model, keras.Sequential):
        return _describe_symbol(model.inputs[0], owner)
    if getattr(model, "inputs", None):
        return keras.tree.map_structure(lambda x: _describe_symbol(x, owner), model.input)
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise ValueError(
            f"{owner} needs to know the inputs of a model. Received: model {model.name!r}, which "
            "does not say what it was built with. Let `call` take one argument, of which all "
            "inputs are parts, and build the model by calling it on a few rows."
        )
    return _describe_shapes(shapes)


def _describe_symbol(tensor: Any, owner: str) -> Input:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        raise ValueError(
            f"{owner} takes numbers only. Received: a model whose input {tensor.name!r} is of "
            "dtype string. Look the words up first, and give the model their numbers."
        )
    # NumPy has no bfloat16; Keras casts to the dtype of the input anyway.
    host = np.dtype("float32" if dtype.startswith(("bfloat", "float8")) else dtype)
    return Input(tensor.name, tuple(tensor.shape[1:]), host)


def _describe_shapes(shapes: Any) -> Any:
    if isinstance(shapes, dict):
        return {name: _describe_shapes(shape) for name, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return Input("", tuple(shapes[1:]), None)
    return [_describe_shapes(shape) for shape in shapes]


def list_inputs(structure: Any) -> list[Input]:
    """Return the inputs in the order in which `pack` takes them."""
    if isinstance(structure, Input):
        return [structure]
    parts = structure.values() if isinstance(structure, dict) else structure
    return [leaf for part in parts for leaf in list_inputs(part)]


def pack(structure: Any, tensors: Iterator[Any]) -> Any:
    """Return the tensors, one for each input, in the form in which the model takes them."""
    if isinstance(structure, Input):
        return next(tensors)
    if isinstance(structure, dict):
        return {name: pack(part, tensors) for name, part in structure.items()}
    return type(structure)(pack(part, tensors) for part in structure)


class RowReader:
    """Reads what a model takes; every mistake is one error, before anything is computed.

    Args:
        model: built Keras model.
        owner: name of the class that reads, for messages.

    Raises:
        ValueError: if the model is not built, or takes strings.
    """

    def __init__(self, model: keras.Model, owner: str) -> None:
        self.owner = owner
        self.structure = describe_inputs(model, owner)
        self.inputs = list_inputs(self.structure)

    def read(self, x: Any) -> Rows:
        """Return the rows in `x`.

        Args:
            x: array, or a list or dict of arrays, of one row or of many.

        Raises:
            TypeError: for what is no numbers.
            ValueError: for wrong names, shapes and values.
        """
        usual = self._read_usual(x)
        if usual is not None:
            return usual
        leaves = self._collect(x)
        arrays = list(map(self._to_array, self.inputs, leaves))
        is_one = self._is_one_row(arrays)
        if is_one:
            arrays = [array[None] for array in arrays]
        elif len(arrays) > 1:
            self._check_lengths(arrays)
        return Rows(list(map(self._convert, self.inputs, arrays)), is_one)

    def _read_usual(self, x: Any) -> Rows | None:
        """Return the rows of an array that needs no conversion; None for anything else.

        What else is asked of rows would take as long as a small network.
        """
        leaf = self.inputs[0]
        # The dtype is asked for None on its own, which to NumPy is float64.
        if len(self.inputs) > 1 or leaf.dtype is None or type(x) is not np.ndarray:
            return None
        is_one = x.shape == leaf.shape  # No array has a shape with None in it.
        if not is_one and (x.ndim == 0 or x.shape[1:] != leaf.shape):
            return None
        if x.dtype != leaf.dtype:
            return None
        array = np.ascontiguousarray(x[None] if is_one else x)
        if array.dtype.kind == "f":
            self._check_finite(leaf, array)
        return Rows([array], is_one)

    def _collect(self, x: Any) -> list[Any]:
        """Return what `x` holds for each input."""
        if isinstance(x, np.ndarray) and len(self.inputs) == 1:
            return [x]
        if isinstance(x, dict) and not isinstance(self.structure, dict):
            names = [leaf.name for leaf in self.inputs]
            self._check_names(x, names)
            return [x[name] for name in names]
        if len(self.inputs) > 1 or isinstance(self.structure, dict):
            return self._walk(self.structure, x)
        (leaf,) = self.inputs
        if isinstance(x, list | tuple) and len(x) == 1 and np.ndim(x[0]) == len(leaf.shape) + 1:
            return list(x)  # Keras takes `[x]` for `x`, too.
        return [x]

    def _walk(self, structure: Any, x: Any) -> list[Any]:
        if isinstance(structure, Input):
            return [x]
        if isinstance(structure, dict):
            self._check_names(x, list(structure))
            parts = [(structure[name], x[name]) for name in structure]
        else:
            if not isinstance(x, list | tuple) or len(x) != len(structure):
                given = f"{len(x)} parts" if isinstance(x, list | tuple) else type(x).__name__
                raise self._error(f"a list of {len(structure)} inputs", f"{given}")
            parts = list(zip(structure, x, strict=True))
        return [value for part, given in parts for value in self._walk(part, given)]

    def _check_names(self, x: Any, names: list[str]) -> None:
        expected = "a dict with the keys " + ", ".join(repr(name) for name in names)
        if not isinstance(x, dict):
            raise self._error(expected, type(x).__name__)
        if set(x) != set(names):
            raise self._error(expected, "the keys " + ", ".join(repr(name) for name in x))

    def _to_array(self, leaf: Input, value: Any) -> Array:
        if not isinstance(value, np.ndarray):
            is_tensor = keras.ops.is_tensor(value)
            try:
                value = keras.ops.convert_to_numpy(value) if is_tensor else np.asarray(value)
            except ValueError as error:  # lists of different lengths
                raise self._error(leaf.describe(), f"no rectangular array ({error})") from None
        if value.dtype.kind not in NUMBERS:
            message = self._error("numbers", f"dtype {value.dtype}", leaf)
            raise TypeError(str(message))
        if not _fits(leaf.shape, value.shape):
            raise self._error(leaf.describe(), f"shape {value.shape}", leaf)
        return np.asarray(value)

    def _is_one_row(self, arrays: list[Array]) -> bool:
        single = [
            array.ndim == len(leaf.shape) for leaf, array in zip(self.inputs, arrays, strict=True)
        ]
        if any(single) and not all(single):
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise self._error("one row in all inputs, or many in all", f"the shapes {shapes}")
        return single[0]

    def _check_lengths(self, arrays: list[Array]) -> None:
        lengths = [len(array) for array in arrays]
        if len(set(lengths)) > 1:
            counts = ", ".join(str(length) for length in lengths)
            raise self._error("of as many rows in each input", f"{counts} rows")

    def _convert(self, leaf: Input, array: Array) -> Array:
        """Return the array in the dtype of its input, if that holds the same values."""
        dtype = _usual_dtype(array) if leaf.dtype is None else leaf.dtype
        is_float = array.dtype.kind == "f"
        if array.dtype == dtype:
            converted = array
        else:
            with np.errstate(all="ignore"):  # What does not fit is an error below.
                converted = array.astype(dtype)
        if is_float:
            self._check_finite(leaf, converted if dtype.kind == "f" else array)
        if dtype.kind != "f" and converted is not array and not (converted == array).all():
            raise self._error(f"whole numbers that {dtype} holds", f"dtype {array.dtype}", leaf)
        return np.ascontiguousarray(converted)

    def _check_finite(self, leaf: Input, array: Array) -> None:
        finite = np.isfinite(array)
        if finite.all():
            return
        rows = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1))
        received = (
            f"NaN or infinity in {len(rows)} of {len(array)} rows, the first at index {rows[0]}"
        )
        raise self._error(f"finite in {array.dtype}", received, leaf, NOT_FINITE_HINT)

    def _error(
        self, expected: str, received: str, leaf: Input | None = None, hint: str = ""
    ) -> ValueError:
        where = f" (input {leaf.name!r})" if leaf and leaf.name and len(self.inputs) > 1 else ""
        text = f"`x` of {self.owner} must be {expected}{where}. Received: {received}."
        return ValueError(f"{text} {hint}" if hint else text)


def _fits(expected: Shape, shape: tuple[int, ...]) -> bool:
    """Whether an array of `shape` is one row, or rows, of the shape that is expected."""
    if expected in (shape, shape[1:]):
        return True
    if len(shape) not in (len(expected), len(expected) + 1):
        return False
    row = shape[len(shape) - len(expected) :]
    return all(size in (None, given) for size, given in zip(expected, row, strict=True))


def _usual_dtype(array: Array) -> np.dtype[Any]:
    """Return the dtype in which a model that takes any is given numbers of this kind."""
    # JAX has no int64 unless it is told to, and would cut the numbers off.
    integer = "int32" if keras.backend.backend() == "jax" else "int64"
    names = {"f": keras.config.floatx(), "b": "bool"}
    dtype: np.dtype[Any] = np.dtype(names.get(array.dtype.kind, integer))
    return dtype
