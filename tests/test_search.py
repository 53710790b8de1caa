"""Whole searches with Keras Tuner: what they leave, and how they fail."""

import subprocess
import sys
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
from searching import (
    COST,
    HELD_OUT,
    SPACE,
    TRAIN,
    Eager,
    Exploding,
    X,
    Y,
    make_tuner,
    once,
    search,
)

from keras_binclf import (
    BinaryClassifierHyperModel,
    ThresholdMetric,
    build_best,
    find_head,
    predict_labels,
    results_dataframe,
)


@pytest.mark.parametrize(
    ("kind", "score", "options"),
    [
        pytest.param("RandomSearch", "best_f1", {}, id="RandomSearch"),
        *(
            pytest.param(kind, score, options, id=kind, marks=pytest.mark.slow)
            for kind, score, options in [
                ("BayesianOptimization", COST, {"num_initial_points": 1}),
                ("GridSearch", "brier_score", {"executions_per_trial": 2}),
                ("Hyperband", COST, {"max_epochs": 3}),
            ]
        ),
    ],
)
def test_best_model_is_that_of_the_best_trial(tmp_path, kind, score, options):
    # One kind of tuner with compiled models: the others differ in what they choose alone.
    make = BinaryClassifierHyperModel if kind == "RandomSearch" else Eager
    hypermodel = make(3, score=score, space=SPACE)
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


def test_best_model_serves_in_a_fresh_process_which_finds_the_same_project(tmp_path):
    scaler = keras.layers.Normalization()
    scaler.adapt(TRAIN[0])
    hypermodel = Eager(3, scaler=scaler, prior=0.2, space=SPACE)
    tuner = search(make_tuner(hypermodel, tmp_path, max_trials=1))
    model = build_best(tuner, tmp_path / "best.keras")
    np.save(tmp_path / "rows.npy", X)
    code = (
        "import keras, keras_binclf, numpy as np\n"
        f"model = keras.models.load_model(r'{tmp_path / 'best.keras'}')\n"
        f"rows = np.load(r'{tmp_path / 'rows.npy'}')\n"
        f"np.save(r'{tmp_path / 'labels.npy'}', keras_binclf.predict_labels(model, rows))\n"
        "print(keras_binclf.BinaryClassifierHyperModel(3, prior=0.2).project_name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == BinaryClassifierHyperModel(3, prior=0.2).project_name
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
@pytest.mark.filterwarnings("ignore:ThresholdTuner did not set the threshold:UserWarning")
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


def test_results_of_what_is_no_tuner():
    with pytest.raises(TypeError, match="must be a Keras Tuner tuner"):
        build_best("best.keras")
    with pytest.raises(TypeError, match="must be a Keras Tuner tuner"):
        results_dataframe(None)
