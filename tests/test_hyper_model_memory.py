"""What a trial leaves in TensorFlow, which would keep the graphs of all trials."""

import gc

import keras
import keras_tuner
import numpy as np
import pytest

from keras_binclf import BinaryClassifierHyperModel
from keras_binclf.tuner.trial import memory

if keras.backend.backend() != "tensorflow":
    pytest.skip("graphs are TensorFlow's", allow_module_level=True)

import tensorflow as tf
from tensorflow.python.framework import ops

X = np.random.default_rng(0).normal(size=(100, 3)).astype("float32")
Y = (X[:, 0] > 0).astype("float32")
SPACE = {"hidden_units": (4,), "activation": "silu"}


@tf.function
def bend(x):
    """A function of the user's own; TensorFlow registers a gradient as it is traced."""
    return tf.nn.silu(x)


@keras.saving.register_keras_serializable(package="tests")
class Bend(keras.layers.Layer):
    def call(self, inputs):
        return bend(inputs)


def run_trial(**options):
    hypermodel, hp = BinaryClassifierHyperModel(3, **options), keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    hypermodel.fit(hp, model, X, Y, validation_data=(X, Y), epochs=2, verbose=0)
    return model


def count_steps():
    gc.collect()
    return sum(type(o).__name__ == "FuncGraph" and o.name == memory.STEP for o in gc.get_objects())


def list_gradients():
    return {name for name in ops.gradient_registry._registry if name.startswith(memory.PREFIX)}


def test_graphs_of_a_trial_go_with_its_model():
    steps, gradients = count_steps(), list_gradients()
    model = run_trial(space=SPACE)
    assert list_gradients() == gradients
    del model
    assert count_steps() == steps


def test_keras_alone_keeps_them():
    """If this fails, TensorFlow or Keras let go of them, and so need not we."""
    before = list_gradients()
    model = BinaryClassifierHyperModel(3, space=SPACE).build(keras_tuner.HyperParameters())
    model.fit(X, Y, verbose=0)
    new = list_gradients() - before
    assert new
    for name in new:
        del ops.gradient_registry._registry[name]


def test_model_of_a_trial_goes_on_training():
    model = run_trial(space=SPACE)
    before = model.get_weights()[0]
    losses = model.fit(X, Y, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert not np.array_equal(model.get_weights()[0], before)


def test_gradients_of_the_users_own_functions_stay():
    before = list_gradients()
    model = run_trial(backbone=lambda hp, inputs: Bend()(keras.layers.Dense(4)(inputs)))
    assert list_gradients() > before
    model.fit(X, Y, verbose=0)

    x = tf.constant([-1.0, 0.5])
    s = 1 / (1 + np.exp(-x.numpy()))
    expected = s * (1 + x.numpy() * (1 - s))

    @tf.function
    def differentiate(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = bend(x)
        return tape.gradient(y, x)

    np.testing.assert_allclose(differentiate(x), expected, rtol=1e-6)


@pytest.mark.parametrize("registry", [None, object()])
def test_other_registry_of_tensorflow_is_left_alone(registry, monkeypatch):
    monkeypatch.setattr(ops, "gradient_registry", registry)
    with memory.forgetting_steps():
        pass


def test_error_in_the_training_is_told():
    with pytest.raises(RuntimeError, match="mine"), memory.forgetting_steps():
        raise RuntimeError("mine")
