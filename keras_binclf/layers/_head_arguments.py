"""Checks of the arguments of `BinaryHead`."""

import math
from typing import Any

from keras_binclf._validation import check_open_unit, error_message, to_list

PAIR = "None or a pair of distinct strings, negative class first"


def check_prior(value: Any, use_bias: bool, owner: str) -> float | None:
    """Return the prior as a float or None, or raise."""
    if value is None:
        return None
    hint = "It is the share of positives, such as `y.mean()`."
    prior = check_open_unit(value, "prior", owner, hint=hint)
    if not use_bias:
        hint = "The prior is the initial bias: leave one of the two out."
        raise ValueError(error_message("prior", owner, "None where `use_bias=False`", prior, hint))
    return prior


def check_class_names(value: Any, owner: str) -> tuple[str, str] | None:
    """Return the names as a tuple, or raise."""
    if value is None:
        return None
    names = to_list(value)
    if names is None or not all(isinstance(name, str) for name in names):
        raise TypeError(error_message("class_names", owner, PAIR, value))
    if len(names) != 2 or names[0] == names[1]:
        raise ValueError(error_message("class_names", owner, PAIR, value))
    return str(names[0]), str(names[1])


def get_initial_bias(prior: float | None) -> float:
    """Return the logit of the prior, 0 without one."""
    return 0.0 if prior is None else math.log(prior) - math.log1p(-prior)
