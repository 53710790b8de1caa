"""One trial's training, against plain `keras.Model.fit` and scikit-learn."""

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from keras_binclf import BinaryClassifierHyperModel, ThresholdMetric, find_head
from keras_binclf.tuner.trial.folds import make_folds
from keras_binclf.tuner.trial.training import RankUndefinedLast

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype("float32")
Y = (X[:, 0] + RNG.normal(size=300) > 1).astype("float32")
TRAIN, HELD_OUT = (X[:200], Y[:200]), (X[200:], Y[200:])
SMALL = {"hidden_units": (4,), "batch_size": 50}


class PyDataset(keras.utils.PyDataset):
    def __init__(self, x, y, size=50):
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, i):
        rows = slice(i * self.size, (i + 1) * self.size)
        return self.x[rows], self.y[rows]


def tf_dataset(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(50)


class Eager(BinaryClassifierHyperModel):
    """Its models are not compiled by the backend, which takes longer than these trainings."""

    def build(self, hp):
        model = super().build(hp)
        model.run_eagerly = True
        return model


def build(hypermodel):
    """A model of the default point, with the same weights each time."""
    keras.utils.set_random_seed(7)
    hp = keras_tuner.HyperParameters()
    return hp, hypermodel.build(hp)


def weights_of(model):
    return [np.array(weight) for weight in model.get_weights()]


def assert_same_training(model, peer):
    """All but the threshold, which only one of them tunes."""
    for ours, theirs in zip(model.trainable_weights, peer.trainable_weights, strict=True):
        ours, theirs = map(keras.ops.convert_to_numpy, (ours, theirs))
        # Several steps in one compiled function are added up in another order.
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def fit_plainly(hypermodel, **options):
    _, peer = build(hypermodel)
    peer.fit(*TRAIN, batch_size=50, epochs=2, shuffle=False, verbose=0, **options)
    return peer


def test_trial_trains_as_the_model_itself_would():
    hypermodel = BinaryClassifierHyperModel(3, space=SMALL)
    hp, model = build(hypermodel)
    history = hypermodel.fit(
        hp, model, *TRAIN, validation_data=HELD_OUT, epochs=2, patience=None, shuffle=False
    )
    assert_same_training(model, fit_plainly(hypermodel))
    assert len(history.epoch) == 2
    assert model.steps_per_execution == 1
    seconds = history.history["fit_seconds"]
    assert seconds[0] == seconds[1] > 0


def data_loader(x, y):
    torch = pytest.importorskip("torch")
    rows = torch.utils.data.TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
    return torch.utils.data.DataLoader(rows, batch_size=50)


@pytest.mark.parametrize("make", [PyDataset, tf_dataset, data_loader])
def test_data_sets_train_as_arrays_do(make):
    space = {"hidden_units": (4,), "class_weight": None}
    hypermodel = BinaryClassifierHyperModel(3, space=space, tune_batch_size=False)
    hp, model = build(hypermodel)
    history = hypermodel.fit(
        hp,
        model,
        make(*TRAIN),
        validation_data=make(*HELD_OUT),
        epochs=2,
        patience=None,
        shuffle=False,
    )
    assert_same_training(model, fit_plainly(hypermodel))
    assert find_head(model).threshold == pytest.approx(history.history["val_best_threshold"][-1])


@pytest.mark.parametrize("kind", ["arrays", "weighted arrays", "data set", "data set, prior"])
def test_balanced_classes_count_alike(kind):
    prior = 0.1 if kind.endswith("prior") else None
    space = {**SMALL, "class_weight": "balanced"}
    tune = kind.endswith("arrays")
    space = space if tune else {k: v for k, v in space.items() if k != "batch_size"}
    hypermodel = Eager(3, prior=prior, space=space, tune_batch_size=tune)
    hp, model = build(hypermodel)
    own = np.where(X[:200, 1] > 0, 3.0, 1.0) if kind.startswith("weighted") else np.ones(200)
    data = TRAIN if tune else (PyDataset(*TRAIN),)
    given = {"sample_weight": own} if kind.startswith("weighted") else {}
    hypermodel.fit(
        hp,
        model,
        *data,
        validation_data=HELD_OUT,
        epochs=2,
        patience=None,
        shuffle=False,
        **given,
    )
    share = 0.1 if prior else np.average(TRAIN[1], weights=own)
    weights = own * np.where(TRAIN[1] == 1, 0.5 / share, 0.5 / (1 - share))
    assert_same_training(model, fit_plainly(hypermodel, sample_weight=weights))


def test_class_weights_of_the_caller_are_used_where_they_are_not_searched():
    hypermodel = Eager(3, space={**SMALL, "class_weight": None})
    hp, model = build(hypermodel)
    options = {"epochs": 2, "patience": None, "shuffle": False}
    class_weight = {0: 1.0, 1: 5.0}
    hypermodel.fit(
        hp, model, *TRAIN, validation_data=HELD_OUT, class_weight=class_weight, **options
    )
    assert_same_training(model, fit_plainly(hypermodel, class_weight=class_weight))


def test_training_stops_and_the_best_epoch_stays():
    hypermodel = BinaryClassifierHyperModel(3, space={**SMALL, "learning_rate": 0.05})
    hp, model = build(hypermodel)
    history = hypermodel.fit(hp, model, *TRAIN, validation_data=HELD_OUT, patience=2)
    values = history.history["val_auc"]
    best = int(np.argmax(values))
    assert len(values) == best + 3 < 100
    assert find_head(model).threshold == pytest.approx(history.history["val_best_threshold"][best])
    predicted = model.predict(HELD_OUT[0], verbose=0)[:, 0]
    # The metric counts in bins, and 100 rows have about 2,000 pairs: a few share one.
    assert roc_auc_score(HELD_OUT[1], predicted) == pytest.approx(values[best], abs=3e-3)


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "options", "expected"),
    [
        (200, 64, {}, 25),  # 4 steps an epoch
        (60, 64, {}, 100),
        (200, 10, {}, 10),
        (60, 64, {"patience": 7}, 7),
        (60, 64, {"patience": None}, None),
    ],
)
def test_patience_is_at_least_as_many_steps(monkeypatch, num_rows, batch_size, options, expected):
    seen = []
    begin = keras.callbacks.EarlyStopping.on_train_begin

    def look(self, logs=None):
        seen.append(self.patience)
        begin(self, logs)

    monkeypatch.setattr(keras.callbacks.EarlyStopping, "on_train_begin", look)
    hypermodel = Eager(3, space={**SMALL, "epochs": 1, "batch_size": batch_size})
    hp, model = build(hypermodel)
    rows = X[:num_rows], Y[:num_rows]
    hypermodel.fit(hp, model, *rows, validation_data=HELD_OUT, **options)
    assert seen == ([] if expected is None else [expected])


