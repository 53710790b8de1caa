"""ThresholdTuner in real training: the threshold of the model, and of its files."""

import copy
import functools
import json
import os
import subprocess
import sys

import keras
import keras_tuner
import numpy as np
import pytest
import reference
import test_distribution

from keras_binclf import (
    BestThreshold,
    BinaryHead,
    ThresholdMetric,
    ThresholdTuner,
    binary_classifier,
    find_head,
    predict_labels,
)

BACKEND = keras.backend.backend()
NUM_BINS = 512
RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 2)).astype("float32")
Y = (RNG.random(96) < reference.sigmoid(2 * X[:, 0] - 1)).astype("float32")
# Compiling takes seconds, a run milliseconds.
EAGER = {"run_eagerly": True, "jit_compile": False}
COMPILED = {"run_eagerly": False, "jit_compile": BACKEND == "jax"}
TRAIN, VALIDATION = (X[:64], Y[:64]), (X[64:], Y[64:])


def make_metrics(from_logits=False):
    arguments = {"from_logits": from_logits, "num_bins": NUM_BINS}
    return [BestThreshold(**arguments), ThresholdMetric("f1", "best", **arguments)]


def make_model(learning_rate=0.5, activation="sigmoid", **options):
    head = BinaryHead(activation, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((2,)), head])
    options = EAGER | {"metrics": make_metrics(head.from_logits)} | options
    model.compile(keras.optimizers.Adam(learning_rate), loss=head.loss(), **options)
    return model


def list_state(model):
    return [*model.variables, *model.optimizer.variables]


def copy_state(model):
    """Return values that training leaves alone; NumPy shares memory with JAX and PyTorch."""
    return [keras.ops.convert_to_numpy(variable).copy() for variable in list_state(model)]


@functools.cache
def make_once(make, **options):
    """Return a model and the values of its variables and its optimizer's, which is built."""
    model = make(**options)
    model.optimizer.build(model.trainable_variables)
    return model, copy_state(model)


def reset(make=make_model, **options):
    """Return a model as `make` returns it: the same each time, so that it is compiled once."""
    options = (COMPILED if make is make_model else {}) | options
    model, values = make_once(make, **options)
    for variable, value in zip(list_state(model), values, strict=True):
        variable.assign(value)
    return model


class Recorder(keras.callbacks.Callback):
    """Notes the thresholds of the heads at the end of each epoch."""

    def __init__(self, *heads):
        super().__init__()
        self.heads, self.thresholds = heads or (None,), []

    def on_epoch_end(self, epoch, logs=None):
        self.thresholds.append([find_head(self.model, head).threshold for head in self.heads])


class Scripted(keras.callbacks.Callback):
    """Sets the kernel of each epoch, so that it is known which one is best."""

    # The first feature is the one that tells. Of the scores of the third epoch all lie near 0.1.
    KERNELS = ((0.0, 1.0, 0.0), (1.0, 1.0, 1.0), (1.0, 0.0, -3.0), (-1.0, 0.0, 0.5))
    BEST = 2

    def on_epoch_begin(self, epoch, logs=None):
        first, second, bias = self.KERNELS[epoch]
        head = find_head(self.model)
        head.kernel.assign([[first], [second]])
        head.bias.assign([bias])


def fit(model, *callbacks, epochs=3, **options):
    options = {"validation_data": VALIDATION, "batch_size": 32} | options
    return model.fit(*TRAIN, epochs=epochs, verbose=0, callbacks=list(callbacks), **options).history


