"""From scores to counts to curves: the pure functions under all metrics with thresholds.

    scores ─▶ bins, evenly spaced in the logit ─▶ weighted counts ─▶ confusion tables ─▶ values

Bins run from the highest scores to the lowest, so that a cumulative sum counts the rows that a
threshold labels positive. A probability lies in bin `b` if its logit lies in
`(edge[b], edge[b − 1]]`, with `edge[b] = 16 − (b + 1) · 32 / num_bins`; scores beyond go to the
first or the last bin. So a threshold at an edge labels a bin as a whole, and a score that equals
the threshold is negative.
±16 is where float32 probabilities end: the largest below 1 has a logit of 16.6. The logit, rather
than the probability, because there a rare class, whose scores all lie under 0.01, gets as many bins
as a balanced one.

Counts are tensors of shape `(2, num_bins)`: a row of negatives, a row of positives. Keras asks for
the value of a metric at every training step, so each operation on all bins counts.
"""

import math

import numpy as np
from keras import ops

from keras_binclf._validation import Tensor
from keras_binclf.metrics.confusion import Confusion

LOGIT_LIMIT = 16.0


def find_bins(scores: Tensor, num_bins: int, from_logits: bool) -> Tensor:
    """Return the bin of each score, an int32 in [0, num_bins); 0 for NaN."""
    logits = scores if from_logits else ops.log(scores / (1 - scores))
    places = ops.floor(num_bins / 2 - logits * (num_bins / (2 * LOGIT_LIMIT)))
    places = ops.clip(places, 0, num_bins - 1)
    return ops.cast(ops.where(ops.isnan(places), 0.0, places), "int32")


def count(labels: Tensor, bins: Tensor, weights: Tensor, num_bins: int) -> Tensor:
    """Add up the weights of the rows of each label and bin."""
    places = ops.cast(labels, "int32") * num_bins + bins
    return ops.reshape(sum_by(weights, places, 2 * num_bins), (2, num_bins))


def count_at(labels: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """Add up the weights of the rows of each label and decision, as counts of two bins."""
    places = 2 * ops.cast(labels, "int32") + ops.cast(ops.logical_not(positive), "int32")
    chosen = ops.equal(ops.convert_to_tensor([[0], [1], [2], [3]], dtype="int32"), places)
    sums = ops.sum(ops.where(chosen, weights, 0.0), axis=1)
    return ops.reshape(sums, (2, 2))


def sum_by(values: Tensor, places: Tensor, num_places: int) -> Tensor:
    """Add up the values that go to each place."""
    if _is_without_data(values):
        # Keras's segment_sum fails there (PyTorch, Keras 3.15).
        return ops.zeros((num_places, *values.shape[1:]), dtype=values.dtype)
    return ops.segment_sum(values, places, num_places)


def add(state: Tensor, increment: Tensor) -> Tensor:
    """Add to sums and keep the rounding errors of float32 (Kahan 1965, doi:10.1145/363707.363723).

    `state[0]` is the rounded sum, `state[1]` its excess. A plain float32 sum stays at
    2²⁴ when ones are added to it; this one does not.
    """
    if _is_without_data(state) and not _is_without_data(increment):
        # Keras traced the shapes there, gave up half-way, and traces them again with data.
        state = ops.zeros((2, *increment.shape), dtype=increment.dtype)
    increment = increment - state[1]
    rounded = state[0] + increment
    return ops.stack([rounded, (rounded - state[0]) - increment])


def total(state: Tensor) -> Tensor:
    """Return the sums that a state holds."""
    return state[0] - state[1]


def tabulate(counts: Tensor) -> Confusion:
    """Return the confusion tables for a threshold at each edge, of length `num_bins − 1`."""
    positive = ops.cumsum(counts, axis=1)
    # The small numbers are those over a high threshold; these are sums, the others differences.
    negative = ops.maximum(positive[:, -1:] - positive, 0.0)
    return Confusion(
        tp=positive[1, :-1], fp=positive[0, :-1], fn=negative[1, :-1], tn=negative[0, :-1], xp=ops
    )


def tabulate_at(counts: Tensor) -> Confusion:
    """Return the one confusion table of counts in two bins."""
    return Confusion(tp=counts[1, 0], fp=counts[0, 0], fn=counts[1, 1], tn=counts[0, 1], xp=ops)


def find_threshold(counts: Tensor, edge: Tensor) -> Tensor:
    """Return the probability in the middle of the empty stretch that begins at an edge.

    All thresholds from there down to the next occupied bin decide alike; the middle is farthest
    from the scores on both sides.
    """
    num_edges = counts.shape[1] - 1
    edge = ops.cast(edge, "int32")
    places = ops.convert_to_tensor(np.arange(num_edges), dtype="int32")
    occupied = counts[0, 1:] + counts[1, 1:] > 0
    stops = ops.where(ops.logical_and(occupied, places >= edge), places, num_edges - 1)
    ends = ops.cast(ops.stack([edge, ops.min(stops)]), counts.dtype)
    width = 2 * LOGIT_LIMIT / counts.shape[1]
    return ops.mean(ops.sigmoid(LOGIT_LIMIT - (ends + 1) * width))


def area_under_roc(counts: Tensor) -> Tensor:
    """Return the share of pairs of a positive and a negative in the right order, ties as half."""
    shares = counts / ops.sum(counts, axis=1, keepdims=True)
    negatives, positives = shares[0], shares[1]
    area = ops.sum(negatives * (ops.cumsum(positives) - positives / 2))
    return ops.minimum(area, 1.0)  # float32 shares may add up to a last digit more


def area_under_precision_recall(counts: Tensor) -> Tensor:
    """Return the average precision: the mean, over the positives, of the precision at each.

    The order within a bin is unknown. The positives of a bin are taken as evenly spread among its
    negatives, so the `i`-th of `m` has `n · i / (m + 1)` of the bin's `n` negatives above it.
    Counting a bin as one tie, as scikit-learn counts equal scores, would take up to 1 % off on
    rare classes. In the highest occupied bin nothing is spread, since no precision precedes it.

    The sum over `i` is Gauss's three-point rule for the numbers 1 … m, exact where m < 4.
    """
    above = ops.cumsum(counts, axis=1) - counts
    hits, false_alarms, negatives, positives = above[1], above[0], counts[0], counts[1]
    # The weight of a row is unknown too: the lightest bin of positives is taken to hold one row.
    unit = ops.min(ops.where(positives > 0, positives, math.inf))
    # The rule is the same for any large m, of which the square must be a float32.
    m = ops.clip(positives / unit, 1.0, 1e9)
    weight, pace = positives / m, negatives / (m + 1)

    def precision_at(i: Tensor) -> Tensor:
        found = hits + weight * i
        return found / (found + false_alarms + pace * i)

    middle = (m + 1) / 2
    square = ops.maximum((3 * m * m - 7) / 20, 0.25)
    offset, side = ops.sqrt(square), (m * m - 1) / (24 * square)
    sides = precision_at(middle - offset) + precision_at(middle + offset)
    average = (1 - 2 * side) * precision_at(middle) + side * sides
    alone = positives / ops.where(positives + negatives == 0, 1.0, positives + negatives)
    average = ops.where(ops.equal(hits + false_alarms, 0), alone, average)
    return ops.minimum(ops.sum(positives * average) / ops.sum(positives), 1.0)


def _is_without_data(tensor: Tensor) -> bool:
    """Whether a tensor is on PyTorch's "meta" device, where Keras traces shapes."""
    return bool(getattr(tensor, "is_meta", False))
