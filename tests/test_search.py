"""Whole searches with Keras Tuner: what they leave, how they go on, how they fail."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest

from keras_binclf import (
    BinaryClassifierHyperModel,
    ThresholdMetric,
    build_best,
    find_head,
    predict_labels,
    results_dataframe,
)

# Files, processes and Keras Tuner's own book-keeping know nothing of the backend.
once = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the same on each backend, run on TensorFlow"
)
ELSEWHERE = Path(__file__).parent / "search_elsewhere.py"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype("float32")
Y = (X[:, 0] + RNG.normal(size=300) > 1).astype("float32")
TRAIN, HELD_OUT = (X[:200], Y[:200]), (X[200:], Y[200:])
# Few and small models: the search is what is tested.
SPACE = {"num_layers": {"max_value": 1}, "units": [4, 8], "batch_size": [64, 128]}
COST = ThresholdMetric("cost", "best", cost_fp=1, cost_fn=5)


class Eager(BinaryClassifierHyperModel):
    """Its models are not compiled by the backend, which takes longer than these trials."""

    def build(self, hp):
        model = super().build(hp)
        model.run_eagerly = True
        return model


def make_tuner(hypermodel, folder, kind="RandomSearch", **options):
    options = {"objective": hypermodel.objective, **options}
    if kind != "Hyperband":
        options.setdefault("max_trials", 2)
    return getattr(keras_tuner, kind)(
        hypermodel,
        directory=str(folder),
        project_name=options.pop("project_name", hypermodel.project_name),
        **options,
    )


def search(tuner, **options):
    options = {"verbose": 0, "epochs": 2, "validation_data": HELD_OUT, **options}
    tuner.search(*TRAIN, **options)
    return tuner


@pytest.mark.parametrize(
    ("kind", "score", "options"),
    [
        ("RandomSearch", "best_f1", {}),
        ("BayesianOptimization", COST, {"num_initial_points": 1}),
        ("GridSearch", "brier_score", {"executions_per_trial": 2}),
        ("Hyperband", COST, {"max_epochs": 3}),
    ],
    ids=["RandomSearch", "BayesianOptimization", "GridSearch", "Hyperband"],
)
def test_best_model_is_that_of_the_best_trial(tmp_path, kind, score, options):
    hypermodel = BinaryClassifierHyperModel(3, score=score, space=SPACE)
    tuner = make_tuner(hypermodel, tmp_path, kind, **options)
    if kind == "Hyperband":
        tuner.search(*TRAIN, validation_data=HELD_OUT, verbose=0)
    else:
        search(tuner)
    table = results_dataframe(tuner)
    assert (table["status"] == "COMPLETED").all()
    values = table["score"]
    up = hypermodel.objective.direction == "max"
    assert values[0] == (values.max() if up else values.min())
    name = hypermodel.objective.name
    np.testing.assert_array_equal(values, table[name])
    model = build_best(tuner, tmp_path / "best.keras")
    measured = model.evaluate(*HELD_OUT, verbose=0, return_dict=True)
    if kind == "GridSearch":
        # The score is the mean of two executions, and the model the better one.
        assert measured[name.removeprefix("val_")] <= values[0] + 1e-6
        return
    # Other batches are added up in another order.
    assert measured[name.removeprefix("val_")] == pytest.approx(values[0], abs=1e-5)
    threshold = find_head(model).threshold
    assert threshold == pytest.approx(table["val_best_threshold"][0])
    again = keras.models.load_model(tmp_path / "best.keras")
    assert find_head(again).threshold == threshold
    np.testing.assert_array_equal(predict_labels(again, X), predict_labels(model, X))


def run_elsewhere(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(ELSEWHERE), *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, timeout=240):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def test_best_model_serves_in_a_fresh_process(tmp_path):
    scaler = keras.layers.Normalization()
    scaler.adapt(TRAIN[0])
    hypermodel = BinaryClassifierHyperModel(3, scaler=scaler, prior=0.2, space=SPACE)
    tuner = search(make_tuner(hypermodel, tmp_path, max_trials=1))
    model = build_best(tuner, tmp_path / "best.keras")
    np.save(tmp_path / "rows.npy", X)
    code = (
        "import keras, keras_binclf, numpy as np\n"
        f"model = keras.models.load_model(r'{tmp_path / 'best.keras'}')\n"
        f"rows = np.load(r'{tmp_path / 'rows.npy'}')\n"
        f"np.save(r'{tmp_path / 'labels.npy'}', keras_binclf.predict_labels(model, rows))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), predict_labels(model, X))


@once
def test_results_have_a_row_for_each_trial_and_a_column_for_what_it_had(tmp_path):
    space = {**SPACE, "optimizer": "adamw"}
    tuner = search(make_tuner(Eager(3, space=space), tmp_path, max_trials=3, seed=5))
    table = results_dataframe(tuner)
    assert list(table.columns[:4]) == ["trial", "status", "score", "best_epoch"]
    assert sorted(table["trial"]) == ["0", "1", "2"]
    assert table["score"].is_monotonic_decreasing
    for _, row in table.iterrows():
        trial = tuner.oracle.trials[row["trial"]]
        for name, value in trial.hyperparameters.values.items():
            assert row[name] == value
        assert row["units"] == row["units"] if row["num_layers"] else np.isnan(row["units"])
        assert row["val_auc"] == trial.metrics.get_best_value("val_auc") == row["score"]
        assert row["fit_seconds"] > 0
        assert row["best_epoch"] in (0, 1)


class Exploding(keras.callbacks.Callback):
    """Fails each training, or those of some trials."""

    def __init__(self, error, times=99):
        super().__init__()
        self.error, self.left = error, times

    def __deepcopy__(self, memo):
        return self

    def on_train_begin(self, logs=None):
        if self.left:
            self.left -= 1
            raise self.error


@once
@pytest.mark.parametrize("max_trials", [1, 2])
def test_search_without_a_completed_trial_raises(tmp_path, max_trials):
    """Keras Tuner raises after three failures in a row; a shorter search would end in silence."""
    tuner = make_tuner(Eager(3, space=SPACE), tmp_path, max_trials=max_trials)
    with pytest.raises(RuntimeError, match=r"No trial of the search was completed.*out of memory"):
        search(tuner, callbacks=[Exploding(MemoryError("out of memory"))])
    with pytest.raises(RuntimeError, match=r"No trial of the search was completed"):
        build_best(tuner)


@once
def test_search_goes_on_after_a_failed_trial(tmp_path):
    tuner = make_tuner(Eager(3, space=SPACE), tmp_path)
    search(tuner, callbacks=[Exploding(MemoryError("out of memory"), times=1)])
    table = results_dataframe(tuner)
    assert list(table["status"]) == ["COMPLETED", "FAILED"]
    assert np.isnan(table["score"][1])
    build_best(tuner)


@once
@pytest.mark.filterwarnings("ignore:`val_best_threshold` is NaN:UserWarning")
@pytest.mark.parametrize("options", [{"validation_data": (0 * X, Y)}, {"folds": 2}])
def test_trial_whose_objective_is_never_defined_fails(tmp_path, options):
    """It would be ranked with a score of minus infinity, and have no model to load."""
    score = ThresholdMetric("recall", "best", min_precision=0.9)
    tuner = make_tuner(Eager(3, score=score, space=SPACE), tmp_path, max_trials=2)
    # One prediction for all rows: no threshold finds more positives than there are.
    x = 0 * X if "folds" in options else X
    with pytest.raises(RuntimeError, match=r"No trial.*'val_best_recall' was not defined in any"):
        tuner.search(x, Y, epochs=2, verbose=0, **options)
    assert [t.status for t in tuner.oracle.trials.values()].count("COMPLETED") == 0


@once
def test_folder_that_cannot_be_written_stops_the_search(tmp_path, monkeypatch):
    tuner = make_tuner(Eager(3, space=SPACE), tmp_path)

    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(RuntimeError, match=r"could not read or write: .*Permission denied"):
        search(tuner)


@once
def test_disk_that_is_full_stops_the_search_and_keeps_what_was_completed(tmp_path, monkeypatch):
    hypermodel = Eager(3, space=SPACE)
    search(make_tuner(hypermodel, tmp_path, max_trials=1))
    tuner = make_tuner(hypermodel, tmp_path, max_trials=2)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save_weights", fail)
        with pytest.raises(RuntimeError, match=r"No space left on device\. What was completed is"):
            search(tuner)
    tuner = make_tuner(hypermodel, tmp_path, max_trials=2)
    search(tuner)
    assert [t.status for t in tuner.oracle.trials.values()] == ["COMPLETED", "COMPLETED"]


@once
def test_objective_of_the_wrong_direction_is_refused(tmp_path):
    hypermodel = Eager(3, score="best_f1", space=SPACE)
    wrong = keras_tuner.Objective("val_best_f1", "min")
    tuner = make_tuner(hypermodel, tmp_path, objective=wrong)
    with pytest.raises(ValueError, match="would make 'val_best_f1' worse"):
        search(tuner)
    with pytest.raises(ValueError, match="would make 'val_best_f1' worse"):
        hypermodel.preflight(*TRAIN, validation_data=HELD_OUT, tuner=tuner)


def test_objective_without_direction_is_refused_by_keras_tuner(tmp_path):
    hypermodel = Eager(3, score="best_f1", space=SPACE)
    with pytest.raises(ValueError, match="Could not infer optimization direction"):
        make_tuner(hypermodel, tmp_path, objective="val_best_f1")


@once
def test_tuner_without_objective_is_refused(tmp_path):
    hypermodel = Eager(3, space=SPACE)
    with pytest.raises(ValueError, match=r"no objective\. Give the tuner `objective=hypermodel"):
        search(make_tuner(hypermodel, tmp_path, objective=None))


@once
def test_plain_tuner_with_the_name_of_an_objective(tmp_path):
    """Keras Tuner knows of a few names which way is better."""
    hypermodel = Eager(3, space=SPACE)
    tuner = keras_tuner.Tuner(
        oracle=keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=1),
        hypermodel=hypermodel,
        directory=str(tmp_path),
        project_name=hypermodel.project_name,
    )
    search(tuner)
    assert results_dataframe(tuner)["score"][0] == results_dataframe(tuner)["val_loss"][0]


@once
def test_several_objectives_are_searched_together(tmp_path):
    hypermodel = Eager(3, score=COST, space=SPACE)
    objectives = [hypermodel.objective, keras_tuner.Objective("val_auc", "max")]
    tuner = search(make_tuner(hypermodel, tmp_path, objective=objectives, max_trials=1))
    row = results_dataframe(tuner).iloc[0]
    assert row["score"] == pytest.approx(row["val_best_cost"] - row["val_auc"])


def test_folds_are_searched_like_a_split(tmp_path):
    hypermodel = Eager(3, space=SPACE)
    tuner = make_tuner(hypermodel, tmp_path, max_trials=1)
    tuner.search(X, Y, folds=2, epochs=2, verbose=0)
    table = results_dataframe(tuner)
    model = build_best(tuner)
    assert table["val_auc"][0] == table["score"][0]
    assert find_head(model).threshold == pytest.approx(table["val_best_threshold"][0])
    assert np.isfinite(model.predict(X, verbose=0)).all()


@once
def test_trials_of_another_space_are_not_taken_for_ours(tmp_path):
    first = Eager(3, space=SPACE)
    search(make_tuner(first, tmp_path, max_trials=1, project_name="churn"))
    other = Eager(3, space={**SPACE, "units": [4, 16]})
    tuner = make_tuner(other, tmp_path, max_trials=2, project_name="churn")
    with pytest.raises(ValueError, match=r"made by another search.*project_name=hypermodel"):
        other.preflight(*TRAIN, validation_data=HELD_OUT, tuner=tuner)
    with pytest.raises(ValueError, match="made by another search"):
        search(tuner)
    # The one that made it goes on, and does not repeat its trial.
    tuner = search(make_tuner(first, tmp_path, max_trials=2, project_name="churn"))
    assert len(tuner.oracle.trials) == 2


@once
def test_project_of_another_hypermodel_is_found_before_the_search(tmp_path):
    def build(hp):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(hp.Int("units", 1, 2))])
        model.compile("adam", "mse")
        return model

    other = keras_tuner.RandomSearch(
        build, "val_loss", max_trials=1, directory=str(tmp_path), project_name="churn"
    )
    search(other)
    hypermodel = Eager(3, space=SPACE)
    tuner = make_tuner(hypermodel, tmp_path, project_name="churn")
    with pytest.raises(ValueError, match="made by something else"):
        hypermodel.preflight(*TRAIN, validation_data=HELD_OUT, tuner=tuner)


def test_preflight_says_what_the_search_will_be(tmp_path):
    hypermodel = Eager(3, space={"num_layers": 1, "units": [4, 8]})
    found = hypermodel.preflight(*TRAIN, validation_data=HELD_OUT, directory=str(tmp_path / "new"))
    # Batch normalization has a scale and an offset, a skip connection a projection without bias.
    assert found.default_size == 3 * 4 + 4 + 4 + 1
    assert found.largest_size == (3 * 8 + 8) + 2 * 8 + 3 * 8 + 8 + 1
    assert "val_auc" in found.logs
    assert found.project_dir == str(tmp_path / "new" / hypermodel.project_name)
    assert str(found).startswith("ready: 21 weights by default, at most 81")
    assert not (tmp_path / "new").exists()


def test_preflight_takes_a_tuner_or_a_directory(tmp_path):
    hypermodel = Eager(3, space=SPACE)
    tuner = make_tuner(hypermodel, tmp_path)
    with pytest.raises(ValueError, match=r"`directory` of .*preflight must be left out beside"):
        hypermodel.preflight(*TRAIN, validation_data=HELD_OUT, tuner=tuner, directory="search")


def test_preflight_finds_class_weights_that_keras_would_not_take():
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices((*TRAIN, np.ones(200))).batch(50)
    hypermodel = Eager(3, tune_batch_size=False)
    with pytest.raises(ValueError, match="none beside a data set with sample weights"):
        hypermodel.preflight(batches, validation_data=HELD_OUT)
    found = Eager(3, space={"class_weight": None}, tune_batch_size=False).preflight(
        batches, validation_data=HELD_OUT
    )
    assert found.default_size == 3 * 64 + 64 + 64 * 32 + 32 + 32 + 1


def test_preflight_finds_features_that_make_the_loss_nan():
    hypermodel = Eager(3, space=SPACE)
    x = TRAIN[0].copy()
    x[:, 1] = np.nan
    with pytest.raises(ValueError, match=r"its (loss|output) is nan\. Look for NaN"):
        hypermodel.preflight(x, TRAIN[1], validation_data=HELD_OUT)


def test_preflight_finds_that_tensorboard_is_missing(monkeypatch):
    if keras.backend.backend() != "tensorflow":
        # Keras Tuner imports it there only.
        monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    hypermodel = Eager(3, space=SPACE)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        hypermodel.preflight(*TRAIN, validation_data=HELD_OUT)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        keras_tuner.RandomSearch(hypermodel, hypermodel.objective)


def test_preflight_finds_a_place_that_cannot_be_written(tmp_path):
    hypermodel = Eager(3, space=SPACE)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"cannot write to .*another `directory`"):
        hypermodel.preflight(*TRAIN, validation_data=HELD_OUT, directory=str(tmp_path / "file"))


def test_preflight_finds_a_disk_that_is_too_small(tmp_path, monkeypatch):
    import collections
    import shutil

    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 0))
    with pytest.raises(ValueError, match=r"Received: 0\.0 MB free"):
        Eager(3).preflight(*TRAIN, validation_data=HELD_OUT, directory=str(tmp_path))


@once
def test_preflight_finds_a_project_that_is_damaged(tmp_path):
    hypermodel = Eager(3, space=SPACE)
    search(make_tuner(hypermodel, tmp_path, max_trials=1))
    oracle = tmp_path / hypermodel.project_name / "oracle.json"
    oracle.write_text(oracle.read_text()[:50])
    with pytest.raises(ValueError, match=r"oracle\.json is damaged"):
        hypermodel.preflight(*TRAIN, validation_data=HELD_OUT, directory=str(tmp_path))


def read_trials(folder):
    return {
        path.parent.name: json.loads(path.read_text())
        for path in (folder / "project").glob("trial_*/trial.json")
    }


@once
def test_killed_search_goes_on_where_it_was(tmp_path):
    code, out, _ = finish(run_elsewhere(tmp_path, 4, "2"))
    assert code == -9
    assert "finished" not in out
    before = read_trials(tmp_path)
    done = {name for name, trial in before.items() if trial["status"] == "COMPLETED"}
    assert done == {"trial_0", "trial_1"}
    assert before["trial_2"]["status"] == "RUNNING"
    code, out, err = finish(run_elsewhere(tmp_path, 4))
    assert code == 0, err
    after = read_trials(tmp_path)
    assert {trial["status"] for trial in after.values()} == {"COMPLETED"}
    assert len(after) == 4
    for name in done:
        assert after[name] == before[name]
    # The trial that was killed has the values that it had, and ran to its end.
    values = [trials["trial_2"]["hyperparameters"]["values"] for trials in (before, after)]
    assert values[0] == values[1]


@once
def test_trial_that_was_written_just_before_the_kill_is_not_run_again(tmp_path):
    """Keras Tuner writes the trial first, and then that it is over."""
    hypermodel = Eager(3, space=SPACE)
    search(make_tuner(hypermodel, tmp_path, max_trials=1))
    folder = tmp_path / hypermodel.project_name
    oracle = json.loads((folder / "oracle.json").read_text())
    oracle.update(ongoing_trials={"tuner0": "0"}, end_order=[], run_times={})
    (folder / "oracle.json").write_text(json.dumps(oracle))
    before = json.loads((folder / "trial_0" / "trial.json").read_text())
    tuner = make_tuner(hypermodel, tmp_path, max_trials=1)
    with pytest.warns(DeprecationWarning, match="use case of calling"):
        search(tuner, callbacks=[Exploding(RuntimeError("trained again"))])
    after = json.loads((folder / "trial_0" / "trial.json").read_text())
    assert after["status"] == "COMPLETED"
    assert (after["score"], after["metrics"]) == (before["score"], before["metrics"])


@once
def test_worker_killed_in_a_trial_and_started_again_completes_it(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    chief = run_elsewhere(tmp_path, 5, KERASTUNER_TUNER_ID="chief", **place)
    # The worker whose trial is the second one dies in it.
    workers = [
        run_elsewhere(tmp_path, 5, "1", KERASTUNER_TUNER_ID=f"worker{i}", **place) for i in (0, 1)
    ]
    codes = [finish(worker)[0] for worker in workers]
    assert -9 in codes
    for i, code in enumerate(codes):
        if code == -9:
            again = run_elsewhere(tmp_path, 5, KERASTUNER_TUNER_ID=f"worker{i}", **place)
            assert finish(again)[0] == 0
    code, out, err = finish(chief)
    assert code == 0, err
    statuses = json.loads(out.splitlines()[-1])
    assert statuses == {str(i): "COMPLETED" for i in range(5)}


def test_results_of_what_is_no_tuner():
    with pytest.raises(TypeError, match="must be a Keras Tuner tuner"):
        build_best("best.keras")
    with pytest.raises(TypeError, match="must be a Keras Tuner tuner"):
        results_dataframe(None)
