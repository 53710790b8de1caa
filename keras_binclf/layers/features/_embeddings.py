"""The `embedding` of a `TabularEncoder`, as users give it and as configs hold it."""

from typing import Any

import keras

from keras_binclf._registry import drop_sharing
from keras_binclf._validation import error_message, suggest_nearest
from keras_binclf.layers.features.numerical_embedding import METHODS, NumericalEmbedding


def read_embedding(value: Any, owner: str) -> Any:
    """Return None, the name of a method, or the config of a `NumericalEmbedding`, or raise."""
    expected = f"None, one of {', '.join(map(repr, METHODS))}, or a NumericalEmbedding"
    if value is None or (isinstance(value, str) and value in METHODS):
        return value
    if isinstance(value, str):
        hint = suggest_nearest(value, METHODS)
        raise ValueError(error_message("embedding", owner, expected, value, hint))
    if isinstance(value, dict) and "class_name" in value:
        value = keras.saving.deserialize_keras_object(value)
    if not isinstance(value, NumericalEmbedding):
        raise TypeError(error_message("embedding", owner, expected, value))
    return serialize_embedding(value)


def serialize_embedding(layer: NumericalEmbedding) -> dict[str, Any]:
    """Return the config of a layer, the same before and after it is built."""
    data = drop_sharing(keras.saving.serialize_keras_object(layer))
    return {key: value for key, value in data.items() if key != "build_config"}


def make_embedding(value: Any, policy: Any, trainable: bool, *, fresh: bool = False) -> Any:
    """Return a new layer of what `read_embedding` returned, None for None.

    Args:
        value: None, the name of a method or a config.
        policy: dtype policy of a layer of which only the method is given.
        trainable: whether the layer that holds it is trainable.
        fresh: whether to leave out what the config says of features.
    """
    if value is None:
        return None
    own: dict[str, Any] = {"name": "numerical_embedding", "trainable": trainable}
    if isinstance(value, str):
        return NumericalEmbedding(method=value, dtype=policy, **own)
    config = {**value["config"], **own}
    config["trainable"] = trainable and value["config"].get("trainable", True)
    if fresh:
        config["feature_bins"] = None
    return keras.saving.deserialize_keras_object({**value, "config": config})
