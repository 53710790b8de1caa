"""Calibration: against scikit-learn, in the weights of the head, on rows it was not fitted on."""

import contextlib
import dataclasses
import threading

import keras
import numpy as np
import pytest
import reference
import sklearn.calibration
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from keras_binclf import (
    BinaryHead,
    Calibration,
    binary_classifier,
    calibrate,
    find_head,
    predict_labels,
)
from keras_binclf._data.heads import hold

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
KERNEL, BIAS = np.array([1.2, -0.7]), -0.6
X = RNG.normal(size=(1200, 2)).astype("float32")
Y = (RNG.random(1200) < reference.sigmoid(X @ KERNEL + BIAS)).astype("int32")
W = RNG.integers(0, 4, 1200).astype("float32")
# Held out: the first half to calibrate, the second to judge.
FIT, TEST = slice(600), slice(600, None)
ACTIVATIONS = pytest.mark.parametrize("activation", ["sigmoid", None], ids=["sigmoid", "logits"])


def make_model(confidence=4.0, shift=0.0, activation="sigmoid", **kwargs):
    """A model that knows the truth, but is `confidence` times as sure of it."""
    head = BinaryHead(activation, **kwargs)
    model = keras.Sequential([keras.Input((2,)), head])
    head.kernel.assign(confidence * KERNEL[:, None])
    if head.use_bias:
        head.bias.assign([confidence * (BIAS + shift)])
    return model


def logits_of(model, x=X):
    """In float64, which no probability has rounded."""
    head = find_head(model)
    kernel = keras.ops.convert_to_numpy(head.kernel).astype("float64")
    bias = keras.ops.convert_to_numpy(head.bias).astype("float64") if head.use_bias else 0.0
    return (x.astype("float64") @ kernel + bias)[:, 0]


def probabilities_of(model, x=X):
    head = find_head(model)
    outputs = model.predict(x, verbose=0)
    return keras.ops.convert_to_numpy(head.probabilities(outputs))[:, 0]


def fit_slope(logits, y, w=None):
    """The inverse temperature of least log loss, by scikit-learn."""
    w = np.ones(len(y)) if w is None else w.astype("float64")
    scale, counted = np.abs(logits).max(), w > 0
    # Not by L-BFGS: scikit-learn 1.4 calls it in a way of which new versions of SciPy warn.
    regression = LogisticRegression(
        C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-10
    )
    # Of weights of 0 Newton's method warns.
    columns = logits[counted, None] / scale
    return regression.fit(columns, y[counted], sample_weight=w[counted]).coef_.item() / scale


def fit_platt(logits, y, w=None):
    """By scikit-learn; with weights, from each row as a share of a positive and of a negative."""
    scale = np.abs(logits).max()
    if w is None:
        fitted = sklearn.calibration._SigmoidCalibration().fit(logits / scale, y)
        return -fitted.a_ / scale, -fitted.b_
    counted = w > 0
    logits, y, w = logits[counted], y[counted], w[counted].astype("float64")
    numbers = [w[y == label].sum() ** 2 / (w[y == label] ** 2).sum() for label in (0, 1)]
    targets = np.where(y == 1, (numbers[1] + 1) / (numbers[1] + 2), 1 / (numbers[0] + 2))
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    regression.fit(
        np.tile(logits, 2)[:, None] / scale,
        np.repeat([1, 0], len(y)),
        sample_weight=np.concatenate([w * targets, w * (1 - targets)]),
    )
    return regression.coef_.item() / scale, regression.intercept_.item()


# scikit-learn's searches stop at a gradient of 1e-6 or so, and logits come in float32.
TOLERANCE = 1e-4


@ACTIVATIONS
@pytest.mark.parametrize("weights", [None, W], ids=["alone", "weighted"])
def test_temperature_is_that_of_scikit_learn(activation, weights):
    model = make_model(activation=activation)
    slope = fit_slope(logits_of(model), Y, weights)
    done = calibrate(model, X, Y, sample_weight=weights)
    assert done.slope == pytest.approx(slope, rel=TOLERANCE)
    assert done.temperature == 1 / done.slope
    assert (done.method, done.intercept) == ("temperature", 0.0)
    assert done.num_rows == (1200 if weights is None else (W > 0).sum())


