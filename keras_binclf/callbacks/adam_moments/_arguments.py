"""Checks of the arguments of `AdamMomentLogger`."""

import os
import re
from typing import Any

import keras

from keras_binclf._validation import check_choice, error_message, to_list
from keras_binclf.callbacks.adam_moments._files import SUFFIXES
from keras_binclf.callbacks.adam_moments._quantities import QUANTITIES

OWNER = "AdamMomentLogger"


def check_variables(value: Any) -> Any:
    """Return `variables`, if it is None, a regular expression or a function."""
    expected = "None, a regular expression, or a function of a variable's path"
    if value is None or callable(value):
        return value
    if not isinstance(value, str):
        raise TypeError(error_message("variables", OWNER, expected, value))
    try:
        re.compile(value)
    except re.error as error:
        hint = f"It is no regular expression: {error}."
        raise ValueError(error_message("variables", OWNER, expected, value, hint)) from error
    return value


def check_optimizer(value: Any) -> Any:
    """Return `optimizer`, if it is None, a name or an optimizer."""
    if value is None or isinstance(value, str | keras.optimizers.Optimizer):
        return value
    expected = "None, an optimizer of Keras, or the name of the model's attribute that holds it"
    raise TypeError(error_message("optimizer", OWNER, expected, value))


def check_quantities(value: Any) -> tuple[str, ...]:
    """Return the names of quantities, each once."""
    names = to_list(value)
    if names is None:
        expected = "a list of names of quantities"
        raise TypeError(error_message("quantities", OWNER, expected, value))
    if not names:
        raise ValueError(error_message("quantities", OWNER, "a list that is not empty", value))
    for name in names:
        check_choice(name, "quantities", OWNER, QUANTITIES)
    return tuple(dict.fromkeys(names))


def check_path(value: Any, name: str) -> str | None:
    """Return a path as a string."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(error_message(name, OWNER, "a path, or None", value))
    return os.fspath(value)


def check_filepath(value: Any) -> str | None:
    """Return the path of a file whose suffix tells its format."""
    path = check_path(value, "filepath")
    if path is not None and not path.endswith(SUFFIXES):
        expected = f"the path of a file that ends with {' or '.join(SUFFIXES)}"
        raise ValueError(error_message("filepath", OWNER, expected, value))
    return path
