"""What the config of a saved model tells, read as data: no class of it is looked up."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from keras_binclf._registry import PACKAGE, VERSION_KEY

Config = dict[str, Any]
HEAD_KEYS = {"activation", "class_names", "prior", "threshold", "use_bias"}
"""A head that users derived from ours has these too, under a name of its own."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An object in a config, and the way to it from the model."""

    node: Config
    way: tuple[tuple[str, str], ...]
    """Of each object on the way, the key that it stands under and its name."""

    @property
    def config(self) -> Config:
        """The arguments of the object."""
        config = self.node["config"]
        return config if isinstance(config, dict) else {}

    @property
    def class_name(self) -> str:
        """The registered name of a custom class or function, the name of one of Keras."""
        registered = self.node.get("registered_name")
        if isinstance(registered, str) and ">" in registered:
            return registered
        function = self.node["class_name"] == "function"
        return str(self.node["config"] if function else self.node["class_name"])

    @property
    def is_head(self) -> bool:
        """Whether it is a `BinaryHead`, or derived from one."""
        return self.class_name == f"{PACKAGE}>BinaryHead" or set(self.config) >= HEAD_KEYS

    @property
    def package(self) -> str:
        """The package that it is registered under, or that its class stands in."""
        if ">" in self.class_name:
            return self.class_name.split(">")[0]
        return str(self.node.get("module")).split(".")[0]

    @property
    def is_custom(self) -> bool:
        """Whether somebody else's code has to be imported to load it."""
        special = re.fullmatch("__.*__", self.class_name)
        return not special and self.package not in {PACKAGE, "keras", "builtins"}

    @property
    def is_closed(self) -> bool:
        """Whether it is a custom model or layer that does not list its layers."""
        layer = not self.way or "build_config" in self.node
        return layer and self.is_custom and not self.is_head and "layers" not in self.config


def is_object(node: Any) -> bool:
    """Whether `node` stands for an object, by the rule of Keras."""
    return isinstance(node, dict) and "config" in node and isinstance(node.get("class_name"), str)


def iterate_objects(
    node: Any, key: str = "", way: tuple[tuple[str, str], ...] = ()
) -> Iterator[Entry]:
    """Yield all objects of a config, each before those that it holds."""
    if is_object(node):
        way = (*way, (key, _get_name(node))) if key else way
        yield Entry(node, way)
    if isinstance(node, dict):
        for inner_key, value in node.items():
            yield from iterate_objects(value, inner_key, way)
    elif isinstance(node, list):
        for value in node:
            yield from iterate_objects(value, key, way)


def get_versions(entries: list[Entry]) -> str | None:
    """Return the version of this package that wrote the config; several, if it was put together."""
    built = [entry.node.get("build_config") for entry in entries]
    found = [config.get(VERSION_KEY) for config in built if isinstance(config, dict)]
    return ", ".join(sorted({one for one in found if isinstance(one, str)})) or None


def get_backend(entries: list[Entry]) -> str | None:
    """Return the backend; only of PyTorch, Keras writes classes of its own."""
    modules = [str(entry.node.get("module")) for entry in entries]
    return "torch" if any(m.startswith("keras.src.backend.torch") for m in modules) else None


def list_inputs(model: Config) -> list[tuple[str | None, Any, Any]]:
    """Return name, shape and dtype of each input, None for what the config does not tell."""
    config = Entry(model, ()).config
    layers = [layer for layer in _as_list(config.get("layers")) if is_object(layer)]
    found = {_get_name(layer): layer["config"] for layer in layers if _is_input(layer)}
    if "input_layers" in config:
        found = {
            name: found[name] for name in list_tensors(config["input_layers"]) if name in found
        }
    if found:
        return [(name, one.get("batch_shape"), one.get("dtype")) for name, one in found.items()]
    built = model.get("build_config")
    shapes = built if isinstance(built, dict) else {}
    if "input_shape" in shapes:
        return [(None, shapes["input_shape"], None)]
    several = shapes.get("shapes_dict")
    return (
        [(name, shape, None) for name, shape in several.items()]
        if isinstance(several, dict)
        else []
    )


def count_outputs(model: Config) -> int | None:
    """Return how many tensors the model gives, None where the config does not tell."""
    config = Entry(model, ()).config
    if "output_layers" in config:
        return len(list_tensors(config["output_layers"])) or None
    layers = _as_list(config.get("layers"))
    # Nothing in a config tells what another layer gives.
    last = [Entry(layer, ()) for layer in layers[-1:] if is_object(layer)]
    return 1 if any(entry.is_head for one in last for entry in iterate_objects(one.node)) else None


def list_tensors(node: Any) -> list[str]:
    """Return the layers of the tensors in a structure of `[layer, node, tensor]`."""
    if isinstance(node, list) and len(node) == 3 and isinstance(node[0], str):
        return [node[0]]
    values = list(node.values()) if isinstance(node, dict) else _as_list(node)
    return [name for value in values for name in list_tensors(value)]


def name_of(value: Any) -> str | None:
    """Return an optimizer or a loss, or several, in words."""
    if isinstance(value, list):
        return ", ".join(str(name_of(one)) for one in value)
    if not isinstance(value, dict):
        return None if value is None else str(value)
    if is_object(value):
        return Entry(value, ()).class_name
    return ", ".join(f"{key}: {name_of(one)}" for key, one in value.items())


def _get_name(node: Config) -> str:
    config = node["config"]
    return str(config.get("name", "") if isinstance(config, dict) else config)


def _is_input(layer: Config) -> bool:
    return layer["class_name"] == "InputLayer" and isinstance(layer["config"], dict)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
