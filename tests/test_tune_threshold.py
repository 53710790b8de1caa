"""The exact search: against scikit-learn at every cut, from every form of data, and refusals."""

import dataclasses
import itertools
import os
from fractions import Fraction

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from zoo import with_random_head

from keras_binclf import (
    BinaryHead,
    TunedThreshold,
    binary_classifier,
    find_head,
    predict_labels,
    tune_threshold,
)
from keras_binclf.metrics.scores import SCORES

PARAMETERS = {"fbeta": {"beta": 2.0}, "cost": {"cost_fp": 1.0, "cost_fn": 5.0}}
# Scores that are the same at many cuts say more with a constraint.
CONSTRAINTS = {
    "precision": {"min_recall": 0.4},
    "npv": {"min_recall": 0.4},
    "recall": {"min_precision": 0.5},
    "specificity": {"min_recall": 0.7},
}
EXAMPLES = os.environ.get("KERAS_BINCLF_EXAMPLES")
SETTINGS = hypothesis.settings(
    max_examples=int(EXAMPLES or 25),
    derandomize=EXAMPLES is None,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


def rates(y, labels, w):
    return [sk.recall_score(y, labels, pos_label=label, sample_weight=w) for label in (1, 0)]


def cost(y, labels, w):
    (_, fp), (fn, _) = sk.confusion_matrix(y, labels, sample_weight=w, labels=[0, 1])
    return (1.0 * fp + 5.0 * fn) / w.sum()


ORACLES = {
    "accuracy": lambda y, z, w: sk.accuracy_score(y, z, sample_weight=w),
    "balanced_accuracy": lambda y, z, w: sk.balanced_accuracy_score(y, z, sample_weight=w),
    "precision": lambda y, z, w: sk.precision_score(y, z, sample_weight=w, zero_division=0),
    "recall": lambda y, z, w: sk.recall_score(y, z, sample_weight=w),
    "specificity": lambda y, z, w: sk.recall_score(y, z, pos_label=0, sample_weight=w),
    "npv": lambda y, z, w: sk.precision_score(y, z, pos_label=0, sample_weight=w, zero_division=0),
    "f1": lambda y, z, w: sk.f1_score(y, z, sample_weight=w),
    "fbeta": lambda y, z, w: sk.fbeta_score(y, z, beta=2, sample_weight=w),
    "jaccard": lambda y, z, w: sk.jaccard_score(y, z, sample_weight=w),
    "mcc": lambda y, z, w: sk.matthews_corrcoef(y, z, sample_weight=w),
    "cohen_kappa": lambda y, z, w: sk.cohen_kappa_score(y, z, sample_weight=w),
    "youden_j": lambda y, z, w: sum(rates(y, z, w)) - 1,
    "g_mean": lambda y, z, w: np.sqrt(np.prod(rates(y, z, w))),
    "cost": cost,
}


class Emitter(keras.Model):
    """Emits its inputs as if its head had, so that a test says what the probabilities are.

    At once, rather than by the loop of Keras: here it is about the search.
    """

    def __init__(self):
        super().__init__()
        self.head = BinaryHead()
        self.head.build((None, 1))

    def call(self, inputs):
        return inputs

    def predict(self, x, **kwargs):
        return np.asarray(x, "float32")


def all_cuts(p):
    """A threshold for each way in which one in (0, 1) can divide the rows, ascending."""
    inside = p[(p > 0) & (p < 1)]
    return np.unique(np.concatenate([[np.float32(1e-37)], inside]))


def is_allowed(y, labels, w, min_precision=None, min_recall=None):
    if min_precision is not None and ORACLES["precision"](y, labels, w) < min_precision:
        return False
    return min_recall is None or ORACLES["recall"](y, labels, w) >= min_recall


def search(score, p, y, w, **constraints):
    """Return the value, and the decisions, of the best cut, by the rule in the docstring."""
    cuts = all_cuts(p)
    if constraints:
        cuts = [cut for cut in cuts if is_allowed(y, p > cut, w, **constraints)]
    # Values that only rounding tells apart are equal.
    values = [round(ORACLES[score](y, p > cut, w), 12) for cut in cuts]
    best = min(values) if score == "cost" else max(values)
    tied = [cut for cut, value in zip(cuts, values, strict=True) if value == best]
    cut = max(tied, key=lambda cut: (round(sum(rates(y, p > cut, w)), 12), cut))
    return best, p > cut


def separate(p, labels):
    """The middle of the gap; where there is no float32 in it, its lower end."""
    lower = p[~labels].max() if (~labels).any() else np.float32(0)
    upper = p[labels].min() if labels.any() else np.float32(1)
    middle = np.float32((np.float64(lower) + np.float64(upper)) / 2)
    return lower if middle == upper else middle


def steps_from(start, num_steps):
    value = np.float32(start)
    return np.array([value := np.nextafter(value, np.float32(1)) for _ in range(num_steps)])


def make_rows(name):
    rng = np.random.default_rng(len(name))
    y = rng.integers(0, 2, 30)
    w = np.ones(30)
    p = np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0.01, 0.99)
    if name == "tied":
        p = np.round(p, 1)
    elif name == "adjacent":
        p = np.repeat(steps_from(0.3, 10), 3)
    elif name == "zero_and_one":
        p = np.where(p < 0.3, 0.0, np.where(p > 0.7, 1.0, p))
    elif name == "one_value":
        p = np.full(30, 0.25)
    elif name == "rare":
        p, y = p / 1000, np.arange(30) % 15 == 4
    elif name == "weighted":
        w = rng.integers(0, 5, 30) / 2
    return p.astype("float32"), y.astype("int32"), w


