"""What holds of every metric, whatever the rows.

An example goes through all metrics at once, compiled, so that it takes milliseconds. The number of
examples of each property is `KERAS_BINCLF_EXAMPLES`; where that is set they are new in each run.
"""

import math
import os

import hypothesis
import keras
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_binclf import (
    BestThreshold,
    BinaryAUC,
    BrierScore,
    ExpectedCalibrationError,
    ThresholdMetric,
)

BACKEND = keras.backend.backend()
EXAMPLES = os.environ.get("KERAS_BINCLF_EXAMPLES")
SETTINGS = hypothesis.settings(
    max_examples=int(EXAMPLES or 25),
    derandomize=EXAMPLES is None,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)

# Few enough that rows share bins, and that the middle of a bin is far from its ends in float32.
NUM_BINS = 256
# Some of each kind; test_metric_values.py goes through all scores.
FIXED = ("accuracy", "precision", "recall", "f1", "mcc", "cohen_kappa", "g_mean", "cost")
BEST = ("balanced_accuracy", "npv", "f1", "mcc", "cohen_kappa", "fbeta", "cost")
PARAMETERS = {"fbeta": {"beta": 0.5}, "cost": {"cost_fp": 0.5, "cost_fn": 1.0}}
LOWEST = {"mcc": -1.0, "cohen_kappa": -1.0}


def make_metrics(from_logits):
    """Every metric by a name of its own."""
    common = {"from_logits": from_logits, "num_bins": NUM_BINS}
    metrics = {
        "brier_score": BrierScore(from_logits),
        "uniform": ExpectedCalibrationError(5, from_logits=from_logits),
        "quantile": ExpectedCalibrationError(5, "quantile", **common),
        "auc": BinaryAUC(**common),
        "pr_auc": BinaryAUC("PR", **common),
        "best_threshold": BestThreshold(**common),
        "best_threshold_of_mcc": BestThreshold("mcc", **common),
        "best_recall_where_precise": ThresholdMetric("recall", "best", min_precision=0.5, **common),
    }
    for scores, threshold, prefix in ((FIXED, 0.3, ""), (BEST, "best", "best_")):
        for score in scores:
            arguments = PARAMETERS.get(score, {}) | common
            metrics[prefix + score] = ThresholdMetric(score, threshold, **arguments)
    return metrics


def compiled(function):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return function


class Evaluation:
    """All metrics at once: batches in, a value of each out."""

    def __init__(self, from_logits=False):
        self.metrics = make_metrics(from_logits)
        self.start = [
            [ops.zeros(variable.shape) for variable in metric.variables]
            for metric in self.metrics.values()
        ]
        self.update = compiled(self._update)
        self.result = compiled(self._result)

    def _update(self, states, *batch):
        pairs = zip(self.metrics.values(), states, strict=True)
        return [metric.stateless_update_state(state, *batch) for metric, state in pairs]

    def _result(self, states):
        pairs = zip(self.metrics.values(), states, strict=True)
        return ops.stack([metric.stateless_result(state) for metric, state in pairs])

    def __call__(self, *batches):
        states = self.start
        for batch in batches:
            states = self.update(states, *[ops.convert_to_tensor(x, "float32") for x in batch])
        values = ops.convert_to_numpy(self.result(states))
        return dict(zip(self.metrics, values.tolist(), strict=True))


@pytest.fixture(scope="module")
def evaluate():
    return Evaluation()


@pytest.fixture(scope="module")
def evaluate_logits():
    return Evaluation(from_logits=True)


# Whole quarters add up without rounding, in whatever order.
QUARTERS = st.integers(0, 16).map(lambda quarters: quarters / 4)
POSITIVE_QUARTERS = st.integers(1, 16).map(lambda quarters: quarters / 4)
TIED = st.sampled_from([0.0, 1e-6, 0.25, 0.3, 0.5, 0.75, 1 - 1e-6, 1.0])
PROBABILITIES = TIED | st.floats(0, 1, width=32, allow_subnormal=False)
LOGITS = st.sampled_from([-100.0, -10.0, 0.0, 1.0, 100.0]) | st.floats(-20, 20, width=32)
# A bin is an eighth of a logit; ±100 lie in the first and the last.
MIDDLES = st.integers(-64, 63).map(lambda b: b / 8 + 1 / 16) | st.sampled_from([-100.0, 100.0])
LABELS = st.sampled_from([0.0, 1.0])
N = 12


def batches(scores=PROBABILITIES, labels=LABELS, weights=QUARTERS):
    """Labels, scores and weights of 12 rows; one length, so that little has to be compiled."""
    columns = [st.lists(column, min_size=N, max_size=N) for column in (labels, scores, weights)]
    return st.tuples(*[column.map(lambda x: np.array(x, "float32")) for column in columns])


