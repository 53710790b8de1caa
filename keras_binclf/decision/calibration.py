"""Calibration of probabilities on held-out rows, folded into the weights of the head."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_binclf._data.forward import hold
from keras_binclf._data.heads import choose_head
from keras_binclf._data.scored_rows import Array, ScoredRows, check_both_classes, score_rows
from keras_binclf._validation import check_choice, is_threshold
from keras_binclf.layers import BinaryHead
from keras_binclf.metrics import BrierScore, ExpectedCalibrationError

OWNER = "calibrate"
METHODS = ("temperature", "platt")
MAX_STEPS = 100
NO_SLOPE = f"{OWNER} cannot fit a positive slope: the logits of positives are"
NO_RANKING = (
    f"{NO_SLOPE} no higher than those of negatives. Expected: a model that ranks positives above "
    "negatives on the held-out rows. Look for swapped labels, or rows in another order than their "
    "labels."
)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Result of `calibrate`: the fitted `sigmoid(slope · logit + intercept)`, and its losses.

    Print it to see how much the probabilities improve on the rows of the fit.

    Args:
        method: str, `"temperature"` or `"platt"`.
        slope: positive float, the factor of the logits.
        intercept: float, added to the scaled logits.
        log_loss: pair of floats, the mean log loss before and after, in nats.
        brier_score: pair of floats, the Brier score before and after.
        expected_calibration_error: pair of floats, the error in 15 groups of equal width, before
            and after.
        threshold: pair of floats, the head's threshold before and after.
        num_rows: int, the number of rows with a positive weight.

    Example:

    ```python
    from keras_binclf import Calibration

    done = Calibration("temperature", 0.5, 0.0, (0.9, 0.6), (0.3, 0.2), (0.2, 0.1), (0.5, 0.5), 40)
    assert done.temperature == 2.0
    assert str(done).splitlines()[0] == "temperature 2 (40 rows)"
    ```
    """

    method: str
    slope: float
    intercept: float
    log_loss: tuple[float, float]
    brier_score: tuple[float, float]
    expected_calibration_error: tuple[float, float]
    threshold: tuple[float, float]
    num_rows: int

    @property
    def temperature(self) -> float:
        """The divisor of the logits; above 1 if the model was over-confident."""
        return 1 / self.slope

    def __str__(self) -> str:
        """Return the numbers before and after, a line each."""
        fitted = f"slope {self.slope:.4g}, intercept {self.intercept:.4g}"
        if self.method == "temperature":
            fitted = f"{self.temperature:.4g}"
        lines = [f"{self.method} {fitted} ({self.num_rows:,} rows)"]
        for name in ("log_loss", "brier_score", "expected_calibration_error", "threshold"):
            before, after = getattr(self, name)
            lines.append(f"  {name.replace('_', ' ')} {before:.4g} -> {after:.4g}")
        return "\n".join(lines)


