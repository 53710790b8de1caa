import copy

import keras
import numpy as np
import pytest
from keras import ops
from muon import needs_muon
from zoo import with_random_head

from keras_binclf import (
    BinaryHead,
    FeatureScaler,
    MLPBlock,
    binary_classifier,
    find_head,
    predict_labels,
)

X = np.random.default_rng(0).normal(30, 4, size=(64, 6)).astype("float32")
Y = (X[:, 0] > X[:, 1]).astype("float32")


def adapted():
    scaler = keras.layers.Normalization()
    scaler.adapt(X)
    return scaler


def test_is_a_plain_functional_model_of_named_layers():
    model = binary_classifier(6, scaler=adapted())
    assert type(model).__name__ == "Functional"
    assert [layer.name for layer in model.layers][::2] == ["features", "mlp_block"]
    assert model.layers[-1].name == "binary_head"
    assert model.name == "binary_classifier"


def test_is_the_same_network_as_its_parts():
    keras.utils.set_random_seed(1)
    ours = binary_classifier(6, hidden_units=(5, 3), normalization="layer", residual=True)
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    hidden = MLPBlock((5, 3), normalization="layer", residual=True)(inputs)
    theirs = keras.Model(inputs, BinaryHead()(hidden))
    with_random_head(ours)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_array_equal(ops.convert_to_numpy(ours(X)), ops.convert_to_numpy(theirs(X)))


def test_scaler_takes_raw_features_and_is_saved(tmp_path):
    model = with_random_head(binary_classifier(6, scaler=adapted()))
    by_hand = binary_classifier(6)
    by_hand.set_weights(model.get_weights()[-len(by_hand.weights) :])
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    # float32 mean and variance of 64 rows
    np.testing.assert_allclose(
        model.predict(X, verbose=0), by_hand.predict(scaled, verbose=0), atol=1e-5
    )
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))


def test_feature_scaler_fills_gaps_in_the_model(tmp_path):
    x = X.copy()
    x[::7, 2] = np.nan
    scaler = FeatureScaler()
    scaler.adapt(x)
    model = with_random_head(binary_classifier(6, scaler=scaler, compile=False))
    by_hand = binary_classifier(7, compile=False)
    by_hand.set_weights(model.get_weights()[-len(by_hand.weights) :])
    # The outputs are those of the layer alone, which has tests of its own.
    scaled = ops.convert_to_numpy(scaler(x))
    outputs = model.predict(x, verbose=0)
    np.testing.assert_allclose(outputs, by_hand.predict(scaled, verbose=0), atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), outputs)


def test_any_layer_scales():
    model = with_random_head(binary_classifier(6, scaler=keras.layers.Rescaling(1 / 30)))
    alone = binary_classifier(6)
    alone.set_weights(model.get_weights())
    np.testing.assert_allclose(
        model.predict(X, verbose=0), alone.predict(X / 30, verbose=0), atol=1e-6
    )


@pytest.mark.parametrize("activation_out", ["sigmoid", None])
def test_default_metrics_say_the_same_for_both_heads(activation_out):
    # Fast enough for scores to be apart by more than a bin.
    model = binary_classifier(
        6, scaler=adapted(), activation_out=activation_out, learning_rate=0.03
    )
    model.fit(X, Y, epochs=3, verbose=0)
    results = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert set(results) == {"loss", "accuracy", "auc", "pr_auc", "best_f1", "best_threshold"}
    labels = predict_labels(model, X)[:, 0]
    np.testing.assert_allclose(results["accuracy"], (labels == Y).mean(), rtol=1e-6)
    scores = model.predict(X, verbose=0)[:, 0]
    pairs = scores[Y == 1][:, None] - scores[Y == 0]
    exact = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    # Scores in one of 8192 bins count as ties.
    np.testing.assert_allclose(results["auc"], exact, atol=1e-3)


def test_loss_is_computed_from_what_the_head_emits():
    losses = {}
    for activation_out in ("sigmoid", None):
        keras.utils.set_random_seed(1)
        model = with_random_head(
            binary_classifier(6, scaler=adapted(), activation_out=activation_out)
        )
        losses[activation_out] = model.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(losses["sigmoid"], losses[None], rtol=1e-5)


