"""The hidden stack of a classifier on tables."""

import dataclasses
import difflib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_binclf._registry import register
from keras_binclf._validation import (
    Shape,
    Tensor,
    check_bool,
    check_choice,
    check_features,
    error_message,
    is_integer,
    is_real,
)

NORMALIZATIONS: dict[str, type] = {
    "batch": keras.layers.BatchNormalization,
    "layer": keras.layers.LayerNormalization,
    "rms": keras.layers.RMSNormalization,
}
RELU_FAMILY = frozenset(
    {
        *("relu", "relu6", "leaky_relu", "leakyrelu", "prelu", "elu", "celu"),
        *("gelu", "silu", "hard_silu", "mish"),
    }
)


@dataclasses.dataclass
class Step:
    """What one hidden layer is made of; None for what it does without."""

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

    def __call__(self, inputs: Tensor, mask: Tensor | None, training: bool | None) -> Tensor:
        """Return the outputs of the hidden layer, without skip connection."""
        outputs = self.dense(inputs)
        if isinstance(self.normalization, keras.layers.BatchNormalization):
            outputs = self.normalization(outputs, mask=mask, training=training)
        elif self.normalization is not None:
            outputs = self.normalization(outputs)
        outputs = self.activation(outputs)
        if self.dropout is not None:
            outputs = self.dropout(outputs, training=training)
        return outputs