@ACTIVATIONS
@pytest.mark.parametrize("weights", [None, W], ids=["alone", "weighted"])
def test_platt_is_that_of_scikit_learn(activation, weights):
    model = make_model(shift=0.8, activation=activation)
    slope, intercept = fit_platt(logits_of(model), Y, weights)
    done = calibrate(model, X, Y, method="platt", sample_weight=weights)
    assert done.slope == pytest.approx(slope, rel=TOLERANCE)
    assert done.intercept == pytest.approx(intercept, rel=TOLERANCE)
    assert done.method == "platt"


@pytest.mark.skipif(
    not hasattr(sklearn.calibration, "_TemperatureScaling"), reason="came with scikit-learn 1.8"
)
def test_temperature_is_that_of_scikit_learns_own_temperature_scaling():
    model = make_model()
    fitted = sklearn.calibration._TemperatureScaling().fit(logits_of(model), Y, W)
    # It makes logits (-z, z) of two classes out of z, so that the slope counts twice.
    assert calibrate(model, X, Y, sample_weight=W).slope == pytest.approx(
        2 * fitted.beta_, rel=TOLERANCE
    )


def test_weight_two_is_the_row_twice_and_weight_zero_none():
    weighted = calibrate(make_model(), X, Y, sample_weight=W)
    times = W.astype(int)
    repeated = calibrate(make_model(), np.repeat(X, times, 0), np.repeat(Y, times))
    assert (weighted.num_rows, repeated.num_rows) == ((W > 0).sum(), W.sum())
    numbers = dataclasses.asdict(dataclasses.replace(repeated, num_rows=weighted.num_rows))
    # Brier score and calibration error are sums in float32.
    assert dataclasses.asdict(weighted) == {
        name: value if isinstance(value, str) else pytest.approx(value, rel=1e-5)
        for name, value in numbers.items()
    }


@pytest.mark.parametrize("method", ["temperature", "platt"])
@pytest.mark.parametrize("factor", [1 / 1200, 1e-20, 1e30, 1e-300, 1e300])
def test_factor_common_to_all_weights_changes_nothing(method, factor):
    expected = calibrate(make_model(), X, Y, method=method, sample_weight=W)
    weights = W.astype("float64") * factor
    done = calibrate(make_model(), X, Y, method=method, sample_weight=weights)
    # Sums of 1,200 rounded weights in float64, losses in float32.
    for name, value in dataclasses.asdict(expected).items():
        wanted = value if isinstance(value, str) else pytest.approx(value, rel=1e-6)
        assert getattr(done, name) == wanted, name


def test_platt_smooths_by_the_effective_number_of_rows():
    """A row of weight 2 says less of noise than two rows."""
    model = make_model(0.5)
    expected = fit_platt(logits_of(model), SIDES, W)
    done = calibrate(model, X, SIDES, method="platt", sample_weight=W)
    assert (done.slope, done.intercept) == pytest.approx(expected, rel=TOLERANCE)
    repeated = calibrate(
        make_model(0.5),
        np.repeat(X, W.astype(int), 0),
        np.repeat(SIDES, W.astype(int)),
        method="platt",
    )
    assert repeated.slope > done.slope * 1.01


@pytest.mark.parametrize("kernel", [1000.0, 1e-6], ids=["extreme", "tiny"])
@ACTIVATIONS
def test_logits_of_any_size_are_calibrated(kernel, activation):
    x = np.linspace(-1, 1, 400, dtype="float32")[:, None]
    y = (RNG.random(400) < reference.sigmoid(3 * x[:, 0])).astype("int32")
    for method, fit in (("temperature", fit_slope), ("platt", fit_platt)):
        head = BinaryHead(activation)
        model = keras.Sequential([keras.Input((1,)), head])
        head.kernel.assign([[kernel]])
        assert np.abs(logits_of(model, x)).max() == np.float32(kernel)
        expected = np.append(fit(logits_of(model, x), y), 0.0)[:2]
        done = calibrate(model, x, y, method=method)
        assert (done.slope, done.intercept) == pytest.approx(expected, rel=TOLERANCE)
        # In float32, kernel and outputs are off by some 1e-7 of logits of up to 3.
        np.testing.assert_allclose(
            probabilities_of(model, x),
            reference.sigmoid(done.slope * kernel * x[:, 0] + done.intercept),
            atol=1e-6,
        )