NAMES = ["distinct", "tied", "adjacent", "zero_and_one", "one_value", "rare", "weighted"]


@pytest.fixture(scope="module")
def emitter():
    return Emitter()


def tune(model, p, y, w=None, **arguments):
    find_head(model).threshold = 0.5
    return tune_threshold(model, np.reshape(p, (-1, 1)), y, sample_weight=w, **arguments)


def test_oracles_are_there_for_all_scores():
    assert set(ORACLES) == set(SCORES)
    assert {name for name, score in SCORES.items() if score.parameters} == set(PARAMETERS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("score", SCORES)
def test_best_of_all_cuts_is_found(emitter, score, name):
    p, y, w = make_rows(name)
    tuned = tune(emitter, p, y, w, score=score, **PARAMETERS.get(score, {}))
    value, labels = search(score, p, y, w)
    # Both in float64, by other formulas.
    assert tuned.value == pytest.approx(value, abs=1e-9)
    assert tuned.previous_value == pytest.approx(ORACLES[score](y, p > 0.5, w), abs=1e-9)
    np.testing.assert_array_equal(p > np.float32(tuned.threshold), labels)
    counted = w > 0
    assert np.float32(tuned.threshold) == separate(p[counted], labels[counted])
    assert (tuned.score, tuned.num_rows) == (score, counted.sum())
    assert emitter.head.threshold == tuned.threshold


@pytest.mark.parametrize("score", CONSTRAINTS)
def test_best_of_the_cuts_that_satisfy_a_constraint_is_found(emitter, score):
    for name in ("tied", "weighted"):
        p, y, w = make_rows(name)
        tuned = tune(emitter, p, y, w, score=score, **CONSTRAINTS[score])
        value, labels = search(score, p, y, w, **CONSTRAINTS[score])
        assert tuned.value == pytest.approx(value, abs=1e-9)  # float64, other formulas
        np.testing.assert_array_equal(p > np.float32(tuned.threshold), labels)


def test_both_constraints_hold(emitter):
    p, y, w = make_rows("distinct")
    limits = {"min_precision": 0.6, "min_recall": 0.5}
    tuned = tune(emitter, p, y, score="accuracy", **limits)
    assert tuned.value == pytest.approx(search("accuracy", p, y, w, **limits)[0], abs=1e-12)
    assert tuned.precision >= 0.6
    assert tuned.recall >= 0.5


def test_constraint_that_is_met_exactly_is_met(emitter):
    tuned = tune(emitter, [0.1, 0.2, 0.3, 0.4, 0.5], [1, 0, 1, 1, 0], min_precision=2 / 3)
    assert tuned.precision == 2 / 3
    tuned = tune(emitter, [0.1, 0.2, 0.3], [1, 0, 1], score="specificity", min_recall=0.5)
    assert tuned.recall == 0.5


def test_previous_value_is_nan_where_a_constraint_failed(emitter):
    tuned = tune(emitter, [0.1, 0.2, 0.3], [0, 1, 1], min_recall=0.9)
    assert np.isnan(tuned.previous_value)
    assert tuned.value == 1.0


weighted_rows = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([0.0, 1.0, 0.5, 0.25, 1e-6, 1 - 2**-24, 1 - 2**-23]),
            st.floats(0, 1, width=32, allow_subnormal=False),
        ),
        st.integers(0, 1),
        st.sampled_from([0, 1, 1, 1, 2, 3]),
    ),
    min_size=10,
    max_size=10,
).filter(lambda rows: {y for _, y, w in rows if w} == {0, 1})
"""Ten rows, so that nothing is compiled anew; those of weight 0 make fewer of them."""