def select(batch, rows):
    return tuple(x[rows] for x in batch)


def replace(batch, row, label=None, score=None, weight=None):
    copies = [x.copy() for x in batch]
    for column, value in zip(copies, (label, score, weight), strict=True):
        if value is not None:
            column[row] = value
    return tuple(copies)


def has_both_classes(batch):
    labels, _, weights = batch
    return len(set(labels[weights > 0])) == 2


def assert_same(values, expected, but=(), atol=0.0):
    """Equal to the last bit where counts are: they are exact, and so is what is made of them.

    But for sums of float32 errors and gaps, which depend on the order.
    """
    rounded = {"brier_score", "uniform", "quantile"}
    differing = {
        name: (values[name], expected[name])
        for name in values
        if name not in but
        and not math.isclose(
            values[name], expected[name], rel_tol=0, abs_tol=1e-6 if name in rounded else atol
        )
        and not (math.isnan(values[name]) and math.isnan(expected[name]))
    }
    assert not differing


def assert_all_nan(values):
    assert not {name: value for name, value in values.items() if not math.isnan(value)}


@SETTINGS
@given(batches())
def test_batches_do_not_matter(evaluate, batch):
    whole = evaluate(batch)
    assert_same(evaluate(*[select(batch, slice(i, i + 4)) for i in (0, 4, 8)]), whole)
    assert_same(evaluate(select(batch, slice(0, 8)), select(batch, slice(8, 12))), whole)


@SETTINGS
@given(batches(), st.permutations(range(N)))
def test_order_does_not_matter(evaluate, batch, order):
    assert_same(evaluate(select(batch, list(order))), evaluate(batch))


@SETTINGS
@given(batches(), st.integers(0, N - 4))
def test_weight_2_is_the_row_twice(evaluate, batch, start):
    twice = np.arange(start, start + 4)
    doubled = replace(batch, twice, weight=2 * batch[2][twice])
    repeated = select(batch, np.append(np.arange(N), twice))
    assert_same(evaluate(doubled), evaluate(repeated))


@SETTINGS
@given(
    batches(
        scores=PROBABILITIES | st.sampled_from([math.nan, 1.5, -math.inf]),
        labels=LABELS | st.sampled_from([math.nan, 2.0]),
    ),
    batches(),
)
def test_weight_0_is_the_row_absent(evaluate, garbage, batch):
    absent = replace(select(garbage, slice(0, 4)), slice(None), weight=0.0)
    present = select(batch, slice(0, 8))
    both = tuple(np.append(a, b) for a, b in zip(absent, present, strict=True))
    assert_same(evaluate(both), evaluate(present))


@SETTINGS
@given(batches())
def test_weights_of_1_are_no_weights(evaluate, batch):
    assert_same(evaluate(batch[:2]), evaluate(replace(batch, slice(None), weight=1.0)))


@SETTINGS
@given(batches())
def test_columns_are_vectors(evaluate, batch):
    labels, scores, weights = batch
    expected = evaluate(batch)
    columns = labels[:, None], scores[:, None], weights[:, None]
    assert_same(evaluate(columns), expected)
    assert_same(evaluate((labels, scores[:, None], weights)), expected)


@SETTINGS
@given(batches(weights=POSITIVE_QUARTERS), LABELS)
def test_one_class_has_no_best_threshold_and_no_ranking(evaluate, batch, label):
    values = evaluate(replace(batch, slice(None), label=label))
    undefined = {name for name in values if name.startswith("best_")}
    undefined |= {"auc", "mcc", "cohen_kappa", "g_mean"}
    if label == 0:
        undefined |= {"pr_auc", "recall"}
        # No overlap of no labels with no predictions, and none with wrong ones: NaN and 0.
        assert not values.pop("f1") > 0
    assert {name for name, value in values.items() if math.isnan(value)} == undefined


@SETTINGS
@given(batches(weights=POSITIVE_QUARTERS), PROBABILITIES)
def test_equal_scores_tell_nothing(evaluate, batch, score):
    batch = replace(batch, slice(None), score=score)
    hypothesis.assume(has_both_classes(batch))
    labels, _, weights = batch
    values = evaluate(batch)
    prevalence = np.average(labels, weights=weights)
    # XLA divides by multiplying with a rounded reciprocal.
    assert math.isclose(values["auc"], 0.5, rel_tol=1e-6)
    assert values["best_balanced_accuracy"] == 0.5
    assert values["mcc"] == values["best_mcc"] == values["best_cohen_kappa"] == 0
    # float32 sums of 12 rows
    assert math.isclose(values["pr_auc"], prevalence, rel_tol=1e-6)
    for name in ("uniform", "quantile"):
        assert math.isclose(values[name], abs(np.float32(score) - prevalence), abs_tol=1e-6)


