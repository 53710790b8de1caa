"""The metrics where they are used: `compile`, `fit`, `evaluate`, callbacks, files, searches."""

import keras
import keras_tuner
import numpy as np
import pytest
import reference
from keras import ops
from sklearn import metrics as sk

from keras_binclf import (
    BestThreshold,
    BinaryAUC,
    BinaryHead,
    BrierScore,
    ExpectedCalibrationError,
    ThresholdMetric,
)

BACKEND = keras.backend.backend()
NUM_BINS = 512
COSTS = {"cost_fp": 1.0, "cost_fn": 4.0}
# Logits 0.1 apart, which is more than a bin: whatever is tied here is tied in the bins.
X = np.random.default_rng(0).permutation(np.linspace(-2.35, 2.35, 48)).astype("float32")[:, None]
Y = (np.random.default_rng(1).random((48, 1)) < reference.sigmoid(2 * X)).astype("float32")
W = np.random.default_rng(2).integers(0, 5, 48).astype("float32") / 2
COMPILE_OPTIONS = {
    "default": {},
    "interpreted": {"jit_compile": False},
    "compiled": {"jit_compile": True},
    "two_steps": {"steps_per_execution": 2, "jit_compile": False},
    "eager": {"run_eagerly": True},
}


# One of each kind, where all of them would only take longer to compile.
FEW = ("f1", "best_f1", "auc", "brier_score")


def make_metrics(*names, from_logits=False, prefix=""):
    """All metrics, or those of the given names."""
    logits = {"from_logits": from_logits}
    bins = logits | {"num_bins": NUM_BINS}
    makers = {
        "f1": lambda **k: ThresholdMetric(**k, **logits),
        "cost": lambda **k: ThresholdMetric("cost", 0.3, **COSTS, **k, **logits),
        "best_f1": lambda **k: ThresholdMetric("f1", "best", **k, **bins),
        "best_mcc": lambda **k: ThresholdMetric("mcc", "best", **k, **bins),
        "best_threshold": lambda **k: BestThreshold(**k, **bins),
        "auc": lambda **k: BinaryAUC(**k, **bins),
        "pr_auc": lambda **k: BinaryAUC("PR", **k, **bins),
        "brier_score": lambda **k: BrierScore(**k, **logits),
        "expected_calibration_error": lambda **k: ExpectedCalibrationError(6, **k, **logits),
        "quantile": lambda **k: ExpectedCalibrationError(6, "quantile", **k, **bins),
    }
    return [makers[name](name=prefix + name) for name in names or makers]


def expected_values(y, p, w=None):
    """What the metrics must say of labels, probabilities and weights."""
    y, p = np.ravel(y), np.ravel(p)
    values = {
        "f1": reference.f1(*reference.confusion(y, p, 0.5, w)),
        "cost": reference.cost(*reference.confusion(y, p, 0.3, w), **COSTS),
        "best_f1": reference.best_score("f1", y, p, w),
        "best_mcc": reference.best_score("mcc", y, p, w),
        "best_threshold": reference.best_threshold("f1", y, p, NUM_BINS, w),
        "auc": sk.roc_auc_score(y, p, sample_weight=w),
        "brier_score": reference.brier_score(y, p, w),
        "expected_calibration_error": reference.calibration_error(y, p, 6, w),
    }
    if w is None:
        # With weights they have no oracle here; test_metric_properties.py has weights as rows.
        values["pr_auc"] = sk.average_precision_score(y, p)
        values["quantile"] = reference.quantile_calibration_error(y, p, 6)
    return values


def assert_logged(logs, expected, prefix="", names=None):
    for name in names or expected:
        # float32 on both sides; compiled and predicted sigmoids differ in the last bit
        np.testing.assert_allclose(logs[prefix + name], expected[name], atol=2e-6, err_msg=name)


def make_model(learning_rate=0.0, activation="sigmoid", **options):
    """A model whose logits are its inputs, until it is trained."""
    head = BinaryHead(activation, kernel_initializer="ones", name="head")
    model = keras.Sequential([keras.Input((1,)), head])
    options = {"metrics": make_metrics(from_logits=head.from_logits)} | options
    model.compile(keras.optimizers.SGD(learning_rate), loss=head.loss(), **options)
    return model


def last(history, prefix=""):
    return {
        name.removeprefix(prefix): values[-1]
        for name, values in history.history.items()
        if name.startswith(prefix)
    }


def skip_what_pytorch_has_not(option):
    if BACKEND == "torch" and option in ("compiled", "two_steps"):
        pytest.skip("Keras on PyTorch compiles with a C++ compiler, and makes one step at a time")