@register
class MLPBlock(keras.layers.Layer):
    """Stack of hidden layers, each of them dense → normalization → activation → dropout.

    Use it as the body of a classifier on tables, or wherever a model needs a few dense layers as
    one part. With `residual=True` a hidden layer's input is added to its output,
    `x ← skip(x) + dropout(activation(normalization(x · kernel + bias)))`, where `skip` is the
    identity for equal widths and otherwise a dense projection without bias.

    `block.layers` lists the sublayers, all of them plain `keras.layers`, so that
    `model.summary(expand_nested=True)`, `model.quantize("int8")`, freezing one of them, and
    `block.layers[0].enable_lora(4)` work and survive saving.

    Sources: dropout, Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html;
    batch normalization before the activation, Ioffe and Szegedy 2015,
    https://arxiv.org/abs/1502.03167; layer normalization, Ba et al. 2016,
    https://arxiv.org/abs/1607.06450; RMS normalization, Zhang and Sennrich 2019,
    https://arxiv.org/abs/1910.07467; skip connections with projections, He et al. 2015,
    https://arxiv.org/abs/1512.03385, and on tables, Gorishniy et al. 2021,
    https://arxiv.org/abs/2106.11959. Initial kernels: He normal for the ReLU family, He et al.
    2015, https://arxiv.org/abs/1502.01852; LeCun normal for SELU, Klambauer et al. 2017,
    https://arxiv.org/abs/1706.02515; Glorot uniform otherwise, Glorot and Bengio 2010,
    https://proceedings.mlr.press/v9/glorot10a.html. 64 and 32 units are the net that most
    tutorials on tables start from.

    Args:
        hidden_units: int or list of ints, the width of each hidden layer. Defaults to `(64, 32)`.
        activation: name of a Keras activation, function that keeps the shape, or
            `keras.layers.Layer` such as `keras.layers.PReLU()`, of which each hidden layer gets a
            copy of its own. `None` is linear. Defaults to `"relu"`.
        dropout_rate: float in [0, 1), the share of units dropped in training, or a list of one
            per hidden layer. Defaults to `0.0`.
        normalization: `None`, `"batch"`, `"layer"` or `"rms"`. Defaults to `None`.
        residual: bool, whether to add each hidden layer's input to its output. Defaults to
            `False`.
        use_bias: bool, whether the hidden layers add a bias. Defaults to `True`.
        kernel_initializer: initializer of all kernels, or `None` to choose by activation: He
            normal for the ReLU family, LeCun normal for SELU, Glorot uniform for the others and
            for projections. Defaults to `None`.
        kernel_regularizer: regularizer of all kernels, or `None`. Defaults to `None`.
        sublayers: dict that `get_config` writes where sublayers were quantized, frozen or given
            LoRA weights one by one: their own configs by name. Not meant to be written by hand.
            Defaults to `None`.
        **kwargs: `name`, `dtype`, `trainable` and the other arguments of `keras.layers.Layer`.

    Input shape:
        `(batch_size, ..., features)`; the number of features must be known.

    Output shape:
        `(batch_size, ..., hidden_units[-1])`.

    Raises:
        TypeError: for an argument of the wrong kind, such as `hidden_units=64.0`.
        ValueError: for an argument of the wrong value, such as `dropout_rate=1.0`, for inputs
            whose number of features is not known, and for an activation that changes the width.

    Example:

    ```python
    import keras
    from keras_binclf import BinaryHead, MLPBlock

    model = keras.Sequential(
        [keras.Input((10,)), MLPBlock((16, 8), dropout_rate=0.1), BinaryHead()]
    )
    trainable = sum(int(keras.ops.size(weight)) for weight in model.trainable_weights)
    assert trainable == (10 + 1) * 16 + (16 + 1) * 8 + (8 + 1) * 1 == 321
    ```
    """

    def __init__(
        self,
        hidden_units: int | Sequence[int] = (64, 32),
        activation: Any = "relu",
        *,
        dropout_rate: float | Sequence[float] = 0.0,
        normalization: str | None = None,
        residual: bool = False,
        use_bias: bool = True,
        kernel_initializer: Any = None,
        kernel_regularizer: Any = None,
        sublayers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        hidden_units = _check_hidden_units(hidden_units, owner)
        dropout_rate = _check_dropout_rate(dropout_rate, len(hidden_units), owner)
        check_choice(normalization, "normalization", owner, (None, *NORMALIZATIONS))
        check_bool(residual, "residual", owner)
        check_bool(use_bias, "use_bias", owner)
        activation = _get_activation(activation, owner)
        super().__init__(**kwargs)
        self.hidden_units = hidden_units
        self.dropout_rate = dropout_rate
        self.normalization = normalization
        self.residual = residual
        self.use_bias = use_bias
        self.kernel_initializer = (
            None if kernel_initializer is None else keras.initializers.get(kernel_initializer)
        )
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        # A layer kept as an attribute would be saved as one more sublayer, never built.
        is_layer = isinstance(activation, keras.layers.Layer)
        self.activation = (
            keras.saving.serialize_keras_object(activation) if is_layer else activation
        )
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.supports_masking = True
        self._saved_sublayers = dict(sublayers or {})
        self._steps = tuple(self._make_step(i, activation) for i in range(len(hidden_units)))
        self._list_sublayers()

    def build(self, input_shape: Shape) -> None:
        """Create the projections, and build every sublayer.

        Args:
            input_shape: `(batch_size, ..., features)`.

        Raises:
            ValueError: if the number of features is not known, or the activation changes a width.
        """
        owner = type(self).__name__
        features = check_features(input_shape, owner)
        shape = tuple(input_shape)
        for i, step in enumerate(self._steps):
            output_shape = (*shape[:-1], step.dense.units)
            if self.residual and shape[-1] != step.dense.units:
                name = f"projection_{i}"
                step.projection = self._make_dense(name, i, activation=None, use_bias=False)
            for layer in step.layers:
                layer.build(shape if layer in (step.dense, step.projection) else output_shape)
            _check_keeps_shape(step.activation, output_shape, owner)
            shape = output_shape
        self._list_sublayers()
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: features})

    def call(
        self, inputs: Tensor, mask: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        """Return the outputs of the last hidden layer.

        Args:
            inputs: tensor of shape `(batch_size, ..., features)`.
            mask: bool tensor of shape `(batch_size, ...)`, True where a step counts, or None.
                Batch normalization leaves masked steps out of its statistics.
            training: bool, whether dropout and batch normalization are in training mode.

        Returns:
            Tensor of shape `(batch_size, ..., hidden_units[-1])`.
        """
        x = inputs
        for step in self._steps:
            outputs = step(x, mask, training)
            if self.residual:
                outputs = ops.add(x if step.projection is None else step.projection(x), outputs)
            x = outputs
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `(batch_size, ..., hidden_units[-1])`."""
        return (*input_shape[:-1], self.hidden_units[-1])

    def quantize(self, mode: str | None = None, **kwargs: Any) -> None:
        """Quantize every dense sublayer, as `model.quantize` does.

        Args:
            mode: `"int8"` or another mode of `keras.layers.Dense.quantize`.
            **kwargs: further arguments of `keras.layers.Dense.quantize`.
        """
        for layer in self.layers:
            if isinstance(layer, keras.layers.Dense):
                layer.quantize(mode, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with what was changed in single sublayers."""
        changed = [layer for layer in self.layers if self._is_changed(layer)]
        activation = self.activation
        return {
            **super().get_config(),
            "hidden_units": list(self.hidden_units),
            "activation": activation
            if isinstance(activation, dict)
            else keras.activations.serialize(activation),
            "dropout_rate": self.dropout_rate
            if isinstance(self.dropout_rate, float)
            else list(self.dropout_rate),
            "normalization": self.normalization,
            "residual": self.residual,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "sublayers": {layer.name: layer.get_config() for layer in changed} or None,
        }

    def _make_step(self, index: int, activation: Any) -> Step:
        dense = self._make_dense(f"dense_{index}", index, activation, self.use_bias)
        normalization = dropout = None
        if self.normalization is not None:
            cls = NORMALIZATIONS[self.normalization]
            normalization = self._make_sublayer(f"normalization_{index}", cls, {})
        if isinstance(activation, keras.layers.Layer):
            config = activation.get_config()
            activation = self._make_sublayer(f"activation_{index}", type(activation), config)
        rates = self.dropout_rate
        rate = rates if isinstance(rates, float) else rates[index]
        if rate > 0:
            config = {"rate": rate}
            dropout = self._make_sublayer(f"dropout_{index}", keras.layers.Dropout, config)
        return Step(dense, normalization, activation, dropout)

    def _make_dense(self, name: str, index: int, activation: Any, use_bias: bool) -> Any:
        initializer = self.kernel_initializer
        if isinstance(initializer, keras.initializers.Initializer):
            # One initializer gives equal values for equal shapes: each kernel needs its own.
            initializer = initializer.clone()
        config = {
            "units": self.hidden_units[index],
            "use_bias": use_bias,
            "kernel_initializer": initializer or _default_initializer(activation),
            "kernel_regularizer": self.kernel_regularizer,
        }
        return self._make_sublayer(name, keras.layers.Dense, config)

    def _make_sublayer(self, name: str, cls: Any, config: Mapping[str, Any]) -> Any:
        """Return the sublayer as it was saved if it was changed, else a new one."""
        if name in self._saved_sublayers:
            return cls.from_config(self._saved_sublayers[name])
        trainable = self.trainable and config.get("trainable", True)
        return cls.from_config(
            {**config, "name": name, "dtype": self.dtype_policy, "trainable": trainable}
        )

    def _list_sublayers(self) -> None:
        # Files hold the sublayers under this attribute, in this order: the name is file format.
        self.layers = [layer for step in self._steps for layer in step.layers]

    def _is_changed(self, layer: keras.layers.Layer) -> bool:
        return bool(
            layer.trainable != self.trainable
            or layer.quantization_mode is not None
            or getattr(layer, "lora_enabled", False)
        )


def _check_hidden_units(value: Any, owner: str) -> tuple[int, ...]:
    expected = "a positive int or a non-empty list of them"
    widths = list(value) if isinstance(value, list | tuple) else [value]
    if not all(is_integer(width) for width in widths):
        raise TypeError(error_message("hidden_units", owner, expected, value))
    if not widths or min(widths) < 1:
        raise ValueError(error_message("hidden_units", owner, expected, value))
    return tuple(int(width) for width in widths)


def _check_dropout_rate(value: Any, num_layers: int, owner: str) -> float | tuple[float, ...]:
    expected = f"a float in [0, 1), or a list of {num_layers}, one per hidden layer"
    is_list = isinstance(value, list | tuple)
    rates = list(value) if is_list else [value]
    if not all(is_real(rate) for rate in rates):
        raise TypeError(error_message("dropout_rate", owner, expected, value))
    if not all(0 <= rate < 1 for rate in rates) or (is_list and len(rates) != num_layers):
        raise ValueError(error_message("dropout_rate", owner, expected, value))
    return tuple(float(rate) for rate in rates) if is_list else float(value)


def _get_activation(value: Any, owner: str) -> Any:
    """Return a function or a layer, from a name, a config, a function, a layer or None."""
    expected = "the name of a Keras activation, a named function or a keras.layers.Layer"
    if isinstance(value, dict):
        value = keras.saving.deserialize_keras_object(value)
    if isinstance(value, str):
        try:
            return keras.activations.get(value)
        except ValueError:
            near = difflib.get_close_matches(value, dir(keras.activations), n=1)
            hint = f"Did you mean {near[0]!r}?" if near else ""
            raise ValueError(error_message("activation", owner, expected, value, hint)) from None
    if value is None:
        return keras.activations.linear
    if isinstance(value, keras.layers.Layer):
        return value
    if not isinstance(value, types.FunctionType) or value.__name__ == "<lambda>":
        hint = (
            "A lambda cannot be loaded again: give a named function, decorated with "
            "`keras.saving.register_keras_serializable`."
            if isinstance(value, types.FunctionType)
            else ""
        )
        raise TypeError(error_message("activation", owner, expected, value, hint))
    return value


def _default_initializer(activation: Any) -> str:
    name = getattr(activation, "__name__", type(activation).__name__).lower()
    if name == "selu":
        return "lecun_normal"
    return "he_normal" if name in RELU_FAMILY else "glorot_uniform"


def _check_keeps_shape(activation: Any, shape: Shape, owner: str) -> None:
    """Raise if `activation` changes the width, as `glu` does."""
    if isinstance(activation, keras.layers.Layer):
        output_width = activation.compute_output_shape(shape)[-1]
    else:
        output_width = activation(ops.zeros((1, shape[-1]))).shape[-1]
    if output_width != shape[-1]:
        name = getattr(activation, "__name__", type(activation).__name__)
        raise ValueError(
            f"`activation` of {owner} must keep the number of features. "
            f"Received: activation={name}, which makes {output_width} of {shape[-1]}."
        )