@ACTIVATIONS
@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_slope_and_intercept_are_folded_into_kernel_and_bias(method, activation):
    model = make_model(shift=0.8, activation=activation)
    logits, num_weights = logits_of(model), model.count_params()
    done = calibrate(model, X, Y, method=method)
    expected = done.slope * logits + done.intercept
    # Logits of up to 10 in float32.
    np.testing.assert_allclose(logits_of(model), expected, atol=5e-6)
    outputs = model.predict(X, verbose=0)[:, 0]
    wanted = reference.sigmoid(expected) if activation else expected
    np.testing.assert_allclose(outputs, wanted, atol=5e-6)
    assert model.count_params() == num_weights == 4


@ACTIVATIONS
@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_labels_stay_and_the_threshold_moves_along(method, activation):
    model = make_model(shift=0.8, activation=activation)
    head = find_head(model)
    head.threshold = 0.37
    labels = predict_labels(model, X)
    done = calibrate(model, X, Y, method=method)
    np.testing.assert_array_equal(predict_labels(model, X), labels)
    assert done.threshold == (0.37, head.threshold)
    moved = reference.sigmoid(done.slope * np.log(0.37 / 0.63) + done.intercept)
    assert head.threshold == pytest.approx(moved, abs=1e-7)  # stored in float32
    assert 0 < labels.mean() < 1


def test_threshold_of_one_half_stays_with_temperature():
    assert calibrate(make_model(), X, Y).threshold == (0.5, 0.5)


def test_numbers_before_and_after_are_those_of_the_rows():
    model = make_model(shift=0.8)
    before = logits_of(model)
    done = calibrate(model, X, Y, method="platt", sample_weight=W)
    for place, logits in enumerate((before, logits_of(model))):
        p = reference.sigmoid(logits)
        for name, expected in (
            ("log_loss", sk.log_loss(Y, p, sample_weight=W)),
            ("brier_score", sk.brier_score_loss(Y, p, sample_weight=W)),
            ("expected_calibration_error", reference.calibration_error(Y, p, 15, W)),
        ):
            # Logits of up to 10, and sums, in float32.
            assert getattr(done, name)[place] == pytest.approx(expected, abs=2e-6), name


def test_result_is_frozen_and_prints_well():
    done = calibrate(make_model(), X, Y)
    assert isinstance(done, Calibration)
    with pytest.raises(dataclasses.FrozenInstanceError, match="slope"):
        done.slope = 1.0
    lines = str(done).splitlines()
    assert lines[0] == f"temperature {done.temperature:.4g} (1,200 rows)"
    assert [line.rsplit(maxsplit=3)[0].strip() for line in lines[1:]] == [
        "log loss",
        "brier score",
        "expected calibration error",
        "threshold",
    ]
    platt = str(calibrate(make_model(), X, Y, method="platt"))
    assert platt.startswith("platt slope 0.")
    assert ", intercept " in platt


@ACTIVATIONS
def test_saved_model_is_the_calibrated_one(activation, tmp_path):
    model = make_model(activation=activation)
    calibrate(model, X, Y, method="platt")
    model.save(tmp_path / "model.keras")
    keras.utils.clear_session()
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert find_head(loaded).threshold == find_head(model).threshold
    np.testing.assert_array_equal(predict_labels(loaded, X), predict_labels(model, X))


@pytest.fixture(scope="module")
def trained_weights():
    keras.utils.set_random_seed(0)
    model = binary_classifier(2, hidden_units=8, learning_rate=0.02, metrics=None)
    x = RNG.normal(size=(600, 2)).astype("float32")
    y = RNG.random(600) < reference.sigmoid(x @ KERNEL + BIAS)
    model.fit(x, y.astype("float32"), epochs=8, batch_size=100, verbose=0)
    return model.get_weights()


@ACTIVATIONS
@pytest.mark.parametrize("confidence", [4.0, 0.2], ids=["over", "under"])
@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_calibration_error_of_other_rows_halves_and_ranking_stays(
    trained_weights, confidence, method, activation
):
    model = binary_classifier(2, hidden_units=8, activation_out=activation, compile=False)
    model.set_weights(trained_weights)
    head = find_head(model)
    head.kernel.assign(head.kernel * confidence)
    head.bias.assign(head.bias * confidence)
    before = probabilities_of(model, X[TEST])
    done = calibrate(model, X[FIT], Y[FIT], method=method)
    after = probabilities_of(model, X[TEST])
    assert (done.slope < 1) == (confidence > 1)
    errors = [reference.calibration_error(Y[TEST], p) for p in (before, after)]
    assert errors[1] <= errors[0] / 2
    assert errors[0] > 0.1
    areas = [sk.roc_auc_score(Y[TEST], p) for p in (before, after)]
    assert areas[1] == pytest.approx(areas[0], abs=1e-6)
    assert done.log_loss[1] < done.log_loss[0]


