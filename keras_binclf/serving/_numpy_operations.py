"""Operations of JAX, by the names that they have in a jaxpr, as functions of NumPy arrays.

Those of dense layers, their activations and normalizations, and embeddings: few, since XLA makes
one formula of several operations, and rounds, overflows and signs zeros in its own way. So there is
nothing that has steps or poles (`floor`, `sign`, a division by what depends on the row), or
overflows on usual rows (`exp`), and no division of integers, which rounds in another direction.
"""

import enum
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_binclf._data.inputs import Array

Operation = Callable[..., Any]
"""Takes arrays, changes none of them, and returns one."""


class UnsupportedError(Exception):
    """NumPy would do something else, or nothing."""


class Origin(enum.Enum):
    """What an array depends on."""

    WEIGHTS = "weights and constants alone"
    ROWS = "rows, as they came"
    COMPUTED = "computed from rows"


COST_OF_CALL, COST_OF_ELEMENT, COST_OF_PYTHON_ELEMENT = 10_000, 10, 1_000
"""In multiplications of a matrix product, 15 in a nanosecond: a call takes about 1 µs."""


def make_operation(
    name: str, params: Any, avals: list[Any], out: Any, origins: list[Origin]
) -> tuple[Operation, int]:
    """Return an operation of a jaxpr, and about what it costs, in multiplications.

    Args:
        name: of the primitive.
        params: of the equation.
        avals: shapes and dtypes of what it takes.
        out: shape and dtype of what it makes.
        origins: of what it takes.

    Raises:
        UnsupportedError: where NumPy has nothing that surely gives the same.
    """
    of_element = COST_OF_PYTHON_ELEMENT if name in ("erf", "erfc") else COST_OF_ELEMENT
    if name == "dot_general":
        of_element += math.prod(avals[0].shape[i] for i in params["dimension_numbers"][0][0])
    cost = COST_OF_CALL + of_element * math.prod(out.shape)
    kinds = {aval.dtype.kind for aval in avals}
    if name in OF_NUMBERS:
        return OF_NUMBERS[name], cost
    if name in OF_FLOATS and kinds == {"f"}:
        return OF_FLOATS[name], cost
    if name in OF_WEIGHTS and kinds == {"f"} and origins[-1] is Origin.WEIGHTS:
        return OF_WEIGHTS[name], cost
    if name in OF_BOOLS and kinds == {"b"}:
        return OF_BOOLS[name], cost
    if name == "convert_element_type":
        return _make_conversion(avals[0].dtype, out.dtype, origins[0]), cost
    if name in MAKERS:
        return MAKERS[name](params, avals, out), cost
    raise UnsupportedError(f"operation {name} of {', '.join(sorted(kinds))}")


def _logistic(x: Array) -> Any:
    return 1 / (1 + np.exp(-x))


def _square(x: Array) -> Any:
    return x * x


def _clamp(low: Array, x: Array, high: Array) -> Any:
    return np.minimum(np.maximum(x, low), high)


def _for_each(function: Callable[[float], float]) -> Operation:
    """Return a function of numbers as one of arrays; NumPy has no error function."""
    of_objects = np.frompyfunc(function, 1, 1)
    return lambda x: np.asarray(of_objects(x), x.dtype)


OF_NUMBERS: dict[str, Operation] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "clamp": _clamp,
    "copy": np.asarray,
    "copy_p": np.asarray,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "square": _square,
    "sub": np.subtract,
}
OF_FLOATS: dict[str, Operation] = {
    "erf": _for_each(math.erf),
    "erfc": _for_each(math.erfc),
    "expm1": np.expm1,
    "logistic": _logistic,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh,
}
OF_WEIGHTS: dict[str, Operation] = {
    # Its last operand is the divisor.
    "div": np.divide,
    "sqrt": np.sqrt,
}
OF_BOOLS: dict[str, Operation] = {
    "and": np.logical_and,
    "not": np.logical_not,
    "or": np.logical_or,
    "xor": np.logical_xor,
}


def _make_product(params: Any, avals: list[Any], out: Any) -> Operation:
    axes, (batch, _) = params["dimension_numbers"]
    left, right = avals
    if batch or left.dtype.kind != "f":
        raise UnsupportedError("product of batches, or of integers")
    left_axes, right_axes = map(tuple, axes)
    if (left_axes, right_axes) == ((left.ndim - 1,), (0,)) and right.ndim == 2:
        return np.dot
    return lambda x, y: np.tensordot(x, y, (left_axes, right_axes))


def _make_broadcast(params: Any, avals: list[Any], out: Any) -> Operation:
    (operand,) = avals
    kept = params["broadcast_dimensions"]
    shape = [1] * out.ndim
    for axis, size in zip(kept, operand.shape, strict=True):
        shape[axis] = size
    if math.prod(shape) == math.prod(out.shape):
        return lambda x: x.reshape(out.shape)
    return lambda x: np.broadcast_to(x.reshape(shape), out.shape)


