"""Training on several devices, and several steps at once, changes nothing but the speed."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_binclf import (
    BestThreshold,
    BinaryAUC,
    BrierScore,
    ExpectedCalibrationError,
    ThresholdMetric,
    binary_classifier,
    find_head,
    predict_labels,
)

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="Keras does neither on PyTorch")
X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("float32")
W = np.arange(64, dtype="float32") % 5 / 4

# Devices are fixed when a process first uses them, hence a process for each test.
TRAIN = """
keras.utils.set_random_seed(0)
with strategy.scope() if strategy else contextlib.nullcontext():
    model = keras_binclf.binary_classifier(4, normalization="layer", residual=True, metrics=None)
    find_head(model).threshold = 0.3
    metrics = [
        keras_binclf.ThresholdMetric("f1"),
        keras_binclf.ThresholdMetric("f1", "best"),
        keras_binclf.BestThreshold(),
        keras_binclf.BinaryAUC(),
        keras_binclf.BrierScore(),
        keras_binclf.ExpectedCalibrationError(),
    ]
    loss = find_head(model).loss()
    model.compile(model.optimizer, loss=loss, weighted_metrics=metrics)
history = model.fit(x, y, sample_weight=w, batch_size=16, epochs=3, shuffle=False, verbose=0)
evaluated = model.evaluate(x, y, sample_weight=w, batch_size=16, verbose=0, return_dict=True)
# Of the replicas, what each has counted is added up when it is read.
totals = [float(ops.sum(metric._sums.value[0])) for metric in metrics[:4]]
model.save(sys.argv[1])
np.savez(
    sys.argv[2],
    outputs=model.predict(x, verbose=0),
    history=json.dumps(history.history),
    evaluated=json.dumps(evaluated),
    totals=totals,
)
"""
SETUP = {
    "tensorflow": """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
""",
    "jax": """
import keras
keras.distribution.set_distribution(keras.distribution.DataParallel())
assert len(keras.distribution.list_devices()) == 2
strategy = None
""",
}
IMPORTS = """
import contextlib, json, sys
import keras, keras_binclf
import numpy as np
from keras import ops
from keras_binclf import find_head
x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
y = (x[:, 0] > 0).astype("float32")
w = np.arange(64, dtype="float32") % 5 / 4
"""


def make_metrics():
    return [
        ThresholdMetric("f1"),
        ThresholdMetric("f1", "best"),
        BestThreshold(),
        BinaryAUC(),
        BrierScore(),
        ExpectedCalibrationError(),
    ]


def run_on_two_devices(code, *arguments):
    """Run code in a process of its own, after `SETUP` and `IMPORTS`."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", SETUP[BACKEND] + IMPORTS + code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_devices_train_the_same_model(tmp_path):
    paths = [tmp_path / "model.keras", tmp_path / "outputs.npz"]
    run_on_two_devices(TRAIN, *paths)

    keras.utils.set_random_seed(0)
    alone = binary_classifier(4, normalization="layer", residual=True, metrics=None)
    alone.compile(alone.optimizer, loss=find_head(alone).loss(), weighted_metrics=make_metrics())
    history = alone.fit(
        X, Y, sample_weight=W, batch_size=16, epochs=3, shuffle=False, verbose=0
    ).history
    together = keras.models.load_model(paths[0])
    assert find_head(together).threshold == 0.3
    results = np.load(paths[1])
    outputs = results["outputs"]
    # Two halves of a batch are added up in another order, and Adam divides by small numbers.
    np.testing.assert_allclose(outputs, alone.predict(X, verbose=0), atol=1e-4)
    np.testing.assert_allclose(outputs, together.predict(X, verbose=0), atol=1e-6)

    assert results["totals"].tolist() == [W.sum()] * 4
    for name, values in json.loads(str(results["history"])).items():
        # Outputs that differ by 1e-4 may be on other sides of a bin's edge.
        np.testing.assert_allclose(values, history[name], atol=1e-3, err_msg=name)
    evaluated = json.loads(str(results["evaluated"]))
    for metric in make_metrics():
        metric.update_state(Y, outputs, W)
        # float32 sums, in another order
        np.testing.assert_allclose(evaluated[metric.name], float(metric.result()), atol=1e-6)


def test_several_steps_per_execution_train_the_same_model():
    models = []
    for steps in (1, 2):
        keras.utils.set_random_seed(0)
        model = binary_classifier(4, compile=False)
        loss = find_head(model).loss()
        model.compile("adam", loss=loss, steps_per_execution=steps, jit_compile=False)
        model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        models.append(model)
    outputs = [model.predict(X, verbose=0) for model in models]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)
    assert 0 < predict_labels(models[1], X).sum() < 64
