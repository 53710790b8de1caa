"""AdamMomentLogger: which steps it logs, where the numbers go, and that training never notices."""

import copy
import csv
import errno
import functools
import hashlib
import io
import json
import math
import os
import pickle
import zipfile

import h5py
import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
import test_distribution

import keras_binclf
from keras_binclf import AdamMomentLogger, binary_classifier
from keras_binclf._registry import drop_sharing
from keras_binclf.callbacks.adam_moments import (
    _compiling,
    _files,
    _memory,
    _observation,
    _optimizers,
    _watch,
)
from keras_binclf.callbacks.adam_moments._quantities import DEFAULT, QUANTITIES, list_columns

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(48, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("float32")
KERNEL = "head/kernel"
# Compiling takes seconds, a run milliseconds.
EAGER = {"run_eagerly": True, "jit_compile": False}
COMPILED = {"run_eagerly": False, "jit_compile": BACKEND == "jax"}
not_on_torch = pytest.mark.skipif(BACKEND == "torch", reason="Keras cannot on PyTorch")


def make_model(optimizer=None, hidden=3, loss="binary_crossentropy", policy="float32", **options):
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(hidden, "tanh", name="hidden")] if hidden else []
    model = keras.Sequential(
        [keras.Input((4,)), *layers, keras.layers.Dense(1, "sigmoid", name="head")], name="net"
    )
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    model.compile(optimizer, loss=loss, **(COMPILED | options))
    return model


def list_state(model):
    return [*model.variables, *model.optimizer.variables]


def copy_state(model):
    """Return values that training leaves alone; NumPy shares memory with JAX and PyTorch."""
    return [keras.ops.convert_to_numpy(variable).copy() for variable in list_state(model)]


@functools.cache
def make_once(make, *arguments, **options):
    """Return a model and the values of its variables and its optimizer's, which is built."""
    model = make(*arguments, **options)
    model.optimizer.build(model.trainable_variables)
    return model, copy_state(model)


def reset(make=make_model, *arguments, **options):
    """Return a model as `make` returns it: the same each time, so that it is compiled once.

    For trainings one after the other that leave alone how the model is compiled.
    """
    model, values = make_once(make, *arguments, **options)
    keras.utils.clear_session(free_memory=False)  # old Keras keeps its generator of seeds
    keras.utils.set_random_seed(0)
    for variable, value in zip(list_state(model), values, strict=True):
        variable.assign(value)
    return model


def fit(model, *callbacks, epochs=2, **options):
    options = {"batch_size": 8, "shuffle": False, "verbose": 0} | options
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options).history


def steps_of(logger, path=f"net/{KERNEL}"):
    return list(logger.history[path]["step"])


# Which steps


@pytest.mark.parametrize(
    ("every_n_steps", "expected"),
    [
        (1, list(range(1, 13))),
        (5, [5, 10]),
        (12, [12]),
        (lambda step: step in (1, 2, 4, 8), [1, 2, 4, 8]),
    ],
    ids=["each", "every_fifth", "last", "function"],
)
def test_logged_steps_are_the_scheduled_ones(every_n_steps, expected):
    logger = AdamMomentLogger(every_n_steps)
    fit(reset(), logger)
    assert steps_of(logger) == expected
    assert list(logger.history[f"net/{KERNEL}"]["epoch"]) == [(s - 1) // 6 for s in expected]


def test_steps_go_on_in_the_next_training():
    model, logger = reset(), AdamMomentLogger(5)
    fit(model, logger)
    fit(model, logger)
    history = logger.history[f"net/{KERNEL}"]
    assert list(history["step"]) == [5, 10, 15, 20]
    assert list(history["run"]) == [1, 1, 2, 2]


def test_accumulated_gradients_make_one_step():
    logger = AdamMomentLogger(2)
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=3)
    fit(make_model(optimizer), logger, epochs=3)
    assert steps_of(logger) == [2, 4, 6]


def make_scaled():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=8.0)


def make_scaled_model(**options):
    return make_model(make_scaled(), **options)


def test_skipped_batches_are_no_steps():
    x = X.copy()
    x[8:24] = np.inf  # the second and third of six batches
    for every_n_steps, expected in ((1, list(range(1, 13))), (5, [5, 10])):
        logger = AdamMomentLogger(every_n_steps)
        model = reset(make_scaled_model, loss="mse")
        model.fit(x, Y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[logger])
        assert steps_of(logger) == expected


def test_long_wait_for_a_scheduled_step_of_a_scaled_loss():
    """The count is not sure for longer than the logger goes without reading it."""
    logger = AdamMomentLogger(lambda step: step == 97)
    fit(reset(make_scaled_model, loss="mse"), logger, epochs=20)
    assert steps_of(logger) == [97]