@SETTINGS
@given(weighted_rows, st.sampled_from(list(SCORES)))
def test_no_cut_is_better(emitter, rows, score):
    p, y, w = (np.array(column) for column in zip(*rows, strict=True))
    p, w = p.astype("float32"), w.astype("float64")
    tuned = tune(emitter, p, y, w, score=score, **PARAMETERS.get(score, {}))
    values = [ORACLES[score](y, p > cut, w) for cut in all_cuts(p)]
    best = min(values) if score == "cost" else max(values)
    assert tuned.value == pytest.approx(best, abs=1e-9)  # float64, other formulas
    labels = p > np.float32(tuned.threshold)
    assert ORACLES[score](y, labels, w) == pytest.approx(best, abs=1e-9)
    counted = w > 0
    assert np.float32(tuned.threshold) == separate(p[counted], labels[counted])


@SETTINGS
@given(weighted_rows, st.sampled_from(list(SCORES)))
def test_weight_two_is_the_row_twice_and_weight_zero_none(emitter, rows, score):
    p, y, w = (np.array(column) for column in zip(*rows, strict=True))
    parameters = {"score": score, **PARAMETERS.get(score, {})}
    tuned = tune(emitter, p, y, w, **parameters)
    repeated = tune(emitter, np.repeat(p, w), np.repeat(y, w), **parameters)
    assert tuned.num_rows == (w > 0).sum()
    assert repeated.num_rows == w.sum()
    assert dataclasses.replace(repeated, num_rows=tuned.num_rows) == tuned


def test_order_of_rows_does_not_matter(emitter):
    p, y, w = make_rows("weighted")
    order = np.random.default_rng(0).permutation(30)
    assert tune(emitter, p, y, w) == tune(emitter, p[order], y[order], w[order])


def test_threshold_is_the_midpoint_of_neighbours(emitter):
    assert tune(emitter, [0.125, 0.25, 0.5, 0.75], [0, 0, 1, 1]).threshold == 0.375
    assert tune(emitter, [0.125, 0.25, 0.5, 0.75], [1, 1, 0, 1]).threshold == 0.0625
    assert tune(emitter, [0.25, 0.5], [1, 0], score="specificity").threshold == 0.75


@pytest.mark.parametrize("score", SCORES)
def test_greater_or_equal_decides_alike(emitter, score):
    for name in ("distinct", "tied", "zero_and_one", "rare", "weighted"):
        p, y, w = make_rows(name)
        threshold = np.float32(
            tune(emitter, p, y, w, score=score, **PARAMETERS.get(score, {})).threshold
        )
        np.testing.assert_array_equal(p > threshold, p >= threshold)


def test_adjacent_probabilities_are_divided_at_the_lower_one(emitter):
    p = steps_from(0.3, 2)
    assert np.float32(tune(emitter, p, [0, 1]).threshold) == p[0]


def test_probabilities_of_zero_and_one_cannot_be_divided_from_what_is_beyond(emitter):
    tuned = tune(emitter, [0.0, 1.0], [1, 0], score="recall")
    assert (tuned.threshold, tuned.value) == (0.5, 0.0)
    assert (tuned.true_positives, tuned.false_positives) == (0.0, 1.0)


def test_equal_scores_go_to_fewer_errors_then_to_the_higher_threshold(emitter):
    # Recall is 1 at three cuts, of which the highest has the fewest false alarms.
    assert tune(emitter, [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], score="recall").threshold == 0.25
    # Accuracy is 4/5 over 0.45 and over 0.25, where recall and specificity sum to 3/2 and 5/3.
    tuned = tune(emitter, [0.1, 0.2, 0.3, 0.4, 0.5], [0, 0, 1, 0, 1], score="accuracy")
    assert (tuned.threshold, tuned.value) == (0.25, 0.8)
    # Informedness is 1/2 over 0.15 and over 0.35.
    tuned = tune(emitter, [0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], score="youden_j")
    assert tuned.threshold == pytest.approx(0.35)  # 0.35 is no float32


def exact_scores(tp, fp, fn, tn):
    """Every score as a fraction, or a monotone function of it that is one."""
    positives, negatives, total = tp + fn, tn + fp, tp + fp + fn + tn
    covariance = tp * tn - fp * fn
    variance = (tp + fp) * positives * negatives * (tn + fn)
    sizes = (tp + fp) * negatives + positives * (fn + tn)
    return {
        "accuracy": Fraction(tp + tn, total),
        "balanced_accuracy": Fraction(tp, positives) + Fraction(tn, negatives),
        "precision": Fraction(tp, max(tp + fp, 1)),
        "recall": Fraction(tp, positives),
        "specificity": Fraction(tn, negatives),
        "npv": Fraction(tn, max(tn + fn, 1)),
        "f1": Fraction(2 * tp, 2 * tp + fn + fp),
        "fbeta": Fraction(5 * tp, 5 * tp + 4 * fn + fp),
        "jaccard": Fraction(tp, tp + fn + fp),
        "mcc": Fraction(covariance * abs(covariance), max(variance, 1)),
        "cohen_kappa": Fraction(2 * covariance, sizes),
        "youden_j": Fraction(tp, positives) + Fraction(tn, negatives),
        "g_mean": Fraction(tp, positives) * Fraction(tn, negatives),
        "cost": -Fraction(fp + 5 * fn, total),
    }


