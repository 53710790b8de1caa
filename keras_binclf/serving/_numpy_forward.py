"""What JAX recorded of a small model, computed by NumPy.

On a CPU, JAX hands a computation to another thread, and waking that thread takes several times as
long as a small network itself. So a few rows of a small model are computed here, one operation
after the other, in the thread that asks. A jaxpr, what JAX compiles from, may be read by others:
https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html
"""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_binclf._data.inputs import Array
from keras_binclf.serving._numpy_operations import (
    Operation,
    Origin,
    UnsupportedError,
    make_operation,
)

MAX_COST = 1_000_000
"""Of one batch, as of `make_operation`: about 70 µs, in which JAX's thread just wakes up."""

MAX_COST_OF_WEIGHTS, MAX_BYTES_OF_WEIGHTS = 100_000_000, 4_000_000
"""Of what is computed again when a weight changes, and of weights, which are held until then."""

DTYPES = ("bool", "int8", "int32", "int64", "uint8", "uint32", "float32", "float64")
"""Those in which NumPy does the same, and as fast: none of half precision."""

INLINED = {"custom_jvp_call": "call_jaxpr", "jit": "jaxpr", "pjit": "jaxpr"}
"""Operations that hold others, and the parameter that they are in."""

Step = tuple[Operation, tuple[int, ...], int]
"""An operation, the slots of what it takes, and the slot of what it makes."""


class NumpyForward:
    """The operations of a jaxpr, as a function of NumPy arrays.

    What depends on weights alone is computed once, and again when a weight is another array: JAX
    changes none in place.

    Args:
        closed: `ClosedJaxpr` of one result, whose first arguments are weights and whose others are
            the arrays of a batch.
        values: the weights.
        arrays: a batch, with which each operation is tried.

    Raises:
        UnsupportedError: where NumPy cannot do surely the same, or is slower.
    """

    def __init__(self, closed: Any, values: Sequence[Any], arrays: list[Array]) -> None:
        num_bytes = sum(value.nbytes for value in values)
        if num_bytes > MAX_BYTES_OF_WEIGHTS:
            raise UnsupportedError(f"{num_bytes} bytes of weights")
        self._recording = _Recording(closed, len(values))
        self._dtypes = [aval.dtype for aval in closed.in_avals[len(values) :]]
        self._inputs = slice(len(values), len(values) + len(arrays))
        self._folded: tuple[list[Any], list[Any]] | None = None
        with np.errstate(all="ignore"):
            self._recording.check(self._compute(list(values), arrays))

    def __call__(self, values: list[Any], arrays: list[Array]) -> Array:
        """Return what the jaxpr makes of weights and a batch."""
        with np.errstate(all="ignore"):
            result: Array = self._compute(values, arrays)[self._recording.result]
        return result

    def _compute(self, values: list[Any], arrays: list[Array]) -> list[Any]:
        slots = self._fold(values).copy()
        # JAX cuts what it is given to these dtypes, such as int64 to int32.
        slots[self._inputs] = [
            array if array.dtype == dtype else array.astype(dtype)
            for array, dtype in zip(arrays, self._dtypes, strict=True)
        ]
        return _run(self._recording.steps, slots)

    def _fold(self, values: list[Any]) -> list[Any]:
        """Return the slots with all that depends on weights alone."""
        folded = self._folded
        if folded is None or not all(map(operator.is_, folded[0], values)):
            slots = self._recording.constants.copy()
            slots[: len(values)] = map(np.asarray, values)
            folded = self._folded = (values, _run(self._recording.early_steps, slots))
        return folded[1]


def _run(steps: list[Step], slots: list[Any]) -> list[Any]:
    for operation, sources, target in steps:
        slots[target] = operation(*[slots[source] for source in sources])
    return slots


class _Recording:
    """A jaxpr as two lists of steps over numbered slots.

    Attributes:
        constants: what the slots hold before any step, None for what is computed or given.
        early_steps: those that depend on weights and constants alone.
        steps: all others.
        result: slot of the result.

    Raises:
        UnsupportedError: where NumPy cannot do surely the same, or is slower.
    """

    def __init__(self, closed: Any, num_weights: int) -> None:
        self.constants: list[Any] = []
        self.early_steps: list[Step] = []
        self.steps: list[Step] = []
        self._avals: list[Any] = []
        self._origins: list[Origin] = []
        self._cost = self._early_cost = 0
        for number, variable in enumerate(closed.jaxpr.invars):
            self._add(variable.aval, Origin.WEIGHTS if number < num_weights else Origin.ROWS)
        given = list(range(len(self._avals)))
        (self.result,) = self._read(closed, given)
        if self._cost > MAX_COST or self._early_cost > MAX_COST_OF_WEIGHTS:
            raise UnsupportedError(f"a cost of {self._cost}, of weights {self._early_cost}")

    def check(self, slots: list[Any]) -> None:
        """Raise if what is in the slots is of another kind than JAX says."""
        for value, aval in zip(slots, self._avals, strict=True):
            if (value.shape, value.dtype) != (aval.shape, aval.dtype):
                raise UnsupportedError(f"{value.dtype}{value.shape} for {aval}")

    def _add(self, aval: Any, origin: Origin, constant: Any = None) -> int:
        """Return a new slot."""
        if str(aval.dtype) not in DTYPES or 0 in aval.shape:
            raise UnsupportedError(f"arrays of {aval}")
        self.constants.append(constant)
        self._avals.append(aval)
        self._origins.append(origin)
        return len(self.constants) - 1

    def _add_constant(self, value: Any, aval: Any) -> int:
        # A copy, since it may be an array of the layer's owner.
        return self._add(aval, Origin.WEIGHTS, np.array(value, aval.dtype))

    def _read(self, closed: Any, given: list[int]) -> list[int]:
        """Take the operations of a jaxpr over, and return the slots of its results."""
        jaxpr = closed.jaxpr
        slots = dict(zip(jaxpr.invars, given, strict=True))
        for variable, value in zip(jaxpr.constvars, closed.consts, strict=True):
            slots[variable] = self._add_constant(value, variable.aval)

        def find(atom: Any) -> int:
            # A literal has a value, and cannot be a key.
            return self._add_constant(atom.val, atom.aval) if hasattr(atom, "val") else slots[atom]

        for equation in jaxpr.eqns:
            sources = [find(atom) for atom in equation.invars]
            targets = self._take(equation, sources)
            slots.update(zip(equation.outvars, targets, strict=True))
        return [find(atom) for atom in jaxpr.outvars]

    def _take(self, equation: Any, sources: list[int]) -> list[int]:
        """Take one operation over, and return the slots of its results."""
        name = equation.primitive.name
        if name in INLINED:
            return self._read(equation.params[INLINED[name]], sources)
        if len(equation.outvars) != 1:
            raise UnsupportedError(f"{len(equation.outvars)} results of {name}")
        aval = equation.outvars[0].aval
        avals = [self._avals[source] for source in sources]
        origins = [self._origins[source] for source in sources]
        operation, cost = make_operation(name, equation.params, avals, aval, origins)
        is_early = all(origin is Origin.WEIGHTS for origin in origins)
        target = self._add(aval, Origin.WEIGHTS if is_early else Origin.COMPUTED)
        (self.early_steps if is_early else self.steps).append((operation, tuple(sources), target))
        if is_early:
            self._early_cost += cost
        else:
            self._cost += cost
        return [target]
