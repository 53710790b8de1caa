"""A classifier as an equal model of Keras's own layers."""

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_binclf._data.heads import find_output
from keras_binclf._layer_state import copy_state, iterate_layers
from keras_binclf._registry import REGISTERED
from keras_binclf._validation import check_bool
from keras_binclf.decision import find_head
from keras_binclf.layers import BinaryHead, MLPBlock

OWNER = "to_core_layers"
EXPORT = "`keras_binclf.export` writes any model for projects without this package."


def to_core_layers(model: keras.Model, *, labels: bool = False) -> keras.Model:
    """Return an equal model made of `keras.layers` only, which loads where this package is not.

    Each `MLPBlock` becomes dense, normalization, activation, dropout and add layers, and each
    `BinaryHead` a `keras.layers.Dense` of one unit. Weights are copied. What only this package
    knows is left behind: how the model was compiled, the class names, and, unless `labels`, the
    threshold.

    Args:
        model: functional or Sequential model, also with models and wrappers inside, that is built.
        labels: bool, whether the new model returns a dict of `"probability"` and `"label"`, where
            the label is 1 if the probability is above the head's threshold, else 0. The threshold
            is a constant of the new model. Defaults to `False`.

    Returns:
        An uncompiled `keras.Model` with the inputs of `model`, and its outputs unless `labels`.

    Raises:
        TypeError: for what is no Keras model.
        ValueError: for a subclassed model, one that is not built, one of our layers inside a layer
            that cannot be taken apart, a class derived from ours, and with `labels` for a model
            without exactly one head.

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
    converter = _Converter()
    clone = converter.convert_model(model)
    for layer, copy in converter.copies:
        copy_state(layer, copy)
    return _add_label(model, clone) if labels else clone


class _Converter:
    """Makes the copies, each layer's once, also where it is used in several places."""

    def __init__(self) -> None:
        # By the layer that stands for a block in a graph until it is applied.
        self.blocks: dict[keras.Layer, list[Step]] = {}
        # Layers and their equals, which have no weights until a graph builds them.
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
        """Return a copy of a layer, of core layers where it is or holds one of ours."""
        if not isinstance(layer, keras.Layer):
            # An operation, such as slicing, has no state.
            return layer
        # A class derived from ours may compute something else.
        if type(layer) is BinaryHead:
            return _convert_head(layer)
        if type(layer) is MLPBlock:
            placeholder = keras.layers.Identity(name=layer.name)
            self.blocks[placeholder] = [_copy_step(layer, i) for i in range(len(layer._steps))]
            return placeholder
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
        """Call a copy; a block becomes the layers that it is made of."""
        if layer not in self.blocks:
            return layer(*args, **kwargs)
        x = args[0]
        for step in self.blocks[layer]:
            outputs = x
            for part in (step.dense, step.normalization, step.activation, step.dropout):
                outputs = outputs if part is None else part(outputs)
            if step.addition is not None:
                skip = x if step.projection is None else step.projection(x)
                outputs = step.addition([skip, outputs])
            x = outputs
        return x

    def _convert_wrapped(self, layer: keras.Layer) -> keras.Layer:
        copy = self.convert(layer)
        if copy not in self.blocks:
            return copy
        inputs = keras.Input(_get_input_shape(layer)[1:])
        return keras.Model(inputs, self.apply(copy, inputs), name=layer.name)


@dataclasses.dataclass(frozen=True)
class Step:
    """One hidden layer of a block, as layers; None for what it does without."""

    dense: keras.Layer
    normalization: keras.Layer | None
    activation: keras.Layer | None
    dropout: keras.Layer | None
    projection: keras.Layer | None
    addition: keras.Layer | None


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


def _convert_head(head: BinaryHead) -> keras.layers.Dense:
    dense = keras.layers.Dense(
        1,
        activation=head.activation,
        use_bias=head.use_bias,
        kernel_regularizer=head.kernel_regularizer,
        bias_regularizer=head.bias_regularizer,
        dtype=head.dtype_policy,
        name=head.name,
        trainable=head.trainable,
    )
    dense.build(_get_input_shape(head))
    weights = [head.kernel] if head.bias is None else [head.kernel, head.bias]
    dense.set_weights([ops.convert_to_numpy(weight) for weight in weights])
    return dense


def _copy_step(block: MLPBlock, index: int) -> Step:
    """Return the copies of one hidden layer of a block."""
    step = block._steps[index]
    options = {"dtype": block.dtype_policy}
    activation = _copy_layer(step.activation, block)
    if activation is None and step.activation is not keras.activations.linear:
        name = f"{block.name}_activation_{index}"
        activation = keras.layers.Activation(step.activation, name=name, **options)
    addition = None
    if block.residual:
        addition = keras.layers.Add(name=f"{block.name}_add_{index}", **options)
    return Step(
        dense=_copy_layer(step.dense, block),
        normalization=_copy_layer(step.normalization, block),
        activation=activation,
        dropout=_copy_layer(step.dropout, block),
        projection=_copy_layer(step.projection, block),
        addition=addition,
    )


def _copy_layer(layer: Any, block: MLPBlock) -> Any:
    """Return an equal layer with the same weights, named after its block; None for no layer."""
    if not isinstance(layer, keras.Layer):
        return None
    copy = type(layer).from_config({**layer.get_config(), "name": f"{block.name}_{layer.name}"})
    copy.build(_get_input_shape(layer))
    copy_state(layer, copy)
    return copy


def _get_input_shape(layer: keras.Layer) -> Any:
    return (layer.get_build_config() or {})["input_shape"]


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
