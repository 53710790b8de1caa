"""NaN and infinity in the rows of a search: found before the first trial, with row and column."""

import re

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from searching import COST, HELD_OUT, SPACE, TRAIN, Eager, X, Y, make_tuner

from keras_binclf.metrics import Criterion

NAN, INF = float("nan"), float("inf")


def spoil(array, place, value):
    array = np.array(array, "float64")
    array[place] = value
    return array


def make_arguments(name, place, value):
    """Arguments of a search of which one holds a value that is not finite."""
    x, y, weights = *TRAIN, np.ones(len(TRAIN[1]))
    held_out = [*HELD_OUT, np.ones(len(HELD_OUT[1]))]
    if name.startswith("validation"):
        which = int(name[-2])
        held_out[which] = spoil(held_out[which], place, value)
    given = {"x": x, "y": y, "sample_weight": weights}
    if name in given:
        given[name] = spoil(given[name], place, value)
    return {**given, "validation_data": tuple(held_out)}


@pytest.mark.parametrize(
    ("name", "place", "value", "where"),
    [
        ("x", (199, 1), NAN, r"nan in row 199, column 1; 1 of 200 rows has such"),
        ("x", (slice(50, 52), 2), -INF, r"-inf in row 50, column 2; 2 of 200 rows have such"),
        ("x", (7, 0), 1e39, r"1e\+39 in row 7, column 0"),
        ("y", 150, NAN, "nan in row 150; 1 of 200 rows has .* without a label"),
        ("sample_weight", 3, INF, "inf in row 3;.*finite weight"),
        ("validation_data[0]", (99, 0), NAN, "nan in row 99, column 0; 1 of 100"),
        ("validation_data[1]", 98, NAN, "nan in row 98; 1 of 100"),
        ("validation_data[2]", 97, NAN, "nan in row 97; 1 of 100"),
    ],
)
def test_preflight_and_the_first_trial_find_a_value_that_is_not_finite(name, place, value, where):
    hypermodel = Eager(3, space=SPACE)
    arguments = make_arguments(name, place, value)
    message = rf"`{re.escape(name)}` of .*\.fit must be finite in float32\. Received: {where}"
    with pytest.raises(ValueError, match=message):
        hypermodel.preflight(**arguments)
    hp = keras_tuner.HyperParameters()
    with pytest.raises(keras_tuner.errors.FatalError, match=message):
        hypermodel.fit(hp, hypermodel.build(hp), **arguments)


def test_search_stops_before_its_first_trial_trains(tmp_path):
    tuner = make_tuner(Eager(3, space=SPACE), tmp_path)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: seen.append(logs))
    with pytest.raises(ValueError, match="nan in row 5, column 0"):
        tuner.search(
            spoil(X, (5, 0), NAN), Y, validation_split=0.3, epochs=1, verbose=0, callbacks=[watch]
        )
    assert len(tuner.oracle.trials) == 1
    assert not seen


def test_column_of_a_frame_is_named():
    frame = pd.DataFrame(spoil(X, (299, 1), NAN), columns=["age", "income", "height"])
    with pytest.raises(ValueError, match=r"nan in row 299, column 'income'"):
        Eager(3, space=SPACE).preflight(frame, Y, validation_split=0.3)


def test_place_within_an_image_is_named():
    images = spoil(np.zeros((40, 4, 5, 1)), (30, 2, 3, 0), NAN)
    hypermodel = Eager((4, 5, 1), backbone=lambda hp, inputs: keras.layers.Flatten()(inputs))
    with pytest.raises(ValueError, match=r"nan in row 30, position \(2, 3, 0\)"):
        hypermodel.preflight(images, np.arange(40) % 2, folds=2)


def test_check_of_many_rows_goes_part_by_part(monkeypatch):
    from keras_binclf.tuner.trial import finite

    monkeypatch.setattr(finite, "CHUNK_SIZE", 10)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(57, 4))
    values[rng.random(values.shape) < 0.05] = NAN
    expected = np.flatnonzero(~np.isfinite(values).all(axis=1))
    np.testing.assert_array_equal(finite.find_rows(values), expected)
    assert len(finite.find_rows(np.ones((5, 3), "int64"))) == 0


@keras.saving.register_keras_serializable(package="tests")
class FillMissing(keras.layers.Layer):
    """A scaler that puts 0 for NaN, but leaves infinity."""

    def call(self, inputs):
        return keras.ops.where(keras.ops.isnan(inputs), 0.0, inputs)