@SETTINGS
@given(batches(scores=st.sampled_from([0.0, 1.0]), weights=POSITIVE_QUARTERS))
def test_scores_of_0_and_1_are_decisions(evaluate, batch):
    hypothesis.assume(has_both_classes(batch))
    labels, scores, weights = batch
    values = evaluate(batch)
    wrong = np.average(labels != scores, weights=weights)
    balanced = values["best_balanced_accuracy"]
    assert math.isclose(values["brier_score"], wrong, abs_tol=1e-6)
    assert math.isclose(values["accuracy"], 1 - wrong, abs_tol=1e-6)
    assert math.isclose(values["auc"], balanced, abs_tol=1e-6)
    # All thresholds decide alike.
    assert not [
        score for score in FIXED if values.get(f"best_{score}", values[score]) != values[score]
    ]


@SETTINGS
@given(batches(scores=MIDDLES))
def test_logits_are_judged_by_their_probabilities(evaluate, evaluate_logits, batch):
    labels, logits, weights = batch
    probabilities = reference.sigmoid(logits)
    assert_same(evaluate_logits(batch), evaluate((labels, probabilities, weights)))


@SETTINGS
@given(batches(scores=MIDDLES, weights=POSITIVE_QUARTERS))
def test_best_is_the_optimum_over_all_cuts(evaluate_logits, batch):
    hypothesis.assume(has_both_classes(batch))
    labels, logits, weights = batch
    values = evaluate_logits(batch)
    # No edge lies under the first bin, nor over the last.
    edges = np.linspace(-16, 16, NUM_BINS + 1)[1:-1]
    counts = reference.counts_at(labels, logits, edges, weights)
    for score in BEST:
        expected = reference.best_of(score, counts, **PARAMETERS.get(score, {}))
        # float32 ratios, and for MCC and kappa the difference of two
        assert math.isclose(values[f"best_{score}"], expected, rel_tol=1e-6, abs_tol=1e-6), score


INVALID_ROWS = st.sampled_from(
    [
        *[{"label": label} for label in (2.0, -1.0, 0.5, 1.0000001, math.nan, math.inf)],
        *[{"score": score} for score in (1.0000001, -1e-6, 7.0, math.nan, math.inf, -math.inf)],
        *[{"weight": weight} for weight in (-0.25, -1e-6, math.nan, math.inf, -math.inf)],
    ]
)


@SETTINGS
@given(batches(weights=POSITIVE_QUARTERS), st.integers(0, N - 1), INVALID_ROWS)
def test_one_invalid_row_makes_all_nan(evaluate, batch, row, values):
    invalid = replace(batch, row, **values)
    assert_all_nan(evaluate(invalid))
    assert_all_nan(evaluate(invalid, batch))
    if "weight" not in values:
        assert_all_nan(evaluate(invalid[:2]))


@SETTINGS
@given(batches(scores=LOGITS, weights=POSITIVE_QUARTERS), st.integers(0, N - 1))
def test_one_nan_logit_makes_all_nan(evaluate_logits, batch, row):
    assert_all_nan(evaluate_logits(replace(batch, row, score=math.nan)))


@SETTINGS
@given(batches(weights=st.floats(0, 100, width=32, allow_subnormal=False)))
def test_value_stays_in_its_range(evaluate, batch):
    assert_in_range(evaluate(batch), batch)


@SETTINGS
@given(batches(scores=LOGITS))
def test_value_of_logits_stays_in_its_range(evaluate_logits, batch):
    assert_in_range(evaluate_logits(batch), batch)


def assert_in_range(values, batch):
    if has_both_classes(batch):
        # Where no threshold is precise enough.
        allowed = {"best_recall_where_precise"}
        assert not [name for name in values if math.isnan(values[name]) and name not in allowed]
    outside = {
        name: value
        for name, value in values.items()
        if value < LOWEST.get(name.removeprefix("best_"), 0.0) or value > 1
    }
    assert not outside


@SETTINGS
@given(batches(), batches(scores=PROBABILITIES | st.just(math.nan)))
def test_reset_forgets_all(evaluate, batch, other):
    expected = evaluate(batch)
    for name in ("f1", "best_cost", "best_threshold", "auc", "brier_score", "quantile"):
        metric = evaluate.metrics[name]
        metric.reset_state()
        metric.update_state(*other)
        metric.reset_state()
        metric.update_state(*batch)
        state = [variable.value for variable in metric.variables]
        value = float(metric.stateless_result(state))
        assert_same({name: value}, expected)
