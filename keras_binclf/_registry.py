"""What goes into files: names, config keys, the version that wrote them.

A registered name (`keras_binclf>BinaryHead`) is file format: once released it never changes.
"""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import keras

from keras_binclf._version import __version__

PACKAGE = "keras_binclf"

VERSION_KEY = "keras_binclf_version"
"""Where a file tells which version of the package wrote it."""

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


class Saved:
    """First base of every registered class: says what to do about a file from a newer version."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Return a new object.

        Args:
            config: what `get_config` returned.

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
    """First base of every registered layer: the file tells which version wrote it.

    The version stands in the build config, which Keras keeps beside the config: the latter holds
    the constructor's arguments and nothing else, and readers that do not know the key leave it.
    """

    def get_build_config(self) -> dict[str, Any] | None:
        """Return what Keras builds the layer from, with the version; None if it is not built."""
        config: dict[str, Any] | None = super().get_build_config()  # type: ignore[misc]
        # Keras takes a layer for built that was saved with any build config.
        return config and {**config, VERSION_KEY: __version__}


def _find_unknown_keys(cls: type, config: Mapping[str, Any], error: Exception) -> list[str]:
    """Return the keys of `config` that no constructor of `cls` and its bases names.

    A constructor that others wrote may take more than it names: there, the error has to be about
    the key.
    """
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
    known = {name for one in constructors for name in inspect.signature(one).parameters}
    known |= {"input_dim", "input_shape"}  # Keras takes these too, and names them nowhere
    unknown = [key for key in config if key not in known]
    if constructors[0].__module__.split(".")[0] == PACKAGE:
        return unknown
    return [key for key in unknown if repr(key) in _innermost(error)]


def _innermost(error: BaseException) -> str:
    """Return what the first of a chain of errors says: Keras repeats whole configs in the last."""
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
