"""Activations as users give them: names, functions and layers."""

import types
from typing import Any

import keras
from keras import ops

from keras_binclf._layer_state import iterate_layers
from keras_binclf._registry import drop_sharing
from keras_binclf._validation import Shape, error_message, suggest_nearest


def get_activation(value: Any, owner: str) -> Any:
    """Return a function or a layer, from a name, a config, a function, a layer or None."""
    expected = "the name of a Keras activation, a named function or a keras.layers.Layer"
    if isinstance(value, dict):
        value = keras.saving.deserialize_keras_object(value)
    if isinstance(value, str):
        try:
            return keras.activations.get(value)
        except ValueError:
            hint = _suggest(value)
            raise ValueError(error_message("activation", owner, expected, value, hint)) from None
    if value is None:
        return keras.activations.linear
    if isinstance(value, keras.layers.Layer) and len(list(iterate_layers(value))) > 1:
        # While Keras loads a file, it would share the inner layers between the copies.
        hint = "It holds other layers, of which each hidden layer would need copies of its own."
        raise TypeError(error_message("activation", owner, expected, value, hint))
    if isinstance(value, keras.layers.Layer):
        return value
    if isinstance(value, type) and issubclass(value, keras.layers.Layer):
        hint = f"Did you mean `{value.__name__}()`?"
        raise TypeError(error_message("activation", owner, expected, value, hint))
    if not isinstance(value, types.FunctionType):
        raise TypeError(error_message("activation", owner, expected, value))
    if value.__name__ == "<lambda>":
        hint = (
            "A lambda cannot be loaded again: give a named function, decorated with "
            "`keras.saving.register_keras_serializable`."
        )
        raise TypeError(error_message("activation", owner, expected, value, hint))
    if not _loads_as_itself(value):
        hint = (
            "A saved file would name it like a function of Keras, and load that one: give its "
            "name, or register yours with `keras.saving.register_keras_serializable`."
        )
        raise ValueError(error_message("activation", owner, expected, value, hint))
    return value


def serialize_template(layer: keras.layers.Layer) -> dict[str, Any]:
    """Return a serialized activation layer without its dtype, which follows the block's."""
    serialized = drop_sharing(keras.saving.serialize_keras_object(layer))
    config = {key: value for key, value in serialized["config"].items() if key != "dtype"}
    return {**serialized, "config": config}


def _suggest(name: str) -> str:
    layer = {known.lower(): known for known in dir(keras.layers)}.get(name.lower())
    if layer and name.lower() not in dir(keras.activations):
        return f"Did you mean `keras.layers.{layer}()`?"
    return suggest_nearest(name.lower(), dir(keras.activations))


def _loads_as_itself(function: Any) -> bool:
    """Whether Keras loads `function` itself by its saved name, or needs `custom_objects` for it."""
    try:
        loaded = keras.activations.get(keras.activations.serialize(function))
    except (TypeError, ValueError):
        return True
    return loaded is function


def check_keeps_shape(activation: Any, shape: Shape, owner: str) -> None:
    """Raise if `activation` changes the width, as `glu` does."""
    if isinstance(activation, keras.layers.Layer):
        output_width = activation.compute_output_spec(keras.KerasTensor(shape)).shape[-1]
    else:
        output_width = activation(ops.zeros((1, shape[-1]))).shape[-1]
    if output_width != shape[-1]:
        name = getattr(activation, "__name__", type(activation).__name__)
        raise ValueError(
            f"`activation` of {owner} must keep the number of features. "
            f"Received: activation={name}, which makes {output_width} of {shape[-1]}."
        )