def calibrate(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    method: str = "temperature",
    sample_weight: Any = None,
    batch_size: int | None = None,
    steps: int | None = None,
    head: str | BinaryHead | None = None,
) -> Calibration:
    """Calibrate the probabilities of a model on held-out rows.

    Use it where a probability of 0.9 must mean that nine of ten such rows are positive. It fits
    `sigmoid(slope · logit + intercept)` to the labels and folds slope and intercept into the kernel
    and bias of the head, so that the model has no new parameter and no new operation, and every
    export is calibrated.

    - `"temperature"`: a slope alone, for a model that is over- or under-confident as a whole, as
      neural networks often are (Guo et al. 2017). A probability of 0.5 stays 0.5.
    - `"platt"`: slope and intercept, also for a model whose probabilities are off on average, such
      as one trained on resampled or reweighted classes (Platt 1999). Labels are smoothed to
      `(P + 1) / (P + 2)` and `1 / (N + 2)`, where `P` and `N` are the effective numbers
      `(sum w)² / sum w²` of positive and negative rows with the weights `w`: without weights, the
      numbers of rows.

    Give rows that the model was not trained on, with the share of positives expected in use, and
    judge the result on yet other rows.

    Both problems are convex and are solved by Newton's method with a line search (Lin, Lin and Weng
    2007), in float64 on the logits, also of probabilities that float32 rounds to 0 or 1.

    The labels and the ranking of the rows do not change: the threshold of the head is moved along
    with the probabilities. Tune it again, or set it to the threshold with the lowest expected cost,
    which for calibrated probabilities is `cost_fp / (cost_fp + cost_fn)` (Elkan 2001).

    The model does not change while logits are computed. At the end, kernel, bias and threshold are
    set one after the other, under the lock that `predict_labels`, `predict_class_names` and
    `tune_threshold` use too: called in other threads, they use all of the change or none of it.
    `model.predict`, called in another thread at that moment, may use a part of it.

    Args:
        model: Keras model with a `BinaryHead` as one of its output layers.
        x: features as `model.predict` takes them; or, without `y`, a data set as in
            `tune_threshold`. It is read once.
        y: labels 0 and 1 of shape `(n,)` or `(n, 1)`, where `x` are features. Defaults to `None`.
        method: `"temperature"` or `"platt"`. Defaults to `"temperature"`.
        sample_weight: weights of shape `(n,)` or `(n, 1)`, or `None`. A factor common to all
            changes nothing. A row of weight 2 counts twice, except in the smoothing of `"platt"`,
            which uses effective numbers of rows. Defaults to `None`.
        batch_size: int, rows per batch where `x` are features. Defaults to `None`.
        steps: positive int, the number of batches to take from a data set, needed if it has no
            end. Defaults to `None`.
        head: name or path of the head, or the head itself, where the model has several. Defaults
            to `None`.

    Returns:
        A `Calibration`, with the losses before and after.

    Raises:
        TypeError: for labels that are no numbers.
        ValueError: for an unknown method, labels other than 0 and 1, different lengths, no rows or
            one class only, a NaN probability, `"platt"` for a head without bias, and logits that no
            finite positive slope fits. The head does not change then.

    Example:

    ```python
    import numpy as np
    import keras_binclf

    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 8)).astype("float32")
    y = rng.random(400) < 1 / (1 + np.exp(-x[:, 0]))
    model = keras_binclf.binary_classifier(8, learning_rate=0.01)
    model.fit(x[:200], y[:200], epochs=40, verbose=0)  # overfits

    done = keras_binclf.calibrate(model, x[200:], y[200:])
    assert done.temperature > 1
    assert done.log_loss[1] < done.log_loss[0]
    ```

    References:
        - Guo et al. 2017, "On Calibration of Modern Neural Networks",
          https://arxiv.org/abs/1706.04599
        - Platt 1999, "Probabilistic Outputs for Support Vector Machines and Comparisons to
          Regularized Likelihood Methods"
        - Lin, Lin and Weng 2007, "A Note on Platt's Probabilistic Outputs for Support Vector
          Machines", https://doi.org/10.1007/s10994-007-5018-6
        - Elkan 2001, "The Foundations of Cost-Sensitive Learning",
          https://cseweb.ucsd.edu/~elkan/rescale.pdf
    """
    check_choice(method, "method", OWNER, METHODS)
    chosen = choose_head(model, head, OWNER)
    if method == "platt" and not chosen.use_bias:
        raise ValueError(
            f"`method='platt'` of {OWNER} needs a head with a bias. Received: BinaryHead "
            f"{chosen.name!r} with use_bias=False. Use `method='temperature'`."
        )
    given = (x, y, sample_weight, batch_size, steps)
    with hold(chosen):
        rows = score_rows(OWNER, model, chosen, *given, logits=True)
        return _calibrate(chosen, method, rows)


def _calibrate(head: BinaryHead, method: str, rows: ScoredRows) -> Calibration:
    """Fit slope and intercept to rows with logits, and fold them into the head."""
    check_both_classes(OWNER, rows)
    if not np.isfinite(rows.outputs).all():
        raise ValueError(
            f"{OWNER} needs finite logits. Received: {np.abs(rows.outputs).max()}. Look for "
            "infinity in the features, else in the weights."
        )
    # A common factor changes nothing, but its sum or square may leave the range of floats.
    rows = dataclasses.replace(rows, weights=rows.weights / rows.weights.max())
    slope, intercept = _fit_temperature(rows) if method == "temperature" else _fit_platt(rows)
    before = head.threshold
    after = _fold(head, slope, intercept)
    moved = dataclasses.replace(rows, outputs=slope * rows.outputs + intercept)
    return Calibration(
        method=method,
        slope=slope,
        intercept=intercept,
        log_loss=(_log_loss(rows), _log_loss(moved)),
        brier_score=(_evaluate(BrierScore, rows), _evaluate(BrierScore, moved)),
        expected_calibration_error=(
            _evaluate(ExpectedCalibrationError, rows),
            _evaluate(ExpectedCalibrationError, moved),
        ),
        threshold=(before, after),
        num_rows=len(rows.labels),
    )


def _fold(head: BinaryHead, slope: float, intercept: float) -> float:
    """Fold slope and intercept into kernel and bias, and return the threshold, moved along.

    All values are computed before the first is set.
    """
    threshold = _move_threshold(head.threshold, slope, intercept)
    kernel = ops.multiply(head.kernel, slope)
    bias = None if head.bias is None else ops.add(ops.multiply(head.bias, slope), intercept)
    head.kernel.assign(kernel)
    if head.bias is not None:
        head.bias.assign(bias)
    head.threshold = threshold
    return head.threshold


