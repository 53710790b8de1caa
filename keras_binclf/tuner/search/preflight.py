"""Checks before the first trial: whether a search can run."""

import dataclasses
import importlib.util
import math
import os
from typing import Any

import keras
import numpy as np

from keras_binclf._validation import error_message
from keras_binclf.tuner.search.project import BYTES_PER_WEIGHT, check_directory, check_project
from keras_binclf.tuner.trial.batches import peek
from keras_binclf.tuner.trial.data import Data, take_rows

OWNER = "BinaryClassifierHyperModel.preflight"
NUM_ROWS = 32


@dataclasses.dataclass(frozen=True)
class Preflight:
    """Sizes, logs and folder of a search, found before its first trial.

    Attributes:
        default_size: trainable weights of the default model.
        largest_size: trainable weights of the largest model.
        logs: the names that an objective can have.
        project_dir: folder that the search will write to; None where that is not known.
    """

    default_size: int
    largest_size: int
    logs: tuple[str, ...]
    project_dir: str | None

    def __str__(self) -> str:
        """Return everything in one line."""
        megabytes = self.largest_size * BYTES_PER_WEIGHT / 1e6
        place = f", in {self.project_dir}" if self.project_dir else ""
        return (
            f"ready: {self.default_size:,} weights by default, at most {self.largest_size:,} "
            f"({megabytes:.1f} MB a trial){place}"
        )


def check_tensorboard() -> None:
    """Raise if Keras Tuner would fail in each trial for want of tensorboard."""
    if keras.backend.backend() == "tensorflow" and importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "Keras Tuner imports tensorboard in each trial, and it is not installed: every trial "
            "would fail. `pip install tensorboard`."
        )


def find_project_dir(tuner: Any, directory: str | None, name: str) -> str | None:
    """Return the folder that a search will write to, or None where that is not known.

    Args:
        tuner: the tuner that will search, or None.
        directory: the `directory` of a tuner that is not made yet, or None.
        name: its `project_name`.
    """
    if tuner is None:
        return None if directory is None else os.path.join(directory, name)
    if directory is not None:
        expected = "left out beside `tuner`, which has one"
        raise ValueError(error_message("directory", OWNER, expected, directory))
    return str(tuner.project_dir)


def check_place(
    project_dir: str | None, num_weights: int, fingerprint: dict[str, str], name: str
) -> None:
    """Raise if a search cannot write to its folder, or the folder has trials of another search."""
    if project_dir is not None:
        check_directory(project_dir, num_weights)
        check_project(project_dir, fingerprint, name)


def try_models(
    default: keras.Model, largest: keras.Model, data: Data, objective: str
) -> tuple[str, ...]:
    """Run a step of the default and of the largest model, and return the names of the logs.

    Raises:
        ValueError: for an output or a loss that is not finite, and an objective that is not among
            the logs.
    """
    logs = _try_step(default, data)
    _try_step(largest, data)
    _check_objective_name(objective, logs)
    return logs


def _try_step(model: keras.Model, data: Data) -> tuple[str, ...]:
    """Run one step of training and of validation, and return the names of the logs.

    Raises:
        ValueError: for an output or a loss that is not finite.
    """
    x, y, weights = _take_rows(data)
    model.run_eagerly = True
    # Before the loss, since that of PyTorch raises an error of its own for NaN.
    _check_finite("output", float(np.sum(model.predict_on_batch(x))))
    loss = model.train_on_batch(x, y, sample_weight=weights, return_dict=True)["loss"]
    _check_finite("loss", float(loss))
    logs = model.test_on_batch(x, y, sample_weight=weights, return_dict=True)
    return (*logs, *(f"val_{name}" for name in logs))


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(
            f"{OWNER} ran one step of the model, and its {name} is {value}. Look for very large "
            "numbers in the features, and scale them; or for NaN in the statistics of the scaler."
        )


def _take_rows(data: Data) -> tuple[Any, Any, Any]:
    if data.y is None:
        return peek(data.x)
    # Of both classes, wherever they stand.
    rows = np.concatenate([np.flatnonzero(data.y == v)[: NUM_ROWS // 2] for v in (0, 1)])
    weights = None if data.sample_weight is None else data.sample_weight[rows]
    return take_rows(data.x, rows), data.y[rows], weights


def _check_objective_name(name: str, logs: tuple[str, ...]) -> None:
    """Raise if the tuner's objective will not be in the logs."""
    if name not in logs:
        raise ValueError(
            f"The objective of the tuner must be one of the logs ({', '.join(logs)}). Received: "
            f"objective named {name!r}. Give the tuner `objective=hypermodel.objective`."
        )
