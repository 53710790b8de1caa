"""What a model takes: names, shapes and types of its inputs."""

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

NEVER_BUILT = "Call it once on a batch of rows, or build it from `keras.Input`."


@dataclasses.dataclass(frozen=True)
class Field:
    """One input of a model.

    Attributes:
        name: its name in the model.
        shape: that of one row.
        dtype: as Keras names it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs of a model as a flat list, and how it takes them.

    Attributes:
        fields: the inputs, in the order of `keras.tree.flatten`.
        arguments: the arguments of `model.call`, as structures of fields.
    """

    fields: tuple[Field, ...]
    arguments: tuple[Any, ...]

    def call(self, model: keras.Model, tensors: Iterable[Any]) -> Any:
        """Return what the model makes of its inputs, given as a flat list."""
        arguments = keras.tree.pack_sequence_as(self.arguments, list(tensors))
        return model(*arguments, training=False)

    def name_arrays(self, rows: Any, owner: str) -> dict[str, Any]:
        """Return rows by the names of the inputs, or raise for what does not fit the model."""
        arrays = [np.asarray(array) for array in keras.tree.flatten(rows)]
        shapes = [array.shape for array in arrays]
        fits = [shape[1:] for shape in shapes] == [field.shape for field in self.fields]
        if not fits or len({shape[:1] for shape in shapes}) != 1:
            expected = ", ".join(f"{field.name!r} {(None, *field.shape)}" for field in self.fields)
            raise ValueError(
                f"`sample` of {owner} must have the model's inputs: {expected}. Received: arrays "
                f"of shapes {', '.join(map(str, shapes))}."
            )
        if not shapes[0][0]:
            raise ValueError(f"`sample` of {owner} must have rows. Received: none.")
        pairs = zip(self.fields, arrays, strict=True)
        return {field.name: array.astype(field.dtype) for field, array in pairs}


def read_signature(model: keras.Model, owner: str) -> Signature:
    """Return what `model` takes.

    Args:
        model: any Keras model.
        owner: name of the public function, for messages.

    Raises:
        ValueError: if the model was never built, or if a size other than the number of rows is
            not known.
    """
    if getattr(model, "inputs", None):
        # Sequential models have no `input`.
        is_sequential = isinstance(model, keras.Sequential)
        arguments = (model.inputs[0] if is_sequential else model.input,)
    else:
        arguments = _read_calls(model)
    if not arguments:
        raise ValueError(f"{owner} needs a built model. Received: {model.name!r}. {NEVER_BUILT}")
    arguments = keras.tree.map_structure(_to_field, arguments)
    fields = tuple(keras.tree.flatten(arguments))
    for field in fields:
        if None in field.shape:
            raise ValueError(
                f"{owner} needs inputs whose sizes are known, but for the number of rows. "
                f"Received: input {field.name!r} of shape {(None, *field.shape)}. Build the model "
                "with `keras.Input` of a fixed shape."
            )
    return Signature(fields, arguments)


def _read_calls(model: keras.Model) -> tuple[Any, ...]:
    """Return the arguments with which a subclassed model was first called."""
    # Keras keeps the shapes of the first call in this private attribute only.
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    if not (model.built and shapes):
        return ()
    # Of one argument it keeps the name that `build` has for its shape.
    names = list(inspect.signature(model.call).parameters)
    if len(shapes) > 1:
        names = [key.removesuffix("_shape") for key in shapes]
    return tuple(
        _name(name, shape, model) for name, shape in zip(names, shapes.values(), strict=False)
    )


def _name(name: str, shape: Any, model: keras.Model) -> Any:
    """Return the fields of one argument of a subclassed model."""
    if isinstance(shape, dict):
        return {key: _name(key, value, model) for key, value in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return Field(name, tuple(shape[1:]), model.input_dtype)
    return [_name(f"{name}_{i}", value, model) for i, value in enumerate(shape)]


def _to_field(tensor: Any) -> Field:
    if isinstance(tensor, Field):
        return tensor
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    # The tensor of an unnamed input has another name once the model was saved; its layer has not.
    return Field(tensor._keras_history[0].name, tuple(tensor.shape[1:]), dtype)