def as_thresholds(values):
    """A threshold is stored in float32, as logs are computed in."""
    return pytest.approx(np.float32(values), rel=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": False, "jit_compile": "auto"},
        EAGER,
        {"run_eagerly": False, "jit_compile": False, "steps_per_execution": 2},
    ],
    ids=["compiled", "eager", "two_steps"],
)
def test_head_has_the_threshold_of_each_epochs_validation(options):
    if BACKEND == "torch" and "steps_per_execution" in options:
        pytest.skip("Keras on PyTorch makes one step at a time")
    first, last = Recorder(), Recorder()
    model = reset(**options)
    logs = fit(model, first, ThresholdTuner(), last)
    assert np.ravel(first.thresholds) == as_thresholds(logs["val_best_threshold"])
    assert first.thresholds == last.thresholds
    assert len(set(np.ravel(last.thresholds))) == 3
    assert find_head(model).threshold == last.thresholds[-1][0]


@pytest.mark.parametrize("activation", ["sigmoid", None], ids=["probabilities", "logits"])
def test_threshold_is_the_best_one_of_the_predictions(activation):
    model = reset(activation=activation)
    logs = fit(model, ThresholdTuner(), epochs=1)
    outputs = model.predict(VALIDATION[0], verbose=0)
    p = outputs if activation else reference.sigmoid(outputs)
    expected = reference.best_threshold("f1", VALIDATION[1], p, NUM_BINS)
    # Edges of bins in float32.
    assert find_head(model).threshold == pytest.approx(expected, abs=1e-6)
    f1 = reference.f1(
        *reference.confusion(VALIDATION[1], predict_labels(model, VALIDATION[0]), 0.5)
    )
    assert logs["val_best_f1"] == [pytest.approx(f1, abs=1e-6)]  # float32


@pytest.mark.parametrize("place", ["first", "last"])
def test_best_epoch_brings_its_own_threshold(tmp_path, place):
    path, weights = tmp_path / "best.keras", tmp_path / "best.weights.h5"
    best = {"monitor": "val_best_f1", "mode": "max"}
    stopping = keras.callbacks.EarlyStopping(**best, patience=3, restore_best_weights=True)
    callbacks = [
        stopping,
        keras.callbacks.ModelCheckpoint(path, **best, save_best_only=True),
        keras.callbacks.ModelCheckpoint(
            weights, **best, save_best_only=True, save_weights_only=True
        ),
    ]
    callbacks.insert(0 if place == "first" else 3, ThresholdTuner())
    model = reset(learning_rate=0.0)
    logs = fit(model, Scripted(), *callbacks, epochs=4)
    assert stopping.best_epoch == np.argmax(logs["val_best_f1"]) == Scripted.BEST
    assert len(set(logs["val_best_threshold"])) == 4
    expected = as_thresholds(logs["val_best_threshold"][Scripted.BEST])
    assert find_head(model).threshold == expected
    assert find_head(keras.models.load_model(path)).threshold == expected
    other = keras.models.clone_model(model)
    other.load_weights(weights)
    assert find_head(other).threshold == expected
    np.testing.assert_array_equal(predict_labels(other, X), predict_labels(model, X))


# It loads the weights into a new model, whose optimizer has no moments yet.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")
def test_best_model_of_a_search_carries_its_own_threshold(tmp_path):
    def build(hp):
        model = make_model(learning_rate=0.0)
        first, second, bias = Scripted.KERNELS[hp.Choice("kind", [0, 2])]
        find_head(model).kernel.assign([[first], [second]])
        find_head(model).bias.assign([bias])
        return model

    tuner = keras_tuner.RandomSearch(
        build,
        objective=ThresholdMetric("f1", "best").objective(),
        max_trials=2,
        directory=tmp_path,
        project_name="search",
        seed=0,
    )
    tuner.search(
        *TRAIN, validation_data=VALIDATION, epochs=1, verbose=0, callbacks=[ThresholdTuner()]
    )
    assert tuner.get_best_hyperparameters()[0].get("kind") == 2
    thresholds = []
    for model in tuner.get_best_models(2):
        p = model.predict(VALIDATION[0], verbose=0)
        expected = reference.best_threshold("f1", VALIDATION[1], p, NUM_BINS)
        thresholds.append(find_head(model).threshold)
        assert thresholds[-1] == pytest.approx(expected, abs=1e-6)  # edges in float32
    assert len(set(thresholds)) == 2


