"""Labels predicted by a model, as numbers and as class names."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_binclf._data.arrangement import arrange_rows
from keras_binclf._data.encoders import list_encoders
from keras_binclf._data.forward import hold
from keras_binclf._data.heads import check_defined, choose_head, select_output
from keras_binclf._data.scored_rows import iterate_features
from keras_binclf._data.sparse import predict
from keras_binclf._data.tables import is_dataset, is_empty_dataset
from keras_binclf.layers import BinaryHead

OWNER = "predict_labels"
MAX_TRIES = 10  # predictions, where another thread changes the head meanwhile


def predict_labels(
    model: keras.Model,
    x: Any,
    *,
    head: str | BinaryHead | None = None,
    batch_size: int | None = None,
    verbose: str | int = 0,
) -> np.ndarray[Any, Any]:
    """Predict labels: 1 where `probability > head.threshold`, else 0.

    Use it in place of `model.predict`, which returns probabilities or logits, to apply the
    threshold that the head holds. Sparse matrices and tables are made dense batch by batch.

    Of `predict_labels`, `tune_threshold` and `calibrate`, one at a time runs with a head: other
    threads wait. Where the weights of the head change all the same, as by `fit` in another thread,
    it predicts again. For answers in many threads at once use `Predictor`.

    Args:
        model: Keras model with a `BinaryHead` as one of its output layers. A subclassed model must
            return the output of its head unchanged.
        x: features as arrays, tables with numeric columns, sparse matrices or lists; where the
            model has several inputs, a list or dict of them, or a table that has their names as
            columns. Or a data set that `model.predict` takes, such as a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. For an input of a `TabularEncoder`, the table.
        head: name or path of the head, or the head itself, where the model has several. Defaults
            to `None`.
        batch_size: int, rows per batch, as in `model.predict`. Defaults to `None`.
        verbose: as in `model.predict`. Defaults to `0`.

    Returns:
        int32 array of the shape of the head's output, `(n, 1)` or `(n, ..., 1)`.

    Raises:
        TypeError: if `model` is not a Keras model, and for features that are not numeric.
        ValueError: for features of wrong names or shapes, an empty data set and a probability that
            is NaN; if the head or its output cannot be found; if the threshold is not in (0, 1).
        RuntimeError: if the weights of the head changed during each of 10 predictions, or during
            the one of a data set that is read once, such as a generator.

    Example:

    ```python
    import numpy as np
    import keras_binclf

    model = keras_binclf.binary_classifier(4, prior=0.3)
    x = np.zeros((2, 4))
    assert keras_binclf.predict_labels(model, x).tolist() == [[0], [0]]
    keras_binclf.find_head(model).threshold = 0.2
    assert keras_binclf.predict_labels(model, x).tolist() == [[1], [1]]
    ```
    """
    chosen = choose_head(model, head, OWNER)
    x, num_rows = _prepare(model, x)
    with hold(chosen):
        for _ in range(1 if isinstance(x, Iterator) else MAX_TRIES):
            before = _read_weights(chosen)
            outputs = _predict(model, x, batch_size, verbose)
            outputs = select_output(model, chosen, outputs)[:num_rows]
            check_defined(outputs)
            labels = np.asarray(ops.convert_to_numpy(chosen.labels(outputs)))
            if all(map(np.array_equal, before, _read_weights(chosen))):
                return labels
    raise RuntimeError(
        f"The weights of BinaryHead {chosen.name!r} changed while {OWNER} ran: another thread sets "
        "them, as `fit` and `set_weights` do. Expected: constant weights, since scores before and "
        "after a change belong to different thresholds. Predict with a copy of the model."
    )


def _predict(model: keras.Model, x: Any, batch_size: int | None, verbose: str | int) -> Any:
    if not isinstance(x, _Batches):
        return predict(model, x, batch_size, verbose=verbose)
    # `predict` warns of each generator that ends.
    outputs = [model.predict_on_batch(features) for features in x]
    if not outputs:
        raise ValueError(f"{OWNER} needs rows. Received: an empty data set.")
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *outputs)


class _Batches(Iterator[Any]):
    """Batches of a data set whose tables are encoded."""

    def __init__(self, model: keras.Model, data: Any) -> None:
        self._batches = iterate_features(OWNER, model, data)

    def __next__(self) -> Any:
        return next(self._batches)


def _read_weights(head: BinaryHead) -> list[np.ndarray[Any, Any]]:
    """Return kernel, bias and threshold, or an empty list if the head is not built."""
    return [np.array(ops.convert_to_numpy(weight)) for weight in head.weights]


def _prepare(model: keras.Model, x: Any) -> tuple[Any, int | None]:
    """Return rows for `model.predict`, and the number of outputs to keep, or None for all.

    `model.predict` refuses zero rows: it gets one row instead, and none of its outputs are kept.
    """
    if is_dataset(x):
        if is_empty_dataset(x):
            raise ValueError(f"{OWNER} needs rows. Received: an empty data set.")
        return (_Batches(model, x) if list_encoders(model) else x), None
    x = arrange_rows(model, x, OWNER)
    parts = [part for part in keras.tree.flatten(x) if part is not None]
    if parts[0].shape[0] > 0:
        return x, None
    return keras.tree.map_structure(_make_row, x), 0


def _make_row(array: Any) -> Any:
    if array is None:
        return None
    array = np.asarray(ops.convert_to_numpy(array) if ops.is_tensor(array) else array)
    return np.zeros((1, *array.shape[1:]), array.dtype)


def predict_class_names(
    model: keras.Model,
    x: Any,
    *,
    head: str | BinaryHead | None = None,
    batch_size: int | None = None,
    verbose: str | int = 0,
) -> np.ndarray[Any, Any]:
    """Predict class names: `class_names[1]` where the label is 1, else `class_names[0]`.

    Use it in place of `predict_labels` where people read the result.

    Args:
        model: Keras model with a `BinaryHead` that has `class_names`.
        x: features or a data set, as in `predict_labels`.
        head: as in `predict_labels`. Defaults to `None`.
        batch_size: int, rows per batch, as in `model.predict`. Defaults to `None`.
        verbose: as in `model.predict`. Defaults to `0`.

    Returns:
        Array of strings of shape `(n, 1)`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if the head has no `class_names`, and whenever `predict_labels` raises.

    Example:

    ```python
    import numpy as np
    import keras_binclf

    model = keras_binclf.binary_classifier(4, prior=0.3)
    keras_binclf.find_head(model).class_names = ("stays", "leaves")
    assert keras_binclf.predict_class_names(model, np.zeros((1, 4))).tolist() == [["stays"]]
    ```
    """
    chosen = choose_head(model, head, "predict_class_names")
    if chosen.class_names is None:
        raise ValueError(
            f"BinaryHead {chosen.name!r} has no `class_names`. Expected: a pair of strings, "
            "negative class first. Set `head.class_names = (negative, positive)`."
        )
    labels = predict_labels(model, x, head=chosen, batch_size=batch_size, verbose=verbose)
    names: np.ndarray[Any, Any] = np.asarray(chosen.class_names)[labels]
    return names
