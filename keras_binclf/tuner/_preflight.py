"""What can be known before the first trial: whether the search can run, and where it writes."""

import dataclasses
import importlib.util
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_binclf.tuner._data import Data, peek

OWNER = "BinaryClassifierHyperModel.preflight"
MARKER = "keras_binclf.json"
NUM_ROWS = 32
BYTES_PER_WEIGHT = 12
"""A weight and two moments of Adam, in float32, are what a trial's checkpoint holds."""


@dataclasses.dataclass(frozen=True)
class Preflight:
    """What was found out before the first trial.

    Attributes:
        default_size: trainable weights of the default model.
        largest_size: trainable weights of the largest model.
        logs: the names that an objective can have.
        project_dir: where the search will write; None where that is not known.
    """

    default_size: int
    largest_size: int
    logs: tuple[str, ...]
    project_dir: str | None

    def __str__(self) -> str:
        """Return all of it in one line."""
        megabytes = self.largest_size * BYTES_PER_WEIGHT / 1e6
        place = f", in {self.project_dir}" if self.project_dir else ""
        return (
            f"ready: {self.default_size:,} weights by default, at most {self.largest_size:,} "
            f"({megabytes:.1f} MB a trial){place}"
        )


def check_tensorboard() -> None:
    """Raise if Keras Tuner would fail in each trial, without a word."""
    if keras.backend.backend() == "tensorflow" and importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "Keras Tuner imports tensorboard in each trial, and it is not installed: every trial "
            "would fail. `pip install tensorboard`."
        )


def try_step(model: keras.Model, data: Data) -> tuple[str, ...]:
    """Run one step of training and of validation, and return the names of the logs.

    Raises:
        ValueError: for an output or a loss that is not finite.
    """
    x, y, weights = _take_rows(data)
    model.run_eagerly = True
    # PyTorch's loss refuses outputs that are NaN, in words of its own.
    _check_finite("output", float(np.sum(model.predict_on_batch(x))))
    loss = model.train_on_batch(x, y, sample_weight=weights, return_dict=True)["loss"]
    _check_finite("loss", float(loss))
    logs = model.test_on_batch(x, y, sample_weight=weights, return_dict=True)
    return (*logs, *(f"val_{name}" for name in logs))


def _check_finite(what: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(
            f"{OWNER} ran one step of the model, and its {what} is {value}. Look for NaN and for "
            "very large numbers in the features, and scale them."
        )


def _take_rows(data: Data) -> tuple[Any, Any, Any]:
    if data.y is None:
        return peek(data.x)
    # Of both classes, wherever they stand.
    rows = np.concatenate([np.flatnonzero(data.y == v)[: NUM_ROWS // 2] for v in (0, 1)])
    weights = None if data.sample_weight is None else data.sample_weight[rows]
    return data.x[rows], data.y[rows], weights


def check_objective_name(name: str, logs: tuple[str, ...]) -> None:
    """Raise if the tuner's objective will not be in the logs."""
    if name not in logs:
        raise ValueError(
            f"The objective of the tuner must be one of the logs ({', '.join(logs)}). Received: "
            f"objective named {name!r}. Give the tuner `objective=hypermodel.objective`."
        )


def check_directory(project_dir: str, num_weights: int) -> None:
    """Raise if a search cannot write there."""
    place = Path(project_dir).absolute()
    existing = next(parent for parent in (place, *place.parents) if parent.exists())
    hint = "Give the tuner another `directory`."
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"A search cannot write to {project_dir}: {error}. {hint}") from None
    needed, free = num_weights * BYTES_PER_WEIGHT, shutil.disk_usage(existing).free
    if free < needed:
        raise ValueError(
            f"A search needs up to {needed / 1e6:.1f} MB for each trial in {project_dir}. "
            f"Received: {free / 1e6:.1f} MB free. {hint}"
        )


def check_project(project_dir: str, fingerprint: dict[str, str], hint: str) -> None:
    """Raise if the project was made by a search over another space, or cannot be read."""
    folder = Path(project_dir)
    for file in (folder / "oracle.json", *folder.glob("trial_*/trial.json")):
        if file.exists():
            _read_json(file)
    if read_marker(project_dir) is None and (folder / "oracle.json").exists():
        raise ValueError(
            f"The project in {project_dir} was made by something else: it has trials, but no "
            f"{MARKER}. {hint}"
        )
    check_marker(project_dir, fingerprint, hint)


def check_marker(project_dir: str, fingerprint: dict[str, str], hint: str) -> None:
    """Raise if the project was made by another version or over another space."""
    made_by = read_marker(project_dir) or fingerprint
    if made_by != fingerprint:
        raise ValueError(
            f"The project in {project_dir} was made by another search (keras_binclf "
            f"{made_by.get('version')}, {made_by.get('fingerprint')}) than this one "
            f"({fingerprint['version']}, {fingerprint['fingerprint']}): its trials would be taken "
            f"for trials of this space. {hint}"
        )


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError:
        raise ValueError(
            f"{file} is damaged, as when a search is killed while it writes. Remove its folder if "
            "it is one trial's, which runs again; without oracle.json the search starts anew: "
            "give the tuner another `project_name`."
        ) from None


def read_marker(project_dir: str) -> Any:
    """Return by what the project was made; None where that was not written."""
    file = Path(project_dir) / MARKER
    return _read_json(file) if file.exists() else None


def write_marker(project_dir: str, fingerprint: dict[str, str]) -> None:
    """Write by what the project is made, whole or not at all."""
    file = Path(project_dir) / MARKER
    part = file.with_name(f"{MARKER}.{os.getpid()}")
    part.write_text(json.dumps(fingerprint))
    part.replace(file)