@pytest.mark.parametrize("score", SCORES)
def test_ties_are_ties_whatever_is_rounded(emitter, score):
    rng = np.random.default_rng(0)
    examples = [(np.arange(1, 7) / 20, np.array([0, 1, 1, 0, 0, 1]))]
    examples += [(rng.integers(1, 20, 30) / 20, rng.integers(0, 2, 30)) for _ in range(40)]
    for p, y in examples:
        p = p.astype("float32")
        tuned = tune(emitter, p, y, score=score, **PARAMETERS.get(score, {}))
        found = []
        for cut in all_cuts(p):
            z = p > cut
            cells = [int((z == a)[y == b].sum()) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))]
            scores = exact_scores(*cells)
            found.append((scores[score], scores["youden_j"], cut))
        labels = p > max(found)[2]
        assert np.float32(tuned.threshold) == separate(p, labels), (p.tolist(), y.tolist())


def test_result_says_what_the_threshold_decides(emitter):
    p, y, w = make_rows("weighted")
    tuned = tune(emitter, p, y, w)
    labels = p > np.float32(tuned.threshold)
    (tn, fp), (fn, tp) = sk.confusion_matrix(y, labels, sample_weight=w)
    cells = (tuned.true_positives, tuned.false_positives)
    assert cells == (tp, fp)
    assert (tuned.false_negatives, tuned.true_negatives) == (fn, tn)
    assert tuned.precision == pytest.approx(tp / (tp + fp))  # the same division
    assert tuned.recall == pytest.approx(tp / (tp + fn))
    assert (tuned.previous_threshold, tuned.num_rows) == (0.5, (w > 0).sum())


def test_result_is_frozen_and_prints_well(emitter):
    tuned = tune(emitter, [0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], [1, 1, 1, 2000])
    assert isinstance(tuned, TunedThreshold)
    with pytest.raises(dataclasses.FrozenInstanceError, match="threshold"):
        tuned.threshold = 0.5
    assert str(tuned) == (
        "f1 0 -> 0.9998, threshold 0.5 -> 0.15 (4 rows)\n"
        "  precision 0.9995, recall 1: 2,001 of 2,001 positives found, 1 false alarms among "
        "2 negatives"
    ), str(tuned)


def test_two_hundred_thousand_rows(emitter):
    rng = np.random.default_rng(0)
    y = rng.random(200_000) < 0.01
    p = (1 / (1 + np.exp(4 - 2 * y - rng.normal(size=len(y))))).astype("float32")
    tuned = tune(emitter, p, y, batch_size=65_536)
    precision, recall, _ = sk.precision_recall_curve(y, p)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert tuned.value == pytest.approx(f1.max(), abs=1e-12)  # float64, another formula


# -- models ----------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(90, 4)).astype("float32")
Y = (X[:, 0] + np.random.default_rng(1).normal(size=90) > 0.5).astype("int32")
W = np.random.default_rng(2).integers(1, 4, 90).astype("float32")


@pytest.fixture(scope="module", params=["sigmoid", None], ids=["probabilities", "logits"])
def classifier(request):
    keras.utils.set_random_seed(0)
    model = binary_classifier(4, hidden_units=8, activation_out=request.param, compile=False)
    return with_random_head(model)


@pytest.mark.parametrize("score", SCORES)
def test_predicted_labels_reproduce_the_value(classifier, score):
    head = find_head(classifier)
    head.threshold = 0.5
    parameters = PARAMETERS.get(score, {})
    tuned = tune_threshold(classifier, X, Y, score=score, sample_weight=W, **parameters)
    assert head.threshold == tuned.threshold
    labels = predict_labels(classifier, X)[:, 0]
    weights = W.astype("float64")
    assert ORACLES[score](Y, labels, weights) == pytest.approx(tuned.value, abs=1e-9)  # float64


