"""Exact search for the best threshold of a trained model."""

import dataclasses
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from keras_binclf._data.forward import hold
from keras_binclf._data.heads import choose_head
from keras_binclf._data.scored_rows import Array, ScoredRows, check_both_classes, score_rows
from keras_binclf._validation import is_threshold
from keras_binclf.layers import BinaryHead
from keras_binclf.metrics.confusion import Confusion
from keras_binclf.metrics.scores import Criterion, Parameters, make_criterion, name_parameters

OWNER = "tune_threshold"


@dataclasses.dataclass(frozen=True)
class TunedThreshold:
    """Result of `tune_threshold`: threshold and score before and after, and the confusion table.

    Print it to see how much the new threshold improves the score. The table holds weights, which
    are counts of rows where no weights were given.

    Args:
        threshold: float in (0, 1), the new threshold of the head.
        value: float, the score at the new threshold.
        previous_threshold: float in (0, 1), the threshold of the head before.
        previous_value: float, the score at the previous threshold; NaN if it is undefined or
            violates a constraint.
        score: str, the name of the score.
        num_rows: int, the number of rows with a positive weight.
        true_positives: float, the weight of positives labelled positive at the new threshold.
        false_positives: float, the weight of negatives labelled positive.
        false_negatives: float, the weight of positives labelled negative.
        true_negatives: float, the weight of negatives labelled negative.

    Example:

    ```python
    from keras_binclf import TunedThreshold

    tuned = TunedThreshold(0.125, 0.8, 0.5, 0.0, "f1", 5, 2.0, 1.0, 0.0, 2.0)
    assert str(tuned).splitlines()[0] == "f1 0 -> 0.8, threshold 0.5 -> 0.125 (5 rows)"
    assert (tuned.precision, tuned.recall) == (2 / 3, 1.0)
    ```
    """

    threshold: float
    value: float
    previous_threshold: float
    previous_value: float
    score: str
    num_rows: int
    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float

    @property
    def precision(self) -> float:
        """The share of positives among the rows labelled positive; 0 if there are none."""
        return float(self._confusion.ppv)

    @property
    def recall(self) -> float:
        """The share of positives that are labelled positive."""
        return float(self._confusion.tpr)

    @property
    def _confusion(self) -> Confusion:
        return Confusion(
            tp=np.float64(self.true_positives),
            fp=np.float64(self.false_positives),
            fn=np.float64(self.false_negatives),
            tn=np.float64(self.true_negatives),
            xp=np,
        )

    def __str__(self) -> str:
        """Return the score before and after, and the errors at the new threshold."""
        return (
            f"{self.score} {self.previous_value:.4g} -> {self.value:.4g}, threshold "
            f"{self.previous_threshold:.4g} -> {self.threshold:.4g} ({self.num_rows:,} rows)\n"
            f"  precision {self.precision:.4g}, recall {self.recall:.4g}: "
            f"{self.true_positives:,.10g} of "
            f"{self.true_positives + self.false_negatives:,.10g} positives found, "
            f"{self.false_positives:,.10g} false alarms among "
            f"{self.false_positives + self.true_negatives:,.10g} negatives"
        )


@name_parameters
def tune_threshold(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    score: str | Criterion = "f1",
    sample_weight: Any = None,
    batch_size: int | None = None,
    steps: int | None = None,
    head: str | BinaryHead | None = None,
    **parameters: Unpack[Parameters],
) -> TunedThreshold:
    """Find the threshold with the best score on held-out rows, and set it in the model's head.

    Use it after training, where 0.5 is not the right threshold: where positives are rare, or the
    two errors have different costs. If the costs are known, use `score="cost"`; `min_precision` and
    `min_recall` add constraints to any score. Tune on rows that the model was not trained on, and
    report the score on yet other rows, since the best of many thresholds is optimistic on its own.

    The search is exact: it evaluates each division of the rows by a threshold once, in float64
    (sort, cumulative counts, `O(n log n)`). The threshold is the midpoint between two neighbouring
    distinct probabilities, so no row lies on it, and `>` and `>=` give the same labels. Of
    thresholds with equal scores, the one with the larger sum of recall and specificity wins, then
    the higher one. The other weights of the model do not change. The threshold is saved with the
    model.

    Args:
        model: Keras model with a `BinaryHead` as one of its output layers.
        x: features as `model.predict` takes them; or, without `y`, a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a torch `DataLoader` or a generator with batches
            `(features, labels)` or `(features, labels, weights)`. It is read once.
        y: labels 0 and 1 of shape `(n,)` or `(n, 1)`, where `x` are features. Defaults to `None`.
        score: str, one of the scores of `ThresholdMetric`, or a `keras_binclf.metrics.Criterion`
            that holds it with its parameters. Defaults to `"f1"`.
        beta: positive float, for `score="fbeta"` only. Defaults to `None`.
        cost_fp: float, the cost of a false positive, for `score="cost"` only: 0, or from 1e-30 to
            1e30 in any unit. Defaults to `None`.
        cost_fn: float, the cost of a false negative, in the same range. Defaults to `None`.
        min_precision: float in [0, 1]; thresholds with less precision are excluded. Defaults to
            `None`.
        min_recall: float in [0, 1]; thresholds with less recall are excluded. Defaults to `None`.
        sample_weight: weights of shape `(n,)` or `(n, 1)`, or `None`. A row of weight 2 counts
            twice, a row of weight 0 not at all. Defaults to `None`.
        batch_size: int, rows per batch where `x` are features. Defaults to `None`.
        steps: positive int, the number of batches to take from a data set, needed if it has no
            end. Defaults to `None`.
        head: name or path of the head, or the head itself, where the model has several. Defaults
            to `None`.

    Returns:
        A `TunedThreshold`, with the score before and after.

    Raises:
        TypeError: for labels that are no numbers, and for an argument of the wrong kind.
        ValueError: for labels other than 0 and 1, different lengths, no rows or one class only, a
            NaN probability, and constraints that no threshold satisfies. The threshold of the head
            does not change then.

    Example:

    ```python
    import numpy as np
    import keras_binclf

    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 4)).astype("float32")
    y = rng.random(1000) < 1 / (1 + np.exp(4 - 2 * x[:, 0]))  # about 6 % positives
    model = keras_binclf.binary_classifier(4, prior=y.mean(), learning_rate=0.01)
    model.fit(x[:500], y[:500], epochs=5, verbose=0)

    tuned = keras_binclf.tune_threshold(
        model, x[500:], y[500:], score="cost", cost_fp=1, cost_fn=10
    )
    assert tuned.value <= tuned.previous_value
    assert keras_binclf.find_head(model).threshold == tuned.threshold
    ```
    """
    criterion = make_criterion(OWNER, score, parameters)
    chosen = choose_head(model, head, OWNER)
    # To the end: a change in between would give the old scores' threshold to new probabilities.
    with hold(chosen):
        rows = score_rows(OWNER, model, chosen, x, y, sample_weight, batch_size, steps)
        return _tune(chosen, criterion, rows)


