"""What the metrics say, against scikit-learn and against sums in NumPy float64."""

import dataclasses
import fractions
import inspect
import math

import keras
import numpy as np
import pytest
import reference
from keras import ops
from sklearn import metrics as sk

import keras_binclf
from keras_binclf import (
    BestThreshold,
    BinaryAUC,
    BrierScore,
    ExpectedCalibrationError,
    ThresholdMetric,
)
from keras_binclf.metrics import Criterion
from keras_binclf.metrics.scores import SCORES

BACKEND = keras.backend.backend()
PARAMETERS = {"fbeta": {"beta": 2.0}, "cost": {"cost_fp": 1.0, "cost_fn": 7.0}}


def recall_of_negatives(y, labels, **options):
    return sk.recall_score(y, labels, pos_label=0, **options)


def sk_cost(y, labels, sample_weight=None):
    (_, fp), (fn, _) = sk.confusion_matrix(y, labels, labels=[0, 1], sample_weight=sample_weight)
    return (fp + 7 * fn) / (len(y) if sample_weight is None else np.sum(sample_weight))


ORACLES = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "precision": lambda *a, **k: sk.precision_score(*a, zero_division=0, **k),
    "recall": sk.recall_score,
    "specificity": recall_of_negatives,
    "npv": lambda *a, **k: sk.precision_score(*a, zero_division=0, pos_label=0, **k),
    "f1": sk.f1_score,
    "fbeta": lambda *a, **k: sk.fbeta_score(*a, beta=2.0, **k),
    "jaccard": sk.jaccard_score,
    "mcc": sk.matthews_corrcoef,
    "cohen_kappa": sk.cohen_kappa_score,
    "youden_j": lambda *a, **k: sk.balanced_accuracy_score(*a, adjusted=True, **k),
    "g_mean": lambda *a, **k: math.sqrt(sk.recall_score(*a, **k) * recall_of_negatives(*a, **k)),
    "cost": sk_cost,
}
EVERY_SCORE = pytest.mark.parametrize("score", SCORES)
METRICS = {
    "f1": ThresholdMetric,
    "best_mcc": lambda **k: ThresholdMetric("mcc", "best", **k),
    "best_cost": lambda **k: ThresholdMetric("cost", "best", cost_fp=1.0, cost_fn=7.0, **k),
    "best_threshold": BestThreshold,
    "auc": BinaryAUC,
    "pr_auc": lambda **k: BinaryAUC("PR", **k),
    "brier_score": BrierScore,
    "uniform": ExpectedCalibrationError,
    "quantile": lambda **k: ExpectedCalibrationError(strategy="quantile", **k),
}
EVERY_METRIC = pytest.mark.parametrize("make", METRICS.values(), ids=METRICS)