def test_logits_are_searched_as_probabilities(classifier):
    outputs = classifier.predict(X, verbose=0)[:, 0].astype("float64")
    p = outputs if find_head(classifier).activation else 1 / (1 + np.exp(-outputs))
    p = p.astype("float32")
    tuned = tune_threshold(classifier, X, Y)
    value, labels = search("f1", p, Y, np.ones(90))
    assert tuned.value == pytest.approx(value, abs=1e-9)  # float64
    # Sigmoids of NumPy and of the backend differ in the last bit.
    assert tuned.threshold == pytest.approx(separate(p, labels), abs=1e-7)


def test_weights_of_the_model_stay(classifier):
    find_head(classifier).threshold = 0.9
    before = classifier.get_weights()
    tune_threshold(classifier, X, Y)
    pairs = zip(before, classifier.get_weights(), strict=True)
    changed = [not np.array_equal(a, b) for a, b in pairs]
    names = [variable.name for variable in classifier.weights]
    assert list(itertools.compress(names, changed)) == ["threshold"]


def test_saved_model_carries_the_threshold(classifier, tmp_path):
    tuned = tune_threshold(classifier, X, Y)
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert find_head(loaded).threshold == tuned.threshold
    np.testing.assert_array_equal(predict_labels(loaded, X), predict_labels(classifier, X))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = keras.layers.Dense(8, "tanh"), BinaryHead()

    def call(self, inputs):
        return self.head(self.hidden(inputs))


def make_nested():
    inner = with_random_head(binary_classifier(4, hidden_units=8, compile=False))
    inputs = keras.Input((4,))
    return keras.Model(inputs, inner(keras.layers.Rescaling(2.0)(inputs)))


def make_not_built():
    return keras.Sequential([keras.layers.Dense(8, "tanh"), BinaryHead()])


@pytest.mark.parametrize("make", [Subclassed, make_nested, make_not_built])
def test_any_model_with_a_head_is_tuned(make):
    model = make()
    tuned = tune_threshold(model, X, Y)
    assert find_head(model).threshold == tuned.threshold != 0.5
    assert sk.f1_score(Y, predict_labels(model, X)[:, 0]) == pytest.approx(tuned.value)


def test_steps_of_sequences_are_rows():
    model = keras.Sequential([keras.Input((3, 4)), BinaryHead()])
    x, y = X.reshape(30, 3, 4), Y.reshape(30, 3)
    of_steps = np.ones((30, 3))
    of_steps[::4, 1:] = 0  # padding
    p = model.predict(x, verbose=0)
    kept = of_steps == 1
    expected = sk.precision_recall_curve(y[kept], p[..., 0][kept])
    precision, recall = expected[:2]
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    for labels in (y, y[..., None]):
        for weights in (of_steps, of_steps[..., None]):
            find_head(model).threshold = 0.5
            tuned = tune_threshold(model, x, labels, sample_weight=weights)
            assert tuned.num_rows == kept.sum()
            assert tuned.value == pytest.approx(best)  # float64


def test_weight_of_a_sequence_holds_for_its_steps():
    model = keras.Sequential([keras.Input((3, 4)), BinaryHead()])
    x, y = X.reshape(30, 3, 4), Y.reshape(30, 3)
    tuned = tune_threshold(model, x, y, sample_weight=W[:30])
    find_head(model).threshold = 0.5
    assert tuned == tune_threshold(model, x, y, sample_weight=np.repeat(W[:30], 3).reshape(30, 3))


# -- forms of data ---------------------------------------------------------------------------------


def make_linear():
    head = BinaryHead(kernel_initializer=keras.initializers.RandomNormal(seed=0))
    return keras.Sequential([keras.Input((4,)), head])


def as_numbers(tuned):
    """For comparisons between batches of different sizes, which may round differently."""
    return pytest.approx(dataclasses.asdict(tuned), abs=1e-6)


class Rows(keras.utils.PyDataset):
    """Batches of 20 rows; without end if `endless`."""

    def __init__(self, *arrays, endless=False):
        super().__init__()
        self.arrays, self.endless, self.reads = arrays, endless, []

    @property
    def num_batches(self):
        return None if self.endless else 5

    def __getitem__(self, index):
        self.reads.append(index)
        start = 20 * (index % 5)
        return tuple(array[start : start + 20] for array in self.arrays)


def generate(*arrays, endless=False):
    batches = Rows(*arrays)
    for i in itertools.count() if endless else range(5):
        yield batches[i]


def as_dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays)


