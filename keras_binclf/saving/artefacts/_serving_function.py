"""The TensorFlow function that all formats are converted from."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_binclf._data.heads import select_tensor
from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts._served_inputs import ServedInputs


def make_function(
    model: keras.Model, head: BinaryHead, inputs: ServedInputs, names: Sequence[str] | None = None
) -> tuple[Any, list[Any]]:
    """Return a `tf.function` of the inputs that gives `probability` and `label`.

    And the tables in which it looks words up, which whoever saves it must track.

    Args:
        model: model on the TensorFlow backend.
        head: its head.
        inputs: inputs of the artefact.
        names: names of the arguments, in the order of the inputs; None for those of the inputs.
    """
    import tensorflow as tf

    names = names or [spec.name for spec in inputs.specs]
    signature = [
        tf.TensorSpec((None, *(spec.shape or ())), spec.dtype, name=name)
        for spec, name in zip(inputs.specs, names, strict=True)
    ]

    encoders = inputs.make_encoders()

    @tf.function(input_signature=signature)
    def serve(*tensors: Any) -> dict[str, Any]:
        encoded = inputs.encode(encoders, tensors)
        output = select_tensor(model, head, inputs.inputs.call(model, encoded))
        probability = ops.cast(head.probabilities(output), "float32")
        return {"probability": probability, "label": head.labels(output)}

    return serve, [table for encoder in encoders.values() for table in encoder.tables]
