"""The hidden stack of a classifier on tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_binclf._registry import SavedLayer, register
from keras_binclf._validation import (
    Shape,
    Tensor,
    check_bool,
    check_choice,
    check_features,
)
from keras_binclf.layers._activation import get_activation, serialize_template
from keras_binclf.layers._hidden_layer import (
    HiddenLayer,
    check_dropout_rate,
    check_hidden_units,
)
from keras_binclf.layers._initializers import default_initializer, vary_initializer
from keras_binclf.layers._policy import get_float_policy, get_own_policy, get_policy
from keras_binclf.layers._sublayers import Sublayers

NORMALIZATIONS: dict[str, type] = {
    "batch": keras.layers.BatchNormalization,
    "layer": keras.layers.LayerNormalization,
    "rms": keras.layers.RMSNormalization,
}


@register
class MLPBlock(SavedLayer, keras.layers.Layer):
    """Stack of hidden layers, each of them dense → normalization → activation → dropout.

    Use it as the body of a classifier on tables, or wherever a model needs a few dense layers as
    one part. With `residual=True` a hidden layer's input is added to its output,
    `x ← skip(x) + dropout(activation(normalization(x · kernel + bias)))`, where `skip` is the
    identity for equal widths and otherwise a dense projection without bias.

    `block.layers` lists the sublayers, all of them plain `keras.layers`: they show in
    `model.summary(expand_nested=True)`, and freezing one of them, `model.quantize("int8")` and
    `block.layers[0].enable_lora(4)` work and survive saving. Their names are `dense_0`,
    `dense_1` and so on in every block, so a filter finds a block by the path of its sublayers:
    `model.quantize("int8", filters=lambda layer: "/my_block/" in f"/{layer.path}")`.

    Under a quantized policy such as `dtype="int8_from_float32"` the dense sublayers are
    quantized. All other sublayers, and the block itself, compute in its float part.

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

    References:
        - Dropout: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
        - Batch normalization before the activation: Ioffe and Szegedy 2015,
          https://arxiv.org/abs/1502.03167
        - Layer normalization: Ba et al. 2016, https://arxiv.org/abs/1607.06450
        - RMS normalization: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467
        - Skip connections with projections: He et al. 2015, https://arxiv.org/abs/1512.03385;
          on tables: Gorishniy et al. 2021, https://arxiv.org/abs/2106.11959
        - Initial kernels: He et al. 2015, https://arxiv.org/abs/1502.01852 (ReLU family);
          Klambauer et al. 2017, https://arxiv.org/abs/1706.02515 (SELU); Glorot and Bengio 2010,
          https://proceedings.mlr.press/v9/glorot10a.html (others)
        - 64 and 32 units are the net that most tutorials on tables start from.
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
        hidden_units = check_hidden_units(hidden_units, owner)
        dropout_rate = check_dropout_rate(dropout_rate, len(hidden_units), owner)
        check_choice(normalization, "normalization", owner, (None, *NORMALIZATIONS))
        residual = check_bool(residual, "residual", owner)
        use_bias = check_bool(use_bias, "use_bias", owner)
        activation = get_activation(activation, owner)
        super().__init__(**{**kwargs, "dtype": get_policy(kwargs.get("dtype"), owner)})
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
        self._sublayers = Sublayers(sublayers, owner)
        self._hidden_layers = tuple(
            self._make_hidden_layer(i, activation) for i in range(len(hidden_units))
        )
        self._list_sublayers()
        self._sublayers.check_saved_names(self._name_sublayers())

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
        for hidden_layer in self._hidden_layers:
            if hidden_layer.needs_projection(shape[-1]):
                hidden_layer.projection = self._make_projection(hidden_layer.index)
            shape = hidden_layer.build(shape, owner)
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
        # A copy carries no mask; layers that do not support masks would warn about one.
        x = inputs if mask is None else ops.copy(inputs)
        for hidden_layer in self._hidden_layers:
            x = hidden_layer(x, mask, training)
        return x

    def quantized_call(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return what `call` returns: Keras asks for this under a quantized policy."""
        return self.call(*args, **kwargs)

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

    def to_core(self) -> Callable[[Tensor], Tensor]:
        """Return a function of `keras.layers` that computes the same, with copies of the weights.

        `keras_binclf.to_core_layers` asks for it. The names of the layers begin with the block's.
        """
        dtype = get_float_policy(get_own_policy(self))
        steps = [hidden.to_core(self.name, dtype) for hidden in self._hidden_layers]

        def apply(inputs: Tensor) -> Tensor:
            for step in steps:
                inputs = step(inputs)
            return inputs

        return apply

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, and the configs of sublayers that were changed."""
        activation, rates = self.activation, self.dropout_rate
        return {
            **super().get_config(),
            "hidden_units": list(self.hidden_units),
            "activation": activation
            if isinstance(activation, dict)
            else keras.activations.serialize(activation),
            "dropout_rate": rates if isinstance(rates, float) else list(rates),
            "normalization": self.normalization,
            "residual": self.residual,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "sublayers": self._sublayers.get_changed(self.layers, self.trainable),
        }

    def _make_hidden_layer(self, index: int, activation: Any) -> HiddenLayer:
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
        return HiddenLayer(index, self.residual, dense, normalization, activation, dropout)

    def _make_projection(self, index: int) -> keras.layers.Dense:
        return self._make_dense(f"projection_{index}", index, activation=None, use_bias=False)

    def _make_dense(self, name: str, index: int, activation: Any, use_bias: bool) -> Any:
        # Different for each kernel, that of a projection too, which may have the same shape.
        offset = 2 * index + (not name.startswith("dense"))
        config = {
            "units": self.hidden_units[index],
            "use_bias": use_bias,
            "kernel_initializer": vary_initializer(self.kernel_initializer, offset)
            or default_initializer(activation),
            "kernel_regularizer": self.kernel_regularizer,
        }
        return self._make_sublayer(name, keras.layers.Dense, config)

    def _make_sublayer(self, name: str, cls: Any, config: Mapping[str, Any]) -> Any:
        can_be_quantized = cls is keras.layers.Dense
        policy = self.dtype_policy if can_be_quantized else get_float_policy(self.dtype_policy)
        # A custom layer without `get_config` can repeat the name of a policy, not the policy.
        dtype = policy.name if type(policy) is keras.dtype_policies.DTypePolicy else policy
        trainable = self.trainable and config.get("trainable", True)
        config = {**config, "name": name, "dtype": dtype, "trainable": trainable}
        return self._sublayers.make(cls, config)

    def _list_sublayers(self) -> None:
        # Files hold the sublayers under this attribute, in this order: the name is file format.
        self.layers = [layer for hidden in self._hidden_layers for layer in hidden.layers]

    def _name_sublayers(self) -> list[str]:
        """Return the names of all sublayers that the block has, or may have once it is built."""
        names = [layer.name for layer in self.layers]
        widths = (None, *self.hidden_units)
        changes = [i for i, width in enumerate(self.hidden_units) if width != widths[i]]
        return names + [f"projection_{i}" for i in changes if self.residual]
