"""The inputs of a model: names, shapes and dtypes, and the arguments of its `call`."""

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_binclf._data.encoders import list_encoders, match_encoders
from keras_binclf._layer_state import iterate_layers
from keras_binclf._validation import Shape
from keras_binclf.layers import TabularEncoder


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: the key if the model takes a dict, else the name of the `InputLayer`, which saving
            keeps; for a subclassed model the name of the argument of `call`.
        shape: shape of one row, with None for a size that varies; None if the rank is unknown.
        dtype: name of a Keras dtype, or `"string"`; None if a subclassed model accepts any.
        alias: name of the tensor, which Keras accepts for the input before the model is saved.
        is_ragged: bool, whether ragged tensors are accepted. Defaults to `False`.
        encoder: the encoder that the input feeds; rows for it may be a table. Defaults to `None`.
    """

    name: str
    shape: Shape | None
    dtype: str | None
    alias: str = ""
    is_ragged: bool = False
    encoder: TabularEncoder | None = None

    @property
    def host_dtype(self) -> np.dtype[Any] | None:
        """The NumPy dtype of values for this input; None if it accepts any."""
        if self.dtype is None:
            return None
        if self.dtype == "string":
            return np.dtype(object)
        # NumPy has no bfloat16; Keras casts to the dtype of the input anyway.
        is_short = self.dtype.startswith(("bfloat", "float8"))
        return np.dtype("float32" if is_short else self.dtype)


@dataclasses.dataclass(frozen=True)
class ModelInputs:
    """The inputs of a model as a flat list, and the arguments of its `call`.

    Attributes:
        specs: the inputs, in the order of `keras.tree.flatten`.
        arguments: arguments of `call`, as structures of specs.
        argument_names: names of those arguments.
    """

    specs: tuple[InputSpec, ...]
    arguments: tuple[Any, ...]
    argument_names: tuple[str, ...]

    @property
    def structure(self) -> Any:
        """The one argument of `call`, or the tuple of all, as a structure of specs."""
        return self.arguments[0] if len(self.arguments) == 1 else self.arguments

    def pack(self, values: Iterable[Any]) -> Any:
        """Return values, one for each spec, in the same structure as `structure`."""
        return keras.tree.pack_sequence_as(self.structure, list(values))

    def call(self, model: keras.Model, tensors: Iterable[Any]) -> Any:
        """Call `model` in inference mode with a flat list of its inputs, and return its outputs."""
        first, *others = keras.tree.pack_sequence_as(self.arguments, list(tensors))
        named = dict(zip(self.argument_names[1:], others, strict=True))
        return model(first, **named, training=False)

    def declare(self, shapes: Iterable[Shape | None], dtypes: Iterable[str]) -> "ModelInputs":
        """Return a copy with the given shapes and dtypes where those of the model are unknown."""
        return self.replace_specs(
            dataclasses.replace(
                spec,
                shape=shape if spec.shape is None else spec.shape,
                dtype=spec.dtype or dtype,
            )
            for spec, shape, dtype in zip(self.specs, shapes, dtypes, strict=True)
        )

    def replace_specs(self, specs: Iterable[InputSpec]) -> "ModelInputs":
        """Return a copy with other specs, in the same order."""
        flat = tuple(specs)
        arguments = keras.tree.pack_sequence_as(self.arguments, list(flat))
        return dataclasses.replace(self, specs=flat, arguments=tuple(arguments))


def read_inputs(model: keras.Model, owner: str) -> ModelInputs:
    """Return the inputs of a built model.

    A subclassed model has the inputs that it was first called with, by the names of the arguments
    of its `call`. Keras keeps the shape of the first argument only, unless the model has a `build`
    with a shape for each.

    Args:
        model: any Keras model.
        owner: name of the public function, for messages.

    Raises:
        ValueError: if the model was never built, or hides its inputs.
    """
    if not model.built:
        raise ValueError(
            f"{owner} needs a built model. Received: model {model.name!r}, which has no weights "
            "yet. Call it once on a few rows, or start it with `keras.Input`."
        )
    if getattr(model, "inputs", None):
        return _add_encoders(model, _read_symbols(model))
    arguments = _read_calls(model)
    if not arguments:
        raise ValueError(
            f"{owner} needs to know the inputs of a model. Received: model {model.name!r}, which "
            "does not tell the shapes it was built with. Remove its `get_build_config`, or make "
            "it functional."
        )
    specs = tuple(keras.tree.flatten(tuple(arguments.values())))
    return _add_encoders(model, ModelInputs(specs, tuple(arguments.values()), tuple(arguments)))


def find_inputs(model: keras.Model) -> ModelInputs | None:
    """Return the inputs of a model, or None where they are not known."""
    try:
        return read_inputs(model, "")
    except ValueError:
        return None


def list_schemas(inputs: ModelInputs) -> dict[str, list[dict[str, Any]]]:
    """Return the columns of each table that a model takes as JSON, by the name of its input."""
    return {
        spec.name: [column.to_dict() for column in spec.encoder.columns or ()]
        for spec in inputs.specs
        if spec.encoder is not None
    }


def _add_encoders(model: keras.Model, inputs: ModelInputs) -> ModelInputs:
    """Return the inputs with the encoder that each feeds."""
    if not list_encoders(model):
        return inputs
    tensors = keras.tree.flatten(getattr(model, "inputs", None) or [None] * len(inputs.specs))
    shapes = [spec.shape for spec in inputs.specs]
    encoders = match_encoders(model, tensors, shapes)
    pairs = zip(inputs.specs, encoders, strict=True)
    return inputs.replace_specs(dataclasses.replace(spec, encoder=one) for spec, one in pairs)


def _read_symbols(model: keras.Model) -> ModelInputs:
    """Return the inputs of a functional or Sequential model."""
    layers = [x for x in iterate_layers(model) if isinstance(x, keras.layers.InputLayer)]
    # The tensor of an unnamed input has another name once the model was saved; its layer has not.
    names = {id(layer.output): layer.name for layer in layers}
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    keys = [path[-1] if path else None for path, _ in keras.tree.flatten_with_path(structure)]
    if len({key for key in keys if isinstance(key, str)}) < len(keys):
        keys = [None] * len(keys)  # A list, or a nested structure with names that repeat.
    specs = tuple(
        InputSpec(
            name=key or names.get(id(tensor), tensor.name),
            shape=tuple(tensor.shape[1:]),
            dtype=keras.backend.standardize_dtype(tensor.dtype),
            alias=tensor.name,
            is_ragged=bool(getattr(tensor, "ragged", False)),
        )
        for key, tensor in zip(keys, keras.tree.flatten(structure), strict=True)
    )
    arguments = (keras.tree.pack_sequence_as(structure, list(specs)),)
    return ModelInputs(specs, arguments, ("inputs",))


def _read_calls(model: keras.Model) -> dict[str, Any]:
    """Return the arguments with which a subclassed model was first called, as specs by name."""
    config = model.get_build_config() or {}
    parameters = list(inspect.signature(model.call).parameters.values())
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in kinds and p.name not in ("training", "mask")]
    if "shapes_dict" in config:
        shapes = {key.removesuffix("_shape"): x for key, x in config["shapes_dict"].items()}
        names = [name for name in names if name in shapes]
        return {name: _describe(name, shapes[name], f"{name}_") for name in names}
    if "input_shape" not in config or not names:
        return {}
    # Those with a default may not have been given.
    needed = [p.name for p in parameters if p.name in names[1:] and p.default is p.empty]
    prefix = f"{names[0]}_" if needed else ""
    first = {names[0]: _describe(names[0], config["input_shape"], prefix)}
    return first | {name: InputSpec(name, None, None) for name in needed}


def _describe(name: str, shape: Any, prefix: str) -> Any:
    """Return the specs of one argument of a subclassed model, with the prefix before keys."""
    if isinstance(shape, dict):
        parts = {key: f"{prefix}{key}" for key in shape}
        return {key: _describe(part, shape[key], f"{part}_") for key, part in parts.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return InputSpec(name, tuple(shape[1:]), None)
    names = [f"{name}_{i}" for i in range(len(shape))]
    return [_describe(part, x, f"{part}_") for part, x in zip(names, shape, strict=True)]