def fill_in_backbone(hp, inputs):
    return keras.layers.Dense(hp.Choice("width", [4, 8]))(FillMissing()(inputs))


@pytest.mark.parametrize("part", [{"scaler": FillMissing()}, {"backbone": fill_in_backbone}])
def test_values_that_the_users_layers_replace_are_taken(part):
    hypermodel = Eager(3, **part)
    x = spoil(TRAIN[0], (slice(0, 20), 1), NAN)
    found = hypermodel.preflight(x, TRAIN[1], validation_data=HELD_OUT)
    assert "val_auc" in found.logs
    hp = keras_tuner.HyperParameters()
    history = hypermodel.fit(
        hp, hypermodel.build(hp), x, TRAIN[1], validation_data=HELD_OUT, epochs=1
    )
    assert np.isfinite(history.history["loss"]).all()
    with pytest.raises(ValueError, match=r"inf in row 4, column 0"):
        hypermodel.preflight(spoil(TRAIN[0], (4, 0), INF), TRAIN[1], validation_data=HELD_OUT)


def test_scaler_that_keeps_missing_values_is_no_help():
    scaler = keras.layers.Normalization()
    scaler.adapt(TRAIN[0])
    x = spoil(TRAIN[0], (9, 2), NAN)
    with pytest.raises(
        ValueError, match=r"nan in row 9, column 2.*give a `scaler` or a `backbone`"
    ):
        Eager(3, scaler=scaler, space=SPACE).preflight(x, TRAIN[1], validation_data=HELD_OUT)


class Batches(keras.utils.PyDataset):
    """Batches of 50 rows; with `endless` nobody says where they end."""

    def __init__(self, x, y, endless=False):
        super().__init__()
        self.x, self.y, self.endless = x, y, endless

    @property
    def num_batches(self):
        return None if self.endless else len(self.x) // 50

    def __getitem__(self, i):
        rows = slice(i % 4 * 50, (i % 4 + 1) * 50)
        return self.x[rows], self.y[rows]


def test_preflight_reads_data_sets_to_their_end():
    hypermodel = Eager(3, tune_batch_size=False, space={"class_weight": None})
    bad = Batches(spoil(TRAIN[0], (170, 1), NAN).astype("float32"), TRAIN[1])
    with pytest.raises(ValueError, match=r"`x of batch 3` of .*nan in row 20, column 1"):
        hypermodel.preflight(bad, validation_data=HELD_OUT)
    with pytest.raises(ValueError, match=r"`x of validation batch 3` of .*nan in row 20"):
        hypermodel.preflight(Batches(*TRAIN), validation_data=bad)
    with pytest.raises(ValueError, match=r"Received: `validation data set` of 200 rows, all with"):
        hypermodel.preflight(Batches(*TRAIN), validation_data=Batches(TRAIN[0], 0 * TRAIN[1]))
    found = hypermodel.preflight(Batches(*TRAIN), validation_data=Batches(*TRAIN))
    assert "val_auc" in found.logs


def test_data_set_without_known_length_is_read_in_part(monkeypatch):
    from keras_binclf.tuner.trial import batches

    monkeypatch.setattr(batches, "MAX_BATCHES", 4)
    hypermodel = Eager(3, tune_batch_size=False, space={"class_weight": None})
    good = Batches(*TRAIN, endless=True)
    assert hypermodel.preflight(good, validation_data=HELD_OUT).default_size > 0
    bad = Batches(spoil(TRAIN[0], (170, 1), NAN), TRAIN[1], endless=True)
    with pytest.raises(ValueError, match=r"`x of batch 3`"):
        hypermodel.preflight(bad, validation_data=HELD_OUT)


@pytest.mark.filterwarnings("ignore:ThresholdTuner did not set the threshold:UserWarning")
def test_data_set_that_makes_the_loss_nan_stops_the_search_with_its_place(tmp_path):
    hypermodel = Eager(3, tune_batch_size=False, space={"num_layers": 0, "class_weight": None})
    tuner = make_tuner(hypermodel, tmp_path)
    bad = Batches(spoil(TRAIN[0], (120, 2), NAN).astype("float32"), TRAIN[1])
    with pytest.raises(ValueError, match=r"`x of batch 2` of .*nan in row 20, column 2"):
        tuner.search(bad, validation_data=HELD_OUT, epochs=5, verbose=0)
    assert len(tuner.oracle.trials) == 1


