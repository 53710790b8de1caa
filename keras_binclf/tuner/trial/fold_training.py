"""Training of one trial on folds."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keras_binclf.decision import find_head
from keras_binclf.tuner.trial.data import Data, take_data
from keras_binclf.tuner.trial.encoding import FoldRows
from keras_binclf.tuner.trial.inputs import SearchInputs
from keras_binclf.tuner.trial.nan_loss import check_loss
from keras_binclf.tuner.trial.plan import Plan
from keras_binclf.tuner.trial.training import check_defined, fit_once, fit_with_validation


def train_folds(
    model: keras.Model,
    data: Data,
    plan: Plan,
    folds: Iterable[FoldRows],
    build: Callable[[SearchInputs | None], keras.Model],
    metrics: Sequence[keras.metrics.Metric],
) -> dict[str, float]:
    """Train one model for each fold, and then `model` on all rows.

    The scores and the threshold are those of all held-out predictions together. `model` is trained
    for the median of the folds' best epochs, and carries that threshold. The user's callbacks see
    the trainings on the folds; those of Keras Tuner see the last one, when it is over.

    Args:
        model: compiled model with a `BinaryHead`.
        data: rows with folds.
        plan: how to train.
        folds: rows of each fold, in the order of `data.folds`.
        build: makes a new model like `model`, with the inputs of a fold or with its own.
        metrics: those of the trial, not used before.

    Returns:
        The scores of the held-out predictions by the names of the logs.

    Raises:
        FailedTrialError: if the objective is not defined for them, or the loss became NaN.
    """
    assert data.y is not None
    assert data.folds is not None
    start = time.perf_counter()
    of_tuner = [c for c in plan.callbacks if type(c).__module__.startswith("keras_tuner.")]
    own = [callback for callback in plan.callbacks if callback not in of_tuner]
    # Hyperband gives the epochs of the trial that it goes on with; the folds have no such trial.
    options = {**plan.options, "initial_epoch": 0}
    plan = dataclasses.replace(plan, callbacks=own, options=options)
    sums, counts = np.zeros(len(data.y)), np.zeros(len(data.y))
    best_epochs = []
    for (_, held_out), fold in zip(data.folds, folds, strict=True):
        fold_model = build(fold.inputs)
        history = fit_with_validation(fold_model, fold.data, plan)
        check_loss(history.history, plan)
        best_epochs.append(_find_best(history, plan) + 1)
        size = plan.options["validation_batch_size"]
        predicted = fold_model.predict(fold.data.validation[0], batch_size=size, verbose=0)
        sums[held_out] += predicted[:, 0]
        counts[held_out] += 1
    held_out = np.flatnonzero(counts)
    logs = _score(
        model, take_data(data, held_out, held_out), sums[held_out] / counts[held_out], metrics
    )
    check_defined([logs[plan.monitor]], plan)
    epochs = round(float(np.median(best_epochs)))
    # Keras Tuner may have loaded the weights of an earlier, shorter trial.
    model.set_weights(build(None).get_weights())
    check_loss(fit_once(model, data, plan, **{**options, "epochs": epochs}).history, plan)
    if not math.isnan(logs["val_best_threshold"]):
        find_head(model).threshold = logs["val_best_threshold"]
    for callback in of_tuner:
        callback.set_model(model)
        callback.on_epoch_end(epochs - 1, logs)
    return {**logs, "epochs": float(epochs), "fit_seconds": time.perf_counter() - start}


def _find_best(history: keras.callbacks.History, plan: Plan) -> int:
    values = history.history[plan.monitor]
    return int(np.argmax(values) if plan.direction == "max" else np.argmin(values))


def _score(
    model: keras.Model, data: Data, predicted: Any, metrics: Sequence[keras.metrics.Metric]
) -> dict[str, float]:
    """Return loss and metrics of predictions that came from several models like this one."""
    y, p = keras.ops.expand_dims(data.y, -1), keras.ops.expand_dims(predicted, -1)
    p = keras.ops.cast(p, "float32")
    loss = model.compute_loss(y=y, y_pred=p, sample_weight=data.sample_weight)
    logs = {"val_loss": _to_float(loss)}
    for metric in metrics:
        metric.update_state(y, p, sample_weight=data.sample_weight)
        logs[f"val_{metric.name}"] = _to_float(metric.result())
    return logs


def _to_float(value: Any) -> float:
    return float(keras.ops.convert_to_numpy(value))
