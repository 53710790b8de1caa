"""The base of all metrics: checks of a batch, its sums, and the direction of the metric."""

import math
from typing import Any

import keras
from keras import ops

from keras_binclf._registry import Saved
from keras_binclf._validation import (
    Tensor,
    check_bool,
    check_integer_at_least,
    check_plain_numbers,
    error_message,
)
from keras_binclf.metrics import _histogram

MIN_BINS = 64
STRINGS = "Map the classes to 0 and 1, as in `y = (y == 'yes').astype('float32')`."


class BinaryMetric(Saved, keras.metrics.Metric):
    """Base of the metrics: sums up labels, scores and weights in compensated float32.

    A subclass gives the shape of its sums to `_start`, turns one batch into an increment of that
    shape in `_measure`, and the sums into a value in `_evaluate`.
    """

    def __init__(self, default_name: str, from_logits: Any, name: Any, dtype: Any) -> None:
        owner = type(self).__name__
        if not (name is None or isinstance(name, str)):
            raise TypeError(error_message("name", owner, "a string or None", name))
        from_logits = check_bool(from_logits, "from_logits", owner)
        super().__init__(name=default_name if name is None else name, dtype=_full_precision(dtype))
        self.from_logits = from_logits

    def _start(self, *shape: int) -> None:
        self._sums = self.add_variable((2, *shape), "zeros", dtype=self.dtype, name="sums")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: labels 0 and 1, of shape `(n,)` or that of `y_pred`, of any numeric dtype.
            y_pred: scores of shape `(n,)` or `(n, ..., 1)`: probabilities, or logits where
                `from_logits`. Rows that a Keras mask hides do not count.
            sample_weight: weights of shape `(n,)` or that of `y_true`, or `None`. Weight 2 is the
                row twice, weight 0 no row. Defaults to `None`.

        Raises:
            TypeError: for labels or scores that are no numbers.
            ValueError: for shapes that do not fit each other.
        """
        owner = f"{type(self).__name__} {self.name!r}"
        labels, scores, weights = flatten(owner, y_true, y_pred, sample_weight, self.dtype)
        valid = is_valid(labels, scores, self.from_logits)
        if weights is None:
            weights = ops.where(valid, ops.ones_like(scores), math.nan)
        else:
            valid = ops.logical_and(valid, weights > 0)
            absent = ops.equal(weights, 0)
            # 0 times NaN is NaN: the score of an absent row must not be multiplied.
            scores = ops.where(absent, 0.5, scores)
            weights = ops.where(ops.logical_or(valid, absent), weights, math.nan)
        increment = self._measure(ops.equal(labels, 1), scores, weights)
        self._sums.assign(_histogram.add(self._sums.value, increment))

    def result(self) -> Tensor:
        """Return the value over all batches so far.

        Returns:
            Scalar tensor; NaN where there were no rows, or invalid ones, where the sum of the
            weights is too large for float32, or where the value is not defined.
        """
        sums = _histogram.total(self._sums.value)
        # The sum of all counts is NaN after an invalid row, and infinite where weights overflow.
        return ops.where(ops.isfinite(ops.sum(sums)), self._evaluate(sums), math.nan)

    def objective(self) -> Any:
        """Return the objective for Keras Tuner: this metric on validation data, and its direction.

        Returns:
            A `keras_tuner.Objective` with the name `"val_<name>"` and the direction. (Given the
            bare name, Keras Tuner refuses metrics that it does not know, and minimises some of
            Keras's own that should be large, such as `val_f1_score`.)
        """
        import keras_tuner

        return keras_tuner.Objective(f"val_{self.name}", get_direction(self))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "from_logits": self.from_logits}

    def _probabilities(self, scores: Tensor) -> Tensor:
        return ops.sigmoid(scores) if self.from_logits else scores

    def _measure(self, positive: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
        raise NotImplementedError

    def _evaluate(self, sums: Tensor) -> Tensor:
        raise NotImplementedError


def get_direction(metric: keras.metrics.Metric) -> str | None:
    """Return `"max"` or `"min"`, or None for a metric without a direction."""
    # Keras has no public name for it.
    return {"up": "max", "down": "min"}.get(getattr(metric, "_direction", None) or "")


def check_num_bins(value: Any, owner: str) -> int:
    """Return a valid number of bins, else raise."""
    return check_integer_at_least(value, MIN_BINS, "num_bins", owner)


def flatten(
    owner: str, y_true: Any, y_pred: Any, sample_weight: Any, dtype: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return labels, scores and weights as vectors of equal length, masked rows weighing 0.

    Raises:
        TypeError: for labels, scores or weights that are no numbers.
        ValueError: for shapes that do not fit each other; nothing is broadcast.
    """
    mask = get_mask(y_pred)
    labels = _to_numbers(y_true, "y_true", owner, dtype)
    scores = _to_numbers(y_pred, "y_pred", owner, dtype)
    received = f"y_true of shape {_shape(labels)}, y_pred of shape {_shape(scores)}"
    rows = scores if len(scores.shape) == 1 else _drop_column(scores)
    if rows is None:
        raise ValueError(
            f"{owner} takes one score a row, `y_pred` of shape (n,) or (n, 1). Received: "
            f"{received}. Give it one column, such as `y_pred[:, 1:]` of a two-column softmax."
        )
    labels = _fit(labels, rows)
    if labels is None:
        raise ValueError(
            f"{owner} takes one label for each score, `y_true` of shape (n,) or (n, 1). "
            f"Received: {received}."
        )
    weights = None
    if sample_weight is not None:
        given = _to_numbers(sample_weight, "sample_weight", owner, dtype)
        weights = _fit_weights(given, rows)
        if weights is None:
            raise ValueError(
                f"{owner} takes one weight for each row, `sample_weight` of shape (n,) or (n, 1). "
                f"Received: sample_weight of shape {_shape(given)}, {received}."
            )
    if mask is not None:
        visible = ops.reshape(ops.cast(mask, "bool"), ops.shape(rows))
        weights = ops.where(visible, ops.ones_like(rows) if weights is None else weights, 0.0)
    return _to_vector(labels), _to_vector(rows), weights if weights is None else _to_vector(weights)


def _to_vector(tensor: Tensor) -> Tensor:
    return tensor if len(tensor.shape) == 1 else ops.reshape(tensor, (-1,))


def is_valid(labels: Tensor, scores: Tensor, from_logits: bool) -> Tensor:
    """Whether each row has a label of 0 or 1 and a score that can be one; NaN is neither."""
    binary = ops.equal(labels * (1 - labels), 0)
    inside = ops.equal(scores, scores) if from_logits else scores * (1 - scores) >= 0
    return ops.logical_and(binary, inside)


def _full_precision(dtype: Any) -> str:
    """Return float64 where that is asked for, else float32."""
    policy = keras.dtype_policies.get(dtype or keras.config.floatx())
    return "float64" if policy.compute_dtype == "float64" else "float32"


def _to_numbers(value: Any, name: str, owner: str, dtype: str) -> Tensor:
    check_plain_numbers(value, name, owner)
    first = value
    while isinstance(first, list | tuple) and first:
        first = first[0]
    tensor = None
    if not isinstance(first, str | bytes) and not _holds_objects(first):
        tensor = ops.convert_to_tensor(value)
    if tensor is None or keras.backend.standardize_dtype(tensor.dtype) == "string":
        hint = STRINGS if name == "y_true" else ""
        raise TypeError(error_message(name, owner, "numbers", value, hint))
    return ops.cast(tensor, dtype)


def _holds_objects(value: Any) -> bool:
    """Whether `value` is a NumPy array of strings or other objects."""
    return getattr(getattr(value, "dtype", None), "kind", None) in ("U", "S", "O")


def get_mask(y_pred: Any) -> Tensor | None:
    """Return the Keras mask of a tensor, or None."""
    # Not public, and in other places on each backend: on JAX a tracer takes no attribute.
    from keras.src.backend import get_keras_mask

    return get_keras_mask(y_pred)


def _shape(tensor: Tensor) -> tuple[int | None, ...]:
    return tuple(tensor.shape)


def _drop_column(tensor: Tensor) -> Tensor | None:
    """Return the tensor without its last dimension of size 1, or None if it has no such."""
    shape = _shape(tensor)
    return ops.squeeze(tensor, axis=-1) if len(shape) > 1 and shape[-1] == 1 else None


def _agree(a: Tensor, b: Tensor) -> bool:
    sizes = zip(_shape(a), _shape(b), strict=False)
    return len(a.shape) == len(b.shape) and all(x is None or y is None or x == y for x, y in sizes)


def _fit(tensor: Tensor, rows: Tensor) -> Tensor | None:
    """Return `tensor` in the shape of `rows`, dropping a last dimension of 1, or None."""
    if len(tensor.shape) == len(rows.shape) + 1:
        tensor = _drop_column(tensor)
    return tensor if tensor is not None and _agree(tensor, rows) else None


def _fit_weights(weights: Tensor, rows: Tensor) -> Tensor | None:
    """Like `_fit`; the weights of examples hold for all their time steps."""
    fitted = _fit(weights, rows)
    if fitted is None and len(rows.shape) > 1:
        dims = len(rows.shape) - 1
        column = weights if len(weights.shape) == 1 else _drop_column(weights)
        if column is not None and len(column.shape) == 1:
            column = ops.reshape(column, (-1,) + (1,) * dims)
            fitted = ops.broadcast_to(column, ops.shape(rows))
    return fitted