@pytest.mark.parametrize("option", COMPILE_OPTIONS)
def test_logs_are_those_of_the_predictions(option):
    skip_what_pytorch_has_not(option)
    options = COMPILE_OPTIONS[option]
    model = make_model(weighted_metrics=make_metrics(*FEW, prefix="weighted_"), **options)
    # Without learning, the batches of an epoch are predictions of one model.
    history = model.fit(
        X,
        Y,
        batch_size=24,
        class_weight={0: 1.0, 1: 3.0},
        validation_data=(X, 1 - Y, W),
        verbose=0,
    )
    p, logs = model.predict(X, verbose=0), last(history)
    assert_logged(logs, expected_values(Y, p))
    assert_logged(logs, expected_values(Y, p, np.where(Y == 1, 3.0, 1.0)), "weighted_", FEW)
    assert_logged(logs, expected_values(1 - Y, p), "val_")
    assert_logged(logs, expected_values(1 - Y, p, W), "val_weighted_", FEW)


def test_logs_of_an_epoch_are_those_of_the_model_after_it():
    model = make_model(learning_rate=0.5, metrics=make_metrics(*FEW))
    history = model.fit(X, Y, batch_size=16, epochs=2, validation_data=(X, Y), verbose=0)
    expected = expected_values(Y, model.predict(X, verbose=0))
    assert_logged(last(history), expected, "val_", FEW)
    # 48 rows are not whole batches of 20.
    logs = model.evaluate(X, Y, batch_size=20, verbose=0, return_dict=True)
    assert_logged(logs, expected, names=FEW)
    assert history.history["val_brier_score"][0] != history.history["val_brier_score"][1]


def test_logits_are_measured_as_their_probabilities():
    model = make_model(activation=None)
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    logits = model.predict(X, verbose=0)
    assert logits.min() < 0
    assert_logged(logs, expected_values(Y, reference.sigmoid(logits)))


def make_sequence_model(*layers, **options):
    head = BinaryHead(kernel_initializer="ones")
    model = keras.Sequential([keras.Input((4, 1)), *layers, head])
    model.compile(keras.optimizers.SGD(0.0), loss=head.loss(), **options)
    return model


HIDDEN = np.arange(48).reshape(12, 4) % 4 > np.arange(12)[:, None] % 4
SEQUENCES = np.where(HIDDEN[..., None], 9.0, X.reshape(12, 4, 1)).astype("float32")
STEPS = Y.reshape(12, 4, 1)


@pytest.mark.parametrize("option", ["default", "compiled"])
def test_masked_steps_do_not_count(option):
    skip_what_pytorch_has_not(option)
    options = {"metrics": make_metrics(*FEW)} | COMPILE_OPTIONS[option]
    model = make_sequence_model(keras.layers.Masking(9.0), **options)
    history = model.fit(
        SEQUENCES, STEPS, batch_size=6, validation_data=(SEQUENCES, STEPS), verbose=0
    )
    p = model.predict(SEQUENCES, verbose=0)
    expected, everything = expected_values(STEPS[~HIDDEN], p[~HIDDEN]), expected_values(STEPS, p)
    assert all(abs(expected[name] - everything[name]) > 1e-4 for name in FEW)
    assert_logged(last(history), expected, "val_", FEW)
    if BACKEND == "jax":
        # While it trains, Keras 3.15 gives metrics there no mask: when it does, this can go.
        assert_logged(last(history), everything, names=("f1", "brier_score"))
    else:
        assert_logged(last(history), expected, names=FEW)


def test_weights_and_masks_of_steps_both_count():
    w, metrics = W.reshape(12, 4), make_metrics(*FEW)
    model = make_sequence_model(keras.layers.Masking(9.0), weighted_metrics=metrics)
    logs = model.evaluate(SEQUENCES, STEPS, sample_weight=w, verbose=0, return_dict=True)
    p = model.predict(SEQUENCES, verbose=0)
    expected = expected_values(STEPS[~HIDDEN], p[~HIDDEN], w[~HIDDEN])
    assert_logged(logs, expected, names=FEW)


def test_weights_of_sequences_hold_for_their_steps():
    model = make_sequence_model(weighted_metrics=make_metrics(*FEW))
    # One column, as Keras's losses refuse weights of shape (12,) here; the metrics do not.
    sequences, w = X.reshape(12, 4, 1), W[:12, None]
    logs = model.evaluate(sequences, STEPS, sample_weight=w, verbose=0, return_dict=True)
    p = model.predict(sequences, verbose=0)
    assert_logged(logs, expected_values(STEPS, p, np.repeat(w, 4)), names=FEW)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_metrics_of_16_bit_models_are_float32(policy):
    keras.config.set_dtype_policy(policy)
    for last_layer in (
        BinaryHead(kernel_initializer="ones"),
        keras.layers.Dense(1, "sigmoid", kernel_initializer="ones"),
    ):
        model = keras.Sequential([keras.Input((1,)), last_layer])
        metrics = make_metrics(*FEW)
        model.compile("sgd", loss="mse", metrics=metrics)
        logs = model.evaluate(X, Y, verbose=0, return_dict=True)
        for metric in metrics:
            assert metric.dtype == "float32"
            assert {
                keras.backend.standardize_dtype(variable.dtype) for variable in metric.variables
            } == {"float32"}
        p = model.predict(X, verbose=0).astype("float32")
        expected = expected_values(Y, p)
        if isinstance(last_layer, BinaryHead):
            assert_logged(logs, expected, names=FEW)
        else:
            # XLA may leave out a rounding to 16 bits, which for bfloat16 is up to 1 in 512.
            assert logs["f1"] == pytest.approx(expected["f1"])
            assert logs["brier_score"] == pytest.approx(expected["brier_score"], rel=1e-2)