FORMS = {
    "column_of_labels": lambda: ((X, Y[:, None]), {"sample_weight": W[:, None]}),
    "lists": lambda: ((X, Y.tolist()), {"sample_weight": W.tolist()}),
    "bools": lambda: ((X, Y == 1), {"sample_weight": W}),
    "floats": lambda: ((X, Y.astype("float64")), {"sample_weight": W.astype("float64")}),
    "small_batches": lambda: ((X, Y), {"sample_weight": W, "batch_size": 7}),
    "tensors": lambda: (
        (keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(Y)),
        {"sample_weight": keras.ops.convert_to_tensor(W)},
    ),
    "dataset": lambda: ((as_dataset(X, Y, W).batch(20),), {}),
    "shuffled_dataset": lambda: (
        (as_dataset(X, Y, W).shuffle(90, reshuffle_each_iteration=True).batch(20),),
        {},
    ),
    "endless_dataset": lambda: ((as_dataset(X, Y, W).batch(30).repeat(),), {"steps": 3}),
    "dataset_of_columns": lambda: ((as_dataset(X, Y[:, None], W[:, None]).batch(20),), {}),
    "py_dataset": lambda: ((Rows(X, Y, W),), {}),
    "endless_py_dataset": lambda: ((Rows(X, Y, W, endless=True),), {"steps": 5}),
    "generator": lambda: ((generate(X, Y, W),), {}),
    "endless_generator": lambda: ((generate(X, Y, W, endless=True),), {"steps": 5}),
    "list_of_batches": lambda: (([(X[:40], Y[:40], W[:40]), [X[40:], Y[40:], W[40:]]],), {}),
}


@pytest.fixture(scope="module")
def linear():
    return make_linear()


@pytest.fixture(scope="module")
def expected(linear):
    find_head(linear).threshold = 0.5
    return tune_threshold(linear, X, Y, sample_weight=W)


@pytest.mark.parametrize("form", FORMS)
def test_form_of_the_data_does_not_matter(linear, expected, form):
    find_head(linear).threshold = 0.5
    positional, named = FORMS[form]()
    assert dataclasses.asdict(tune_threshold(linear, *positional, **named)) == as_numbers(expected)


def test_data_sets_without_weights(linear):
    tuned = []
    for data in (as_dataset(X, Y).batch(20), Rows(X, Y), generate(X, Y)):
        find_head(linear).threshold = 0.5
        tuned.append(tune_threshold(linear, data))
    find_head(linear).threshold = 0.5
    expected = as_numbers(tune_threshold(linear, X, Y))
    assert [dataclasses.asdict(each) for each in tuned] == [expected] * 3


def test_torch_data_loader(linear, expected):
    torch = pytest.importorskip("torch")
    rows = torch.utils.data.TensorDataset(*map(torch.as_tensor, (X, Y, W)))
    loader = torch.utils.data.DataLoader(rows, batch_size=20, shuffle=True)
    find_head(linear).threshold = 0.5
    assert dataclasses.asdict(tune_threshold(linear, loader)) == as_numbers(expected)


def test_data_frame(linear, expected):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    for x in (frame, frame.to_numpy()):
        find_head(linear).threshold = 0.5
        tuned = tune_threshold(linear, x, pandas.Series(Y), sample_weight=pandas.Series(W))
        assert dataclasses.asdict(tuned) == as_numbers(expected)


def test_data_set_is_read_once(linear):
    rows = Rows(X, Y, W)
    tune_threshold(linear, rows)
    assert sorted(rows.reads) == [0, 1, 2, 3, 4]


def test_no_more_batches_are_taken_than_asked_for(linear):
    generator = generate(X, np.arange(90), W)
    tune_threshold(linear, ((x, y % 2, w) for x, y, w in generator), steps=2)
    assert next(generator)[1][0] == 40


def make_two_inputs():
    inputs = {"a": keras.Input((1,), name="a"), "b": keras.Input((3,), name="b")}
    joined = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
    return inputs, BinaryHead(kernel_initializer=keras.initializers.RandomNormal(seed=0))(joined)


@pytest.mark.parametrize("form", ["dict", "list"])
def test_several_inputs(expected, form):
    inputs, outputs = make_two_inputs()
    if form == "dict":
        model, x = keras.Model(inputs, outputs), {"a": X[:, :1], "b": X[:, 1:]}
        data = as_dataset(x, Y, W).batch(20)
    else:
        model, x = keras.Model(list(inputs.values()), outputs), [X[:, :1], X[:, 1:]]
        data = as_dataset(tuple(x), Y, W).batch(20)
    tuned = tune_threshold(model, x, Y, sample_weight=W)
    assert dataclasses.asdict(tuned) == as_numbers(expected)
    find_head(model).threshold = 0.5
    assert dataclasses.asdict(tune_threshold(model, data)) == as_numbers(expected)


def make_two_heads(kind):
    inputs = keras.Input((4,))
    click, buy = BinaryHead(name="click")(inputs), BinaryHead(None, name="buy")(inputs)
    return keras.Model(inputs, {"z": click, "a": buy} if kind == "dict" else [click, buy])