def test_threshold_of_training_is_taken_without_val():
    model, recorder = reset(), Recorder()
    tuner = ThresholdTuner("best_threshold")
    logs = fit(model, tuner, recorder, validation_data=None)
    assert np.ravel(recorder.thresholds) == as_thresholds(logs["best_threshold"])
    recorder = Recorder()
    logs = fit(model, tuner, recorder)
    assert np.ravel(recorder.thresholds) == as_thresholds(logs["best_threshold"])
    assert logs["best_threshold"] != logs["val_best_threshold"]


def test_threshold_stays_in_epochs_without_validation():
    model, recorder = reset(), Recorder()
    logs = fit(model, ThresholdTuner(), recorder, epochs=5, validation_freq=2)
    second, fourth = np.float32(logs["val_best_threshold"])
    assert np.ravel(recorder.thresholds) == as_thresholds([0.5, second, second, fourth, fourth])
    assert second != fourth


def test_metric_of_another_name_is_monitored():
    model = make_model(metrics=[BestThreshold("mcc", num_bins=NUM_BINS, name="cut")])
    logs = fit(model, ThresholdTuner("val_cut"), epochs=1)
    assert find_head(model).threshold == as_thresholds(logs["val_cut"][-1])


def test_weighted_metric_is_monitored():
    model = make_model(metrics=None, weighted_metrics=make_metrics())
    logs = fit(model, ThresholdTuner(), epochs=1)
    assert find_head(model).threshold == as_thresholds(logs["val_best_threshold"][-1])


def test_default_metrics_of_binary_classifier_are_enough():
    model = binary_classifier(2, hidden_units=None)
    logs = fit(model, ThresholdTuner(), epochs=1)
    assert find_head(model).threshold == as_thresholds(logs["val_best_threshold"][-1])


def make_two_heads():
    inputs = keras.Input((2,))
    click, buy = BinaryHead(name="click"), BinaryHead(None, name="buy")
    model = keras.Model(inputs, {"click": click(inputs), "buy": buy(inputs)})
    model.compile(
        keras.optimizers.Adam(0.1),
        loss={"click": click.loss(), "buy": buy.loss()},
        metrics={"click": make_metrics(), "buy": make_metrics(True)},
        **EAGER,
    )
    return model


HALVES = (slice(64), slice(64, None))
TWO = {"click": Y, "buy": (X[:, 1] > 0.5).astype("float32")}


def fit_two_heads(model, *callbacks):
    train, validation = ({name: y[part] for name, y in TWO.items()} for part in HALVES)
    return model.fit(
        X[:64],
        train,
        validation_data=(X[64:], validation),
        epochs=2,
        verbose=0,
        callbacks=list(callbacks),
    ).history


def test_each_of_two_heads_has_a_tuner():
    model, recorder = reset(make_two_heads), Recorder("click", "buy")
    logs = fit_two_heads(
        model,
        ThresholdTuner("val_click_best_threshold", head="click"),
        ThresholdTuner("val_buy_best_threshold", head=find_head(model, "buy").path),
        recorder,
    )
    names = ("val_click_best_threshold", "val_buy_best_threshold")
    expected = np.stack([logs[name] for name in names], axis=1)
    np.testing.assert_array_equal(np.float32(recorder.thresholds), np.float32(expected))
    assert len(set(expected.ravel())) == 4


def test_one_of_two_heads_stays():
    model = reset(make_two_heads)
    fit_two_heads(model, ThresholdTuner("val_buy_best_threshold", head="buy"))
    assert find_head(model, "click").threshold == 0.5
    assert find_head(model, "buy").threshold != 0.5


