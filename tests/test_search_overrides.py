"""Arguments of a tuner with which Keras Tuner compiles each model anew."""

import keras
import keras_tuner
import numpy as np
import pytest
from searching import HELD_OUT, SPACE, TRAIN, Eager, X, Y, make_tuner, once, search

from keras_binclf import BinaryClassifierHyperModel, build_best, find_head, results_dataframe

FIXED = {**SPACE, "optimizer": "adam", "learning_rate": 0.01, "label_smoothing": 0.0}


@pytest.mark.parametrize(
    "metrics",
    [["mse", "accuracy"], [keras.metrics.mean_absolute_error, keras.metrics.Recall(name="recall")]],
    ids=["names", "objects"],
)
def test_metrics_of_the_tuner_are_logged_beside_ours(tmp_path, metrics):
    tuner = make_tuner(Eager(3, space=FIXED), tmp_path, max_trials=1, metrics=metrics)
    search(tuner)
    row = results_dataframe(tuner).iloc[0]
    assert row["val_auc"] == row["score"]
    model = build_best(tuner)
    assert find_head(model).threshold == pytest.approx(row["val_best_threshold"])
    predicted = model.predict(HELD_OUT[0], verbose=0)[:, 0]
    expected = {
        "mse": np.mean((predicted - HELD_OUT[1]) ** 2),
        "accuracy": np.mean((predicted > 0.5) == HELD_OUT[1]),
        "mean_absolute_error": np.mean(abs(predicted - HELD_OUT[1])),
        "recall": np.mean(predicted[HELD_OUT[1] == 1] > 0.5),
    }
    for metric in metrics:
        name = metric if isinstance(metric, str) else getattr(metric, "name", "mean_absolute_error")
        assert row[f"val_{name}"] == pytest.approx(expected[name], abs=1e-5)


@once
def test_metric_of_the_tuner_can_be_the_objective(tmp_path):
    objective = keras_tuner.Objective("val_mse", "min")
    options = {"max_trials": 1, "metrics": ["mse"], "objective": objective}
    tuner = make_tuner(Eager(3, space=FIXED), tmp_path, **options)
    found = tuner.hypermodel.preflight(*TRAIN, validation_data=HELD_OUT, tuner=tuner)
    assert {"val_mse", "val_auc"} <= set(found.logs)
    table = results_dataframe(search(tuner))
    assert table["score"][0] == table["val_mse"][0]


def test_loss_of_the_tuner_is_trained_for(tmp_path):
    tuner = make_tuner(Eager(3, space=FIXED), tmp_path, max_trials=1, loss="mse")
    row = results_dataframe(search(tuner)).iloc[0]
    predicted = build_best(tuner).predict(HELD_OUT[0], verbose=0)[:, 0]
    assert row["val_loss"] == pytest.approx(np.mean((predicted - HELD_OUT[1]) ** 2), abs=1e-5)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_optimizer_of_the_tuner_trains_each_trial(tmp_path):
    rates = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            optimizer = self.model.optimizer
            rates.append((type(optimizer).__name__, round(float(optimizer.learning_rate), 5)))

    optimizer = keras.optimizers.SGD(0.125)
    tuner = make_tuner(Eager(3, space=FIXED), tmp_path, max_trials=1, optimizer=optimizer)
    tuner.search(X, Y, folds=2, epochs=1, verbose=0, callbacks=[Look()])
    # The user's callbacks see the trainings on the folds.
    assert rates == [("SGD", 0.125)] * 2
    assert isinstance(build_best(tuner).optimizer, keras.optimizers.SGD)


def test_folds_use_loss_and_metrics_of_the_tuner(tmp_path):
    options = {"max_trials": 1, "loss": "mse", "metrics": ["mae"]}
    tuner = make_tuner(Eager(3, space=FIXED), tmp_path, **options)
    tuner.search(X, Y, folds=2, epochs=1, verbose=0)
    row = results_dataframe(tuner).iloc[0]
    assert 0 < row["val_loss"] < 0.5  # a squared error of probabilities
    assert row["val_auc"] == row["score"]


@once
def test_hyperparameters_that_the_tuner_replaces_are_named(tmp_path):
    hypermodel = Eager(3, space=SPACE)
    tuner = make_tuner(hypermodel, tmp_path, loss="mse", optimizer="rmsprop")
    with pytest.warns(UserWarning, match="has no effect") as warned:
        hypermodel.preflight(*TRAIN, validation_data=HELD_OUT, tuner=tuner)
    texts = [str(warning.message) for warning in warned]
    assert any("`label_smoothing` has no effect" in text for text in texts)
    assert any("`optimizer`, `learning_rate`, `weight_decay` has no" in text for text in texts)
    fixed = Eager(3, space=FIXED)
    tuner = make_tuner(fixed, tmp_path, loss="mse", optimizer="rmsprop")
    assert fixed.preflight(*TRAIN, validation_data=HELD_OUT, tuner=tuner).default_size > 0


@once
@pytest.mark.parametrize(
    "option",
    [
        {"loss": keras.losses.BinaryCrossentropy(from_logits=True)},
        {"metrics": [keras.metrics.AUC(from_logits=True)]},
    ],
    ids=["loss", "metrics"],
)
def test_tuner_that_reads_logits_is_refused(tmp_path, option):
    hypermodel = Eager(3, space=FIXED)
    tuner = make_tuner(hypermodel, tmp_path, **option)
    with pytest.raises(ValueError, match=r"must read probabilities.*`from_logits=True`"):
        hypermodel.preflight(*TRAIN, validation_data=HELD_OUT, tuner=tuner)
    with pytest.raises(ValueError, match="must read probabilities"):
        search(tuner)


@once
def test_strategy_of_the_tuner_distributes_trials(tmp_path):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    options = {"max_trials": 1, "metrics": ["mse"], "distribution_strategy": strategy}
    tuner = make_tuner(BinaryClassifierHyperModel(3, space=FIXED), tmp_path, **options)
    row = results_dataframe(search(tuner)).iloc[0]
    assert np.isfinite(row["val_mse"])
