"""Models that read the outputs of another with their mask, made once for each model and head."""

import contextlib
import dataclasses
import functools
import operator
import threading
from typing import Any

import keras
from keras import ops

from keras_binclf._data.heads import select_tensor
from keras_binclf._layer_state import iterate_layers, list_parts
from keras_binclf._validation import Tensor
from keras_binclf.layers import BinaryHead
from keras_binclf.layers.emission import emit_logits
from keras_binclf.metrics.base import get_mask

ATTRIBUTE = "_keras_binclf_readers"


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


@dataclasses.dataclass(frozen=True)
class _State:
    """The parts of a model that its compiled functions hold; weights are read in each call.

    Attributes:
        settings: compared by `==`.
        objects: compared by identity.
    """

    settings: list[Any]
    objects: list[Any]

    def equals(self, other: "_State") -> bool:
        """Whether functions that were compiled in one state hold in the other."""
        is_same = len(self.objects) == len(other.objects)
        is_same = is_same and all(map(operator.is_, self.objects, other.objects))
        try:
            return is_same and self.settings == other.settings
        except ValueError:  # A config holds arrays, whose comparison has no truth value.
            return False


def _read_state(model: keras.Model) -> _State:
    layers = list(iterate_layers(model))
    settings = [model.run_eagerly, model.jit_compile, *map(_read_settings, layers)]
    # Keras has a new optimizer after `compile`, by which it traces anew.
    return _State(settings, [*list_parts(layers), getattr(model, "optimizer", None)])


def _read_settings(layer: keras.Layer) -> Any:
    if isinstance(layer, BinaryHead):
        return layer.activation  # The threshold in its config is a weight.
    if isinstance(layer, keras.Model):
        return None  # Its config repeats those of its layers.
    try:
        return layer.get_config()
    except Exception:  # Many a class of a user has no config, and anything may go wrong in it.
        return None


class _Readers:
    """The readers of a model, by head and kind of outputs, each with the state it was made in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[int, bool], tuple[_State, Reader]] = {}

    def get(self, model: keras.Model, head: BinaryHead, logits: bool) -> Reader:
        key, state = (id(head), logits), _read_state(model)
        with self._lock:
            before, reader = self._found.get(key, (None, None))
            if reader is None or before is None or not before.equals(state):
                reader = _make_reader(model, head, logits)
                self._found[key] = (state, reader)
            return reader


def get_reader(model: keras.Model, head: BinaryHead, logits: bool) -> Reader:
    """Return the reader of a model, the same one until the model changes otherwise than in weights.

    A model holds its readers, so that they are freed with it. Neither Keras nor the backends see
    them: they are in no list of layers and in no file.

    Args:
        model: built model.
        head: one of its heads.
        logits: bool, whether the head emits logits, also if its activation is a sigmoid.
    """
    # Not set by `=`, since Keras and PyTorch would look into the value.
    readers: _Readers = vars(model).setdefault(ATTRIBUTE, _Readers())
    return readers.get(model, head, logits)


def _make_reader(model: keras.Model, head: BinaryHead, logits: bool) -> Reader:
    strategy: Any = getattr(model, "distribute_strategy", None)
    with strategy.scope() if strategy else contextlib.nullcontext():
        return Reader(model, head, logits)