def _make_reshape(params: Any, avals: list[Any], out: Any) -> Operation:
    order = params.get("dimensions")
    if order is not None and tuple(order) != tuple(range(avals[0].ndim)):
        raise UnsupportedError(f"reshape in the order {order}")
    return lambda x: x.reshape(out.shape)


def _make_squeeze(params: Any, avals: list[Any], out: Any) -> Operation:
    return lambda x: x.reshape(out.shape)


def _make_conversion(source: np.dtype[Any], target: np.dtype[Any], origin: Origin) -> Operation:
    if source.kind != "f" or target.kind == "f":
        return lambda x: x.astype(target)
    if origin is not Origin.ROWS or (source.name, target.name) != ("float32", "int32"):
        raise UnsupportedError(f"{source} as {target}: {origin.value}")
    bounds = np.iinfo(np.int32)

    def cut(x: Array) -> Any:
        is_inside = np.abs(x) < float(bounds.max)
        if is_inside.all():
            return x.astype(target)
        # NumPy does not say what becomes of the others.
        nearest = np.where(x > 0, bounds.max, np.where(np.isnan(x), 0, bounds.min))
        return np.where(is_inside, x, nearest).astype(target)

    return cut


def _make_selection(params: Any, avals: list[Any], out: Any) -> Operation:
    which, *cases = avals
    if which.dtype.kind != "b" or len(cases) != 2:
        raise UnsupportedError("choice among more than two")
    return lambda which, no, yes: np.where(which, yes, no)


def _make_reduction(function: Operation) -> Callable[..., Operation]:
    def make(params: Any, avals: list[Any], out: Any) -> Operation:
        axes = tuple(params["axes"])
        if out.dtype != avals[0].dtype:
            raise UnsupportedError("sum in another dtype")
        return lambda x: function(x, axis=axes)

    return make


def _make_power(params: Any, avals: list[Any], out: Any) -> Operation:
    exponent = params["y"]
    if avals[0].dtype.kind != "f" or exponent < 0:
        raise UnsupportedError(f"power {exponent} of {avals[0].dtype}")
    return lambda x: x**exponent


def _make_slice(params: Any, avals: list[Any], out: Any) -> Operation:
    strides = params["strides"] or [None] * len(params["start_indices"])
    parts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    index = tuple(slice(*part) for part in parts)
    return lambda x: x[index]


def _make_concatenation(params: Any, avals: list[Any], out: Any) -> Operation:
    axis = params["dimension"]
    return lambda *parts: np.concatenate(parts, axis)


def _make_transposition(params: Any, avals: list[Any], out: Any) -> Operation:
    order = params["permutation"]
    return lambda x: x.transpose(order)


def _make_gathering(params: Any, avals: list[Any], out: Any) -> Operation:
    """Return what an embedding does: rows of a table, NaN for those that it does not have."""
    table, indices = avals
    numbers = params["dimension_numbers"]
    batch = indices.ndim - 1
    takes_rows = (
        tuple(numbers.collapsed_slice_dims) == tuple(numbers.start_index_map) == (0,)
        and tuple(numbers.offset_dims) == tuple(range(batch, batch + table.ndim - 1))
        and tuple(params["slice_sizes"]) == (1, *table.shape[1:])
        and indices.shape[-1] == 1
        and out.ndim > 0
        and not getattr(numbers, "operand_batching_dims", ())
    )
    value = params["fill_value"]
    fills_with_nan = params["mode"].name == "FILL_OR_DROP" and (value is None or np.isnan(value))
    if not (takes_rows and fills_with_nan and table.dtype.kind == "f"):
        raise UnsupportedError("gather of another kind")

    def gather(table: Array, indices: Array) -> Array:
        numbers = indices[..., 0]
        is_known = (numbers >= 0) & (numbers < len(table))
        rows = table[np.where(is_known, numbers, 0)]
        rows[~is_known] = np.nan
        return rows

    return gather


MAKERS: dict[str, Callable[..., Operation]] = {
    "broadcast_in_dim": _make_broadcast,
    "concatenate": _make_concatenation,
    "dot_general": _make_product,
    "expand_dims": _make_squeeze,
    "gather": _make_gathering,
    "integer_pow": _make_power,
    "reduce_max": _make_reduction(np.max),
    "reduce_min": _make_reduction(np.min),
    "reduce_sum": _make_reduction(np.sum),
    "reshape": _make_reshape,
    "select_n": _make_selection,
    "slice": _make_slice,
    "squeeze": _make_squeeze,
    "transpose": _make_transposition,
}
