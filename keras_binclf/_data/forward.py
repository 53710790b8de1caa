"""Predictions of a model, with the Keras mask of a head's output."""

from typing import Any

import keras
import numpy as np

from keras_binclf._data.heads import hold as hold
from keras_binclf._data.readers import get_reader
from keras_binclf._data.sparse import predict
from keras_binclf._layer_state import iterate_layers
from keras_binclf.layers import BinaryHead


def hides_steps(model: keras.Model) -> bool:
    """Whether a layer of the model may make a mask."""
    return any(map(_makes_mask, iterate_layers(model)))


def _makes_mask(layer: keras.Layer) -> bool:
    if isinstance(layer, keras.layers.Masking | keras.layers.Lambda):
        return True
    if isinstance(layer, keras.layers.Embedding):
        return bool(layer.mask_zero)
    # Keras's other layers pass masks on.
    is_keras = type(layer).__module__.split(".")[0] in ("keras", "keras_binclf")
    return not is_keras and type(layer).compute_mask is not keras.Layer.compute_mask


class Forward:
    """The predictions of a model, with the mask of a head's output if there may be one.

    Args:
        model: Keras model.
        head: one of its heads.
        logits: bool, whether the head emits logits, also if its activation is a sigmoid. Defaults
            to `False`.
    """

    def __init__(self, model: keras.Model, head: BinaryHead, *, logits: bool = False) -> None:
        self._model = model
        self._reader = None
        logits = logits and not head.from_logits
        if logits or hides_steps(model):
            self._reader = get_reader(model, head, logits)

    def predict(
        self, x: Any, batch_size: int | None = None, **options: Any
    ) -> tuple[Any, np.ndarray[Any, Any] | None]:
        """Return the outputs for all rows, and the mask or None; options as of `predict`."""
        if self._reader is None:
            return predict(self._model, x, batch_size, **options), None
        found = predict(self._reader, x, batch_size, **options)
        return found["outputs"], found["mask"]

    def predict_on_batch(self, x: Any) -> tuple[Any, np.ndarray[Any, Any] | None]:
        """Return the outputs for a batch, and the mask or None."""
        if self._reader is None:
            return self._model.predict_on_batch(x), None
        found = self._reader.predict_on_batch(x)
        return found["outputs"], np.asarray(found["mask"])
