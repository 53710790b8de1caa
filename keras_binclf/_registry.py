"""The names that go into files.

A registered name (`keras_binclf>BinaryHead`) is file format: once released it never changes.
"""

from typing import Any, TypeVar

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


def drop_sharing(config: Any) -> Any:
    """Return a config without the marks that Keras makes while it saves or loads a file.

    They tell which objects are shared by where these lie in memory. In a config that is kept, they
    would make equal configs differ, and later stand for other objects.

    Args:
        config: what `get_config` or `serialize_keras_object` returned.

    Returns:
        The same, as new dicts and lists, without `shared_object_id`.
    """
    if isinstance(config, dict):
        return {k: drop_sharing(value) for k, value in config.items() if k != "shared_object_id"}
    return [drop_sharing(value) for value in config] if isinstance(config, list) else config
