"""Checks of the arguments of the layers for tables."""

from typing import Any

import numpy as np

from keras_binclf._validation import error_message, is_integer, to_list


def check_flags(value: Any, name: str, owner: str) -> tuple[bool, ...]:
    """Return a list of bools as a tuple, or raise `TypeError`."""
    flags = to_list(value)
    if not flags or not all(isinstance(flag, bool | np.bool_) for flag in flags):
        expected = "None or a non-empty list of bools, one for each column"
        raise TypeError(error_message(name, owner, expected, value))
    return tuple(bool(flag) for flag in flags)


def check_counts(value: Any, minimum: int, name: str, owner: str) -> tuple[int, ...]:
    """Return a list of ints of at least `minimum` as a tuple, or raise."""
    expected = f"a non-empty list of ints of at least {minimum}, one for each column"
    counts = to_list(value)
    if counts is None or not all(is_integer(count) for count in counts):
        raise TypeError(error_message(name, owner, expected, value))
    if not counts or min(counts) < minimum:
        raise ValueError(error_message(name, owner, expected, value))
    return tuple(int(count) for count in counts)
