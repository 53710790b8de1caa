"""Small searches, shared by the tests of whole searches."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest

from keras_binclf import BinaryClassifierHyperModel, ThresholdMetric

# Files, processes and Keras Tuner's records of trials do not depend on the backend.
once = pytest.mark.once
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

    def fit(self, hp, model, *args, **kwargs):
        model.run_eagerly = True  # which is lost where Keras Tuner compiles the model anew
        return super().fit(hp, model, *args, **kwargs)


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