def test_platt_mends_what_is_off_on_average():
    model = make_model(1.0, shift=2.0)
    before = probabilities_of(model, X[TEST])
    calibrate(model, X[FIT], Y[FIT], method="platt")
    after = probabilities_of(model, X[TEST])
    assert before.mean() - Y.mean() > 0.2
    # Two means of 600 rows each.
    assert after.mean() == pytest.approx(Y[TEST].mean(), abs=0.06)


def test_what_is_calibrated_stays():
    model = make_model()
    calibrate(model, X, Y)
    again = calibrate(model, X, Y)
    # The kernel was rounded to float32.
    assert again.slope == pytest.approx(1.0, abs=1e-6)


def test_head_without_bias_has_a_temperature_only():
    model = make_model(use_bias=False)
    slope = fit_slope(logits_of(model), Y)
    with pytest.raises(ValueError, match=r"needs a head with a bias.*`method='temperature'`"):
        calibrate(model, X, Y, method="platt")
    assert calibrate(model, X, Y).slope == pytest.approx(slope, rel=TOLERANCE)
    assert model.count_params() == 3


def test_data_set_is_as_good_as_arrays():
    expected = calibrate(make_model(), X, Y, sample_weight=W)
    batches = [(X[i : i + 100], Y[i : i + 100], W[i : i + 100]) for i in range(0, 1200, 100)]
    done = calibrate(make_model(), iter(batches))
    # Batches of another size may be summed in another order.
    assert (done.slope, done.num_rows) == (pytest.approx(expected.slope, rel=1e-6), (W > 0).sum())


def test_one_of_two_heads_is_calibrated():
    inputs = keras.Input((2,))
    click, buy = BinaryHead(name="click"), BinaryHead(None, name="buy")
    model = keras.Model(inputs, {"click": click(inputs), "buy": buy(inputs)})
    for head in (click, buy):
        head.kernel.assign(4 * KERNEL[:, None])
        head.bias.assign([4 * BIAS])
    before = model.predict(X, verbose=0)
    done = calibrate(model, X, {"click": 1 - Y, "buy": Y}, head="buy")
    after = model.predict(X, verbose=0)
    np.testing.assert_array_equal(after["click"], before["click"])
    # Logits of up to 10 in float32.
    np.testing.assert_allclose(after["buy"], done.slope * before["buy"], atol=5e-6)
    assert done.slope == pytest.approx(calibrate(make_model(), X, Y).slope, rel=1e-6)


def test_head_of_a_nested_model_is_calibrated():
    inner = make_model()
    inputs = keras.Input((2,))
    outer = keras.Model(inputs, inner(inputs))
    logits = logits_of(inner)
    done = calibrate(outer, X, Y)
    for model in (inner, outer):
        outputs = model.predict(X, verbose=0)[:, 0]
        np.testing.assert_allclose(outputs, reference.sigmoid(done.slope * logits), atol=1e-6)


# -- what compiled functions remember --------------------------------------------------------------


def test_model_predicts_probabilities_before_and_after():
    model = make_model()
    before = model.predict(X, verbose=0)
    function = model.predict_function
    logits = logits_of(model)
    np.testing.assert_allclose(before[:, 0], reference.sigmoid(logits), atol=1e-6)
    done = calibrate(model, X, Y)
    assert model.predict_function is function
    expected = reference.sigmoid(done.slope * logits)
    for outputs in (model.predict(X, verbose=0), model.predict_on_batch(X), model(X)):
        outputs = keras.ops.convert_to_numpy(outputs)
        np.testing.assert_allclose(outputs[:, 0], expected, atol=1e-6)  # float32


def test_model_that_never_predicted_emits_probabilities_afterwards():
    model = make_model()
    calibrate(model, X, Y)
    outputs = model.predict(X, verbose=0)[:, 0]
    np.testing.assert_allclose(outputs, reference.sigmoid(logits_of(model)), atol=1e-6)  # float32


def fail():
    yield X[:10], Y[:10]
    raise RuntimeError("the disk is full")


@pytest.mark.parametrize("predicted", [True, False], ids=["predicted", "fresh"])
def test_exception_inside_leaves_the_model_as_it_was(predicted):
    model = make_model()
    if predicted:
        model.predict(X, verbose=0)
    function, weights = model.predict_function, model.get_weights()
    with pytest.raises(RuntimeError, match="the disk is full"):
        calibrate(model, fail())
    assert find_head(model).activation == "sigmoid"
    assert model.predict_function is function
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    outputs = model.predict(X, verbose=0)[:, 0]
    np.testing.assert_allclose(outputs, reference.sigmoid(logits_of(model)), atol=1e-6)  # float32


