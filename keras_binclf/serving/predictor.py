"""A model's probabilities and labels with low latency."""

import bisect
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_binclf._data.heads import check_defined, check_head_threshold, choose_head
from keras_binclf._data.inputs import ModelInputs, read_inputs
from keras_binclf._data.row_reader import RowReader, Rows
from keras_binclf._data.tables import Array
from keras_binclf._validation import error_message, is_integer, to_list
from keras_binclf.layers import BinaryHead
from keras_binclf.serving._compiled_model import CompiledModel


class Predictor:
    """Score one row, or many, with low latency, with any Keras model that has a `BinaryHead`.

    Use it in a service that answers row by row. `model.predict` is made for many rows: it sets up a
    data pipeline in each call, which takes longer than a small network itself. A predictor checks
    the rows, pads them with copies of the last row up to the next of a few fixed batch sizes, and
    calls a function that was compiled for that size; more rows than the largest size go in chunks.
    So it compiles at most once for each batch size, whatever the number of rows. (It compiles again
    for each length where a dimension of the inputs is open, for each dtype where the model is
    subclassed, and after `jax.clear_caches()`.) One row takes at most about twice the time of the
    backend's own compiled call; where a row must take microseconds, `export` the model.

    Each call uses the current weights and threshold, also after training, loading or `enable_lora`.
    A predictor never changes the model: dropout is off and updates of state are dropped. Settings
    that are not weights, such as `head.activation`, are those of the first call with a batch size.
    Any number of threads may call one predictor, from the first call on, while no other code trains
    or calls the model.

    NaN and infinity in the rows are refused, since a hidden layer can turn both into a plausible
    number: TensorFlow's fused ReLU makes 0 of NaN. For a model that replaces NaN itself, use
    `model.predict`.

    On TensorFlow the compiled function is a concrete `tf.function` with XLA, but without XLA where
    there is an `Embedding`, since XLA answers a number beyond the vocabulary with the nearest word
    instead of an error. On JAX it is `jax.jit`. On PyTorch the operations that `make_fx` recorded
    run in `torch.inference_mode`, or the layers themselves where they cannot be recorded.

    Args:
        model: built Keras model with a `BinaryHead` as one of its output layers. A subclassed
            model must return what its head emits unchanged; it takes rows of the shape that it was
            built with.
        head: name or path of the head, or the head itself, where the model has several. Defaults
            to `None`.
        batch_sizes: list of different positive ints, the numbers of rows that are compiled.
            Defaults to `(1, 8, 64, 512)`.

    Attributes:
        model: the model.
        head: the head.
        batch_sizes: tuple of ints in ascending order.

    Raises:
        TypeError: if `model` is not a Keras model; in a call, for values that are not numeric.
        ValueError: if the head cannot be found or its output cannot be told, if the model is not
            built or takes strings; in a call, for rows of the wrong names, shape or values, and for
            a probability that is NaN.

    Example:

    ```python
    import numpy as np
    import keras_binclf
    from keras_binclf import Predictor

    model = keras_binclf.binary_classifier(4, prior=0.3)
    predictor = Predictor(model)
    row = np.zeros(4)
    assert abs(predictor(row) - 0.3) < 1e-6
    assert predictor.labels(row) == 0
    predictor.head.threshold = 0.2
    assert predictor.labels(row) == 1
    assert predictor(np.zeros((100, 4))).shape == (100, 1)
    ```

    References:
        - Fixed batch sizes, padded with rows: TensorFlow Serving's `allowed_batch_sizes`,
          https://github.com/tensorflow/serving/blob/master/tensorflow_serving/batching/batching_options.h
        - Concrete functions: https://www.tensorflow.org/guide/function
        - `jax.jit`: https://docs.jax.dev/en/latest/jit-compilation.html
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        head: str | BinaryHead | None = None,
        batch_sizes: Sequence[int] = (1, 8, 64, 512),
    ) -> None:
        owner = type(self).__name__
        self.batch_sizes = _check_batch_sizes(batch_sizes, owner)
        self.head = choose_head(model, head, owner)
        self.model = model
        inputs = _check_inputs(read_inputs(model, owner), owner)
        self._reader = RowReader(inputs, owner, allow_one=True, finite=True)
        self._lock = threading.Lock()
        self._num_compilations = 0
        self._compiled = self._make_compiled()

    @property
    def num_compilations(self) -> int:
        """Number of times that the model was traced to be compiled."""
        return self._num_compilations

    def __call__(self, x: Any) -> Any:
        """Return the probabilities of rows.

        Args:
            x: array, table, sparse matrix or list of shape `(n, ...)`; where the model has several
                inputs, a list or dict of them, or a table that has their names as columns. Without
                the batch dimension, in all inputs, it is one row. Sparse matrices and tables are
                made dense as many rows at a time as the largest batch size.

        Returns:
            float32 array of the shape that `model.predict` gives, `(n, 1)`; for one row a
            `np.float32`, or an array without the batch dimension where the head emits several
            probabilities a row.
        """
        parts = []
        for rows in self._reader.read_in_chunks(x, self.batch_sizes[-1]):
            parts.append(self._score(rows))
        probabilities = parts[0] if len(parts) == 1 else np.concatenate(parts)
        check_defined(probabilities)
        if not rows.is_one:
            return probabilities
        return probabilities[0, 0] if probabilities.ndim == 2 else probabilities[0]

    def labels(self, x: Any) -> Any:
        """Return the labels of rows: 1 where `probability > head.threshold`, else 0.

        Args:
            x: as in a call.

        Returns:
            As in a call, in int32.
        """
        probabilities = self(x)
        # `head.threshold` rounds for display, which takes as long as a small network; so does
        # `float` of a JAX array.
        value = self.head.threshold_weight.value
        threshold = float(np.asarray(value) if keras.backend.backend() == "jax" else value)
        check_head_threshold(self.head, threshold)
        return np.greater(probabilities, np.float32(threshold)).astype("int32")

    def _score(self, rows: Rows) -> Array:
        compiled = self._update_compiled()
        if not len(rows):
            # A row of zeros tells the shape of the output.
            return compiled(_make_batch(rows.arrays, 0, self.batch_sizes[0]))[:0]
        parts = [
            compiled(_make_batch(rows.arrays, start, size))[: len(rows) - start]
            for start, size in self._plan(len(rows))
        ]
        # Copied, since a backend may hand out memory that it still holds.
        return np.array(parts[0]) if len(parts) == 1 else np.concatenate(parts)

    def _plan(self, num_rows: int) -> Iterator[tuple[int, int]]:
        """Yield the first row and the batch size of each batch."""
        largest = self.batch_sizes[-1]
        for start in range(0, num_rows, largest):
            left = min(num_rows - start, largest)
            yield start, self.batch_sizes[bisect.bisect_left(self.batch_sizes, left)]

    def _update_compiled(self) -> CompiledModel:
        if keras.backend.backend() == "jax":
            # In `fit`, JAX keeps the weights outside of the model until they are asked for.
            self.model.jax_state_sync()
        compiled = self._compiled
        if not compiled.is_current():
            compiled = self._compiled = self._make_compiled()
        return compiled

    def _make_compiled(self) -> CompiledModel:
        return CompiledModel(self.model, self.head, self._reader.inputs, self._count)

    def _count(self) -> None:
        with self._lock:
            self._num_compilations += 1


def _make_batch(arrays: list[Array], start: int, size: int) -> list[Array]:
    """Return `size` rows from `start` on, padded with copies of the last row.

    Rows of zeros could be out of the vocabulary, or make NaN, of which a layer might warn.
    """
    return [_pad(array[start : start + size], size) for array in arrays]


def _pad(array: Array, size: int) -> Array:
    if len(array) == size:
        return array
    if not len(array):
        return np.zeros((size, *array.shape[1:]), array.dtype)
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _check_inputs(inputs: ModelInputs, owner: str) -> ModelInputs:
    """Return the inputs, or raise `ValueError` where one takes text."""
    for spec in inputs.specs:
        if spec.dtype == "string":
            raise ValueError(
                f"{owner} takes numbers only. Received: a model whose input {spec.name!r} is of "
                "dtype string. Look the words up first, and give the model their numbers."
            )
    return inputs


def _check_batch_sizes(value: Any, owner: str) -> tuple[int, ...]:
    expected = "a non-empty list of different, positive ints"
    sizes = to_list(value)
    if sizes is None or not all(is_integer(size) for size in sizes):
        raise TypeError(error_message("batch_sizes", owner, expected, value))
    if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
        raise ValueError(error_message("batch_sizes", owner, expected, value))
    return tuple(sorted(int(size) for size in sizes))