class Break(keras.callbacks.Callback):
    """Makes the weights NaN after some epochs, as a learning rate that is too large does."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.after:
            self.model.set_weights([NAN * weight for weight in self.model.get_weights()])


def fit(hypermodel, **options):
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    options = {"validation_data": HELD_OUT, "epochs": 6, **options}
    return model, hypermodel.fit(hp, model, *TRAIN, **options)


@pytest.mark.filterwarnings("ignore:ThresholdTuner did not set the threshold:UserWarning")
def test_loss_that_becomes_nan_ends_the_trial_and_keeps_its_best_epoch():
    with pytest.warns(
        UserWarning, match=r"loss of a trial became NaN in epoch 3, .*The best epoch"
    ):
        model, history = fit(Eager(3, space={"num_layers": 0}), callbacks=[Break(2)])
    assert len(history.epoch) == 3
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.filterwarnings("ignore:ThresholdTuner did not set the threshold:UserWarning")
def test_trial_whose_loss_is_nan_from_the_start_blames_no_constraints():
    failed = keras_tuner.errors.FailedTrialError
    with pytest.raises(failed, match=r"became NaN in epoch 1, .*large learning rate") as raised:
        fit(Eager(3, score=COST, space={"num_layers": 0}), callbacks=[Break(0)])
    assert "constraint" not in str(raised.value)
    assert "min_" not in str(raised.value)


class BrokenLast(Eager):
    """The last model that a trial on two folds builds, the one for all rows, has NaN weights."""

    num_built = 0

    def build(self, hp):
        model = super().build(hp)
        self.num_built += 1
        if self.num_built == 4:
            model.set_weights([NAN * weight for weight in model.get_weights()])
        return model


def test_folds_whose_last_training_has_a_nan_loss_are_a_failed_trial():
    failed = keras_tuner.errors.FailedTrialError
    with pytest.raises(failed, match=r"The loss of a trial became NaN in epoch 1, "):
        fit(BrokenLast(3, space={"num_layers": 0}), validation_data=None, folds=2, epochs=1)


def test_loss_that_may_be_nan_is_the_same_number_otherwise():
    from keras_binclf.tuner.trial.nan_loss import allowing_nan_loss

    model = Eager(3, space={"num_layers": 0}).build(keras_tuner.HyperParameters())
    outputs = model.predict(TRAIN[0], verbose=0)

    def compute_loss():
        outputs_there = keras.ops.convert_to_tensor(outputs)
        return float(model.compute_loss(y=TRAIN[1][:, None], y_pred=outputs_there))

    expected = compute_loss()
    with allowing_nan_loss(model):
        assert compute_loss() == expected
        outputs[7] = NAN
        assert np.isnan(compute_loss())
    assert "compute_loss" not in vars(model)


@keras.saving.register_keras_serializable(package="tests")
class NoValue(keras.metrics.Mean):
    """A score that is never defined."""

    _direction = "up"

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(NAN * y_pred)


@pytest.mark.filterwarnings("ignore:ThresholdTuner did not set the threshold:UserWarning")
@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (Criterion("recall", min_precision=0.9), "satisfies `min_precision=0.9` on"),
        (NoValue(name="none"), r"any of 1 epochs\. The score has no value for the predictions"),
    ],
)
def test_objective_without_a_value_names_the_constraints_that_there_are(score, reason):
    # One prediction for all rows.
    held_out = (0 * X, np.arange(300) % 10 == 0)
    with pytest.raises(keras_tuner.errors.FailedTrialError, match=reason):
        fit(Eager(3, score=score, space={"num_layers": 0}), validation_data=held_out, epochs=1)


def test_class_weight_must_be_a_finite_number():
    with pytest.raises(ValueError, match=r"`class_weight\[1\]` of .* non-negative, finite float"):
        fit(Eager(3, space={"class_weight": None}), class_weight={0: 1.0, 1: NAN})


@pytest.mark.parametrize("cause", ["features", "scaler"])
def test_preflight_finds_a_step_whose_output_is_not_finite(cause):
    x, scaler = np.full_like(X, 3e38), None
    if cause == "scaler":
        x, scaler = X, keras.layers.Normalization(mean=[NAN, 0.0, 0.0], variance=[1.0, 1.0, 1.0])
    hypermodel = Eager(3, scaler=scaler, space=SPACE)
    with pytest.raises(ValueError, match=r"its (loss|output) is nan\. Look for very large numbers"):
        hypermodel.preflight(x, Y, validation_split=0.3)