BUY = (X[:, 1] > 0.3).astype("int32")
TWO = {
    "array": ("list", lambda click, buy: buy),
    "list": ("list", lambda click, buy: [click, buy]),
    "tuple": ("list", lambda click, buy: (click, buy)),
    "dict_of_heads": ("list", lambda click, buy: {"click": click, "buy": buy}),
    "dict_of_outputs": ("dict", lambda click, buy: {"z": click, "a": buy}),
    "dict_of_some": ("dict", lambda click, buy: {"buy": buy}),
}


@pytest.mark.parametrize("form", TWO)
def test_labels_and_weights_of_several_heads(form):
    kind, pack = TWO[form]
    model = make_two_heads(kind)
    click, buy = find_head(model, "click"), find_head(model, "buy")
    outputs = model.predict(X, verbose=0)
    logits = outputs["a"] if kind == "dict" else outputs[1]
    p = (1 / (1 + np.exp(-logits[:, 0].astype("float64")))).astype("float32")
    value, _ = search("f1", p, BUY, W.astype("float64"))
    y, w = pack(Y, BUY), pack(np.ones(90), W)
    tuned = tune_threshold(model, X, y, sample_weight=w, head="buy")
    assert (click.threshold, buy.threshold) == (0.5, tuned.threshold)
    assert tuned.value == pytest.approx(value)  # float64
    if form != "list":  # which tf.data makes one array of
        buy.threshold = 0.5
        data = tune_threshold(model, as_dataset(X, y, w).batch(30), head=buy)
        assert dataclasses.asdict(data) == as_numbers(tuned)


# -- refusals --------------------------------------------------------------------------------------

