"""Predictions of a model, with the Keras mask of a head's output."""

import contextlib
import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_binclf._data.heads import hold as hold
from keras_binclf._data.heads import select_tensor
from keras_binclf._data.sparse import predict
from keras_binclf._layer_state import iterate_layers
from keras_binclf._validation import Tensor
from keras_binclf.layers import BinaryHead
from keras_binclf.layers.emission import emit_logits
from keras_binclf.metrics.base import get_mask


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


class Reader(keras.Model):
    """A model that returns the outputs of another with the mask of a head's output.

    It shares the layers of that model, and compiles functions of its own, so that the other model
    does not change.

    Args:
        model: built model.
        head: one of its heads.
        logits: bool, whether the head emits logits, also if its activation is a sigmoid.
    """

    def __init__(self, model: keras.Model, head: BinaryHead, logits: bool) -> None:
        super().__init__(autocast=False)  # The model casts its inputs itself.
        self.model: Any = model
        # As an attribute, the head would be tracked a second time.
        self._find_mask = functools.partial(_find_mask, model, head)
        self._scope = functools.partial(emit_logits, head) if logits else contextlib.nullcontext
        self.run_eagerly = model.run_eagerly
        self.jit_compile = model.jit_compile
        self.built = model.built
        self._has_own_step = type(model).predict_step is not keras.Model.predict_step

    def predict_step(self, *arguments: Any) -> Any:
        """Predict a batch by the `predict_step` of the model, where it has one of its own."""
        if not self._has_own_step:
            return super().predict_step(*arguments)
        with self._scope():
            outputs = self.model.predict_step(*arguments)
        if keras.backend.backend() != "jax":
            return {"outputs": outputs, "mask": self._find_mask(outputs)}
        outputs, state = outputs
        return {"outputs": outputs, "mask": self._find_mask(outputs)}, state

    def call(self, inputs: Any) -> dict[str, Any]:
        """Return `{"outputs": ..., "mask": ...}`."""
        with self._scope():
            outputs = self.model(inputs, training=False)
        return {"outputs": outputs, "mask": self._find_mask(outputs)}


def _find_mask(model: keras.Model, head: BinaryHead, outputs: Any) -> Tensor:
    output = select_tensor(model, head, outputs)
    mask = get_mask(output)
    return ops.ones(ops.shape(output)[:-1], "bool") if mask is None else ops.cast(mask, "bool")


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
            strategy: Any = getattr(model, "distribute_strategy", None)
            scope: Any = strategy.scope() if strategy else contextlib.nullcontext()
            with scope:
                self._reader = Reader(model, head, logits)

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