def test_no_hidden_layer_is_logistic_regression():
    model = binary_classifier(6, hidden_units=None)
    assert model.count_params() == 6 + 1 + 1
    assert [type(layer).__name__ for layer in model.layers] == ["InputLayer", "BinaryHead"]


def test_prior_is_the_first_prediction():
    model = binary_classifier(6, prior=Y.mean(), scaler=adapted())
    # of every row, exactly but for float32
    np.testing.assert_allclose(model.predict(X, verbose=0), Y.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        ops.convert_to_numpy(find_head(model).bias), np.log(Y.mean() / (1 - Y.mean())), rtol=1e-5
    )


def test_optimizer_by_name_takes_the_learning_rate():
    model = binary_classifier(6, optimizer="adamw", learning_rate=0.02)
    assert isinstance(model.optimizer, keras.optimizers.AdamW)
    np.testing.assert_allclose(float(ops.convert_to_numpy(model.optimizer.learning_rate)), 0.02)


def test_optimizer_keeps_its_own_learning_rate():
    optimizer = keras.optimizers.SGD(0.5)
    assert binary_classifier(6, optimizer=optimizer).optimizer is optimizer


def test_optimizer_may_be_a_serialized_config_which_stays_as_it_is():
    config = keras.saving.serialize_keras_object(keras.optimizers.AdamW(0.03))
    before = copy.deepcopy(config)
    optimizer = binary_classifier(6, optimizer=config).optimizer
    assert isinstance(optimizer, keras.optimizers.AdamW)
    np.testing.assert_allclose(float(ops.convert_to_numpy(optimizer.learning_rate)), 0.03)
    assert config == before


def test_learning_rate_may_be_a_schedule():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    model = binary_classifier(6, learning_rate=schedule)
    model.fit(X, Y, epochs=1, verbose=0)


def step_of_head(model):
    """Return the sizes of the changes of the head's kernel, which starts from zeros, in a step."""
    model.train_on_batch(X, Y)
    return np.abs(ops.convert_to_numpy(find_head(model).kernel))


@needs_muon
@pytest.mark.parametrize("by_name", [True, False])
def test_muon_updates_the_head_as_adamw_does(by_name):
    muon = keras.optimizers.Muon(0.01, exclude_layers=["binary_head"])
    options = {"optimizer": "muon", "learning_rate": 0.01} if by_name else {"optimizer": muon}
    model = binary_classifier(6, metrics=None, scaler=adapted(), **options)
    # The first step of Adam is as long for each weight, but for epsilon.
    np.testing.assert_allclose(step_of_head(model), 0.01, rtol=0.01)


@needs_muon
def test_muon_that_would_update_the_head_is_refused():
    """Keras takes every matrix for a hidden layer's unless its path says otherwise."""
    optimizers = keras.optimizers
    for optimizer in (optimizers.Muon(), optimizers.LossScaleOptimizer(optimizers.Muon())):
        with pytest.raises(ValueError, match=r"Give it `exclude_layers=\['binary_head'\]`"):
            binary_classifier(6, optimizer=optimizer)
    model = binary_classifier(6, scaler=adapted(), compile=False)
    model.compile(optimizers.Muon(0.01), loss="binary_crossentropy", jit_compile=False)
    assert np.ptp(step_of_head(model)) > 0.001


def test_compile_false_leaves_it_uncompiled():
    assert not binary_classifier(6, compile=False).compiled


@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
def test_metrics_are_passed_on(metrics):
    model = binary_classifier(6, metrics=metrics)
    results = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert set(results) == {"loss", *(metrics or [])}


def test_sequences_give_one_output_a_step():
    assert binary_classifier((7, 6)).output_shape == (None, 7, 1)


@pytest.mark.parametrize("hidden_units", [(64, 32), None])
def test_untrained_classifier_gives_every_row_the_prior(hidden_units):
    model = binary_classifier(6, hidden_units=hidden_units, prior=0.03, metrics=None)
    np.testing.assert_allclose(model.predict(X, verbose=0), 0.03, rtol=1e-6)
    before = [variable.numpy() for variable in model.trainable_variables]
    model.fit(X / 100, Y, batch_size=16, verbose=0)
    after = [variable.numpy() for variable in model.trainable_variables]
    # From the second step on, hidden layers learn through a head that is no longer zero.
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