X_NAN = np.where(np.arange(90)[:, None] == 7, np.nan, X)
ERRORS = {
    "strings": (
        (X, np.where(Y, "yes", "no")),
        TypeError,
        r"the numbers 0 and 1\. Received: 'no', 'yes'.*\(y == 'yes'\)",
    ),
    "objects": ((X, np.where(Y, "yes", "no").astype(object)), TypeError, "the numbers 0 and 1"),
    "minus_one": (
        (X, 2 * Y - 1),
        ValueError,
        r"must be 0 and 1\. Received: -1, 1\. Map them, as in `y = \(y == 1\)",
    ),
    "one_and_two": ((X, Y + 1), ValueError, r"Received: 1, 2\. Map them, as in `y = \(y == 2\)"),
    "three_values": ((X, np.arange(90) % 3), ValueError, r"Received: 0, 1, 2\. Find out"),
    "probabilities": ((X, Y * 0.9), ValueError, r"must be 0 and 1\. Received: 0\.0, 0\.9"),
    "nan_labels": (
        (X, np.where(np.arange(90) == 3, np.nan, Y)),
        ValueError,
        r"Received: 0\.0, 1\.0, nan\. Leave out the rows without a label",
    ),
    "fewer_labels": ((X, Y[:80]), ValueError, r"x with 90 rows, y of shape \(80,\)"),
    "more_labels": ((X, np.append(Y, 1)), ValueError, r"x with 90 rows, y of shape \(91,\)"),
    "row_of_labels": ((X, Y[None]), ValueError, r"x with 90 rows, y of shape \(1, 90\)"),
    "two_columns": ((X, np.eye(2)[Y]), ValueError, r"one label a row.*of shape \(90, 2\)"),
    "no_rows": ((X[:0], Y[:0]), ValueError, "needs rows. Received: x with 0 rows"),
    "empty_dataset": ((as_dataset(X, Y).take(0),), ValueError, "an empty data set"),
    "empty_generator": ((iter(()),), ValueError, "an empty data set"),
    "positives_only": ((X, np.ones(90)), ValueError, "both classes. Received: 90 rows.* label 1"),
    "negatives_only": ((X, np.zeros(90)), ValueError, "both classes. Received: 90 rows.* label 0"),
    "nan_features": ((X_NAN, Y), ValueError, "NaN for 1 of 90 rows, the first at index 7"),
    "dataset_and_labels": (
        (as_dataset(X, Y).batch(9), Y),
        TypeError,
        r"takes labels `y` beside features that are arrays.* leave `y` out",
    ),
    "features_alone": ((X,), TypeError, r"needs labels: give `y`.*type ndarray, y=None"),
    "number": ((3,), TypeError, r"needs labels: give `y`.*type int, y=None"),
    "features_in_dataset": ((as_dataset(X).batch(9),), ValueError, "a batch without them"),
    "endless_dataset": (
        (as_dataset(X, Y).batch(9).repeat(),),
        ValueError,
        r"tf.data.Dataset without end.*steps=100",
    ),
    "endless_py_dataset": (
        (Rows(X, Y, endless=True),),
        ValueError,
        r"PyDataset without end.*steps=100",
    ),
    "strings_in_dataset": ((generate(X, Y.astype(str)),), TypeError, "the numbers 0 and 1"),
    "labels_for_three_outputs": ((X, [Y, Y, Y]), ValueError, "labels for 3 outputs.* has 1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_refused_data_leave_the_threshold(linear, name):
    arguments, error, match = ERRORS[name]
    find_head(linear).threshold = 0.3
    with pytest.raises(error, match=match):
        tune_threshold(linear, *arguments)
    assert find_head(linear).threshold == 0.3


WEIGHTS = {
    "with_a_dataset": ((as_dataset(X, Y).batch(9),), W, ValueError, "goes with arrays `x` and `y`"),
    "fewer": ((X, Y), W[:80], ValueError, r"90 rows, sample_weight of shape \(80,\)"),
    "columns": ((X, Y), np.ones((90, 2)), ValueError, r"`sample_weight` of shape \(90, 2\)"),
    "negative": ((X, Y), -W, ValueError, r"not negative\. Received: values from -3\.0 to -1\.0"),
    "nan": ((X, Y), W * np.nan, ValueError, "must be finite"),
    "infinite": ((X, Y), W * np.inf, ValueError, "must be finite"),
    "strings": ((X, Y), W.astype(str), TypeError, "`sample_weight` of tune_threshold must be num"),
    "all_zero": ((X, Y), 0 * W, ValueError, "90 rows, all of weight 0"),
    "zero_for_a_class": ((X, Y), Y, ValueError, "both classes"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_refused_weights_leave_the_threshold(linear, name):
    data, weights, error, match = WEIGHTS[name]
    find_head(linear).threshold = 0.3
    with pytest.raises(error, match=match):
        tune_threshold(linear, *data, sample_weight=weights)
    assert find_head(linear).threshold == 0.3


UNSATISFIABLE = {
    "precision": ({"min_precision": 0.9}, r"min_precision=0\.9 .*best precision is 0\.5\."),
    "recall": ({"min_recall": 0.9}, r"min_recall=0\.9 .*best recall is 0\.6667\."),
    "both": (
        {"min_precision": 0.45, "min_recall": 0.6},
        r"min_precision=0\.45 and min_recall=0\.6 .*precision at that recall is 0\.4\.",
    ),
}


@pytest.mark.parametrize("name", UNSATISFIABLE)
def test_constraints_that_nothing_satisfies_are_refused(emitter, name):
    limits, match = UNSATISFIABLE[name]
    emitter.head.threshold = 0.3
    p = np.array([0.0, 0.2, 0.3, 0.4, 0.5, 0.6], "float32")[:, None]
    with pytest.raises(ValueError, match=f"No threshold satisfies {match}"):
        tune_threshold(emitter, p, [1, 1, 0, 0, 1, 0], **limits)
    assert emitter.head.threshold == 0.3


ARGUMENTS = {
    "unknown_score": ({"score": "f2"}, ValueError, r"one of 'accuracy', .*score='f2'"),
    "misspelt_score": ({"score": "recal"}, ValueError, "Did you mean 'recall'"),
    "score_without_threshold": ({"score": "roc_auc"}, ValueError, "has no threshold"),
    "no_costs": ({"score": "cost"}, ValueError, "`cost_fp` of tune_threshold must be given"),
    "negative_cost": (
        {"score": "cost", "cost_fp": -1, "cost_fn": 1},
        ValueError,
        "`cost_fp` of tune_threshold must be 0 or a positive float",
    ),
    "needless_cost": ({"cost_fp": 1}, ValueError, "left out unless `score='cost'`"),
    "recall_over_one": ({"min_recall": 1.5}, ValueError, r"`min_recall` .* in \[0, 1\]"),
    "text_for_precision": ({"min_precision": "high"}, TypeError, "`min_precision` of tune_thr"),
    "unknown_head": ({"head": "buy"}, ValueError, "no BinaryHead named 'buy'"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_refused_arguments_leave_the_threshold(linear, name):
    arguments, error, match = ARGUMENTS[name]
    find_head(linear).threshold = 0.3
    with pytest.raises(error, match=match):
        tune_threshold(linear, X, Y, **arguments)
    assert find_head(linear).threshold == 0.3


def test_model_without_head_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    with pytest.raises(ValueError, match="has no BinaryHead"):
        tune_threshold(model, X, Y)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"`model` of tune_threshold must be a keras\.Model"):
        tune_threshold("model", X, Y)


def test_one_of_two_heads_must_be_named():
    with pytest.raises(ValueError, match="has 2 heads"):
        tune_threshold(make_two_heads("list"), X, Y)
