"""Conversion of a classifier into an equal model of Keras's own layers."""

import json
import os
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_binclf._data.heads import find_output
from keras_binclf._data.inputs import list_schemas, read_inputs
from keras_binclf._layer_state import copy_state, iterate_layers
from keras_binclf._registry import REGISTERED
from keras_binclf._validation import Tensor, check_bool, error_message
from keras_binclf.decision import find_head
from keras_binclf.saving.replacing import write_and_replace

OWNER = "to_core_layers"
EXPORT = "`keras_binclf.export` writes any model for projects without this package."


def to_core_layers(
    model: keras.Model,
    *,
    labels: bool = False,
    schema_path: str | os.PathLike[str] | None = None,
) -> keras.Model:
    """Return an equal model made of `keras.layers` only, which loads without this package.

    Each `MLPBlock` becomes dense, normalization, activation, dropout and add layers, and each
    `BinaryHead` a `keras.layers.Dense` of one unit. Weights are copied. The compilation, the class
    names and, unless `labels`, the threshold are left out. A `TabularEncoder` becomes layers and
    operations that take the encoded table; which columns that has is left to `schema_path`.

    Args:
        model: built functional or Sequential model, which may contain models and wrappers.
        labels: bool, whether the new model returns a dict of `"probability"` and `"label"`, where
            the label is 1 if the probability is above the head's threshold, else 0. The threshold
            is a constant of the new model. Defaults to `False`.
        schema_path: where to write the columns of each table that the model takes, as JSON by the
            name of the model's input; over an earlier file. `None` writes none. Defaults to `None`.

    Returns:
        An uncompiled `keras.Model` with the inputs of `model`, and its outputs unless `labels`.

    Raises:
        OSError: if the folder of `schema_path` cannot be written.
        TypeError: if `model` is not a Keras model, or `schema_path` no path.
        ValueError: for a subclassed model, a model that is not built, a layer of this package
            inside a layer that cannot be taken apart, a class derived from a layer of this package,
            with `labels` for a model without exactly one head, and with `schema_path` for one
            without a `TabularEncoder`.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_binclf
    from keras_binclf import to_core_layers

    model = keras_binclf.binary_classifier(4)
    keras_binclf.find_head(model).threshold = 0.2
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")

    to_core_layers(model, labels=True).save("plain.keras")
    outputs = keras.models.load_model("plain.keras").predict(x, verbose=0)
    assert np.allclose(outputs["probability"], model.predict(x, verbose=0), atol=1e-6)
    assert (outputs["label"] == keras_binclf.predict_labels(model, x)).all()
    ```
    """
    check_bool(labels, "labels", OWNER)
    _check_model(model)
    schemas = None if schema_path is None else _list_schemas(model, schema_path)
    converter = _Converter()
    clone = converter.convert_model(model)
    for layer, copy in converter.copies:
        copy_state(layer, copy)
    core = _add_label(model, clone) if labels else clone
    if schema_path is not None:
        with write_and_replace(schema_path, OWNER) as path:
            path.write_text(json.dumps(schemas, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return core


class _Converter:
    """Copies each layer once, also where a graph uses it in several places."""

    def __init__(self) -> None:
        # Functions of core layers, by the layer that stands for each in a graph.
        self.functions: dict[keras.Layer, Callable[[Tensor], Tensor]] = {}
        # Layers and their copies, which have no weights until a graph builds them.
        self.copies: list[tuple[keras.Layer, keras.Layer]] = []

    def convert_model(self, model: keras.Model) -> keras.Model:
        """Return an equal model of core layers."""
        if isinstance(model, keras.Sequential):
            first = model.inputs[0]
            x = inputs = keras.Input(batch_shape=first.shape, dtype=first.dtype, name=first.name)
            for layer in model.layers:
                x = self.apply(self.convert(layer), x)
        else:
            clone = keras.models.clone_model(
                model, clone_function=self.convert, call_function=self.apply
            )
            inputs, x = clone.input, clone.output
        # The clone of a class of the user's own is of that class; this is of Keras's.
        return keras.Model(inputs, x, name=model.name)

    def convert(self, layer: Any) -> Any:
        """Return a copy of a layer, without layers of this package in it."""
        if not isinstance(layer, keras.Layer):
            # An operation, such as slicing, has no state.
            return layer
        # A class derived from ours may compute something else than its base says.
        if "to_core" in vars(type(layer)):
            return self._convert_ours(layer)
        known: Any = tuple(REGISTERED.values())
        ours = [part for part in iterate_layers(layer) if isinstance(part, known)]
        if not ours:
            copy = type(layer).from_config(layer.get_config())
            self.copies.append((layer, copy))
            return copy
        if _is_known_graph(layer):
            return self.convert_model(layer)
        if isinstance(layer, keras.layers.Wrapper):
            config = layer.get_config()
            del config["layer"]
            return type(layer)(self._convert_wrapped(layer.layer), **config)
        raise ValueError(
            f"{OWNER} cannot take {type(layer).__name__} {layer.name!r} apart, which holds "
            f"{type(ours[0]).__name__} {ours[0].name!r}. {EXPORT}"
        )

    def apply(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a copy, or the function of core layers that it stands for."""
        if layer in self.functions:
            return self.functions[layer](args[0])
        return layer(*args, **kwargs)

    def _convert_ours(self, layer: Any) -> keras.Layer:
        core = layer.to_core()
        if isinstance(core, keras.Layer):
            return core
        placeholder = keras.layers.Identity(name=layer.name)
        self.functions[placeholder] = core
        return placeholder

    def _convert_wrapped(self, layer: keras.Layer) -> keras.Layer:
        copy = self.convert(layer)
        if copy not in self.functions:
            return copy
        inputs = keras.Input((layer.get_build_config() or {})["input_shape"][1:])
        return keras.Model(inputs, self.apply(copy, inputs), name=layer.name)


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` of {OWNER} must be a keras.Model. Received: {type(model).__name__}."
        )
    if not _is_known_graph(model):
        if isinstance(model, keras.Sequential):
            hint = "Call it on a batch first, or start it with `keras.Input`."
            raise ValueError(f"{OWNER} needs a built model. Received: {model.name!r}. {hint}")
        raise ValueError(
            f"{OWNER} takes functional and Sequential models, whose layers Keras knows. Received: "
            f"{model.name!r}, of class {type(model).__name__}. {EXPORT}"
        )


def _list_schemas(model: keras.Model, schema_path: Any) -> dict[str, Any]:
    if not isinstance(schema_path, str | os.PathLike):
        raise TypeError(error_message("schema_path", OWNER, "None or a path", schema_path))
    schemas = list_schemas(read_inputs(model, OWNER))
    if not schemas:
        expected = f"None for model {model.name!r}, which holds no TabularEncoder"
        raise ValueError(error_message("schema_path", OWNER, expected, str(schema_path)))
    return schemas


def _is_known_graph(layer: keras.Layer) -> bool:
    """Whether Keras knows how the layers of a model follow each other."""
    is_model = isinstance(layer, keras.Model)
    return is_model and bool(getattr(layer, "inputs", None) and getattr(layer, "outputs", None))


def _add_label(model: keras.Model, clone: keras.Model) -> keras.Model:
    """Return a model whose outputs are the probability and the label."""
    head = find_head(model)
    output = clone.outputs[find_output(model, head, model.outputs)]
    probability = ops.cast(ops.sigmoid(output) if head.from_logits else output, "float32")
    label = ops.cast(ops.greater(probability, head.threshold), "int32")
    outputs = {"probability": probability, "label": label}
    return keras.Model(clone.input, outputs, name=model.name)
