"""The encoders of tables in a model, and the inputs that feed them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_binclf._layer_state import iterate_layers
from keras_binclf.layers import TabularEncoder


def list_encoders(model: keras.Layer) -> list[TabularEncoder]:
    """Return all encoders of a model, at any depth of nesting."""
    return [layer for layer in iterate_layers(model) if isinstance(layer, TabularEncoder)]


def find_encoder(model: keras.Layer) -> TabularEncoder | None:
    """Return the encoder of a model that takes one table, or None where there is none.

    Raises:
        ValueError: if the model has several.
    """
    encoders = list_encoders(model)
    if len(encoders) > 1:
        names = ", ".join(repr(encoder.name) for encoder in encoders)
        raise ValueError(
            f"Model {model.name!r} must have one TabularEncoder here. Received: {len(encoders)}, "
            f"{names}. Encode each table by the `encode` of its own encoder."
        )
    return encoders[0] if encoders else None


def match_encoders(
    model: keras.Layer, tensors: Sequence[Any], shapes: Sequence[Any]
) -> list[TabularEncoder | None]:
    """Return the encoder that each input of a model feeds, or None for an input without one.

    An encoder takes the encoded matrix of its own table, which comes from no other layer, so it is
    fed by an input of the model: by the only one, by the one whose tensor it was called on, or by
    the only one of its width (that of a nested model has another tensor).

    Args:
        model: any Keras model.
        tensors: symbolic tensor of each input, or None where the model has none.
        shapes: shape of one row of each input, or None where it is not known.

    Raises:
        ValueError: if the input of an encoder cannot be told.
    """
    found: list[TabularEncoder | None] = [None] * len(tensors)
    for encoder in list_encoders(model):
        place = _find_place(encoder, tensors, shapes)
        if place is None or found[place] is not None:
            raise ValueError(
                f"Cannot tell which input of model {model.name!r} feeds TabularEncoder "
                f"{encoder.name!r}. Expected: one input for each encoder, which the encoder is "
                "called on. Call it on its `keras.Input` directly."
            )
        found[place] = encoder
    return found


def _find_place(
    encoder: TabularEncoder, tensors: Sequence[Any], shapes: Sequence[Any]
) -> int | None:
    if len(tensors) == 1:
        return 0
    called_on = _get_input(encoder)
    same = [i for i, tensor in enumerate(tensors) if tensor is not None and tensor is called_on]
    width = (encoder.num_encoded,)
    places = same or [i for i, shape in enumerate(shapes) if shape == width]
    return places[0] if len(places) == 1 else None


def _get_input(layer: keras.Layer) -> Any:
    """Return the symbolic tensor that a layer was first called on, or None."""
    try:
        return layer.input
    except (AttributeError, ValueError):  # It was only called on arrays.
        return None


def is_one_row(value: Any, encoder: TabularEncoder) -> bool:
    """Whether `value` is one row of the table of an encoder, such as a dict of scalars."""
    if isinstance(value, dict):
        return bool(value) and all(map(_is_scalar, value.values()))
    if hasattr(value, "iloc"):
        return not hasattr(value, "columns")  # A Series.
    return not encoder.is_named and not hasattr(value, "columns") and np.ndim(value) == 1


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bytes) or not hasattr(value, "__len__")
