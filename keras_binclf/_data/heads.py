"""The heads of a model, and the outputs that they emit."""

import threading
import weakref
from typing import Any

import keras
import numpy as np

from keras_binclf._layer_state import iterate_layers
from keras_binclf._validation import Tensor
from keras_binclf.layers import BinaryHead

_LOCKS: "weakref.WeakKeyDictionary[BinaryHead, Any]" = weakref.WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


def hold(head: BinaryHead) -> Any:
    """Return the lock of a head, held while it predicts and while its weights change.

    A function that predicts and then applies the threshold holds it, and so does a function that
    sets kernel, bias and threshold, so that no thread uses a part of a change. On JAX,
    `model.predict` itself takes the weights out of the model while it runs.
    """
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(head, threading.RLock())


def find_head(model: keras.Layer, name: str | None = None) -> BinaryHead:
    """Find the `BinaryHead` of a model, at any depth of nesting.

    Use it to read or set the threshold and the class names of a model.

    Args:
        model: any Keras model or layer, built or not.
        name: str, the name or path of the head, needed if there are several. Defaults to `None`.

    Returns:
        The head itself, so that `find_head(model).threshold = 0.2` changes the model.

    Raises:
        TypeError: if `model` is no Keras model or layer, or `name` no string.
        ValueError: if there is no head, none of that name, or more than one.

    Example:

    ```python
    import keras_binclf

    model = keras_binclf.binary_classifier(20)
    keras_binclf.find_head(model).threshold = 0.2
    assert keras_binclf.find_head(model).threshold == 0.2
    ```
    """
    if not (name is None or isinstance(name, str)):
        raise TypeError(
            "`name` of find_head must be the name or path of a head, or None. "
            f"Received: name={name!r}."
        )
    if not isinstance(model, keras.Layer):
        raise TypeError(
            "`model` of find_head must be a keras.Model or keras.Layer. "
            f"Received: model={model!r} (of type {type(model).__name__})."
        )
    heads = list_heads(model)
    if not heads:
        raise ValueError(
            f"Model {model.name!r} has no BinaryHead. Expected: one BinaryHead as its output "
            "layer. End the model with `keras_binclf.BinaryHead()`."
        )
    found = [head for head in heads if name is None or name in (head.name, head.path)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(repr(head.path or head.name) for head in found or heads)
    if not found:
        raise ValueError(
            f"Model {model.name!r} has no BinaryHead named {name!r}. Its heads are: {known}."
        )
    several = f"{len(found)} heads" if name is None else f"{len(found)} heads named {name!r}"
    way_out = "Say which one, by its name or path."
    if len({head.path for head in found}) < len(found):
        way_out = "Their paths repeat: give the head itself, found in the model that it is part of."
    raise ValueError(f"Model {model.name!r} has {several}: {known}. {way_out}")


def list_heads(model: keras.Layer) -> list[BinaryHead]:
    """Return all heads of a model, at any depth of nesting."""
    # Keras has no public walk that enters wrappers and subclassed layers.
    return [layer for layer in iterate_layers(model) if isinstance(layer, BinaryHead)]


def choose_head(model: Any, head: Any, owner: str) -> BinaryHead:
    """Return the head of `model` that `head` names or is."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` of {owner} must be a keras.Model. "
            f"Received: model={model!r} (of type {type(model).__name__})."
        )
    chosen = head if isinstance(head, BinaryHead) else find_head(model, head)
    if not any(chosen is own for own in list_heads(model)):
        raise ValueError(f"BinaryHead {chosen.name!r} is not part of model {model.name!r}.")
    with hold(chosen):
        check_head_threshold(chosen, chosen.threshold)
    return chosen


def check_head_threshold(head: BinaryHead, threshold: Any) -> None:
    """Raise `ValueError` if the threshold of `head` is not in (0, 1)."""
    if not 0.0 < threshold < 1.0:
        raise ValueError(
            f"The threshold of BinaryHead {head.name!r} must be in (0, 1). Received: "
            f"threshold={threshold}. Something changed the weight; set `head.threshold`."
        )


def select_output(model: keras.Model, head: BinaryHead, outputs: Any) -> np.ndarray[Any, Any]:
    """Return the output of `head` among those of `model.predict`, as an array."""
    return np.asarray(select_tensor(model, head, outputs))


def select_tensor(model: keras.Model, head: BinaryHead, outputs: Any) -> Tensor:
    """Return the output of `head` among those of `model`, as a tensor."""
    output = keras.tree.flatten(outputs)[find_output(model, head, outputs)]
    shape = tuple(output.shape)
    if shape[-1:] != (1,):
        raise ValueError(
            f"BinaryHead {head.name!r} emits outputs of shape (n, ..., 1), but model "
            f"{model.name!r} returned {shape}. Expected: the output of the head, unchanged."
        )
    return output


def check_defined(outputs: np.ndarray[Any, Any]) -> None:
    """Raise `ValueError` if any output is NaN."""
    undefined = np.isnan(outputs)
    if undefined.any():
        rows = np.flatnonzero(undefined.reshape(len(outputs), -1).any(axis=1))
        raise ValueError(
            f"The model gave NaN for {len(rows)} of {len(outputs)} rows, the first at index "
            f"{rows[0]}. Expected: a probability for every row. Look for NaN or infinity in the "
            "features of that row, else in the weights."
        )


def find_output(model: keras.Model, head: BinaryHead, outputs: Any) -> int:
    """Return the index of the output of `head` among the flattened outputs of `model`."""
    num_outputs = len(keras.tree.flatten(outputs))
    symbolic = getattr(model, "outputs", None) or []
    if len(symbolic) == num_outputs:
        places = [i for i, tensor in enumerate(symbolic) if _emits(tensor, head)]
        if len(places) != 1:
            raise ValueError(
                f"BinaryHead {head.name!r} emits {len(places)} of the outputs of model "
                f"{model.name!r}. Expected: the model returns the output of the head once, "
                "unchanged. Otherwise call `head.labels` on that output."
            )
        return places[0]
    if isinstance(outputs, dict) and head.name in outputs:
        names: list[Any] = keras.tree.flatten({name: name for name in outputs})
        return names.index(head.name)
    if num_outputs != 1:
        raise ValueError(
            f"Cannot tell which of the {num_outputs} outputs of model {model.name!r} BinaryHead "
            f"{head.name!r} emits. Expected: one output, a functional model, or a dict of outputs "
            "whose keys are the names of the heads."
        )
    return 0


def _emits(tensor: Any, head: BinaryHead) -> bool:
    """Whether `tensor` is the output of `head`, also inside a nested model or a wrapper."""
    # The operation that made a tensor is in this private attribute only.
    operation, _, index = tensor._keras_history
    while isinstance(operation, keras.layers.Wrapper):
        operation = operation.layer
    inner = getattr(operation, "outputs", None)
    return _emits(inner[index], head) if inner else operation is head
