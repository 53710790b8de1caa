"""The parts of the file format: registered names, config keys, the version of the writer.

A registered name (`keras_binclf>BinaryHead`) is file format: once released it never changes.
"""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import keras

from keras_binclf._version import __version__

PACKAGE = "keras_binclf"

VERSION_KEY = "keras_binclf_version"
"""Key of the build config for the version of the package that wrote the file."""

REGISTERED: dict[str, type] = {}
"""All classes of the package that a saved file may name, by registered name."""

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
    """Return a config without the ids of shared objects that Keras adds while it saves a file.

    An id is the address of the object in memory. In a config that is kept, ids make equal configs
    differ, and may stand for other objects later.

    Args:
        config: the result of `get_config` or `serialize_keras_object`.

    Returns:
        The same, as new dicts and lists, without `shared_object_id`.
    """
    if isinstance(config, dict):
        return {k: drop_sharing(value) for k, value in config.items() if k != "shared_object_id"}
    return [drop_sharing(value) for value in config] if isinstance(config, list) else config


class Saved:
    """First base of every registered class: explains config keys of newer versions."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Return a new object.

        Args:
            config: the result of `get_config`.

        Raises:
            ValueError: for keys that this version does not know.
        """
        try:
            return super().from_config(config)  # type: ignore[misc]
        except (TypeError, ValueError) as error:
            unknown = _find_unknown_keys(cls, config, error)
            if not unknown:
                raise
            raise ValueError(_newer_message(cls.__name__, unknown)) from error


class SavedLayer(Saved):
    """First base of every registered layer: writes the version of the package into files.

    The version is part of the build config, which Keras saves beside the config: the config holds
    the constructor's arguments only, and versions that do not know the key ignore it.
    """

    def get_build_config(self) -> dict[str, Any] | None:
        """Return the build config with the version; None if the layer is not built."""
        config: dict[str, Any] | None = super().get_build_config()  # type: ignore[misc]
        # Keras marks a layer as built if the file has any build config for it.
        return config and {**config, VERSION_KEY: __version__}


def _find_unknown_keys(cls: type, config: Mapping[str, Any], error: Exception) -> list[str]:
    """Return the keys of `config` that are arguments of no constructor of `cls` and its bases.

    A constructor of a user's class may take further arguments as `**kwargs`: of such a class, only
    keys that the error mentions are returned.
    """
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
    known = {name for one in constructors for name in inspect.signature(one).parameters}
    known |= {"input_dim", "input_shape"}  # arguments of any Keras layer, in `**kwargs`
    unknown = [key for key in config if key not in known]
    if constructors[0].__module__.split(".")[0] == PACKAGE:
        return unknown
    return [key for key in unknown if repr(key) in _innermost(error)]


def _innermost(error: BaseException) -> str:
    """Return the message of the first of a chain of errors: the last repeats whole configs."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error)


def _newer_message(owner: str, unknown: list[str]) -> str:
    keys = ", ".join(repr(key) for key in unknown)
    return (
        f"{owner} of keras-binclf {__version__} does not know the config keys {keys}. The file is "
        "from a newer version, or was changed: `pip install --upgrade keras-binclf`, or see "
        "`python -m keras_binclf describe FILE` for who wrote it."
    )
