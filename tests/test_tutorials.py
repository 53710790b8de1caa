"""The networks that tutorials start from, as facts."""

import itertools

import keras
import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from keras_binclf import BinaryHead, MLPBlock, binary_classifier, predict_labels


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


@pytest.mark.parametrize(
    ("features", "hidden_units", "parameters"),
    [(3, (4,), 21), (10, (16, 8), 321), (20, (64, 32), 3457), (4, None, 5)],
)
def test_a_layer_of_n_neurons_on_m_inputs_has_n_times_m_plus_one_weights(
    features, hidden_units, parameters
):
    widths = [features, *(hidden_units or ()), 1]
    by_hand = sum(n * (m + 1) for m, n in itertools.pairwise(widths))
    model = binary_classifier(features, hidden_units=hidden_units)
    assert count(model.trainable_weights) == by_hand == parameters
    # the threshold
    assert count(model.non_trainable_weights) == 1


def test_64_32_net_reaches_the_accuracy_of_the_tutorial():
    x, y = make_classification(n_samples=1000, n_features=20, random_state=42)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=42)
    mean, deviation = x_train.mean(axis=0), x_train.std(axis=0)
    model = binary_classifier(20, hidden_units=(64, 32), dropout_rate=0.3, metrics=None)
    model.fit((x_train - mean) / deviation, y_train, epochs=50, batch_size=32, verbose=0)
    labels = predict_labels(model, (x_test - mean) / deviation)[:, 0]
    assert 0.80 <= (labels == y_test).mean() <= 0.90


def test_one_neuron_is_logistic_regression():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(300, 3))
    y = rng.random(300) < 1 / (1 + np.exp(-(x @ [1.0, -2.0, 0.5] + 0.3)))
    exact = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky").fit(x, y)

    head = BinaryHead()
    model = keras.Sequential([keras.Input((3,)), head])
    schedule = keras.optimizers.schedules.CosineDecay(0.2, 500)
    model.compile(keras.optimizers.Adam(schedule), loss=head.loss())
    # 500 steps on all rows, in one epoch.
    model.fit(np.tile(x, (500, 1)), np.tile(y, 500), batch_size=300, shuffle=False, verbose=0)

    expected = exact.predict_proba(x)[:, 1:]
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-3)
    np.testing.assert_array_equal(predict_labels(model, x)[:, 0], exact.predict(x))


def test_three_four_one_computes_what_its_weights_say():
    model = keras.Sequential([keras.Input((3,)), MLPBlock(4), BinaryHead()])
    kernel = np.array([[1, 0, 0, -1], [0, 1, 0, -1], [0, 0, 1, -1]], "float32")
    model.layers[0].set_weights([kernel, np.zeros(4)])
    model.layers[1].set_weights(
        [np.array([[1.0], [1.0], [1.0], [-1.0]]), np.array([0.5]), np.array(0.5)]
    )
    # relu([1, 2, 3, -6]) sums to 6, relu([-1, -2, -3, 6]) to -6
    expected = 1 / (1 + np.exp(-np.array([[6.5], [-5.5]])))
    outputs = model.predict(np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]]), verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)