def test_training_is_not_changed_by_one_bit():
    trained = []
    for callbacks in ([], [ThresholdTuner()]):
        keras.utils.set_random_seed(0)
        model = reset()
        logs = fit(model, *callbacks)
        variables = [*model.trainable_variables, *model.optimizer.variables]
        trained.append(([keras.ops.convert_to_numpy(v).copy() for v in variables], logs))
    (without, logs), (tuned, tuned_logs) = trained
    assert logs == tuned_logs
    assert len(without) == len(tuned) > 2
    for a, b in zip(without, tuned, strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluation_outside_of_training_changes_nothing():
    model, tuner = reset(), ThresholdTuner()
    model.evaluate(*VALIDATION, verbose=0, callbacks=[tuner])
    assert find_head(model).threshold == 0.5
    fit(model, tuner)
    find_head(model).threshold = 0.25
    model.evaluate(*VALIDATION, verbose=0, callbacks=[tuner])
    model.predict(X, verbose=0, callbacks=[tuner])
    assert find_head(model).threshold == 0.25


def test_evaluation_of_a_callback_changes_nothing():
    class Evaluator(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(*TRAIN, verbose=0)

    model = reset()
    logs = fit(model, Evaluator(), ThresholdTuner(), Evaluator(), epochs=1)
    assert find_head(model).threshold == as_thresholds(logs["val_best_threshold"][-1])


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        (BestThreshold(num_bins=NUM_BINS), np.ones(32)),
        (BestThreshold(min_recall=1.0, min_precision=1.0, num_bins=NUM_BINS), VALIDATION[1]),
    ],
    ids=["one_class", "constraints"],
)
def test_nan_leaves_the_threshold_and_warns(metric, labels):
    model = make_model(metrics=[BestThreshold.from_config(metric.get_config())])
    find_head(model).threshold = 0.3
    with pytest.warns(UserWarning, match="not set the threshold: `val_best_threshold` is NaN"):
        logs = fit(model, ThresholdTuner(), validation_data=(X[64:], labels), epochs=1)
    assert np.isnan(logs["val_best_threshold"]).all()
    assert find_head(model).threshold == 0.3


@pytest.mark.parametrize("part", ["weights", "data"])
def test_nan_of_the_loss_is_named_before_other_causes(part):
    # PyTorch's loss of probabilities raises for NaN; that of logits does not.
    model, x = make_model(activation=None), X[64:]
    if part == "weights":
        find_head(model).kernel.assign([[np.nan], [np.nan]])
    else:
        x = np.full_like(x, np.nan)
    with pytest.warns(UserWarning, match=r"is NaN\. The loss is NaN, too: .*the weights") as seen:
        fit(model, ThresholdTuner(), validation_data=(x, VALIDATION[1]), epochs=1)
    assert not [warning for warning in seen if "constraints" in str(warning.message)]


def test_missing_validation_data_warn_after_training():
    model = reset()
    find_head(model).threshold = 0.3
    with pytest.warns(UserWarning, match="logs had no `val_best_threshold`.*validation data"):
        fit(model, ThresholdTuner(), validation_data=None, epochs=1)
    assert find_head(model).threshold == 0.3


def test_tuner_starts_afresh_in_each_training():
    model, tuner = reset(), ThresholdTuner()
    fit(model, tuner, epochs=1)
    with pytest.warns(UserWarning, match="logs had no"):
        fit(model, tuner, validation_data=None, epochs=1)
    other = make_model()
    logs = fit(other, tuner, epochs=1)
    assert find_head(other).threshold == as_thresholds(logs["val_best_threshold"][-1])


