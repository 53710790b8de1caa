"""The TensorFlow function that all formats are converted from."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_binclf._data.heads import select_tensor
from keras_binclf._data.inputs import ModelInputs
from keras_binclf.layers import BinaryHead


def make_function(
    model: keras.Model, head: BinaryHead, inputs: ModelInputs, names: Sequence[str] | None = None
) -> Any:
    """Return a `tf.function` of the model's inputs that gives `probability` and `label`.

    Args:
        model: model on the TensorFlow backend.
        head: its head.
        inputs: its inputs.
        names: names of the arguments, in the order of the inputs; None for those of the inputs.
    """
    import tensorflow as tf

    names = names or [spec.name for spec in inputs.specs]
    signature = [
        tf.TensorSpec((None, *(spec.shape or ())), spec.dtype, name=name)
        for spec, name in zip(inputs.specs, names, strict=True)
    ]

    @tf.function(input_signature=signature)
    def serve(*tensors: Any) -> dict[str, Any]:
        output = select_tensor(model, head, inputs.call(model, tensors))
        probability = ops.cast(head.probabilities(output), "float32")
        return {"probability": probability, "label": head.labels(output)}

    return serve