def _fit_temperature(rows: ScoredRows) -> tuple[float, float]:
    """Return the slope with the least log loss, and the intercept 0."""
    signed = rows.outputs * (2 * rows.labels - 1)
    if np.average(signed, weights=rows.weights) <= 0:
        raise ValueError(_explain_temperature(rows))
    if signed.min() >= 0:
        raise ValueError(
            f"{OWNER} cannot fit a temperature: every row is on its own side of the logit 0, so "
            "the smaller the temperature the better the fit. Expected: held-out rows with errors. "
            "Give rows that the model was not trained on, more of them, or `method='platt'`."
        )
    scale = np.sqrt(np.mean(np.square(rows.outputs)))
    columns = rows.outputs[:, None] / scale
    (slope,) = _minimise(columns, rows.labels, rows.weights, np.zeros(1))
    return float(slope / scale), 0.0


def _fit_platt(rows: ScoredRows) -> tuple[float, float]:
    """Return slope and intercept with the least log loss against smoothed labels."""
    if rows.outputs.min() == rows.outputs.max():
        raise ValueError(
            f"{OWNER} cannot fit a slope: all {len(rows.outputs)} rows have the logit "
            f"{rows.outputs[0]:g}. Expected: a model that gives different rows different logits."
        )
    positives, negatives = (_count_effective(rows.weights[rows.labels == i]) for i in (1, 0))
    targets = np.where(rows.labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # Newton's steps do not depend on scale or origin, its first one does: start from unit logits.
    centre, scale = rows.outputs.mean(), rows.outputs.std()
    columns = np.stack([(rows.outputs - centre) / scale, np.ones_like(rows.outputs)], axis=1)
    share = np.average(targets, weights=rows.weights)
    start = np.array([0.0, math.log(share) - math.log1p(-share)])
    slope, intercept = _minimise(columns, targets, rows.weights, start)
    if slope <= 0:
        raise ValueError(NO_RANKING)
    return float(slope / scale), float(intercept - slope * centre / scale)


def _explain_temperature(rows: ScoredRows) -> str:
    """Return a message for a wrong ranking, or for a wrong offset, which `"platt"` can fit."""
    means = [
        np.average(rows.outputs[rows.labels == i], weights=rows.weights[rows.labels == i])
        for i in (0, 1)
    ]
    if means[1] <= means[0]:
        return NO_RANKING
    return (
        f"{NO_SLOPE} higher than those of negatives on average ({means[1]:.4g} and {means[0]:.4g}),"
        " but not on the two sides of 0: the probabilities are off on average, and a temperature "
        "alone would pull them towards 0.5. Use `method='platt'`, which fits an offset too."
    )


def _count_effective(weights: Array) -> float:
    """Return Kish's effective number of rows: their number if all weights are equal."""
    weights = weights / weights.max()
    return float(weights.sum() ** 2 / np.square(weights).sum())


def _minimise(columns: Array, targets: Array, weights: Array, start: Array) -> Array:
    """Return the coefficients with the least log loss, by Newton's method with a line search."""
    weights = weights / weights.sum()
    point, loss = start, _cross_entropy(columns @ start, targets, weights)
    for _ in range(MAX_STEPS):
        fitted = _sigmoid(columns @ point)
        gradient = columns.T @ (weights * (fitted - targets))
        curvature = weights * fitted * (1 - fitted)
        hessian = (columns * curvature[:, None]).T @ columns
        # Where nearly all rows are fitted there is no curvature left to divide by.
        hessian += 1e-12 * np.eye(len(point))
        direction = np.linalg.solve(hessian, -gradient)
        decrease = float(-gradient @ direction)
        if decrease < 1e-20:
            break
        rate = 1.0
        while rate > 1e-10:
            candidate = point + rate * direction
            value = _cross_entropy(columns @ candidate, targets, weights)
            if value <= loss - 1e-4 * rate * decrease:
                break
            rate /= 2
        else:
            break
        point, loss = candidate, value
    return point


def _cross_entropy(logits: Array, targets: Array, weights: Array) -> float:
    return float(np.sum(weights * (np.logaddexp(0, logits) - targets * logits)))


def _sigmoid(logits: Array) -> Array:
    return np.exp(-np.logaddexp(0, -logits))


def _log_loss(rows: ScoredRows) -> float:
    return _cross_entropy(rows.outputs, rows.labels, rows.weights / rows.weights.sum())


def _evaluate(metric: type, rows: ScoredRows) -> float:
    return float(metric(from_logits=True)(rows.labels, rows.outputs, rows.weights))


def _move_threshold(threshold: float, slope: float, intercept: float) -> float:
    """Return the threshold that labels the new probabilities as the old one labelled the old."""
    logit = math.log(threshold) - math.log1p(-threshold)
    moved = float(_sigmoid(np.array(slope * logit + intercept)))
    if not is_threshold(moved):
        raise ValueError(
            f"{OWNER} would move the threshold {threshold} to {moved}, which float32 cannot hold. "
            "Set `head.threshold` nearer to 0.5 and calibrate again."
        )
    return moved