def rows(n=400, prevalence=0.3, decimals=None, seed=0):
    """Labels, and probabilities that know something of them; rounded ones have ties, 0 and 1."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < prevalence * n).astype("float32")
    logits = rng.normal(size=n) * 1.5 + 2 * y - 1
    probabilities = reference.sigmoid(logits)
    if decimals is not None:
        probabilities = probabilities.round(decimals)
    order = rng.permutation(n)
    return y[order], probabilities[order].astype("float32")


def weights_of(n, seed=1):
    return np.random.default_rng(seed).integers(0, 9, n).astype("float32") / 4


def spread_rows(n=60, seed=0):
    """Rows in no particular order, whose logits are 20 bins apart."""
    rng = np.random.default_rng(seed)
    logits = rng.permutation(np.linspace(-2.4, 2.4, n))
    y = (rng.random(n) < reference.sigmoid(2 * logits)).astype("float32")
    return y, reference.sigmoid(logits).astype("float32")


def evaluate(metric, *batch):
    metric.update_state(*batch)
    return float(metric.result())


def metric_of(score, threshold="best", **arguments):
    return ThresholdMetric(score, threshold, **PARAMETERS.get(score, {}), **arguments)


def test_every_score_has_its_oracles():
    assert set(ORACLES) == set(SCORES) == set(reference.SCORES)


@EVERY_SCORE
def test_fixed_threshold_is_that_of_scikit_learn(score):
    y, p = rows(decimals=2)
    w = weights_of(len(y))
    thresholds = np.random.default_rng(2).uniform(0.01, 0.99, 50)
    thresholds[:10] = p[(p > 0) & (p < 1)][:10]
    metrics = [metric_of(score, float(t)) for t in thresholds]
    values = [evaluate(metric, y, p, w) for metric in metrics]
    labels = [p > np.float32(t) for t in thresholds]
    expected = [ORACLES[score](y, each, sample_weight=w) for each in labels]
    # float32 ratios of exact counts
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=5e-7)


@EVERY_SCORE
def test_fixed_threshold_of_logits_is_a_probability(score):
    y, p = rows()
    with np.errstate(divide="ignore"):
        logits = np.log(p / (1 - p)).astype("float32")
    logits[:6] = [-100, 100, -100, 100, -np.inf, np.inf]
    p = reference.sigmoid(logits)
    for threshold in (0.01, 0.3, 0.9):
        value = evaluate(metric_of(score, threshold, from_logits=True), y, logits)
        np.testing.assert_allclose(value, ORACLES[score](y, p > threshold), rtol=1e-6, atol=5e-7)


@EVERY_SCORE
def test_scores_of_0_and_1_alone_are_decided_at_every_threshold(score):
    y, p = rows(decimals=0)
    assert set(p) == {0.0, 1.0}
    expected = ORACLES[score](y, p == 1)
    for threshold in (1e-6, 0.5, 0.999999):
        value = evaluate(metric_of(score, threshold), y, p)
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=5e-7)


def test_score_equal_to_threshold_is_negative():
    for score in (0.1, 0.3, 0.5, 1 / 3, 0.7, 1e-6, 1 - 1e-6):
        above = np.nextafter(np.float32(score), np.float32(1))
        below = np.nextafter(np.float32(score), np.float32(0))
        for value, positive in ((below, 0), (np.float32(score), 0), (above, 1)):
            metric = ThresholdMetric("recall", score)
            assert evaluate(metric, np.ones(1), np.array([value])) == positive


@EVERY_SCORE
def test_best_is_the_optimum_over_all_cuts(score):
    y, p = spread_rows()
    expected = reference.best_score(score, y, p, **PARAMETERS.get(score, {}))
    np.testing.assert_allclose(evaluate(metric_of(score), y, p), expected, rtol=1e-6)
    cuts = [0, *np.sort(p)]
    found = [ORACLES[score](y, p > cut) for cut in cuts]
    np.testing.assert_allclose(expected, (min if score == "cost" else max)(found), rtol=1e-9)


@EVERY_SCORE
def test_best_of_ties_with_weights_is_the_optimum_over_all_cuts(score):
    y, p = rows(decimals=1)
    w = weights_of(len(y))
    expected = reference.best_score(score, y, p, w, **PARAMETERS.get(score, {}))
    value = evaluate(metric_of(score), y, p, w)
    # Two cuts are not among the edges: that under a score of 0, and that over a score of 1.
    edges = np.array([1e-6, *np.arange(0.05, 1, 0.1), 1 - 1e-6])
    at_edges = reference.best_of(
        score, reference.counts_at(y, p, edges, w), **PARAMETERS.get(score, {})
    )
    np.testing.assert_allclose(value, at_edges, rtol=1e-6)
    if score not in ("recall", "specificity"):
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@EVERY_SCORE
def test_best_of_logits_is_that_of_their_probabilities(score):
    y, p = spread_rows()
    logits = np.log(p / (1 - p))
    logits[:4], p[:4] = [-100, 100, -100, 100], [0, 1, 0, 1]
    value = evaluate(metric_of(score, from_logits=True), y, logits)
    assert value == evaluate(metric_of(score), y, p)


@EVERY_SCORE
def test_best_of_crowded_bins_is_the_optimum_over_their_edges(score):
    y, p = rows(4000)
    parameters = PARAMETERS.get(score, {})
    value = evaluate(metric_of(score, num_bins=64), y, p)
    at_edges = reference.best_of(
        score, reference.counts_at(y, p, reference.bin_edges(64)), **parameters
    )
    np.testing.assert_allclose(value, at_edges, rtol=1e-6)
    exact = reference.best_score(score, y, p, **parameters)
    sign = -1 if score == "cost" else 1
    assert sign * value <= sign * exact + 1e-6


@EVERY_SCORE
def test_best_threshold_brings_the_best_value(score):
    y, p = spread_rows()
    parameters = PARAMETERS.get(score, {})
    threshold = evaluate(BestThreshold(score, **parameters), y, p)
    at_threshold = evaluate(metric_of(score, threshold), y, p)
    # The same table, once from the bins and once from the rows.
    np.testing.assert_allclose(at_threshold, evaluate(metric_of(score), y, p), rtol=1e-6)


@pytest.mark.parametrize("score", ["accuracy", "f1", "jaccard", "precision", "recall", "cost"])
@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_is_in_the_middle_of_its_stretch(score, seed):
    rng = np.random.default_rng(seed)
    y = (np.arange(12) % 3 == 0).astype("float32")
    # The middles of bins half a unit wide, with ties.
    p = reference.sigmoid(rng.integers(-6, 6, 12) / 2 + 0.25).astype("float32")
    parameters = PARAMETERS.get(score, {})
    value = evaluate(BestThreshold(score, num_bins=64, **parameters), y, p)
    expected = reference.best_threshold(score, y, p, 64, **parameters)
    # float32 sigmoids
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_best_threshold_between_two_scores_is_their_middle():
    value = evaluate(BestThreshold(), [0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9])
    # Each end is off by at most a bin, 0.004 of a logit, which is 0.001 of a probability.
    assert abs(value - 0.4) < 1e-3


def test_of_equally_good_thresholds_the_one_with_fewest_false_alarms_wins():
    y, p = np.array([0, 0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.6, 0.9])
    assert 0.2 < evaluate(BestThreshold("recall"), y, p) < 0.3
    assert 0.6 < evaluate(BestThreshold("precision"), y, p) < 0.9


def test_of_thresholds_that_are_equal_in_all_the_highest_wins():
    y, p = np.array([0, 1, 0, 1]), np.array([0.2, 0.4, 0.6, 0.8])
    assert evaluate(ThresholdMetric("balanced_accuracy", "best"), y, p) == 0.75
    assert 0.6 < evaluate(BestThreshold("balanced_accuracy"), y, p) < 0.8


# Where positives are few, their order within a bin is chance: 200 of them in 200,000 rows move the
# average precision by 1.2e-4 (root mean square over 10 seeds), 1,000 in a million by 2e-5.
@pytest.mark.parametrize(("n", "prevalence"), [(200_000, 0.5), (200_000, 0.01), (1_000_000, 0.001)])
def test_many_rows_agree_with_exact_values(n, prevalence):
    rng = np.random.default_rng(3)
    y = (np.arange(n) < prevalence * n).astype("float32")
    logits = rng.normal(size=n) + 2 * y - 1 + math.log(prevalence / (1 - prevalence))
    order = rng.permutation(n)
    y, p = y[order], reference.sigmoid(logits[order]).astype("float32")
    best = ("f1", "mcc", "balanced_accuracy", "cost")
    metrics = [BinaryAUC(), BinaryAUC("PR"), *map(metric_of, best)]
    for batch in np.split(np.arange(n), 4):
        for metric in metrics:
            metric.update_state(y[batch], p[batch])
    roc, pr, *values = [float(metric.result()) for metric in metrics]
    # What the metrics promise; mistakes within a bin average out, and what is left is smaller.
    assert abs(roc - sk.roc_auc_score(y, p)) < 1e-4
    assert abs(pr - sk.average_precision_score(y, p)) < 1e-4
    expected = [reference.best_score(s, y, p, **PARAMETERS.get(s, {})) for s in best]
    np.testing.assert_allclose(values, expected, atol=2e-3)


def test_roc_auc_counts_ties_as_half():
    for decimals in (None, 2, 1, 0):
        y, p = rows(decimals=decimals)
        w = weights_of(len(y))
        # Scores in one bin of 0.004 of a logit count as ties: of 33,600 pairs a few.
        tolerance = 1e-4 if decimals is None else 1e-6
        expected = sk.roc_auc_score(y, p, sample_weight=w)
        np.testing.assert_allclose(evaluate(BinaryAUC(), y, p, w), expected, atol=tolerance)


def test_roc_auc_of_a_hundred_bins_apart_is_exact():
    y, p = spread_rows()
    np.testing.assert_allclose(evaluate(BinaryAUC(), y, p), sk.roc_auc_score(y, p), rtol=1e-6)


def test_pr_auc_with_weights_that_differ_by_twenty_powers_of_ten():
    y, p = np.array([0, 1, 0, 1]), np.array([0.9, 0.7, 0.4, 0.2])
    w = np.array([1.0, 1e-20, 1.0, 1.0])
    value = float(BinaryAUC("PR")(y, p, w))
    # Rows count by the lightest positive: the heavy one is 1e20 of these, each with a precision of
    # its own, t / (t + 2) for t from 0 to 1.
    np.testing.assert_allclose(value, 1 - 2 * np.log(1.5), rtol=1e-4)


def test_pr_auc_is_the_average_precision():
    y, p = spread_rows()
    expected = sk.average_precision_score(y, p)
    np.testing.assert_allclose(evaluate(BinaryAUC("PR"), y, p), expected, rtol=1e-6)


@pytest.mark.parametrize("score", [0.0, 0.2, 0.5, 1.0])
def test_equal_scores_rank_nothing(score):
    y = (np.arange(60) < 21).astype("float32")
    p = np.full(60, score, "float32")
    assert evaluate(BinaryAUC(), y, p) == 0.5
    np.testing.assert_allclose(evaluate(BinaryAUC("PR"), y, p), 0.35, rtol=1e-6)


@pytest.mark.parametrize("curve", ["ROC", "PR"])
def test_perfect_and_reversed_ranking_have_the_areas_of_scikit_learn(curve):
    oracle = {"ROC": sk.roc_auc_score, "PR": sk.average_precision_score}[curve]
    y, p = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.8, 0.9])
    for labels in (y, 1 - y):
        value = evaluate(BinaryAUC(curve), labels, p)
        np.testing.assert_allclose(value, oracle(labels, p), rtol=1e-6)


def test_brier_score_is_that_of_scikit_learn():
    y, p = rows(decimals=2)
    w = weights_of(len(y))
    expected = sk.brier_score_loss(y, p.astype("float64"), sample_weight=w)
    np.testing.assert_allclose(evaluate(BrierScore(), y, p, w), expected, rtol=1e-6)
    np.testing.assert_allclose(reference.brier_score(y, p, w), expected, rtol=1e-9)


def test_brier_score_of_logits_is_that_of_their_probabilities():
    logits = np.array([-100, -1, 0, 2, 100], "float32")
    y = np.array([0, 1, 0, 1, 0], "float32")
    expected = reference.brier_score(y, reference.sigmoid(logits))
    np.testing.assert_allclose(evaluate(BrierScore(True), y, logits), expected, rtol=1e-6)


@pytest.mark.parametrize("num_bins", [1, 10, 15, 100])
def test_calibration_error_is_that_of_bins_of_equal_width(num_bins):
    y, p = rows()
    w = weights_of(len(y))
    expected = reference.calibration_error(y, p, num_bins, w)
    value = evaluate(ExpectedCalibrationError(num_bins), y, p, w)
    # float32 sums of 400 gaps
    np.testing.assert_allclose(value, expected, atol=2e-6)


def test_calibration_bin_has_its_upper_end():
    y = np.array([1, 0, 0, 1, 0, 1, 0, 0], "float32")
    p = np.array([0, 0.25, 0.25, 0.5, 0.625, 0.75, 1, 1], "float32")
    expected = reference.calibration_error(y, p, 4)
    # A bin [lo, hi) would hold other rows.
    assert expected != reference.calibration_error(y, p - 1e-6, 4)
    np.testing.assert_allclose(evaluate(ExpectedCalibrationError(4), y, p), expected, rtol=1e-6)


@pytest.mark.parametrize("num_groups", [3, 7, 15, 25, 100])
def test_probabilities_beside_an_edge_are_in_the_group_of_the_oracle(num_groups):
    edges = (np.arange(1, num_groups) / num_groups).astype("float32")
    p = np.concatenate(
        [np.nextafter(edges, np.float32(0)), edges, np.nextafter(edges, np.float32(1))]
    )
    y = (np.arange(len(p)) % 3 == 0).astype("float32")
    expected = reference.calibration_error(y, p, num_groups)
    # float32 sums of up to 300 gaps; one row in the wrong group is more than 1e-3.
    value = evaluate(ExpectedCalibrationError(num_groups), y, p)
    np.testing.assert_allclose(value, expected, atol=2e-6)


@pytest.mark.parametrize("num_groups", [1, 3, 15, 60])
def test_quantile_calibration_error_is_that_of_equally_many_rows(num_groups):
    y, p = spread_rows()
    expected = reference.quantile_calibration_error(y, p, num_groups)
    metric = ExpectedCalibrationError(num_groups, "quantile")
    np.testing.assert_allclose(evaluate(metric, y, p), expected, atol=1e-6)
    logits = np.log(p / (1 - p))
    metric = ExpectedCalibrationError(num_groups, "quantile", from_logits=True)
    np.testing.assert_allclose(evaluate(metric, y, logits), expected, atol=1e-6)


def test_quantile_groups_are_equally_heavy():
    y, p = spread_rows()
    order = np.argsort(p)
    y, p = y[order], p[order]
    # Groups of weight 8 begin and end between rows.
    w = np.tile([2, 2, 1, 1, 1, 1], 10)
    value = evaluate(ExpectedCalibrationError(10, "quantile"), y, p, w.astype("float32"))
    expected = reference.quantile_calibration_error(np.repeat(y, w), np.repeat(p, w), 10)
    assert expected != reference.quantile_calibration_error(y, p, 10)
    np.testing.assert_allclose(value, expected, atol=1e-6)


def test_equal_probabilities_are_one_group():
    y = np.array([1, 0, 0, 0, 1], "float32")
    for strategy in ("uniform", "quantile"):
        metric = ExpectedCalibrationError(5, strategy)
        # |0.4 − 0.9| of all rows
        np.testing.assert_allclose(evaluate(metric, y, np.full(5, 0.9)), 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("score", "constraints"),
    [
        ("recall", {"min_precision": 0.8}),
        ("precision", {"min_recall": 0.9}),
        ("f1", {"min_recall": 0.95}),
        ("accuracy", {"min_precision": 0.6, "min_recall": 0.97}),
        ("cost", {"min_precision": 0.8}),
    ],
)
def test_constrained_best_is_the_optimum_of_what_is_allowed(score, constraints):
    y, p = spread_rows(seed=3)
    parameters = PARAMETERS.get(score, {})
    expected = reference.best_score(score, y, p, **parameters, **constraints)
    assert expected != reference.best_score(score, y, p, **parameters)
    assert not math.isnan(expected)
    value = evaluate(metric_of(score, **constraints), y, p)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    threshold = evaluate(BestThreshold(score, **parameters, **constraints), y, p)
    fixed = evaluate(metric_of(score, threshold, **constraints), y, p)
    np.testing.assert_allclose(fixed, expected, rtol=1e-6)


def test_constraints_that_nothing_satisfies_give_nan():
    y, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.3, 0.6, 0.9])
    constraints = {"min_precision": 0.9, "min_recall": 0.9}
    assert math.isnan(evaluate(ThresholdMetric("f1", "best", **constraints), y, p))
    assert math.isnan(evaluate(BestThreshold("f1", **constraints), y, p))
    assert math.isnan(evaluate(ThresholdMetric("f1", 0.5, min_recall=0.75), y, p))
    assert evaluate(ThresholdMetric("f1", 0.5, min_recall=0.5), y, p) == 0.5


# Of a fixed threshold: rows of one class, decided both ways, and what each score says of them.
UNDEFINED_WITHOUT_POSITIVES = {
    "balanced_accuracy",
    "recall",
    "mcc",
    "cohen_kappa",
    "youden_j",
    "g_mean",
}
UNDEFINED_WITHOUT_NEGATIVES = UNDEFINED_WITHOUT_POSITIVES - {"recall"} | {"specificity"}


@EVERY_SCORE
def test_rates_of_an_absent_class_are_nan(score):
    p = np.array([0.2, 0.4, 0.6, 0.8])
    for label, undefined in ((0, UNDEFINED_WITHOUT_POSITIVES), (1, UNDEFINED_WITHOUT_NEGATIVES)):
        y = np.full(4, label)
        value = evaluate(metric_of(score, 0.5), y, p)
        assert math.isnan(value) == (score in undefined)
        if not math.isnan(value):
            np.testing.assert_allclose(value, ORACLES[score](y, p > 0.5), rtol=1e-6)


@pytest.mark.parametrize("score", ["f1", "fbeta", "jaccard"])
def test_overlap_of_nothing_with_nothing_is_nan(score):
    assert math.isnan(evaluate(metric_of(score, 0.5), np.zeros(3), np.full(3, 0.2)))


def test_precision_of_no_prediction_is_0():
    y, p = np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3])
    assert evaluate(ThresholdMetric("precision"), y, p) == 0
    assert evaluate(ThresholdMetric("precision"), np.zeros(3), p) == 0
    assert evaluate(ThresholdMetric("npv"), y, 1 - p) == 0


@EVERY_SCORE
def test_best_needs_both_classes(score):
    parameters = PARAMETERS.get(score, {})
    for label in (0, 1):
        batch = np.full(4, label), np.array([0.2, 0.4, 0.6, 0.8])
        assert math.isnan(evaluate(metric_of(score), *batch))
        assert math.isnan(evaluate(BestThreshold(score, **parameters), *batch))


def test_areas_of_one_class():
    p = np.array([0.2, 0.4, 0.6, 0.8])
    for label in (0, 1):
        assert math.isnan(evaluate(BinaryAUC(), np.full(4, label), p))
    assert math.isnan(evaluate(BinaryAUC("PR"), np.zeros(4), p))
    # As scikit-learn has it: whatever is predicted is right.
    assert evaluate(BinaryAUC("PR"), np.ones(4), p) == 1


@EVERY_METRIC
def test_without_rows_the_result_is_nan(make):
    assert math.isnan(float(make().result()))
    assert math.isnan(evaluate(make(), np.zeros(0), np.zeros(0)))
    assert math.isnan(evaluate(make(), np.ones(2), np.full(2, 0.3), np.zeros(2)))


@EVERY_METRIC
def test_weights_whose_sum_overflows_give_nan_or_the_right_value(make):
    y, p = spread_rows(8)
    value = evaluate(make(), y, p, np.full(8, 3e38, "float32"))
    assert math.isnan(value)
    metric = make()
    for i in range(8):
        metric.update_state(y[i : i + 1], p[i : i + 1], np.full(1, 3e38, "float32"))
    assert math.isnan(float(metric.result()))


@EVERY_METRIC
@pytest.mark.parametrize("factor", [1e-30, 1e-20, 1e30])
def test_factor_common_to_all_weights_changes_nothing(make, factor):
    y, p = rows(100, decimals=1)
    w = weights_of(len(y))
    expected = evaluate(make(), y, p, w)
    # Weights are rounded to float32.
    value = evaluate(make(), y, p, (w * np.float64(factor)).astype("float32"))
    np.testing.assert_allclose(value, expected, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ma.array([0, 0, 1, 1], mask=[0, 1, 0, 1]), "without masked values"),
        (np.array([0, 0, 1, 1]) + 1j, "must be real numbers"),
    ],
)
def test_masked_and_complex_values_are_refused(value, message):
    y, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.9, 0.8, 0.2], "float32")
    for name, batch in {
        "y_true": (value, p),
        "y_pred": (y, value * 0.5),
        "sample_weight": (y, p, value),
    }.items():
        with pytest.raises(
            TypeError, match=f"`{name}` of ThresholdMetric 'f1' {message}|{message}"
        ):
            ThresholdMetric().update_state(*batch)


INVALID = {
    "label_2": (2.0, 0.3, 1.0),
    "label_minus_1": (-1.0, 0.3, 1.0),
    "label_half": (0.5, 0.3, 1.0),
    "label_nan": (math.nan, 0.3, 1.0),
    "score_nan": (1.0, math.nan, 1.0),
    "score_over_1": (1.0, 1.001, 1.0),
    "score_under_0": (0.0, -0.001, 1.0),
    "score_inf": (1.0, math.inf, 1.0),
    "weight_negative": (1.0, 0.3, -1.0),
    "weight_nan": (1.0, 0.3, math.nan),
}


@EVERY_METRIC
@pytest.mark.parametrize("row", INVALID.values(), ids=INVALID)
def test_invalid_row_makes_the_result_nan(make, row):
    y, p = spread_rows(8)
    w = np.ones(8, "float32")
    metric = make()
    metric.update_state(y, p, w)
    y[3], p[3], w[3] = row
    assert math.isnan(evaluate(metric, y, p, w))
    if w[3] == 1:
        assert math.isnan(evaluate(make(), y, p))


@EVERY_METRIC
@pytest.mark.parametrize("row", INVALID.values(), ids=INVALID)
def test_invalid_row_of_weight_0_is_absent(make, row):
    y, p = spread_rows(8)
    w = np.ones(8, "float32")
    w[3] = 0
    expected = evaluate(make(), y, p, w)
    y[3], p[3] = row[:2]
    assert evaluate(make(), y, p, w) == expected


@EVERY_METRIC
def test_nan_logit_makes_the_result_nan_and_infinite_ones_do_not(make):
    y = np.array([0, 1, 0, 1], "float32")
    assert math.isnan(evaluate(make(from_logits=True), y, np.array([-1, math.nan, 2, 3])))
    value = evaluate(make(from_logits=True), y, np.array([-math.inf, -1, 2, math.inf]))
    assert value == evaluate(make(from_logits=True), y, np.array([-100, -1, 2, 100]))


@EVERY_METRIC
def test_masked_rows_are_absent(make):
    y, p = spread_rows(8)
    expected = evaluate(make(), y[:6], p[:6])
    y[6:], p[6:] = [1, 2], [0.99, math.nan]
    for shape in ((8,), (8, 1), (4, 2, 1)):
        scores = ops.convert_to_tensor(p.reshape(shape))
        visible = np.arange(8) < 6
        scores._keras_mask = ops.convert_to_tensor(visible.reshape(shape[:2] if shape[2:] else 8))
        value = evaluate(make(), y.reshape(shape), scores)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        value = evaluate(make(), y.reshape(shape), scores, np.ones(shape, "float32"))
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@EVERY_METRIC
def test_shapes_of_a_row_do_not_matter(make):
    y, p = spread_rows(8)
    w = weights_of(8)
    expected = evaluate(make(), y, p, w)
    column = (8, 1)
    for shapes in ((column,) * 3, (8, column, 8), (column, 8, 8), (8, column, column)):
        batch = [x.reshape(shape) for x, shape in zip((y, p, w), shapes, strict=True)]
        assert evaluate(make(), *batch) == expected
    sequence = [x.reshape(4, 2) for x in (y, p, w)]
    assert evaluate(make(), sequence[0], sequence[1][..., None], sequence[2]) == expected
    assert evaluate(make(), *[x[..., None] for x in sequence]) == expected


@EVERY_METRIC
def test_weight_of_a_sequence_holds_for_all_of_its_steps(make):
    y, p = spread_rows(8)
    w = np.array([1, 2, 0, 3], "float32")
    expected = evaluate(make(), y, p, np.repeat(w, 2))
    y, p = y.reshape(4, 2, 1), p.reshape(4, 2, 1)
    assert evaluate(make(), y, p, w) == expected
    assert evaluate(make(), y, p, w[:, None]) == expected


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint8", "float16", "float64"])
def test_labels_may_be_of_any_dtype(dtype):
    y, p = spread_rows(20)
    for make in METRICS.values():
        assert evaluate(make(), y.astype(dtype), p) == evaluate(make(), y, p)


def test_lists_are_rows_too():
    assert evaluate(ThresholdMetric("recall"), [1, 1, 0], [0.7, 0.2, 0.9]) == 0.5


@EVERY_METRIC
def test_reset_forgets_all(make):
    y, p = spread_rows(8)
    metric = make()
    expected = evaluate(metric, y, p)
    metric.update_state(1 - y, p)
    metric.reset_state()
    assert math.isnan(float(metric.result()))
    assert evaluate(metric, y, p) == expected
    metric.update_state(y, np.full(8, math.nan))
    metric.reset_state()
    assert evaluate(metric, y, p) == expected


@EVERY_METRIC
def test_result_is_a_float32_scalar_that_changes_nothing(make):
    y, p = spread_rows(8)
    metric = make()
    metric.update_state(y, p)
    first, second = metric.result(), metric.result()
    assert first.shape == ()
    assert keras.backend.standardize_dtype(first.dtype) == "float32"
    assert float(first) == float(second)


def compiled(function):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return pytest.skip("neither XLA nor its like")


def update_one_by_one(metric, batches):
    for batch in batches:
        metric.update_state(*batch)


def update_compiled(metric, batches):
    step = compiled(metric.stateless_update_state)
    state = [ops.zeros(variable.shape) for variable in metric.variables]
    for batch in batches:
        state = step(state, *map(ops.convert_to_tensor, batch))
    for variable, value in zip(metric.variables, state, strict=True):
        variable.assign(value)


def update_compiled_together(metric, batches):
    @compiled
    def run(state, batches):
        for batch in batches:
            state = metric.stateless_update_state(state, *batch)
        return state

    tensors = [[ops.convert_to_tensor(x) for x in batch] for batch in batches]
    state = run([ops.zeros(variable.shape) for variable in metric.variables], tensors)
    for variable, value in zip(metric.variables, state, strict=True):
        variable.assign(value)


@pytest.mark.parametrize(
    "update",
    [update_one_by_one, update_compiled, update_compiled_together],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("name", ["fixed", "best", "auc"])
def test_counts_are_exact_beyond_24_bits(update, name):
    metric = {
        "fixed": ThresholdMetric,
        "best": lambda: ThresholdMetric("f1", "best"),
        "auc": BinaryAUC,
    }[name]()
    row = np.ones(1, "float32"), np.full(1, 0.7, "float32")
    weights = [2.0**24, *[1.0] * 10]
    update(metric, [(*row, np.full(1, weight, "float32")) for weight in weights])
    rounded, excess = ops.convert_to_numpy(metric._sums).astype("float64")
    totals = rounded - excess
    # A plain float32 sum stays at 2²⁴.
    assert totals.max() == totals.sum() == 2**24 + 10
    assert totals[1].sum() == totals.sum()


def test_ratios_know_of_single_rows_beyond_24_bits():
    metric = ThresholdMetric("precision")
    metric.update_state([1], [0.7], [2.0**24])
    metric.update_state([0], [0.7], [2.0**24])
    for _ in range(100):
        metric.update_state([0], [0.7], [1.0])
    exact = 2**24 / (2**25 + 100)
    # One float32 step; the hundred rows are 50 of them.
    np.testing.assert_allclose(float(metric.result()), exact, rtol=6e-8)


@EVERY_SCORE
def test_name_is_the_score_and_direction_its_own(score):
    direction = "down" if score == "cost" else "up"
    for metric, name in ((metric_of(score, 0.3), score), (metric_of(score), f"best_{score}")):
        assert metric.name == name
        assert metric._direction == direction
        objective = metric.objective()
        assert objective.name == f"val_{name}"
        assert objective.direction == {"up": "max", "down": "min"}[direction]


@pytest.mark.parametrize(
    ("metric", "name", "direction"),
    [
        (BinaryAUC, "auc", "max"),
        (lambda: BinaryAUC("PR"), "pr_auc", "max"),
        (BrierScore, "brier_score", "min"),
        (ExpectedCalibrationError, "expected_calibration_error", "min"),
        (lambda: BinaryAUC(name="mine"), "mine", "max"),
        (lambda: ThresholdMetric("f1", "best", name="mine"), "mine", "max"),
    ],
)
def test_objective_has_name_and_direction(metric, name, direction):
    import keras_tuner

    assert metric().name == metric().name == name
    objective = metric().objective()
    assert isinstance(objective, keras_tuner.Objective)
    assert (objective.name, objective.direction) == (f"val_{name}", direction)


def test_threshold_is_no_objective():
    assert BestThreshold("mcc").name == "best_threshold"
    with pytest.raises(TypeError, match=r"no direction.*ThresholdMetric\('mcc', 'best'\)"):
        BestThreshold("mcc").objective()


ROWS = np.zeros(4), np.full(4, 0.5)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((np.zeros(4), np.full((4, 3), 0.3)), r"one score a row.*y_pred of shape \(4, 3\)"),
        ((np.zeros((4, 2)), np.full((4, 2), 0.5)), r"one score a row.*two-column softmax"),
        ((np.zeros(4), np.float32(0.5)), r"one score a row.*y_pred of shape \(\)"),
        ((np.zeros(3), np.full(4, 0.5)), r"one label for each score.*y_true of shape \(3,\)"),
        ((np.zeros(1), np.full(4, 0.5)), r"one label for each score.*y_true of shape \(1,\)"),
        ((np.zeros((1, 4)), np.full(4, 0.5)), r"one label for each score"),
        ((np.zeros((4, 2)), np.full((4, 1), 0.5)), r"one label for each score"),
        ((np.zeros((4, 1, 1)), np.full((4, 1), 0.5)), r"one label for each score"),
        ((0.0, np.full(4, 0.5)), r"one label for each score.*y_true of shape \(\)"),
        ((*ROWS, np.ones(3)), r"one weight for each row.*sample_weight of shape \(3,\)"),
        ((*ROWS, np.ones(1)), r"one weight for each row"),
        ((*ROWS, 1.0), r"one weight for each row.*sample_weight of shape \(\)"),
        ((*ROWS, np.ones((4, 2))), r"one weight for each row"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(batch, message):
    for make in METRICS.values():
        metric = make()
        with pytest.raises(ValueError, match=f"{type(metric).__name__} '{metric.name}'.*{message}"):
            metric.update_state(*batch)


@pytest.mark.parametrize(
    "labels",
    [
        ["no", "yes", "no", "yes"],
        np.array(["no", "yes", "no", "yes"]),
        np.array([["no"], ["yes"], ["no"], ["yes"]]),
        np.array(["no", "yes", "no", "yes"], dtype=object),
        np.array([b"no", b"yes", b"no", b"yes"]),
    ],
)
def test_labels_that_are_strings_are_refused(labels):
    with pytest.raises(TypeError, match=r"(?s)`y_true` of ThresholdMetric.*numbers.*y == 'yes'"):
        ThresholdMetric().update_state(labels, ROWS[1])


def test_scores_and_weights_that_are_strings_are_refused():
    with pytest.raises(TypeError, match=r"`y_pred` of BinaryAUC 'auc' must be numbers"):
        BinaryAUC().update_state(ROWS[0], ["a"] * 4)
    with pytest.raises(TypeError, match=r"`sample_weight` of BrierScore .* must be numbers"):
        BrierScore().update_state(*ROWS, np.array(["a"] * 4))


def test_string_tensor_is_refused():
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow has tensors of strings")
    import tensorflow as tf

    with pytest.raises(TypeError, match=r"(?s)`y_true` of ThresholdMetric.*numbers.*y == 'yes'"):
        ThresholdMetric().update_state(tf.constant(["no", "yes"] * 2), ROWS[1])


def test_all_metrics_are_reachable_by_their_room():
    for name in set(keras_binclf.metrics.__all__) - {"Criterion"}:
        assert getattr(keras_binclf, name) is getattr(keras_binclf.metrics, name)


def test_area_does_not_exceed_1_by_rounding():
    labels = np.array([0, 0, 1, 0, 0, 0])
    scores = np.array([-100.0, -100.0, 1.0, -10.0, -100.0, 0.0])
    weights = np.array([0.0, 0.0, 0.25, 1.0, 0.25, 1.75])
    for curve in ("ROC", "PR"):
        metric = keras_binclf.BinaryAUC(curve, from_logits=True)
        metric.update_state(labels, scores, weights)
        # PyTorch rounds the sum down, on some processors by one digit of float32.
        assert 1 - 2**-22 <= float(metric.result()) <= 1.0
        metric.reset_state()
        assert np.isnan(float(metric.result()))


# -- criterion -------------------------------------------------------------------------------------


def test_criterion_is_as_good_as_its_keywords():
    y, p = spread_rows()
    keywords = {"cost_fp": 1.0, "cost_fn": 7.0, "min_recall": 0.5}
    criterion = Criterion("cost", **keywords)
    for make in (lambda *a, **k: ThresholdMetric(*a, threshold="best", **k), BestThreshold):
        one, other = make(criterion), make("cost", **keywords)
        assert one.get_config() == other.get_config()
        assert one.get_config()["score"] == "cost"
        assert evaluate(one, y, p) == evaluate(other, y, p)
        again = type(one).from_config(one.get_config())
        assert again.criterion == criterion


def test_criterion_checks_its_fields():
    assert Criterion("fbeta", beta=2).beta == 2.0
    with pytest.raises(ValueError, match=r"`beta` of Criterion must be given where"):
        Criterion("fbeta")
    with pytest.raises(ValueError, match=r"`score` of Criterion.*Did you mean 'f1'"):
        Criterion("f2")
    with pytest.raises(ValueError, match=r"`beta` of Criterion must be left out unless"):
        dataclasses.replace(Criterion(), beta=1.0)


def test_parameters_beside_a_criterion_are_refused():
    with pytest.raises(ValueError, match=r"`min_recall` of BestThreshold must be left out where"):
        BestThreshold(Criterion("f1"), min_recall=0.5)


def test_unknown_parameter_is_an_error_with_a_suggestion():
    with pytest.raises(TypeError, match=r"ThresholdMetric got an unexpected.*'min_recal'.*'min_re"):
        ThresholdMetric("f1", min_recal=0.5)


def test_parameters_are_named_in_the_signatures():
    names = {field.name for field in dataclasses.fields(Criterion)}
    for function in (ThresholdMetric, BestThreshold, keras_binclf.tune_threshold):
        parameters = inspect.signature(function).parameters.values()
        assert names <= {parameter.name for parameter in parameters}
        assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters)


EXTREMES = {
    "tiny_beta": ("fbeta", {"beta": 1e-10}),
    "huge_beta": ("fbeta", {"beta": 1e10}),
    "huger_beta": ("fbeta", {"beta": 1e200}),
    "dear_positive": ("cost", {"cost_fp": 1e30, "cost_fn": 1.0}),
    "dear_negative": ("cost", {"cost_fp": 1.0, "cost_fn": 1e30}),
    "cheap": ("cost", {"cost_fp": 1e-30, "cost_fn": 3e-30}),
    "free": ("cost", {"cost_fp": 0.0, "cost_fn": 1e-30}),
}


def exact_score(score, tp, fp, fn, tn, beta=None, cost_fp=None, cost_fn=None):
    """In fractions, which nothing overflows."""
    tp, fp, fn, tn = map(fractions.Fraction, (tp, fp, fn, tn))
    if score == "cost":
        costs = fractions.Fraction(cost_fp) * fp + fractions.Fraction(cost_fn) * fn
        return float(costs / (tp + fp + fn + tn))
    square = fractions.Fraction(beta) ** 2
    return float((1 + square) * tp / ((1 + square) * tp + square * fn + fp))


@pytest.mark.parametrize(("score", "parameters"), EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("weight", [1.0, 1e-20, 1e30])
def test_extreme_parameters_and_weights_give_the_right_value(score, parameters, weight):
    y, p = spread_rows()
    w = np.full(len(y), weight, "float32")
    cells = reference.confusion(y, p, 0.4)
    value = evaluate(ThresholdMetric(score, 0.4, **parameters), y, p, w)
    np.testing.assert_allclose(value, exact_score(score, *cells, **parameters), rtol=2e-6)
    tables = zip(*reference.counts_at_all_cuts(y, p), strict=True)
    found = [exact_score(score, *cells, **parameters) for cells in tables]
    best = min(found) if score == "cost" else max(found)
    value = evaluate(ThresholdMetric(score, "best", **parameters), y, p, w)
    np.testing.assert_allclose(value, best, rtol=2e-6, atol=1e-37)


@pytest.mark.parametrize("beta", [math.inf, 0, -1, math.nan])
def test_beta_that_is_no_positive_number_is_refused(beta):
    with pytest.raises(ValueError, match=r"`beta` of ThresholdMetric must be a positive, finite"):
        ThresholdMetric("fbeta", beta=beta)


@pytest.mark.parametrize("cost", [1e31, math.inf, 1e-31, -1.0, math.nan])
def test_cost_that_float32_cannot_average_is_refused(cost):
    with pytest.raises(ValueError, match=r"`cost_fn` of ThresholdMetric must be 0 or a positive"):
        ThresholdMetric("cost", cost_fp=1, cost_fn=cost)