class Scripted(keras.callbacks.Callback):
    """Logs what was written beforehand."""

    def __init__(self, **values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        for name, values in self.values.items():
            logs[name] = values[epoch]
        # Weights that tell the epochs apart.
        self.model.layers[-1].bias.assign([epoch])


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val_best_f1", [0.5, 0.7, 0.6, 0.4], 1),
        ("val_cost", [0.5, 0.3, 0.4, 0.6], 1),
        ("val_auc", [0.9, 0.5, 0.6, 0.7], 0),
        ("val_brier_score", [0.1, 0.5, 0.4, 0.3], 0),
        ("val_expected_calibration_error", [0.3, 0.2, 0.1, 0.4], 2),
    ],
)
def test_callbacks_know_which_way_is_better(tmp_path, monitor, values, best):
    name = monitor.removeprefix("val_")
    model = make_model(metrics=make_metrics(name))
    path = tmp_path / "best.keras"
    callbacks = [
        Scripted(**{monitor: values}),
        keras.callbacks.EarlyStopping(monitor, mode="auto", patience=3, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(path, monitor, mode="auto", save_best_only=True),
    ]
    model.fit(X, Y, epochs=4, batch_size=48, validation_data=(X, Y), callbacks=callbacks, verbose=0)
    assert callbacks[1].best_epoch == best
    assert ops.convert_to_numpy(model.layers[-1].bias).item() == best
    saved = keras.models.load_model(path)
    assert ops.convert_to_numpy(saved.layers[-1].bias).item() == best


def test_every_direction_reaches_the_callbacks():
    model = make_model()
    names = [metric.name for metric in make_metrics() if metric.name != "best_threshold"]
    stoppers = {name: keras.callbacks.EarlyStopping(f"val_{name}", mode="auto") for name in names}
    model.fit(X, Y, validation_data=(X, Y), callbacks=list(stoppers.values()), verbose=0)
    falling = {name for name, stopper in stoppers.items() if stopper.monitor_op(0.0, 1.0)}
    assert falling == {"cost", "brier_score", "expected_calibration_error", "quantile"}


def test_threshold_has_no_direction_for_callbacks():
    model = make_model(metrics=[BestThreshold()])
    stopper = keras.callbacks.EarlyStopping("val_best_threshold", mode="auto")
    with pytest.raises(ValueError, match=r"val_best_threshold, but Keras isn't able to"):
        model.fit(X, Y, validation_data=(X, Y), callbacks=[stopper], verbose=0)


def test_saved_model_measures_the_same(tmp_path):
    model = make_model(learning_rate=0.5, weighted_metrics=make_metrics(*FEW, prefix="weighted_"))
    model.fit(X, Y, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before, after = (
        each.evaluate(X, Y, sample_weight=W, verbose=0, return_dict=True)
        for each in (model, loaded)
    )
    assert before == after
    assert len(before) == 1 + len(make_metrics()) + len(FEW)
    assert before["best_f1"] != before["weighted_best_f1"]


def test_search_finds_the_largest_best_f1(tmp_path):
    def build(hp):
        # Rows in reverse, or by their sine, or in order: of three models the last is best.
        kind = hp.Choice("kind", ["reversed", "periodic", "ordered"])
        activation = {"reversed": ops.negative, "periodic": lambda x: ops.sin(5 * x)}.get(kind)
        head = BinaryHead(kernel_initializer="ones")
        layers = [keras.layers.Activation(activation)] if activation else []
        model = keras.Sequential([keras.Input((1,)), *layers, head])
        metric = ThresholdMetric("f1", "best")
        model.compile(keras.optimizers.SGD(0.0), loss=head.loss(), metrics=[metric])
        return model

    tuner = keras_tuner.RandomSearch(
        build,
        objective=ThresholdMetric("f1", "best").objective(),
        max_trials=3,
        directory=tmp_path,
        project_name="search",
        seed=0,
    )
    tuner.search(X, Y, validation_data=(X, Y), epochs=1, verbose=0)
    trials = tuner.oracle.trials.values()
    scores = {
        trial.hyperparameters.get("kind"): trial.metrics.get_best_value("val_best_f1")
        for trial in trials
    }
    expected = {
        kind: reference.best_score("f1", Y, scores_of(X))
        for kind, scores_of in {
            "reversed": np.negative,
            "periodic": lambda x: np.sin(5 * x),
            "ordered": np.copy,
        }.items()
    }
    assert scores == pytest.approx(expected, abs=1e-6)
    best = tuner.get_best_hyperparameters()[0].get("kind")
    assert best == max(expected, key=expected.get) == "ordered"
    assert tuner.oracle.get_best_trials()[0].score == max(scores.values())