@ACTIVATIONS
def test_training_and_evaluation_go_on(activation):
    model = make_model(activation=activation)
    head = find_head(model)
    model.compile(keras.optimizers.SGD(0.0), loss=head.loss())
    y = Y.astype("float32")
    model.fit(X, y, batch_size=400, verbose=0)
    model.evaluate(X, y, batch_size=400, verbose=0)
    done = calibrate(model, X, Y)
    assert done.log_loss[1] < done.log_loss[0] - 0.1
    # Keras clips probabilities at 1e-7, and sums in float32.
    loss = pytest.approx(done.log_loss[1], abs=1e-5)
    assert model.evaluate(X, y, batch_size=400, verbose=0) == loss
    assert model.fit(X, y, batch_size=400, verbose=0).history["loss"] == [loss]
    before = model.get_weights()
    model.optimizer.learning_rate = 0.1
    model.fit(X, y, batch_size=400, verbose=0)
    # One step moves the calibrated kernel a little, and does not go back to the old one.
    np.testing.assert_allclose(model.get_weights()[0], before[0], atol=0.05)
    assert not np.array_equal(model.get_weights()[0], before[0])


def test_no_thread_sees_a_model_that_is_being_calibrated():
    """Neither logits in place of probabilities, nor a moved threshold with the old kernel."""
    model = make_model(shift=0.8)
    head = find_head(model)
    head.threshold = 0.37
    labels, weights = predict_labels(model, X), model.get_weights()
    inside, wrong = [], []

    def batches():
        for i in range(0, 1200, 400):
            inside.append((head.activation, model.predict_function, model.predict_on_batch(X[:5])))
            yield X[i : i + 400], Y[i : i + 400]

    before = model.predict_on_batch(X[:5]), model.predict_function
    done = threading.Event()

    def predict():
        while not done.is_set():
            wrong.append((predict_labels(model, X) != labels).mean())

    # On JAX, `predict` takes the weights out of the model, and puts the old ones back at its end.
    scope = hold(head) if BACKEND == "jax" else contextlib.nullcontext()
    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for rows in ((batches(),), (X, Y), (batches(),)):
            calibrate(model, *rows, method="platt")
            with scope:
                model.set_weights(weights)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    # A row within rounding of the threshold may change sides.
    assert wrong
    assert max(wrong) < 2 / 1200
    for activation, function, outputs in inside[:3]:
        assert (activation, function) == ("sigmoid", before[1])
        np.testing.assert_array_equal(outputs, before[0])


def test_labels_of_a_model_that_keeps_changing_are_an_error(monkeypatch):
    model = make_model()
    head = find_head(model)
    predict, calls = model.predict, []

    def predict_and_change(*args, **kwargs):
        outputs = predict(*args, **kwargs)
        calls.append(1)
        if len(calls) != 3:  # the third time, nothing changes
            head.bias.assign(head.bias + 1)
        return outputs

    monkeypatch.setattr(model, "predict", predict_and_change)
    assert predict_labels(model, X).shape == (1200, 1)
    assert len(calls) == 3
    with pytest.raises(RuntimeError, match=r"'binary_head.*changed while predict_labels ran"):
        predict_labels(model, X)
    calls.clear()
    with (
        pytest.raises(RuntimeError, match="Predict with a copy of the model"),
        pytest.warns(UserWarning, match="ran out of data"),  # Keras's, for each generator
    ):
        predict_labels(model, (batch for batch in [(X,)]))
    assert calls == [1]  # A generator gives its rows once.


def test_no_other_function_changes_a_head_while_it_labels(monkeypatch):
    model = make_model()
    head = find_head(model)
    predict, free = model.predict, []

    def try_lock():
        free.append(hold(head).acquire(blocking=False))

    def predict_beside(*args, **kwargs):
        thread = threading.Thread(target=try_lock)
        thread.start()
        thread.join()
        return predict(*args, **kwargs)

    monkeypatch.setattr(model, "predict", predict_beside)
    predict_labels(model, X)
    assert free == [False]
    try_lock()
    assert free == [False, True]


def make_wrapped(head):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = keras.Sequential([keras.Input((2,)), head])

        def call(self, inputs):
            return {"other": inputs, head.name: self.inner(inputs)}

    model = Subclassed()
    model.build((None, 2))
    return model