def _tune(chosen: BinaryHead, criterion: Criterion, rows: ScoredRows) -> TunedThreshold:
    """Set the threshold that is best on these rows in the head."""
    check_both_classes(OWNER, rows)
    # In float32, as `head.labels` compares them.
    probabilities = ops.convert_to_numpy(chosen.probabilities(rows.outputs)).astype("float32")
    thresholds, confusion = _tabulate(probabilities, rows.labels, rows.weights)
    index, value = criterion.find_best(confusion)
    if np.isnan(value):
        raise ValueError(_explain(criterion, confusion))
    previous = chosen.threshold
    before = _decide(probabilities, rows.labels, rows.weights, previous)
    chosen.threshold = float(thresholds[index])
    return TunedThreshold(
        threshold=chosen.threshold,
        value=float(value),
        previous_threshold=previous,
        previous_value=float(criterion.evaluate(before)),
        score=criterion.score,
        num_rows=len(probabilities),
        true_positives=float(confusion.tp[index]),
        false_positives=float(confusion.fp[index]),
        false_negatives=float(confusion.fn[index]),
        true_negatives=float(confusion.tn[index]),
    )


def _tabulate(probabilities: Array, labels: Array, weights: Array) -> tuple[Array, Confusion]:
    """Return a threshold for each division of the rows, descending, with its confusion table."""
    values, places = np.unique(-probabilities, return_inverse=True)
    values = -values
    cells = 2 * places.ravel() + (labels == 1)
    counts = np.bincount(cells, weights, 2 * len(values)).reshape(-1, 2)
    none = np.zeros((1, 2))
    positive = np.concatenate([none, np.cumsum(counts, axis=0)])
    negative = np.concatenate([np.cumsum(counts[::-1], axis=0)[::-1], none])
    thresholds = _separate(
        np.concatenate([values, [np.float32(0)]]), np.concatenate([[np.float32(1)], values])
    )
    kept = is_threshold(thresholds)
    positive, negative = positive[kept], negative[kept]
    return thresholds[kept], Confusion(
        tp=positive[:, 1], fp=positive[:, 0], fn=negative[:, 1], tn=negative[:, 0], xp=np
    )


def _separate(lower: Array, upper: Array) -> Array:
    """Return float32 thresholds `t` with `lower <= t < upper`, in the middle where there is one."""
    middle = ((lower.astype("float64") + upper) / 2).astype("float32")
    return np.where(middle < upper, middle, lower)


def _decide(probabilities: Array, labels: Array, weights: Array, threshold: float) -> Confusion:
    """Return the confusion table of one threshold."""
    positive = probabilities > np.float32(threshold)
    actual = labels == 1
    return Confusion(
        tp=weights[positive & actual].sum(),
        fp=weights[positive & ~actual].sum(),
        fn=weights[~positive & actual].sum(),
        tn=weights[~positive & ~actual].sum(),
        xp=np,
    )


def _explain(criterion: Criterion, confusion: Confusion) -> str:
    """Return a message with the constraints that conflict, and the best value of the first."""
    (name, _, rate), *others = constraints = criterion.constraints()
    wanted = " and ".join(f"{each}={least:g}" for each, least, _ in constraints)
    reached = rate(confusion)
    for _, least, other in others:
        reached = np.where(other(confusion) >= least, reached, 0.0)
    text = f"No threshold satisfies {wanted} of {OWNER} on these rows. The best "
    text += name.removeprefix("min_")
    if others:
        text += " at that " + " and ".join(each.removeprefix("min_") for each, _, _ in others)
    way_out = "Lower one of them, or improve the ranking." if others else f"Lower `{name}`."
    return f"{text} is {reached.max():.4g}. {way_out}"
