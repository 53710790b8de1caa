"""Any Keras layer: the layers in it, its config and all of its state, and equal copies of it."""

import base64
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_binclf._registry import drop_sharing

Json = dict[str, Any]

WEIGHTS_FILE = "state.weights.h5"
"""Keras asks for this ending."""

ADAPTED = ("mean", "variance", "bin_boundaries")
"""Attributes of Keras's preprocessing layers that hold adapted statistics beside the weights."""


def iterate_layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yield a layer and all layers in it, however deep, also in wrappers and subclassed models.

    Keras has no public walk that enters those.
    """
    yield from layer._flatten_layers()


def list_parts(layers: list[keras.Layer]) -> list[Any]:
    """Return the objects that a compiled function captured and a change of the model replaces.

    Those are the variables and sublayers of each layer, and the statistics that `adapt` or the
    loading of a file replaces without a variable.
    """
    # The public properties collect these from all sublayers, which takes ten times as long.
    parts = [
        part
        for layer in layers
        for tracked in (layer._trainable_variables, layer._non_trainable_variables, layer._layers)
        for part in tracked
    ]
    for layer in layers:
        if isinstance(layer, keras.layers.Normalization | keras.layers.Discretization):
            parts += [getattr(layer, name, None) for name in ADAPTED]
    return parts


def serialize_layer(layer: keras.Layer) -> Json:
    """Return the config and all state of a layer as data that JSON can hold.

    The state is that of the layer and its sublayers, wherever they are attached: weights, adapted
    statistics, assets such as vocabularies, and the state of random number generators.
    """
    data = {
        "layer": drop_sharing(keras.saving.serialize_keras_object(layer)),
        "state": _get_state(layer),
    }
    # As it comes out of a file: lists for tuples.
    plain: Json = json.loads(json.dumps(data))
    return plain


def deserialize_layer(data: Json) -> keras.Layer:
    """Return a new layer with the config and state that `serialize_layer` returned.

    Args:
        data: the result of `serialize_layer`, or of its predecessor in version 0.1.0.

    Raises:
        ValueError: if the layer's config does not tell how to build it, or which sublayers it has.
    """
    layer = keras.saving.deserialize_keras_object(data["layer"])
    if "state" in data:
        _set_state(layer, data["state"])
    else:
        _set_first_form(layer, data)
    return layer


def drop_seeds(data: Json) -> Json:
    """Return the data of a layer without random states, which differ from process to process."""
    return {**data, "state": {**data["state"], "seeds": None}}


def copy_state(layer: keras.Layer, copy: keras.Layer) -> None:
    """Give a built layer all state of another one of the same class and config.

    Raises:
        ValueError: if the two do not hold the same sublayers.
    """
    _set_state(copy, _get_state(layer))


class _Carrier(keras.Model):
    """A model that holds a layer, because Keras saves the weights of models only.

    The list also holds the sublayers in lists of lists, which Keras before 3.15 does not save.
    """

    def __init__(self, layer: keras.Layer) -> None:
        super().__init__()
        self.parts = list(iterate_layers(layer))
        self.built = True


def _get_state(layer: keras.Layer) -> Json:
    with tempfile.TemporaryDirectory() as folder:
        weights = _read_weights(layer, Path(folder, WEIGHTS_FILE))
    return {
        "classes": _list_classes(layer),
        "weights": weights,
        "assets": [_read_assets(part) for part in iterate_layers(layer)],
        "seeds": [keras.ops.convert_to_numpy(seed).tolist() for seed in _list_seeds(layer)],
    }


def _set_state(layer: keras.Layer, state: Json) -> None:
    if _list_classes(layer) != state["classes"]:
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} must hold the same layers when it is made from "
            f"its config. Expected: {', '.join(state['classes'])}. Received: "
            f"{', '.join(_list_classes(layer))}. Make sublayers in `__init__`, or from the config."
        )
    with tempfile.TemporaryDirectory() as folder:
        _write_weights(layer, state["weights"], Path(folder, WEIGHTS_FILE))
    for part, files in zip(iterate_layers(layer), state["assets"], strict=True):
        _write_assets(part, files)
    for seed, value in zip(_list_seeds(layer), state["seeds"], strict=True):
        seed.assign(value)


def _list_classes(layer: keras.Layer) -> list[str]:
    return [type(part).__name__ for part in iterate_layers(layer)]


def _list_seeds(layer: keras.Layer) -> list[Any]:
    """Return the states of random number generators, which Keras writes into no file."""
    weights = {id(weight) for weight in layer.weights}
    return [variable for variable in layer.variables if id(variable) not in weights]


def _read_weights(layer: keras.Layer, path: Path) -> dict[str, Json]:
    """Return the arrays that Keras writes into a weights file, by their path in it."""
    import h5py

    _Carrier(layer).save_weights(path)
    arrays: dict[str, Json] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = _array_to_json(np.asarray(item)) | _get_marks(item)

    with h5py.File(path, "r") as file:
        file.visititems(add)
    return arrays


def _write_weights(layer: keras.Layer, arrays: dict[str, Json], path: Path) -> None:
    """Load arrays by their path in a weights file, through such a file."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=_array_from_json(array)).attrs.update(array["marks"])
    _Carrier(layer).load_weights(path)


def _get_marks(dataset: Any) -> Json:
    """Return the attribute by which Keras tells bfloat16, for which HDF5 has no name."""
    return {"marks": {name: str(value) for name, value in dataset.attrs.items()}}


def _array_to_json(array: np.ndarray) -> Json:
    return {"dtype": array.dtype.str, "shape": array.shape, "base64": _encode(array.tobytes())}


def _array_from_json(data: Json) -> np.ndarray:
    array = np.frombuffer(base64.b64decode(data["base64"]), data["dtype"])
    return array.reshape(data["shape"])


def _read_assets(layer: keras.Layer) -> dict[str, str]:
    """Return the files that a layer keeps beside its weights, such as a vocabulary."""
    if not hasattr(layer, "save_assets"):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        layer.save_assets(folder)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): _encode(path.read_bytes()) for path in files}


def _write_assets(layer: keras.Layer, files: dict[str, str]) -> None:
    if not files:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, name)
            if ".." in path.parts or not path.is_relative_to(folder):
                raise ValueError(f"An asset must lie in its layer's folder. Received: {name!r}.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(content))
        layer.load_assets(folder)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _set_first_form(layer: keras.Layer, data: Json) -> None:
    """Set the state of a layer in the form of version 0.1.0, as lists of numbers by `.layers`."""
    if data["build_config"] and not layer.built:
        layer.build_from_config(data["build_config"])
    _set_lists(layer, data["weights"])


def _set_lists(layer: keras.Layer, weights: Json) -> None:
    if weights["own"]:
        own = weights["own"].items()
        layer.load_own_variables({name: np.array(v["values"], v["dtype"]) for name, v in own})
    for child, inner in zip(getattr(layer, "layers", []), weights["children"], strict=True):
        _set_lists(child, inner)
