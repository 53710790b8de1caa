"""The names that go into files.

A registered name (`keras_binclf>BinaryHead`) is file format: once released it never changes.
"""

from typing import TypeVar

import keras

PACKAGE = "keras_binclf"

REGISTERED: dict[str, type] = {}
"""Every class of ours that a saved file may name, by registered name."""

AnyClass = TypeVar("AnyClass", bound=type)


def register(cls: AnyClass) -> AnyClass:
    """Register a class with Keras under `keras_binclf>ClassName` and with the contract tests.

    Args:
        cls: class with `get_config`, to be named in saved files.

    Returns:
        The class itself, so that this works as a decorator.
    """
    keras.saving.register_keras_serializable(package=PACKAGE)(cls)
    REGISTERED[keras.saving.get_registered_name(cls)] = cls
    return cls