def test_tuner_works_after_a_training_that_failed():
    class Failing(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise RuntimeError("interrupted")

    model, tuner = reset(), ThresholdTuner()
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(model, tuner, Failing())
    logs = fit(model, tuner, epochs=1)
    assert find_head(model).threshold == as_thresholds(logs["val_best_threshold"][-1])


def test_metric_that_is_not_there_is_refused():
    model = make_model(metrics=make_metrics()[1:])
    for monitor in ("val_best_threshold", "best_threshold"):
        match = rf"metric of the model \(best_f1, loss.*monitor='{monitor}'.*BestThreshold\("
        with pytest.raises(ValueError, match=match):
            fit(model, ThresholdTuner(monitor))


def test_metric_of_another_kind_is_refused():
    model = make_model(metrics=[*make_metrics(), "accuracy"])
    find_head(model).threshold = 0.3
    for monitor in ("val_best_f1", "best_f1", "val_loss", "val_accuracy"):
        match = rf"the name of a BestThreshold.*monitor='{monitor}'"
        with pytest.raises(ValueError, match=match):
            fit(model, ThresholdTuner(monitor))
        assert find_head(model).threshold == 0.3


@pytest.mark.parametrize("monitor", ["val_click_best_f1", "click_best_f1", "val_buy_loss"])
def test_metric_of_another_kind_is_refused_where_there_are_two_heads(monitor):
    model = reset(make_two_heads)
    with pytest.raises(ValueError, match=rf"monitor='{monitor}'"):
        fit_two_heads(model, ThresholdTuner(monitor, head="click"))
    assert find_head(model, "click").threshold == 0.5


def test_model_without_head_fails_before_the_first_step():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", loss="binary_crossentropy", metrics=make_metrics())
    before = model.get_weights()
    with pytest.raises(ValueError, match="has no BinaryHead"):
        fit(model, ThresholdTuner())
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("head", "match"), [(None, "has 2 heads"), ("sell", "no BinaryHead named 'sell'")]
)
def test_head_that_is_not_told_fails_before_the_first_step(head, match):
    model = reset(make_two_heads)
    with pytest.raises(ValueError, match=match):
        fit_two_heads(model, ThresholdTuner("val_click_best_threshold", head=head))


def test_arguments_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="`monitor` of ThresholdTuner must be a string"):
        ThresholdTuner(monitor=BestThreshold())
    with pytest.raises(TypeError, match="`head` of ThresholdTuner must be the name or path"):
        ThresholdTuner(head=BinaryHead())


def test_config_gives_the_same_tuner():
    tuner = ThresholdTuner("val_cut", head="buy")
    config = json.loads(json.dumps(tuner.get_config()))
    assert config == {"monitor": "val_cut", "head": "buy"}
    again = ThresholdTuner.from_config(config)
    assert (again.monitor, again.head) == ("val_cut", "buy")
    assert ThresholdTuner().get_config() == {"monitor": "val_best_threshold", "head": None}


def test_copy_tunes_alike():
    model = reset()
    logs = fit(model, copy.deepcopy(ThresholdTuner()), epochs=1)
    assert find_head(model).threshold == as_thresholds(logs["val_best_threshold"][-1])


TWO_DEVICES = """
with strategy.scope() if strategy else contextlib.nullcontext():
    model = keras_binclf.binary_classifier(4, hidden_units=8, learning_rate=0.05)
path, best = sys.argv[1], {"monitor": "val_best_f1", "mode": "max"}
saving = keras.callbacks.ModelCheckpoint(path, save_best_only=True, **best)
stopping = keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True, **best)
logs = model.fit(
    x, y, validation_data=(x, y), batch_size=16, epochs=3, verbose=0,
    callbacks=[saving, stopping, keras_binclf.ThresholdTuner()],
).history
expected = np.float32(logs["val_best_threshold"][np.argmax(logs["val_best_f1"])])
assert expected != 0.5
assert np.float32(find_head(model).threshold) == expected
assert np.float32(find_head(keras.models.load_model(path)).threshold) == expected
"""


@pytest.mark.skipif(BACKEND == "torch", reason="Keras does not distribute on PyTorch")
@pytest.mark.slow
def test_two_devices_agree_on_the_threshold(tmp_path):
    code = test_distribution.SETUP[BACKEND] + test_distribution.IMPORTS + TWO_DEVICES
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "best.keras")],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
