"""Searches and their folders: what is found before the first trial, how a search goes on."""

import importlib.util
import json
import socket

import keras
import keras_tuner
import numpy as np
import pytest
import search_elsewhere
from searching import (
    HELD_OUT,
    SPACE,
    TRAIN,
    Eager,
    Exploding,
    finish,
    make_tuner,
    once,
    run_elsewhere,
    search,
)


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


def test_preflight_finds_that_tensorboard_is_missing(tmp_path, monkeypatch):
    if keras.backend.backend() != "tensorflow":
        # Keras Tuner imports it there only.
        monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    hypermodel = Eager(3, space=SPACE)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        hypermodel.preflight(*TRAIN, validation_data=HELD_OUT)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        keras_tuner.RandomSearch(hypermodel, hypermodel.objective, directory=str(tmp_path))


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
@pytest.mark.slow
def test_killed_search_goes_on_where_it_was(tmp_path):
    code, out, _ = finish(run_elsewhere(tmp_path, 3, "1"))
    assert code == -9
    assert "finished" not in out
    before = read_trials(tmp_path)
    done = {name for name, trial in before.items() if trial["status"] == "COMPLETED"}
    assert done == {"trial_0"}
    assert before["trial_1"]["status"] == "RUNNING"
    # This process is another one than that which was killed.
    search_elsewhere.main(str(tmp_path), 3)
    after = read_trials(tmp_path)
    assert {trial["status"] for trial in after.values()} == {"COMPLETED"}
    assert len(after) == 3
    for name in done:
        assert after[name] == before[name]
    # The trial that was killed has the values that it had, and ran to its end.
    values = [trials["trial_1"]["hyperparameters"]["values"] for trials in (before, after)]
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
@pytest.mark.slow
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