def make_steps(head):
    inputs = keras.Input((3, 2))
    return keras.Model(inputs, keras.layers.TimeDistributed(head)(inputs))


@pytest.mark.parametrize("make", [make_wrapped, make_steps])
def test_head_inside_other_layers_is_calibrated_on_its_logits(make):
    """Far out, where float32 rounds probabilities to 1."""
    head = BinaryHead(name="head")
    model = make(head)
    head.kernel.assign(20 * KERNEL[:, None])
    head.bias.assign([20 * BIAS])
    x, y = X, Y
    if make is make_steps:
        x, y = X.reshape(400, 3, 2), Y.reshape(400, 3)
    logits = 20 * (X.astype("float64") @ KERNEL + BIAS)
    done = calibrate(
        model, x, {"other": np.zeros((1200, 2)), "head": y} if make is make_wrapped else y
    )
    assert done.slope == pytest.approx(fit_slope(logits, Y), rel=TOLERANCE)


# -- refusals --------------------------------------------------------------------------------------

SIDES = np.where(X @ KERNEL + BIAS > 0, 1, 0)
X_INFINITE = np.where((np.arange(2400) == 6).reshape(1200, 2), np.inf, X)
REFUSED = {
    "one_class": ({"y": np.ones(1200)}, "needs rows of both classes. Received: 1200 rows"),
    "unknown_method": ({"method": "isotonic"}, "'temperature'.*'platt'.*method='isotonic'"),
    "separable": ({"y": SIDES}, r"every row is on its own side.*`method='platt'`"),
    "swapped": ({"y": 1 - Y}, "cannot fit a positive slope.*swapped labels"),
    "offset": ({"shift": 9.0}, r"higher than those of negatives on average \(.*`method='platt'`"),
    "swapped_platt": ({"y": 1 - Y, "method": "platt"}, "cannot fit a positive slope"),
    "infinite": ({"x": X_INFINITE}, "needs finite logits. Received: inf"),
    "nan": ({"x": np.where(np.isinf(X_INFINITE), np.nan, X)}, "NaN for 1 of 1200 rows"),
    "minus_one": ({"y": 2 * Y - 1}, r"Labels of calibrate must be 0 and 1.*\(y == 1\)"),
    "lengths": ({"y": Y[:5]}, r"x with 1200 rows, y of shape \(5,\)"),
    "no_rows": ({"x": X[:0], "y": Y[:0]}, "x with 0 rows"),
    "unknown_head": ({"head": "buy"}, "no BinaryHead named 'buy'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_rows_leave_the_model(name):
    arguments, match = REFUSED[name]
    arguments = dict(arguments)
    model = make_model(0.5, shift=arguments.pop("shift", 0.0))
    find_head(model).threshold = 0.3
    before = model.get_weights()
    with pytest.raises(ValueError, match=match):
        calibrate(model, **{"x": X, "y": Y} | arguments)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert find_head(model).activation == "sigmoid"


def test_platt_fits_separable_rows():
    model = make_model(0.5)
    expected = fit_platt(logits_of(model), SIDES)
    done = calibrate(model, X, SIDES, method="platt")
    assert (done.slope, done.intercept) == pytest.approx(expected, rel=TOLERANCE)
    assert done.slope > 2


@pytest.mark.parametrize(
    ("method", "match"),
    [("platt", "all 1200 rows have the logit 2.4"), ("temperature", "cannot fit a positive slope")],
)
def test_constant_logits_are_refused(method, match):
    model = make_model()
    find_head(model).kernel.assign([[0.0], [0.0]])
    find_head(model).bias.assign([2.4])
    assert Y.mean() < 0.5  # so that 2.4 speaks for the wrong class
    with pytest.raises(ValueError, match=match):
        calibrate(model, X, Y, method=method)


def test_strings_are_refused():
    with pytest.raises(TypeError, match=r"Labels of calibrate must be the numbers 0 and 1"):
        calibrate(make_model(), X, np.where(Y, "yes", "no"))


def test_model_without_head_is_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
    with pytest.raises(ValueError, match="has no BinaryHead"):
        calibrate(model, X, Y)


def test_threshold_that_float32_cannot_hold_is_refused():
    model = make_model(0.01)
    find_head(model).threshold = 1e-30
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"would move the threshold 1e-30 to .*nearer to 0\.5"):
        calibrate(model, X, Y)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
