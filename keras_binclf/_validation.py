"""Checks of arguments, and the common form of error messages."""

import difflib
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Tensor = Any
"""A tensor of the current backend, a `KerasTensor`, or a NumPy array."""

Shape = tuple[int | None, ...]
"""A shape, with None for an unknown size."""


def error_message(name: str, owner: str, expected: str, value: Any, hint: str = "") -> str:
    """Return a message with the wrong argument, its expected and received value, and a way out."""
    text = f"`{name}` of {owner} must be {expected}. Received: {name}={value!r}."
    return f"{text} {hint}" if hint else text


def suggest_nearest(name: Any, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "Did you mean ...?" with the known name nearest to `name`, or an empty string.

    Args:
        name: the unknown name.
        known: the known names.
        cutoff: least similarity, from 0 to 1, as in `difflib.get_close_matches`.
    """
    nearest = difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)
    return f"Did you mean {nearest[0]!r}?" if nearest else ""


def is_real(value: Any) -> bool:
    """Whether `value` is a number of Python or NumPy; a bool is not one."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer of Python or NumPy; a bool is not one."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def to_list(value: Any) -> list[Any] | None:
    """Return a sequence or a one-dimensional array as a list, and None for anything else."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    return None


def check_bool(value: Any, name: str, owner: str) -> bool:
    """Return `value` if it is a bool, else raise `TypeError`."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(error_message(name, owner, "a bool", value))
    return bool(value)


def check_plain_numbers(value: Any, name: str, owner: str) -> None:
    """Raise `TypeError` for masked values and complex numbers.

    NumPy and the backends would drop the mask and the imaginary part.

    Args:
        value: array, tensor, or list of them; anything else is ignored.
        name: name of the argument.
        owner: name of the function or class with that argument.
    """
    parts = value if isinstance(value, list | tuple) else [value]
    masked = [part for part in parts if isinstance(part, np.ma.MaskedArray)]
    count = sum(int(np.ma.getmaskarray(part).sum()) for part in masked)
    if count:
        total = sum(part.size for part in masked)
        raise TypeError(
            f"`{name}` of {owner} must be an array without masked values. Received: {count} of "
            f"{total} values masked. Leave out those rows, or fill the values."
        )
    for part in parts:
        # Tensors of TensorFlow and PyTorch have no `dtype.kind`.
        if isinstance(part, complex) or "complex" in str(getattr(part, "dtype", "")):
            raise TypeError(
                f"`{name}` of {owner} must be real numbers. Received: complex numbers. Take the "
                "part that is meant, as with `numpy.real`."
            )


def check_choice(value: Any, name: str, owner: str, choices: Iterable[Any], hint: str = "") -> Any:
    """Return `value` if it is one of `choices`, else raise `ValueError`."""
    known = list(choices)
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in known):
        expected = "one of " + ", ".join(repr(choice) for choice in known)
        raise ValueError(error_message(name, owner, expected, value, hint))
    return value


def check_open_unit(value: Any, name: str, owner: str, hint: str = "") -> float:
    """Return `value` as a float if it lies strictly between 0 and 1, else raise."""
    expected = "a float in (0, 1)"
    if not is_real(value):
        raise TypeError(error_message(name, owner, expected, value, hint))
    if not 0.0 < value < 1.0:
        raise ValueError(error_message(name, owner, expected, value, hint))
    return float(value)


def check_positive(value: Any, name: str, owner: str, hint: str = "") -> float:
    """Return `value` as a float if it is positive and finite, else raise."""
    expected = "a positive, finite float"
    if not is_real(value):
        raise TypeError(error_message(name, owner, expected, value, hint))
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(error_message(name, owner, expected, value, hint))
    return float(value)


def check_non_negative(value: Any, name: str, owner: str, hint: str = "") -> float:
    """Return `value` as a float if it is finite and not negative, else raise."""
    expected = "a non-negative, finite float"
    if not is_real(value):
        raise TypeError(error_message(name, owner, expected, value, hint))
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(error_message(name, owner, expected, value, hint))
    return float(value)


def check_unit(value: Any, name: str, owner: str, hint: str = "") -> float:
    """Return `value` as a float if it lies in [0, 1], else raise."""
    expected = "a float in [0, 1]"
    if not is_real(value):
        raise TypeError(error_message(name, owner, expected, value, hint))
    if not 0.0 <= value <= 1.0:
        raise ValueError(error_message(name, owner, expected, value, hint))
    return float(value)


def check_integer_at_least(value: Any, minimum: int, name: str, owner: str) -> int:
    """Return `value` as an int if it is an integer of at least `minimum`, else raise."""
    expected = f"an int of at least {minimum}"
    if not is_integer(value):
        raise TypeError(error_message(name, owner, expected, value))
    if value < minimum:
        raise ValueError(error_message(name, owner, expected, value))
    return int(value)


def is_threshold(value: Any) -> Any:
    """Whether a number, or each number of an array, can be stored as a threshold.

    Devices round numbers below the normal range of float32 to 0.
    """
    stored = np.float32(value)
    return (stored >= np.finfo(np.float32).tiny) & (stored < 1.0)


def check_threshold(value: Any, owner: str, hint: str = "") -> float:
    """Return `value` rounded to float32, if that lies strictly between 0 and 1, else raise."""
    check_open_unit(value, "threshold", owner, hint)
    if not is_threshold(value):
        expected = "a normal float32 in (0, 1)"
        raise ValueError(error_message("threshold", owner, expected, value))
    return shortest_float(value)


def shortest_float(value: Any) -> float:
    """Return the shortest decimal that rounds to the float32 `value`."""
    return float(np.format_float_positional(np.float32(value), unique=True))


def check_features(input_shape: Shape, owner: str) -> int:
    """Return the last dimension of `input_shape`, or raise `ValueError` if it is unknown."""
    features = input_shape[-1]
    if not features:
        raise ValueError(
            f"{owner} needs inputs of a known, positive number of features, the last dimension. "
            f"Received: input_shape={tuple(input_shape)!r}. "
            "Give it where the model starts, as in `keras.Input((20,))`."
        )
    return int(features)
