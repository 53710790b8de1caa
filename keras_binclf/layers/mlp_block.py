"""The hidden stack of a classifier on tables."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_binclf._registry import SavedLayer, drop_sharing, register
from keras_binclf._validation import (
    Shape,
    Tensor,
    check_bool,
    check_choice,
    check_features,
    error_message,
    is_integer,
    is_real,
    to_list,
)
from keras_binclf.layers._activation import (
    check_keeps_shape,
    default_initializer,
    get_activation,
    serialize_template,
)

NORMALIZATIONS: dict[str, type] = {
    "batch": keras.layers.BatchNormalization,
    "layer": keras.layers.LayerNormalization,
    "rms": keras.layers.RMSNormalization,
}


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
            # Any keyword, also one of None, makes an eager call of a Keras layer slower.
            given = {"mask": mask, "training": training}
            given = {name: value for name, value in given.items() if value is not None}
            outputs = self.normalization(outputs, **given)
        elif self.normalization is not None:
            outputs = self.normalization(outputs)
        outputs = self.activation(outputs)
        if self.dropout is not None and training:
            outputs = self.dropout(outputs, training=training)
        return outputs


@register
class MLPBlock(SavedLayer, keras.layers.Layer):
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
            for projections. One with a seed gets another seed for each kernel. Defaults to
            `None`.
        kernel_regularizer: regularizer of all kernels, or `None`. Defaults to `None`.
        sublayers: dict that `get_config` writes where sublayers were changed one by one, such as
            quantized, frozen or given LoRA weights: their own configs by name. Not meant to be
            written by hand. Defaults to `None`.
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
        residual = check_bool(residual, "residual", owner)
        use_bias = check_bool(use_bias, "use_bias", owner)
        activation = get_activation(activation, owner)
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
        self.activation = serialize_template(activation) if is_layer else activation
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.supports_masking = True
        self._saved_sublayers = dict(sublayers or {})
        self._first_configs: dict[str, Any] = {}
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
            check_keeps_shape(step.activation, output_shape, owner)
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
        # A copy carries no mask, which layers that know nothing of masks would warn about.
        x = inputs if mask is None else ops.copy(inputs)
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
            "sublayers": {layer.name: drop_sharing(layer.get_config()) for layer in changed}
            or None,
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
        # Different for each kernel, that of a projection too, which may have the same shape.
        offset = 2 * index + (not name.startswith("dense"))
        config = {
            "units": self.hidden_units[index],
            "use_bias": use_bias,
            "kernel_initializer": _vary_initializer(self.kernel_initializer, offset)
            or default_initializer(activation),
            "kernel_regularizer": self.kernel_regularizer,
        }
        return self._make_sublayer(name, keras.layers.Dense, config)

    def _make_sublayer(self, name: str, cls: Any, config: Mapping[str, Any]) -> Any:
        """Return the sublayer as it was saved if it was changed, else a new one."""
        policy = self.dtype_policy
        # A custom layer without `get_config` can repeat the name of a policy, not the policy.
        dtype = policy.name if type(policy) is keras.dtype_policies.DTypePolicy else policy
        trainable = self.trainable and config.get("trainable", True)
        config = {**config, "name": name, "dtype": dtype, "trainable": trainable}
        layer = cls.from_config(config)
        self._first_configs[name] = drop_sharing(layer.get_config())
        if name in self._saved_sublayers:
            return cls.from_config(self._saved_sublayers[name])
        return layer

    def _list_sublayers(self) -> None:
        # Files hold the sublayers under this attribute, in this order: the name is file format.
        self.layers = [layer for step in self._steps for layer in step.layers]

    def _is_changed(self, layer: keras.layers.Layer) -> bool:
        """Whether `layer` is other than this block's arguments alone would make it."""
        first = {**self._first_configs[layer.name], "trainable": self.trainable}
        return bool(drop_sharing(layer.get_config()) != first)


def _vary_initializer(initializer: Any, offset: int) -> Any:
    """Return an initializer for one kernel, since each gives equal values for equal shapes."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if is_integer(config.get("seed")):
        config["seed"] += offset
    return type(initializer).from_config(config)


def _check_hidden_units(value: Any, owner: str) -> tuple[int, ...]:
    expected = "a positive int or a non-empty list of them"
    widths = to_list(value)
    widths = [value] if widths is None else widths
    if not all(is_integer(width) for width in widths):
        raise TypeError(error_message("hidden_units", owner, expected, value))
    if not widths or min(widths) < 1:
        raise ValueError(error_message("hidden_units", owner, expected, value))
    return tuple(int(width) for width in widths)


def _check_dropout_rate(value: Any, num_layers: int, owner: str) -> float | tuple[float, ...]:
    expected = f"a float in [0, 1), or a list of {num_layers}, one per hidden layer"
    listed = to_list(value)
    rates = [value] if listed is None else listed
    if not all(is_real(rate) for rate in rates):
        raise TypeError(error_message("dropout_rate", owner, expected, value))
    wrong_length = listed is not None and len(rates) != num_layers
    if wrong_length or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(error_message("dropout_rate", owner, expected, value))
    return float(value) if listed is None else tuple(float(rate) for rate in rates)
