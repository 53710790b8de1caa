"""Initializers of kernels."""

from typing import Any

import keras

from keras_binclf._validation import is_integer

RELU_FAMILY = frozenset(
    {
        *("relu", "relu6", "leaky_relu", "leakyrelu", "prelu", "elu", "celu"),
        *("gelu", "silu", "hard_silu", "mish"),
    }
)


def default_initializer(activation: Any) -> str:
    """Return the initializer that keeps the variance through `activation`, by name."""
    if isinstance(activation, keras.layers.Activation):
        activation = activation.activation
    name = getattr(activation, "__name__", type(activation).__name__).lower()
    if name == "selu":
        return "lecun_normal"
    return "he_normal" if name in RELU_FAMILY else "glorot_uniform"


def vary_initializer(initializer: Any, offset: int) -> Any:
    """Return an initializer for one kernel, since each gives equal values for equal shapes."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if is_integer(config.get("seed")):
        config["seed"] += offset
    return type(initializer).from_config(config)
