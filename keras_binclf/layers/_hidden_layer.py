"""One hidden layer of an `MLPBlock`."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import ops

from keras_binclf._layer_state import copy_state
from keras_binclf._validation import (
    Shape,
    Tensor,
    error_message,
    is_integer,
    is_real,
    to_list,
)
from keras_binclf.layers._activation import check_keeps_shape
from keras_binclf.layers._policy import get_own_policy


@dataclasses.dataclass
class HiddenLayer:
    """Dense → normalization → activation → dropout, plus the inputs where `residual`.

    A part is None where the hidden layer has none of it. `activation` is a function or a layer.
    """

    index: int
    residual: bool
    dense: keras.layers.Dense
    normalization: keras.layers.Layer | None
    activation: Callable[[Tensor], Tensor]
    dropout: keras.layers.Layer | None
    projection: keras.layers.Dense | None = None

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The parts that are layers, in the order in which data meets them."""
        parts = (self.dense, self.normalization, self.activation, self.dropout, self.projection)
        return [part for part in parts if isinstance(part, keras.layers.Layer)]

    def needs_projection(self, num_inputs: int | None) -> bool:
        """Whether the skip connection changes the width."""
        return self.residual and num_inputs != self.dense.units

    def build(self, input_shape: Shape, owner: str) -> Shape:
        """Build all parts, and return the shape of the outputs."""
        output_shape = (*input_shape[:-1], self.dense.units)
        for layer in self.layers:
            takes_inputs = layer in (self.dense, self.projection)
            layer.build(input_shape if takes_inputs else output_shape)
        check_keeps_shape(self.activation, output_shape, owner)
        return output_shape

    def __call__(self, inputs: Tensor, mask: Tensor | None, training: bool | None) -> Tensor:
        """Return the outputs, with the skip connection where `residual`."""
        outputs = self.dense(inputs)
        if isinstance(self.normalization, keras.layers.BatchNormalization):
            # Any keyword, also one of None, makes an eager call of a Keras layer slower.
            given = {"mask": mask, "training": training}
            given = {name: value for name, value in given.items() if value is not None}
            outputs = self.normalization(outputs, **given)
        elif self.normalization is not None:
            outputs = self.normalization(outputs)
        outputs = self.activation(outputs)
        if self.dropout is not None and training:
            outputs = self.dropout(outputs, training=training)
        if not self.residual:
            return outputs
        return ops.add(inputs if self.projection is None else self.projection(inputs), outputs)

    def to_core(self, prefix: str, dtype: Any) -> Callable[[Tensor], Tensor]:
        """Return a function that applies copies of the parts, each of them a layer.

        Args:
            prefix: beginning of the names of the copies.
            dtype: float policy of the layers that stand for functions.
        """
        activation = _copy_layer(self.activation, prefix)
        if activation is None and self.activation is not keras.activations.linear:
            name = f"{prefix}_activation_{self.index}"
            activation = keras.layers.Activation(self.activation, name=name, dtype=dtype)
        parts = (_copy_layer(self.dense, prefix), _copy_layer(self.normalization, prefix))
        path = [*parts, activation, _copy_layer(self.dropout, prefix)]
        if not self.residual:
            return lambda inputs: _apply(path, inputs)
        projection = _copy_layer(self.projection, prefix)
        add = keras.layers.Add(name=f"{prefix}_add_{self.index}", dtype=dtype)
        return lambda inputs: add([_apply([projection], inputs), _apply(path, inputs)])


def _copy_layer(layer: Any, prefix: str) -> keras.layers.Layer | None:
    """Return a renamed copy of a layer with its weights, and None for a function or None."""
    if not isinstance(layer, keras.layers.Layer):
        return None
    # A copy has another path, by which a map of policies would give it another policy.
    changes = {"name": f"{prefix}_{layer.name}", "dtype": get_own_policy(layer)}
    copy = type(layer).from_config({**layer.get_config(), **changes})
    copy.build((layer.get_build_config() or {})["input_shape"])
    copy_state(layer, copy)
    return copy


def _apply(layers: Iterable[keras.layers.Layer | None], inputs: Tensor) -> Tensor:
    """Apply the layers one after the other."""
    for layer in layers:
        inputs = inputs if layer is None else layer(inputs)
    return inputs


def check_hidden_units(value: Any, owner: str) -> tuple[int, ...]:
    """Return the widths as a tuple, or raise."""
    expected = "a positive int or a non-empty list of them"
    widths = to_list(value)
    widths = [value] if widths is None else widths
    if not all(is_integer(width) for width in widths):
        raise TypeError(error_message("hidden_units", owner, expected, value))
    if not widths or min(widths) < 1:
        raise ValueError(error_message("hidden_units", owner, expected, value))
    return tuple(int(width) for width in widths)


def check_dropout_rate(value: Any, num_layers: int, owner: str) -> float | tuple[float, ...]:
    """Return one rate for all hidden layers or one for each, or raise."""
    expected = f"a float in [0, 1), or a list of {num_layers}, one per hidden layer"
    listed = to_list(value)
    rates = [value] if listed is None else listed
    if not all(is_real(rate) for rate in rates):
        raise TypeError(error_message("dropout_rate", owner, expected, value))
    wrong_length = listed is not None and len(rates) != num_layers
    if wrong_length or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(error_message("dropout_rate", owner, expected, value))
    return float(value) if listed is None else tuple(float(rate) for rate in rates)