@not_on_torch
@pytest.mark.parametrize(("every_n_steps", "expected"), [(1, [4, 6, 10, 12]), (5, [6, 10])])
def test_steps_of_one_execution_are_one_row(every_n_steps, expected):
    """Each epoch of six steps is an execution of four and one of two."""
    logger = AdamMomentLogger(every_n_steps)
    fit(reset(steps_per_execution=4), logger)
    assert steps_of(logger) == expected
    single = AdamMomentLogger(1)
    fit(reset(), single)
    some, all_ = (x.history[f"net/{KERNEL}"] for x in (logger, single))
    index = np.array(expected) - 1
    for column in ("m_norm", "v_mean", "v_hat_max", "m_hat_rms"):
        # XLA may order the operations of a loop otherwise.
        np.testing.assert_allclose(some[column], all_[column][index], rtol=1e-5)
    if every_n_steps == 1:
        # The first execution's gradient is the mean that its first moment makes of four.
        weights = 0.9 ** np.arange(3, -1, -1)
        expected_mean = np.average(all_["gradient_mean"][:4], weights=weights)
        assert some["gradient_mean"][0] == pytest.approx(expected_mean, rel=1e-4)
        assert some["update_mean"][0] == pytest.approx(all_["update_mean"][:4].sum(), rel=1e-4)


