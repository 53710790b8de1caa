"""A layer as data: what makes an equal one for each trial, so that no trial's model is kept."""

import json
from typing import Any

import keras
import numpy as np

from keras_binclf._registry import drop_sharing

Packed = dict[str, Any]


def pack_layer(layer: keras.Layer) -> Packed:
    """Return a layer's config, shape and weights as what JSON can hold."""
    packed = {
        "layer": drop_sharing(keras.saving.serialize_keras_object(layer)),
        "build_config": drop_sharing(layer.get_build_config()) if layer.built else None,
        "weights": _pack_weights(layer),
    }
    # As it comes out of a file: lists for tuples.
    plain: Packed = json.loads(json.dumps(packed))
    return plain


def unpack_layer(packed: Packed) -> keras.Layer:
    """Return a new layer with the config, shape and weights of the one that was packed."""
    layer = keras.saving.deserialize_keras_object(packed["layer"])
    if packed["build_config"] and not layer.built:
        layer.build_from_config(packed["build_config"])
    _unpack_weights(layer, packed["weights"])
    return layer


def _list_children(layer: keras.Layer) -> list[keras.Layer]:
    return list(getattr(layer, "layers", []))


def _pack_weights(layer: keras.Layer) -> Packed:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    own = {name: _to_lists(value) for name, value in store.items()}
    return {"own": own, "children": [_pack_weights(child) for child in _list_children(layer)]}


def _unpack_weights(layer: keras.Layer, weights: Packed) -> None:
    if weights["own"]:
        # The layer's own way: `Normalization` computes from its weights what it applies.
        own = weights["own"].items()
        layer.load_own_variables({name: np.array(v["values"], v["dtype"]) for name, v in own})
    for child, packed in zip(_list_children(layer), weights["children"], strict=True):
        _unpack_weights(child, packed)


def _to_lists(value: Any) -> dict[str, Any]:
    array = keras.ops.convert_to_numpy(value)
    return {"dtype": str(array.dtype), "values": array.tolist()}
