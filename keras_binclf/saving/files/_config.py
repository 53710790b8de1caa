"""The config of a saved model, read as data: no class of it is looked up.

Whoever wrote the file chose its numbers, texts, types and depth. All of it is walked once, without
recursion, and texts are shortened as they are read.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

from keras_binclf._registry import PACKAGE, VERSION_KEY
from keras_binclf._validation import is_integer
from keras_binclf.saving.files.text import read_text, shorten

Config = dict[str, Any]
HEAD_KEYS = {"activation", "class_names", "prior", "threshold", "use_bias"}
"""A head that users derived from ours has these too, under a name of its own."""
MAX_DEPTH = 500
"""Of dicts and lists: four for each model within a model."""
MAX_LISTED = 20
"""Losses or versions that are named."""
MAX_DIMENSIONS = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """An object in a config."""

    node: Config
    parent: "Entry | None" = None
    """The object that holds it, None for the model."""
    key: str = ""
    """The key of the parent's config that it stands under."""

    @property
    def config(self) -> Config:
        """The arguments of the object."""
        config = self.node["config"]
        return config if isinstance(config, dict) else {}

    @property
    def name(self) -> str:
        """The name of a layer, empty for an object without one."""
        name = self.config.get("name")
        return name if isinstance(name, str) else ""

    @property
    def way(self) -> tuple[tuple[str, str], ...]:
        """Key and name of each object from the model to this one, without the model's."""
        found: list[tuple[str, str]] = []
        entry = self
        while entry.parent is not None:
            found.append((entry.key, entry.name))
            entry = entry.parent
        return tuple(reversed(found))

    @property
    def class_name(self) -> str:
        """The registered name of a custom class or function, the name of one of Keras."""
        registered = self.node.get("registered_name")
        if isinstance(registered, str) and ">" in registered:
            return shorten(registered)
        if self.node["class_name"] == "function":
            return read_text(self.node["config"]) or "function"
        return shorten(self.node["class_name"])

    @property
    def is_head(self) -> bool:
        """Whether it is a `BinaryHead`, or derived from one."""
        return self.class_name == f"{PACKAGE}>BinaryHead" or self.config.keys() >= HEAD_KEYS

    @property
    def package(self) -> str:
        """The package that it is registered under, or that its class stands in."""
        if ">" in self.class_name:
            return self.class_name.split(">")[0]
        return self.module.split(".")[0]

    @property
    def module(self) -> str:
        """The module of its class, empty where the config does not tell."""
        return read_text(self.node.get("module")) or ""

    @property
    def is_custom(self) -> bool:
        """Whether somebody else's code has to be imported to load it."""
        special = re.fullmatch("__.*__", self.class_name)
        return not special and self.package not in {PACKAGE, "keras", "builtins"}

    @property
    def is_closed(self) -> bool:
        """Whether it is a custom model or layer that does not list its layers."""
        layer = self.parent is None or "build_config" in self.node
        return layer and self.is_custom and not self.is_head and "layers" not in self.config


def is_object(node: Any) -> bool:
    """Whether `node` stands for an object, by the rule of Keras."""
    return isinstance(node, dict) and "config" in node and isinstance(node.get("class_name"), str)


def iterate_objects(model: Config) -> Iterator[Entry]:
    """Yield all objects of a config, each before those that it holds.

    Raises:
        ValueError: if it is nested deeper than `MAX_DEPTH`.
    """
    root = Entry(model)
    yield root
    # Iterators rather than values: the stack is as high as the config is deep.
    stack = [(root, iter(model.items()))]
    while stack:
        if len(stack) > MAX_DEPTH:
            raise ValueError(f"config.json is nested deeper than {MAX_DEPTH} levels.")
        parent, items = stack[-1]
        for key, value in items:
            if isinstance(value, dict) and value:
                if is_object(value):
                    parent = Entry(value, parent, key)
                    yield parent
                stack.append((parent, iter(value.items())))
                break
            if isinstance(value, list) and value:
                stack.append((parent, zip(itertools.repeat(key), value, strict=False)))
                break
        else:
            stack.pop()


def get_versions(entries: list[Entry]) -> str | None:
    """Return the version of this package that wrote the config; several, if it was put together."""
    built = [entry.node.get("build_config") for entry in entries]
    found = [read_text(config.get(VERSION_KEY)) for config in built if isinstance(config, dict)]
    return shorten(", ".join(sorted({one for one in found if one})[:MAX_LISTED])) or None


def get_backend(entries: list[Entry]) -> str | None:
    """Return the backend; only of PyTorch, Keras writes classes of its own."""
    torch = any(entry.module.startswith("keras.src.backend.torch") for entry in entries)
    return "torch" if torch else None


def list_inputs(model: Config) -> list[tuple[str | None, Any, Any]]:
    """Return name, shape and dtype of each input, None for facts that the config does not tell."""
    config = Entry(model).config
    layers = [Entry(layer) for layer in _as_list(config.get("layers")) if is_object(layer)]
    found = {one.name: one.config for one in layers if one.node["class_name"] == "InputLayer"}
    if "input_layers" in config:
        names = iterate_tensors(config["input_layers"])
        found = {name: found[name] for name in names if name in found}
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


def read_shape(value: Any) -> tuple[int | None, ...] | None:
    """Return a shape from a config; None for a value that is no shape of a tensor."""
    if not isinstance(value, list) or len(value) > MAX_DIMENSIONS:
        return None
    known = all(size is None or (is_integer(size) and 0 <= size < 2**63) for size in value)
    return tuple(value) if known else None


def count_outputs(model: Config) -> int | None:
    """Return how many tensors the model gives, None where the config does not tell."""
    config = Entry(model).config
    if "output_layers" in config:
        return sum(1 for _ in iterate_tensors(config["output_layers"])) or None
    layers = _as_list(config.get("layers"))
    # A config does not tell how many outputs other layers have.
    last = [layer for layer in layers[-1:] if is_object(layer)]
    return 1 if any(entry.is_head for one in last for entry in iterate_objects(one)) else None


def iterate_tensors(node: Any) -> Iterator[str]:
    """Yield the layers of the tensors in a structure of `[layer, node, tensor]`."""
    stack = [iter([node])]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
                yield value[0]
            elif isinstance(value, list | dict):
                stack.append(iter(value.values() if isinstance(value, dict) else value))
                break
        else:
            stack.pop()


def name_of(value: Any, depth: int = 3) -> str | None:
    """Return the name of an activation, optimizer or loss, or the names of several."""
    if value is None:
        return None
    if is_object(value):
        return Entry(value).class_name
    if isinstance(value, list | dict):
        if not depth:
            return "..."
        if isinstance(value, list):
            names = [str(name_of(one, depth - 1)) for one in value[:MAX_LISTED]]
        else:
            items = itertools.islice(value.items(), MAX_LISTED)
            names = [f"{shorten(key)}: {name_of(one, depth - 1)}" for key, one in items]
        return shorten(", ".join(names))
    return shorten(str(value))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