def test_training_that_is_resumed_goes_on(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def train(logger, *callbacks):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        fit(make_model(), logger, backup, *callbacks, epochs=4)  # Keras leaves its mark on a model

    first, second, whole = (AdamMomentLogger(4) for _ in range(3))
    with pytest.raises(KeyboardInterrupt):
        train(first, Stop())
    train(second)
    fit(reset(), whole, epochs=4)
    assert (steps_of(first), steps_of(second)) == ([4, 8, 12], [16, 20, 24])
    for column in ("m_norm", "v_norm", "gradient_norm", "update_norm"):
        expected = whole.history[f"net/{KERNEL}"][column][3:]
        np.testing.assert_array_equal(second.history[f"net/{KERNEL}"][column], expected)


@pytest.mark.parametrize("every_n_steps", [1, 2])
def test_loop_of_ones_own(every_n_steps):
    """There the first batch builds the optimizer, on each backend."""
    model, logger = make_model(), AdamMomentLogger(every_n_steps)
    callbacks = keras.callbacks.CallbackList([logger], model=model)
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for batch in range(6):
            callbacks.on_train_batch_begin(batch)
            model.train_on_batch(X[batch * 8 : batch * 8 + 8], Y[batch * 8 : batch * 8 + 8])
            callbacks.on_train_batch_end(batch)
    callbacks.on_train_end()
    in_fit = AdamMomentLogger(every_n_steps)
    fit(reset(), in_fit)
    assert list(in_fit.history) == list(logger.history)
    for path, columns in in_fit.history.items():
        for column, values in columns.items():
            np.testing.assert_array_equal(logger.history[path][column], values)


def test_optimizer_that_does_not_start_at_0():
    model, logger = reset(), AdamMomentLogger(5)
    model.optimizer.iterations.assign(1003)
    fit(model, logger)
    assert steps_of(logger) == [1005, 1010, 1015]
    model, first = reset(), AdamMomentLogger(1)
    model.optimizer.iterations.assign(1003)
    fit(model, first)
    history = first.history[f"net/{KERNEL}"]
    assert history["gradient_norm"][0] == pytest.approx(10 * history["m_norm"][0], rel=1e-5)


def test_error_in_training_leaves_no_row_for_the_next():
    class Crash(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise RuntimeError("crash")

    model, logger = reset(), AdamMomentLogger(1)
    with pytest.raises(RuntimeError, match="crash"):
        fit(model, logger, Crash())
    fit(model, epochs=1)
    fit(model, logger, epochs=1)
    # Rows that were not fetched when the first training failed are lost.
    history = logger.history[f"net/{KERNEL}"]
    assert list(history["run"]) == [2] * 6
    assert list(history["step"]) == list(range(9, 15))


@pytest.mark.parametrize("place", ["before", "after"])
def test_evaluation_within_and_after_an_epoch_changes_nothing(place):
    class Evaluate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.evaluate(X, Y, verbose=0)

    logger, plain = AdamMomentLogger(3), AdamMomentLogger(3)
    callbacks = [logger, Evaluate()] if place == "before" else [Evaluate(), logger]
    fit(reset(), *callbacks, validation_data=(X, Y))
    fit(reset(), plain)
    for path, columns in plain.history.items():
        for column, values in columns.items():
            np.testing.assert_array_equal(logger.history[path][column], values)


def test_first_step_of_a_model_that_is_built_by_it():
    """Before its first batch TensorFlow knows no variable of such a model."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(1, "sigmoid", name="head")], name="net")
    model.compile(keras.optimizers.Adam(0.01), loss="binary_crossentropy")
    logger = AdamMomentLogger(1)
    fit(model, logger)
    history = logger.history[f"net/{KERNEL}"]
    assert steps_of(logger) == list(range(1, 13))
    # m is a tenth of the first gradient, so that the corrected one is the gradient.
    assert history["m_hat_norm"][0] == pytest.approx(history["gradient_norm"][0], rel=1e-6)
    assert math.isnan(history["update_norm"][0]) == (BACKEND == "tensorflow")
    assert np.isfinite(history["update_norm"][1:]).all()


# Which variables and columns


def test_variables_are_chosen_by_expression_or_function():
    for variables in ("kernel$", lambda path: path.endswith("kernel")):
        logger = AdamMomentLogger(6, variables=variables)
        fit(reset(), logger)
        assert list(logger.history) == ["net/hidden/kernel", "net/head/kernel"]


def test_columns_are_those_of_the_quantities():
    logger = AdamMomentLogger(6, quantities=["rms_ratio", "m", "v_histogram"])
    fit(reset(), logger)
    columns = ["run", "epoch", "step", *list_columns(["rms_ratio", "m", "v_histogram"])]
    assert list(logger.history[f"net/{KERNEL}"]) == columns
    assert len(columns) == 3 + 1 + 4 + 32
    assert logger.history[f"net/{KERNEL}"]["v_histogram_00"].dtype == "float64"


class Twin(keras.layers.Layer):
    """Two layers of one name, which Keras forbids in a model only."""

    def __init__(self):
        super().__init__(name="twin")
        self.parts = [keras.layers.Dense(1, name="half", use_bias=False) for _ in range(2)]

    def build(self, input_shape):
        for part in self.parts:
            part.build(input_shape)

    def call(self, inputs):
        return self.parts[0](inputs) - 3 * self.parts[1](inputs)


def test_equal_paths_have_keys_of_their_own():
    model = keras.Sequential([keras.Input((4,)), Twin()], name="net")
    model.compile(keras.optimizers.Adam(0.01), loss="mse", **COMPILED)
    logger = AdamMomentLogger(6)
    fit(model, logger)
    assert list(logger.history) == ["net/twin/half/kernel", "net/twin/half/kernel#2"]
    moments = [keras.ops.convert_to_numpy(m) for m in model.optimizer._momentums]
    assert not np.allclose(*moments)
    for columns, moment in zip(logger.history.values(), moments, strict=True):
        assert columns["m_norm"][-1] == pytest.approx(np.linalg.norm(moment), rel=1e-6)


def test_unfreezing_and_compiling_again_is_seen():
    model, logger = make_model(), AdamMomentLogger(6)
    model.layers[0].trainable = False
    model.compile(keras.optimizers.Adam(0.01), loss="binary_crossentropy", **COMPILED)
    fit(model, logger)
    assert list(logger.history) == ["net/head/kernel", "net/head/bias"]
    model.layers[0].trainable = True
    model.compile(keras.optimizers.Nadam(0.01), loss="binary_crossentropy", **COMPILED)
    fit(model, logger)
    assert steps_of(logger) == [6, 12, 6, 12]
    assert steps_of(logger, "net/hidden/kernel") == [6, 12]
    assert list(logger.history["net/hidden/kernel"]["run"]) == [2, 2]


@pytest.mark.skipif(BACKEND == "jax", reason="Keras refuses it on JAX")
def test_layer_frozen_under_the_same_optimizer_is_not_logged():
    model, logger = make_model(), AdamMomentLogger(6)
    fit(model, logger)
    model.layers[0].trainable = False
    model.compile(model.optimizer, loss="binary_crossentropy", **COMPILED)
    fit(model, logger)
    assert steps_of(logger) == [6, 12, 18, 24]
    assert steps_of(logger, "net/hidden/kernel") == [6, 12]


def make_tensors(size, seed=0):
    rng = np.random.default_rng(seed)
    shape = (size,)
    m_before, weight_before = rng.normal(size=(2, *shape)).astype("float32")
    m, weight = (
        a + 0.01 * rng.normal(size=shape).astype("float32") for a in (m_before, weight_before)
    )
    v = np.exp(rng.normal(-30, 8, size=shape)).astype("float32")
    return m_before, weight_before, m, v, weight


# Sizes that are reduced together, each by itself, and in chunks: each with and without a loop, and
# with and without XLA.
@pytest.mark.parametrize(
    ("size", "in_chunks", "jit_compile"),
    [
        (1, False, True),
        (1, True, False),
        (1000, False, True),
        (1000, True, False),
        (5000, False, False),
        (5000, True, True),
        (2 * _observation.CHUNK + 123, False, True),
        (2 * _observation.CHUNK + 123, True, False),
    ],
)
def test_each_total_of_each_size(size, in_chunks, jit_compile):
    if in_chunks and BACKEND == "torch":
        pytest.skip("PyTorch has no compiled loops")
    rule = _optimizers.Rule(0.9, 0.999, 1e-7, 1, False, False, False)
    m_before, weight_before, m, v, weight = make_tensors(size)
    tensors = {
        "m": m,
        "v": v,
        "gradient": (m - np.float64(0.9) * m_before) / 0.1,
        "update": weight - weight_before,
        "weight": weight,
    }
    reductions = {
        "sum": np.sum,
        "square": lambda a: np.sum(a**2),
        "max": lambda a: np.abs(a).max(),
        "above_4": lambda a: np.sum(np.abs(a) >= 2.0**-37),
        "above_22": lambda a: np.sum(np.abs(a) >= 0.5),
    }
    totals = tuple(_observation.Total(t, r) for t in tensors for r in reductions)
    function = _observation.make_observer(rule, totals, ((size,),), in_chunks)
    tensor = keras.ops.convert_to_tensor
    old, new = (tensor(count, "int32") for count in (2**20 + 6, 2**20 + 7))
    before = [old, tensor(m_before), tensor(weight_before)]
    after = [new, tensor(m), tensor(v), tensor(weight)]
    observe = _compiling.compile_reading(function, lambda: after, jit_compile)
    numbers = keras.ops.convert_to_numpy(observe(before))
    assert list(numbers[:3]) == [1, 7, 1]
    for (name, reduction), number in zip(totals, numbers[3:], strict=True):
        values = tensors[name].astype("float64")
        # Entries of both signs cancel: the error of a sum is relative to the sum of their sizes.
        scale = np.abs(values).sum() if reduction == "sum" else reductions[reduction](values)
        assert number == pytest.approx(reductions[reduction](values), abs=2e-6 * scale + 1e-30)


def test_vanishing_second_moments_keep_their_norm():
    """Their squares are under the smallest float32."""
    model, logger = make_model(hidden=0), AdamMomentLogger(1)
    model.compile(keras.optimizers.Adam(0.0), loss=lambda y, p: 1e-11 * (p - y) ** 2, **COMPILED)
    fit(model, logger, epochs=1)
    history = logger.history[f"net/{KERNEL}"]
    assert 0 < history["v_norm"][-1] < 1e-22
    ratio = history["v_norm"] / history["v_rms"]
    np.testing.assert_allclose(ratio, 2.0)
    assert np.all(history["v_mean"] <= history["v_rms"])
    assert np.all(history["v_rms"] <= history["v_max"])
    assert np.all(history["epsilon_share"] == 1)


def test_histogram_counts_every_entry_once():
    quantities = ["gradient_histogram", "m_histogram", "v_histogram", "update_histogram"]
    logger = AdamMomentLogger(3, quantities=quantities)
    model = reset()
    fit(model, logger)
    history = logger.history["net/hidden/kernel"]
    for name in quantities:
        counts = np.stack([history[f"{name}_{i:02}"] for i in range(32)])
        assert np.all(counts.sum(axis=0) == 12)
        assert np.all(counts >= 0)
    edges = np.array([0, *_observation.EDGES, np.inf])
    # Updates of Adam are near the learning rate.
    inside = (edges[:-1] <= 0.01) & (edges[1:] > 0.001)
    counts = np.stack([history[f"update_histogram_{i:02}"] for i in range(32)])
    assert counts[inside].sum() >= 0.7 * counts.sum()


def test_gradient_that_is_nan_is_logged_as_nan():
    x = X.copy()
    x[20] = np.nan  # in the third batch
    model, logger = reset(loss="mse", **EAGER), AdamMomentLogger(1)
    model.fit(x, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[logger])
    history = logger.history[f"net/{KERNEL}"]
    assert steps_of(logger) == list(range(1, 7))
    assert list(np.isnan(history["gradient_norm"])) == [False] * 2 + [True] * 4


def test_dead_layer_has_an_epsilon_share_of_1_and_no_rms_ratio():
    model, logger = make_model(), AdamMomentLogger(6)
    model.layers[-1].kernel.assign(np.zeros((3, 1)))
    model.layers[-1].trainable = False
    model.compile(keras.optimizers.Adam(0.01), loss="binary_crossentropy", **COMPILED)
    fit(model, logger)
    history = logger.history["net/hidden/kernel"]
    for column in ("gradient_norm", "rms_ratio", "update_ratio", "v_max"):
        assert np.all(history[column] == 0)
    assert np.all(history["epsilon_share"] == 1)


def test_epsilon_too_small_for_float32_gives_numbers():
    model = make_model(keras.optimizers.Adam(0.0, epsilon=1e-25), loss=lambda y, p: 0 * p)
    logger = AdamMomentLogger(6)
    fit(model, logger)
    history = logger.history[f"net/{KERNEL}"]
    assert np.all(history["rms_ratio"] == 0)
    assert np.all(history["epsilon_share"] == 1)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has float64 only on request")
def test_small_updates_in_float64_are_exact():
    model = make_model(keras.optimizers.Adam(1e-9), policy="float64")
    logger = AdamMomentLogger(1)
    fit(model, logger)
    # Each entry moves by the learning rate at first.
    assert logger.history[f"net/{KERNEL}"]["update_rms"][0] == pytest.approx(1e-9, rel=0.01)


def make_spike(learning_rate=1e-3):
    """Small gradients for long, then large ones: the second moment does not know yet."""
    model = keras.Sequential(
        [keras.Input((200,)), keras.layers.Dense(1, name="head", use_bias=False)], name="net"
    )
    model.compile(keras.optimizers.Adam(learning_rate), loss="mse", **COMPILED)
    x = np.ones((80, 200), "float32")
    y = np.zeros(80, "float32")
    model.layers[-1].kernel.assign(np.zeros((200, 1)))
    x[:, 0] = np.where(np.arange(80) < 70, 1e-3, 1)
    return model, x, y + 1e-3


def test_rms_ratio_above_its_level_warns_once_for_each_variable():
    model, x, y = make_spike()
    y[60:] = 5.0
    logger = AdamMomentLogger(1)
    with pytest.warns(
        UserWarning, match=r"At step 61 the gradient of 'net/head/kernel' was"
    ) as seen:
        model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=[logger])
    assert sum(warning.category is UserWarning for warning in seen) == 1
    ratio = logger.history[f"net/{KERNEL}"]["rms_ratio"]
    assert ratio[60] > 2.3 >= ratio[:60].max()


def test_beta_that_is_1_in_the_dtype_warns():
    model, logger = make_model(policy="bfloat16", **EAGER), AdamMomentLogger(1)
    with pytest.warns(UserWarning, match=r"In bfloat16, beta_2=0.999 is 1.*stands still"):
        fit(model, logger)
    history = logger.history[f"net/{KERNEL}"]
    assert np.all(history["update_norm"] == 0)
    assert np.all(history["gradient_norm"] > 0)


def test_mixed_precision_keeps_float32_and_does_not_warn():
    logger = AdamMomentLogger(1)
    fit(make_model(policy="mixed_bfloat16", **EAGER), logger)
    assert np.all(logger.history[f"net/{KERNEL}"]["update_norm"] > 0)


# Training is not changed


def hash_arrays(file):
    """Hash all that a file of weights holds: names, shapes, dtypes and bytes.

    HDF5 also records the second in which each group was made.
    """
    parts = []

    def add(name, item):
        parts.append(repr((name, sorted(item.attrs.items()))).encode())
        if isinstance(item, h5py.Dataset):
            parts.append(repr((item.shape, item.dtype)).encode() + item[()].tobytes())

    with h5py.File(file, "r") as opened:
        opened.visititems(add)
    assert len(parts) > 10
    return hashlib.sha256(b"".join(parts)).hexdigest()


def hash_saved(path):
    """Hash a `.keras` file but for when it was saved, and where objects lay in memory."""
    with zipfile.ZipFile(path) as file:
        config = drop_sharing(json.loads(file.read("config.json")))
        arrays = hash_arrays(io.BytesIO(file.read("model.weights.h5")))
        assert set(file.namelist()) == {"config.json", "model.weights.h5", "metadata.json"}
    return json.dumps(config), arrays


def hash_files(model, folder):
    folder.mkdir()
    model.save_weights(folder / "model.weights.h5")
    model.save(folder / "model.keras")
    return hash_arrays(folder / "model.weights.h5"), *hash_saved(folder / "model.keras")


def make_dropout(make_optimizer, **options):
    keras.utils.set_random_seed(1)
    model = binary_classifier(
        4, hidden_units=(8, 6), dropout_rate=0.3, normalization="batch", metrics=None
    )
    model.compile(make_optimizer(), loss=keras_binclf.find_head(model).loss(), **options)
    return model


SETTINGS = {
    "Adam": (lambda: keras.optimizers.Adam(0.01), {}),
    "AdamW, EMA": (
        lambda: keras.optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=3, clipnorm=0.1),
        {},
    ),
    "Nadam, accumulation": (
        lambda: keras.optimizers.Nadam(0.01, gradient_accumulation_steps=2),
        {},
    ),
    "LossScale": (make_scaled, {}),
    "several steps": (lambda: keras.optimizers.Adam(0.01), {"steps_per_execution": 4}),
    "not compiled": (lambda: keras.optimizers.Adam(0.01), EAGER),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_training_is_not_changed_by_one_bit(name, tmp_path):
    make_optimizer, options = SETTINGS[name]
    if "steps_per_execution" in options and BACKEND == "torch":
        pytest.skip("Keras cannot on PyTorch")
    if BACKEND == "torch":
        options = COMPILED | options
    hashes, weights, logs, draws = [], [], [], []
    # The first training of a model builds more of it, which may draw random numbers.
    fit(reset(make_dropout, make_optimizer, **options), epochs=1)
    for number, logger in enumerate((None, AdamMomentLogger(1), AdamMomentLogger(3))):
        model = reset(make_dropout, make_optimizer, **options)
        callbacks = [] if logger is None else [logger]
        history = fit(model, *callbacks, shuffle=True)
        logs.append({k: v for k, v in history.items() if not k.startswith("adam/")})
        hashes.append(hash_files(model, tmp_path / str(number)))
        weights.append(copy_state(model))
        draws.append((np.random.random(), float(keras.random.uniform(()))))
        assert logger is None or len(logger.history) == 10
    for other in (1, 2):
        assert hashes[other] == hashes[0]
        assert logs[other] == logs[0]
        for first, second in zip(weights[0], weights[other], strict=True):
            np.testing.assert_array_equal(first, second)
    assert len(set(draws)) == 1


def test_checkpoints_within_training_are_the_same(tmp_path):
    def train(folder, *loggers):
        path = str(tmp_path / f"{folder}-{{epoch}}.keras")
        saving = keras.callbacks.ModelCheckpoint(path, save_freq=5)
        fit(reset(), *loggers, saving)
        return path.format(epoch=2)

    for folder, loggers in (("plain", []), ("logged", [AdamMomentLogger(1)])):
        train(folder, *loggers)
    for epoch in (1, 2):
        plain, logged = (hash_saved(tmp_path / f"{f}-{epoch}.keras") for f in ("plain", "logged"))
        assert logged == plain


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX holds the state elsewhere")
def test_logger_does_not_make_the_trainer_write_its_state_back():
    synced = []

    class Probe(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            synced.append(self._model._jax_state_synced)

    fit(reset(), AdamMomentLogger(1), Probe())
    assert synced == [True, *[False] * 5] * 2


# Files, data frames and logs


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_dataframe_has_a_row_for_each_step_and_variable():
    logger = AdamMomentLogger(4)
    assert list(logger.to_dataframe().columns)[:4] == ["run", "epoch", "step", "variable"]
    fit(reset(), logger)
    frame = logger.to_dataframe()
    assert list(frame["step"]) == [4] * 4 + [8] * 4 + [12] * 4
    assert frame.columns[4:].tolist() == list(list_columns(DEFAULT))
    rows = frame[frame["variable"] == f"net/{KERNEL}"]
    np.testing.assert_array_equal(rows["m_norm"], logger.history[f"net/{KERNEL}"]["m_norm"])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_file_holds_every_row_and_is_added_to(tmp_path, suffix):
    path = tmp_path / "new" / f"log{suffix}"
    frames = []
    for _ in range(2):
        logger = AdamMomentLogger(4, filepath=path)
        fit(reset(), logger)
        frames.append(logger.to_dataframe())
    frames[1]["run"] = 2
    expected = pd.concat(frames, ignore_index=True)
    if suffix == ".csv":
        names, *rows = read_csv(path)
        found = pd.DataFrame(rows, columns=names).astype(expected.dtypes.to_dict())
    else:
        found = pd.DataFrame(map(json.loads, path.read_text().splitlines()))
    pd.testing.assert_frame_equal(found, expected)


def test_crash_loses_at_most_the_last_epoch(tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise RuntimeError("crash")

    path = tmp_path / "log.csv"
    with pytest.raises(RuntimeError, match="crash"):
        fit(reset(), AdamMomentLogger(2, filepath=path), Crash(), epochs=3)
    steps = [int(row[2]) for row in read_csv(path)[1:]]
    assert sorted(set(steps)) == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_line_that_a_crash_left_incomplete_is_kept_and_told(tmp_path, suffix):
    path = tmp_path / f"log{suffix}"
    fit(reset(), AdamMomentLogger(12, filepath=path))
    whole = path.read_text()
    path.write_text(whole[:-9])
    with pytest.warns(UserWarning, match=r"last line of .* is not complete"):
        fit(reset(), AdamMomentLogger(12, filepath=path))
    assert {line[:9] for line in path.read_text().splitlines()[-4:]} <= {'{"run": 2', "2,1,12,ne"}
    lines = path.read_text().splitlines()
    before = whole.splitlines()
    assert lines[: len(before)] == [*before[:-1], before[-1][: -9 + 1]]
    assert len(lines) == len(before) + 4


def test_runs_are_numbered_after_the_largest_in_the_file(tmp_path):
    for suffix, rows in {
        ".csv": "5,0,1,k,1.0,1.0,1.0,1.0\n12\n\n",
        ".jsonl": '{"run": 5, "epoch": 0}\n{"run": 12\n',
    }.items():
        path = tmp_path / f"log{suffix}"
        fit(reset(), AdamMomentLogger(12, filepath=path, quantities=["m"]))
        path.write_bytes(path.read_bytes() + rows.encode() + b"\xc3")
        with pytest.warns(UserWarning, match="is not complete"):
            fit(reset(), AdamMomentLogger(12, filepath=path, quantities=["m"]))
        last = path.read_bytes().splitlines()[-1].decode()
        assert last.startswith(("6,", '{"run": 6,'))


def test_file_with_other_columns_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "log.csv"
    fit(reset(), AdamMomentLogger(6, filepath=path, quantities=["m"]))
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"(?s)`filepath` of AdamMomentLogger.*begins with other ones.*m_norm"
    ):
        fit(reset(), AdamMomentLogger(6, filepath=path))
    path.write_text("my notes\n")
    with pytest.raises(ValueError, match=r"(?s)`filepath` of AdamMomentLogger.*my notes"):
        fit(reset(), AdamMomentLogger(6, filepath=path))
    assert path.read_text() == "my notes\n"
    assert before


def test_json_lines_of_someone_else_are_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    for text in ("not json\n", "[1, 2]\n", '{"loss": 1}\n'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"`filepath` of AdamMomentLogger"):
            fit(reset(), AdamMomentLogger(6, filepath=path))
        assert path.read_text() == text


def test_json_lines_are_strict_where_numbers_are_not_finite(tmp_path):
    x, path = X.copy(), tmp_path / "log.jsonl"
    x[20] = np.nan
    logger = AdamMomentLogger(6, filepath=path, quantities=["gradient"])
    reset(loss="mse", **EAGER).fit(x, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[logger])

    def refuse(constant):
        raise AssertionError(constant)

    rows = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert rows[-1]["gradient_norm"] is None


@pytest.mark.parametrize("kind", ["folder", "below_a_file", "log_dir"])
def test_file_that_cannot_be_written_fails_before_the_first_step(tmp_path, kind):
    path = tmp_path / "taken.csv"
    if kind == "folder":
        path.mkdir()
    else:
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "log.csv"
    name = "log_dir" if kind == "log_dir" else "filepath"
    model, logger = reset(), AdamMomentLogger(6, **{name: path})
    before = model.get_weights()
    match = rf"`{name}` of AdamMomentLogger must be a \w+ that can be written.*{name}='"
    with pytest.raises(OSError, match=match):
        fit(model, logger)
    for first, second in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("has_room_again", [True, False])
def test_full_disk_warns_once_and_training_goes_on(tmp_path, has_room_again):
    """The file leads to a device without room in the second of three epochs, or from it on."""
    path, kept = tmp_path / "log.csv", tmp_path / "kept.csv"

    class Fill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                path.rename(kept)
                path.symlink_to("/dev/full")
            if epoch == 2 and has_room_again:
                path.unlink()
                kept.rename(path)

    model, logger = reset(**EAGER), AdamMomentLogger(3, filepath=path, quantities=["m"])
    match = r"could not write to filepath='.*log.csv': No space left.*training goes on"
    with pytest.warns(UserWarning, match=match) as seen:
        history = fit(model, logger, Fill(), epochs=3)
    # PyTorch has warnings of its own.
    assert len([warning for warning in seen if "could not write" in str(warning.message)]) == 1
    assert len(history["loss"]) == 3
    assert steps_of(logger) == [3, 6, 9, 12, 15, 18]
    rows = read_csv(path if has_room_again else kept)[1:]
    steps = [3, 6, 9, 12, 15, 18] if has_room_again else [3, 6]
    assert [int(row[2]) for row in rows[::4]] == steps


def test_row_that_was_written_in_part_is_taken_back(tmp_path, monkeypatch):
    def write_half(file, text):
        file.write(text[: len(text) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "log.jsonl"
    file = _files.File(str(path), ("m",))
    record = _memory.Record(1, 0, 1, ("a", "b"), np.ones(2), np.ones((2, 1)))
    file.add(record)
    file.flush()
    before = path.read_text()
    file.add(record)
    with monkeypatch.context() as patch:
        patch.setattr(_files, "_write_all", write_half)
        with pytest.raises(OSError, match="No space left"):
            file.flush()
    assert path.read_text() == before
    file.flush()
    assert path.read_text() == 2 * before


# TensorBoard writes in a thread, which ends with the error.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("by_tensorflow", [False, True])
def test_full_disk_under_tensorboard_warns_once_and_training_goes_on(
    tmp_path, monkeypatch, by_tensorflow
):
    """TensorBoard writes by TensorFlow where it is installed, whose errors are its own."""
    from tensorboard.compat import tf
    from tensorboard.summary.writer.record_writer import RecordWriter

    def fail(self, data):
        text = os.strerror(errno.ENOSPC)
        if by_tensorflow:
            raise tf.errors.OpError(None, None, text, 8)
        raise OSError(errno.ENOSPC, text)

    class Fill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                monkeypatch.setattr(RecordWriter, "write", fail)

    logger = AdamMomentLogger(3, log_dir=tmp_path / "events", quantities=["m"])
    match = r"could not write to log_dir='.*events': No space left.*training goes on"
    model = reset(**EAGER)
    with pytest.warns(UserWarning, match=match) as seen:
        history = fit(model, logger, Fill(), epochs=4)
    assert sum("could not write" in str(warning.message) for warning in seen) == 1
    assert len(history["loss"]) == 4
    assert steps_of(logger) == list(range(3, 25, 3))


def test_tensorboard_reads_the_scalars_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    quantities = ["gradient", "rms_ratio", "m_histogram"]
    logger = AdamMomentLogger(4, log_dir=tmp_path / "logs", quantities=quantities)
    fit(reset(), logger)
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    paths = list(logger.history)
    columns = list_columns(["gradient", "rms_ratio"])
    tags = events.Tags()["tensors"] + events.Tags()["scalars"]
    assert sorted(tags) == sorted(f"adam/{c}/{path}" for c in columns for path in paths)
    tag = f"adam/gradient_norm/{paths[0]}"
    values = [(e.step, float(np.ravel(read_event(e))[0])) for e in events.Tensors(tag)]
    history = logger.history[paths[0]]
    assert [step for step, _ in values] == [4, 8, 12]
    np.testing.assert_allclose(
        [value for _, value in values], history["gradient_norm"], rtol=1e-7
    )  # float32


def read_event(event):
    from tensorboard.util.tensor_util import make_ndarray

    return make_ndarray(event.tensor_proto)


def test_epoch_means_are_in_the_logs_of_keras(tmp_path):
    class Run(keras.callbacks.Callback):
        """Takes the logs as trackers of experiments do."""

        def on_epoch_end(self, epoch, logs=None):
            taken.append(dict(logs))

    taken, path = [], tmp_path / "epochs.csv"
    logger = AdamMomentLogger(2)
    log = fit(reset(), logger, keras.callbacks.CSVLogger(path), Run())
    names = ["gradient_norm", "update_ratio", "rms_ratio", "rms_ratio_max", "epsilon_share"]
    assert [key for key in log if key.startswith("adam/")] == [f"adam/{name}" for name in names]
    frame = logger.to_dataframe()
    rows = read_csv(path)
    for epoch in (0, 1):
        of_epoch = frame[frame["epoch"] == epoch]
        for name in names:
            column = name.removesuffix("_max")
            expected = of_epoch[column].max() if name != column else of_epoch[column].mean()
            assert log[f"adam/{name}"][epoch] == pytest.approx(expected, rel=1e-12)
            assert taken[epoch][f"adam/{name}"] == log[f"adam/{name}"][epoch]
            written = float(rows[1 + epoch][rows[0].index(f"adam/{name}")])
            assert written == log[f"adam/{name}"][epoch]


def test_epoch_without_a_logged_step_has_nan_in_the_logs():
    log = fit(reset(), AdamMomentLogger(7))
    assert math.isnan(log["adam/update_ratio"][0])
    assert log["adam/update_ratio"][1] > 0


def test_logs_hold_only_what_was_asked_for():
    log = fit(reset(), AdamMomentLogger(6, quantities=["m", "rms_ratio"]))
    assert [k for k in log if k[:4] == "adam"] == ["adam/rms_ratio", "adam/rms_ratio_max"]
    log = fit(reset(), AdamMomentLogger(6, epoch_logs=False))
    assert not [k for k in log if k[:4] == "adam"]


# Tuners, copies and other models


def test_search_of_keras_tuner_copies_it(tmp_path):
    def build(hp):
        rate = hp.Choice("rate", [0.01, 0.02])
        return make_model(keras.optimizers.Adam(rate), **EAGER)

    tuner = keras_tuner.GridSearch(
        build, objective="val_loss", max_trials=2, directory=tmp_path / "search"
    )
    logger = AdamMomentLogger(3, filepath=tmp_path / "log.csv", log_dir=tmp_path / "events")
    tuner.search(
        X, Y, epochs=1, batch_size=8, validation_data=(X, Y), verbose=0, callbacks=[logger]
    )
    assert logger.history == {}
    rows = read_csv(tmp_path / "log.csv")[1:]
    assert [row[0] for row in rows] == ["1"] * 8 + ["2"] * 8
    assert [row[2] for row in rows[::4]] == ["3", "6"] * 2


def test_copy_has_what_was_logged_but_not_the_model():
    model, logger = reset(), AdamMomentLogger(6)
    fit(model, logger)
    other = copy.deepcopy(logger)
    assert steps_of(other) == [6, 12]
    assert other._model is None
    assert steps_of(pickle.loads(pickle.dumps(logger))) == [6, 12]
    fit(reset(), other)
    assert steps_of(other) == [6, 12, 6, 12]
    assert steps_of(logger) == [6, 12]


def test_config_gives_the_same_logger():
    config = AdamMomentLogger(
        3,
        variables="kernel",
        quantities=["m"],
        filepath="a.csv",
        log_dir="b",
        epoch_logs=False,
        optimizer="d_optimizer",
    ).get_config()
    assert json.loads(json.dumps(config)) == config
    assert AdamMomentLogger.from_config(config).get_config() == config
    assert AdamMomentLogger.from_config(AdamMomentLogger().get_config()).quantities == DEFAULT


def test_logger_takes_one_model_at_a_time():
    logger = AdamMomentLogger(6)

    class Nested(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            other.fit(X, Y, verbose=0, callbacks=[logger])

    model = reset()
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)], name="other")
    other.compile("adam", loss="mse", **COMPILED)
    with pytest.raises(ValueError, match=r"one model at a time.*'other'.*in use by 'net'"):
        fit(model, logger, Nested())
    done = AdamMomentLogger(6)
    fit(reset(), done)
    other.fit(X, Y, verbose=0, batch_size=8, callbacks=[done])
    assert steps_of(done, "other/dense/kernel") == [6]


def test_model_that_is_not_compiled_fails():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)], name="net")
    callbacks = keras.callbacks.CallbackList([AdamMomentLogger()], model=model)
    with pytest.raises(ValueError, match=r"needs a compiled model.*'net'.*compile\("):
        callbacks.on_train_begin()
    with pytest.raises(ValueError, match=r"needs a compiled model.*model=None"):
        keras.callbacks.CallbackList([AdamMomentLogger()]).on_train_begin()


def test_pattern_that_matches_nothing_lists_the_paths():
    logger = AdamMomentLogger(variables="dense_7")
    with pytest.raises(ValueError, match=r"(?s)`variables`.*net/hidden/kernel.*net/head/bias"):
        fit(reset(), logger)


DISTRIBUTED = """
keras.utils.set_random_seed(0)
with strategy.scope() if strategy else contextlib.nullcontext():
    model = keras_binclf.binary_classifier(4, metrics=None)
quantities = ["gradient", "m", "v", "update", "m_hat"]
logger = keras_binclf.AdamMomentLogger(2, quantities=quantities)
model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[logger])
logger.to_dataframe().to_csv(sys.argv[1], index=False)
"""


@not_on_torch
@pytest.mark.slow
def test_two_devices_log_the_same(tmp_path):
    test_distribution.run_on_two_devices(DISTRIBUTED, tmp_path / "log.csv")
    keras.utils.set_random_seed(0)
    model = binary_classifier(4, metrics=None)
    logger = AdamMomentLogger(2, quantities=["gradient", "m", "v", "update", "m_hat"])
    x, y = test_distribution.X, test_distribution.Y
    model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[logger])
    found, expected = pd.read_csv(tmp_path / "log.csv"), logger.to_dataframe()
    assert len(found) == 6 * 6
    assert found.iloc[:, :4].equals(expected.iloc[:, :4])
    # The gradients of two halves are added up, and Adam divides by small numbers.
    sizes = expected.iloc[:, 4:].abs().max()
    assert ((found.iloc[:, 4:] - expected.iloc[:, 4:]).abs() <= 1e-3 * sizes).all(axis=None)


def test_rows_of_the_table_agree_with_their_names():
    assert list(QUANTITIES)[: len(DEFAULT)] == list(DEFAULT) == list(AdamMomentLogger.DEFAULT)
    columns = list_columns(QUANTITIES)
    assert len(set(columns)) == len(columns)
    assert {c for q in QUANTITIES.values() for c, _ in q.epoch_logs.values()} <= set(columns)
    assert _watch.MAX_UNSURE < 97  # of the test of a long wait