def test_early_stopping_of_the_user_replaces_ours():
    hypermodel = Eager(3, space={**SMALL, "epochs": 3})
    hp, model = build(hypermodel)
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=50)
    history = hypermodel.fit(
        hp, model, *TRAIN, validation_split=0.3, patience=1, callbacks=[stopping]
    )
    assert len(history.epoch) == 3


class Steps(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1


def test_callbacks_that_look_at_each_step_see_each_step():
    hypermodel = Eager(3, space=SMALL)
    hp, model = build(hypermodel)
    steps = Steps()
    hypermodel.fit(hp, model, *TRAIN, validation_data=HELD_OUT, epochs=2, callbacks=[steps])
    assert steps.count == 2 * 4


class Recording(Eager):
    """Keeps the models that it built, for the test to look at."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.models = []

    def build(self, hp):
        self.models.append(super().build(hp))
        return self.models[-1]


def best_f1(y, p):
    return max(f1_score(y, p > t) for t in np.unique(p))


@pytest.mark.parametrize("folds", [3, "pairs"])
def test_folds_score_what_each_model_has_not_seen(folds):
    rows = np.random.default_rng(1).permutation(300)
    parts = np.array_split(rows, 3)
    pairs = [(np.setdiff1d(rows, part), part) for part in parts]
    given = pairs if folds == "pairs" else folds
    hypermodel = Recording(3, space={**SMALL, "learning_rate": 0.02}, score="best_f1")
    hp, model = build(hypermodel)
    seen = Steps()
    logs = hypermodel.fit(hp, model, X, Y, folds=given, epochs=2, callbacks=[seen])
    assert seen.count > 0
    assert hypermodel.models[0] is model
    predicted = np.full(300, np.nan)
    used = pairs if folds == "pairs" else make_folds(3, Y)
    for fold_model, (train, held_out) in zip(hypermodel.models[1:4], used, strict=True):
        assert not set(train) & set(held_out)
        predicted[held_out] = fold_model.predict(X[held_out], verbose=0)[:, 0]
    assert not np.isnan(predicted).any()
    # The metrics count in bins of the logit.
    assert logs["val_auc"] == pytest.approx(roc_auc_score(Y, predicted), abs=5e-3)
    assert logs["val_best_f1"] == pytest.approx(best_f1(Y, predicted), abs=5e-3)
    threshold = find_head(model).threshold
    assert threshold == pytest.approx(logs["val_best_threshold"])
    assert f1_score(Y, predicted > threshold) == pytest.approx(logs["val_best_f1"], abs=5e-3)
    assert 1 <= logs["epochs"] <= 2
    assert logs["fit_seconds"] > 0
    # The trial's model saw all rows, from weights of its own.
    assert not np.allclose(model.predict(X, verbose=0)[:, 0], predicted)


def test_folds_weigh_rows_in_training_and_in_the_score():
    # Without the positives that look like negatives, the scores are much better.
    weights = np.where((Y == 1) & (X[:, 0] < 0.5), 0.0, 1.0).astype("float32")
    hypermodel = Recording(3, space={**SMALL, "learning_rate": 0.05})
    hp, model = build(hypermodel)
    logs = hypermodel.fit(hp, model, X, Y, sample_weight=weights, folds=2, epochs=4)
    predicted = np.empty(300)
    for fold_model, (_, held_out) in zip(hypermodel.models[1:3], make_folds(2, Y), strict=True):
        predicted[held_out] = fold_model.predict(X[held_out], verbose=0)[:, 0]
    expected = roc_auc_score(Y, predicted, sample_weight=weights)
    assert logs["val_auc"] == pytest.approx(expected, abs=1e-2)
    assert abs(expected - roc_auc_score(Y, predicted)) > 0.05


def test_folds_start_anew_where_hyperband_goes_on():
    hypermodel = Eager(3, space=SMALL)
    hp, model = build(hypermodel)
    seen = Steps()
    options = {"epochs": 3, "initial_epoch": 2, "patience": None, "callbacks": [seen]}
    hypermodel.fit(hp, model, X, Y, folds=2, **options)
    # 150 rows are three batches of 50.
    assert seen.count == 2 * 3 * 3


def test_folds_are_stratified_and_hold_out_each_row_once():
    y = np.r_[np.ones(11), np.zeros(90)]
    folds = make_folds(5, y)
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(101))
    assert {int(y[held_out].sum()) for _, held_out in folds} == {2, 3}
    assert {len(held_out) for _, held_out in folds} == {20, 21}


def test_undefined_objective_ranks_last():
    """Keras's EarlyStopping would take the NaN for the best, and stop two epochs later."""
    _, model = build(BinaryClassifierHyperModel(3, space=SMALL))
    stopping = keras.callbacks.EarlyStopping("val_best_precision", mode="max", patience=2)
    history = keras.callbacks.History()
    callbacks = keras.callbacks.CallbackList(
        [RankUndefinedLast("val_best_precision", "max"), stopping, history], model=model
    )
    callbacks.on_train_begin()
    for epoch, value in enumerate([np.nan, 0.2, 0.3, np.nan, 0.4]):
        callbacks.on_epoch_end(epoch, {"val_best_precision": value})
        assert not model.stop_training
    assert history.history["val_best_precision"] == [-np.inf, 0.2, 0.3, -np.inf, 0.4]
    assert stopping.best == 0.4


def test_undefined_cost_ranks_last_too():
    logs = {"val_cost": float("nan")}
    RankUndefinedLast("val_cost", "min").on_epoch_end(0, logs)
    assert logs["val_cost"] == np.inf


FATAL = keras_tuner.errors.FatalError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": X, "y": Y + 1, "validation_split": 0.3}, r"must be 0 and 1\. Received: 1\.0, 2\.0"),
        ({"x": X, "y": Y}, "needs validation rows"),
        ({"x": X[:, :2], "y": Y, "validation_split": 0.3}, r"shape \(n, 3\)"),
        ({"x": X, "y": Y[:-1], "validation_split": 0.3}, "300 rows, 299 labels"),
        ({"x": X, "y": Y, "validation_data": (X[:5], np.zeros(5))}, "all with label 0"),
        ({"x": X[:5], "y": np.ones(5), "validation_data": HELD_OUT}, "all with label 1"),
        ({"x": X, "y": Y, "validation_split": 0.3, "batch_size": 8}, "hypermodel chooses it"),
        ({"x": X, "y": Y, "validation_split": 0.3, "class_weight": {0: 1, 1: 2}}, "chooses it"),
        ({"x": PyDataset(X, Y), "validation_data": HELD_OUT}, "tune_batch_size=False"),
        ({"x": X.astype("U"), "y": Y, "validation_split": 0.3}, "`x` of .*fit must be numbers"),
        ({"x": (row for row in X), "validation_data": HELD_OUT}, "a generator ends with the first"),
        ({"x": X, "y": Y, "folds": 400}, "at most the number of rows"),
        ({"x": X, "y": Y, "folds": 3, "validation_data": HELD_OUT}, "left out beside"),
        ({"x": X, "y": Y, "validation_split": 0.3, "patience": 0}, "at least 1"),
        ({"x": X, "y": Y, "validation_split": 0.3, "patience": "long"}, '"auto", an int of at'),
    ],
)
def test_what_no_trial_could_do_with_stops_the_search(options, message):
    hypermodel = BinaryClassifierHyperModel(3)
    hp, model = build(hypermodel)
    before = weights_of(model)
    with pytest.raises(FATAL, match=message):
        hypermodel.fit(hp, model, **options)
    for now, then in zip(weights_of(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_objective_that_is_not_in_the_logs_stops_the_search_after_an_epoch():
    class Other(Eager):
        objective = keras_tuner.Objective("val_recall", "max")

    hypermodel = Other(3, space=SMALL)
    hp, model = build(hypermodel)
    with pytest.raises(FATAL, match=r"one of the logs \(accuracy, .*named 'val_recall'"):
        hypermodel.fit(hp, model, *TRAIN, validation_data=HELD_OUT)


def test_score_with_constraints_is_trained_for():
    score = ThresholdMetric("precision", "best", min_recall=0.5)
    hypermodel = Eager(3, score=score, space={**SMALL, "epochs": 2})
    hp, model = build(hypermodel)
    history = hypermodel.fit(hp, model, *TRAIN, validation_data=HELD_OUT)
    labels = model.predict(HELD_OUT[0], verbose=0)[:, 0] > find_head(model).threshold
    best = max(history.history["val_best_precision"])
    assert HELD_OUT[1][labels].mean() == pytest.approx(best, abs=1e-3)
    assert labels[HELD_OUT[1] == 1].mean() >= 0.5


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX keeps what it compiled")
def test_every_fifth_trial_jax_forgets_what_it_compiled(monkeypatch):
    import jax

    forgotten = []
    monkeypatch.setattr(jax, "clear_caches", lambda: forgotten.append(True))
    hypermodel = Eager(3, space=SMALL)
    for i in range(1, 11):
        hp = keras_tuner.HyperParameters()
        hypermodel.fit(hp, hypermodel.build(hp), *TRAIN, validation_data=HELD_OUT, epochs=1)
        assert len(forgotten) == i // 5
