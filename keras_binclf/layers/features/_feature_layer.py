"""What the layers for columns of a table have in common."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_binclf._registry import SavedLayer
from keras_binclf._validation import Shape, Tensor, check_features
from keras_binclf.layers._policy import get_full_precision, get_policy

Array = np.ndarray[Any, Any]


class FeatureLayer(SavedLayer, keras.layers.Layer):
    """Base of layers whose inputs are the numbers of a table, one feature a column.

    They compute in float32 under mixed precision and quantized policies: 16 bits cannot tell 4001
    from 4000, neither as an amount nor as the code of a category.
    """

    def __init__(self, **kwargs: Any) -> None:
        policy = get_full_precision(get_policy(kwargs.get("dtype"), type(self).__name__))
        super().__init__(**{**kwargs, "dtype": policy})
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.supports_masking = True

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Leave the layer in float32, in which the columns of a table keep their digits.

        `model.quantize("int8")` calls this for every layer of a model.
        """

    def _fix_features(self, input_shape: Shape, expected: int | None) -> int:
        """Return the number of features, after which the layer takes no other, or raise."""
        owner = type(self).__name__
        features = check_features(input_shape, owner)
        if expected is not None and features != expected:
            raise ValueError(
                f"{owner} {self.name!r} is for {expected} features. Received inputs of "
                f"{features}: input_shape={tuple(input_shape)!r}."
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: features})
        return features

    def _add_statistic(self, name: str, shape: tuple[int, ...]) -> Any:
        """Add a weight that `adapt` sets; until then it is NaN, and so are the outputs."""
        initializer = keras.initializers.Constant(float("nan"))
        return self.add_weight(name=name, shape=shape, initializer=initializer, trainable=False)


def not_adapted(layer: keras.layers.Layer) -> ValueError:
    """Return the error for a layer that is used before `adapt`."""
    return ValueError(
        f"{type(layer).__name__} {layer.name!r} must be adapted before it is used, since its "
        "outputs depend on the data. Call `layer.adapt(x_train)` first."
    )


def take_columns(x: Tensor, columns: Iterable[int]) -> Tensor:
    """Return some columns of `x`, in the given order."""
    columns = tuple(columns)
    if columns == tuple(range(x.shape[-1])):
        return x
    return ops.take(x, make_constant(columns), axis=-1)


def make_constant(values: Iterable[int], dtype: str = "int32") -> Tensor:
    """Return whole numbers as a tensor; `torch.compile` cannot follow arrays of NumPy."""
    return ops.convert_to_tensor(list(values), dtype)


def flatten_last(x: Tensor) -> Tensor:
    """Return `x` with its last two dimensions, of known size, as one."""
    width = x.shape[-2] * x.shape[-1]
    if len(x.shape) == 3:
        return ops.reshape(x, (-1, width))
    if any(size is None for size in x.shape[1:-2]) and isinstance(x, keras.KerasTensor):
        # One unknown size beside that of the batch.
        sizes = [-1 if size is None else size for size in x.shape[1:-2]]
        return keras.layers.Reshape((*sizes, width))(x)
    return ops.reshape(x, (-1, *ops.shape(x)[1:-2], width))


def join(parts: Iterable[Tensor]) -> Tensor:
    """Return the parts side by side along the last axis."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


Embed = Callable[[Tensor], Tensor]
