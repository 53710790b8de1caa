"""Training of one trial, with the callbacks that a search needs."""

import math
import time
from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np

from keras_binclf.callbacks import ThresholdTuner
from keras_binclf.tuner.trial.data import Data
from keras_binclf.tuner.trial.memory import forgetting_steps
from keras_binclf.tuner.trial.nan_loss import allowing_nan_loss, check_loss
from keras_binclf.tuner.trial.plan import Plan, SearchError

BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
STEPS_PER_EXECUTION = 16
"""Steps that run without Python between them: on TensorFlow about half the time of small models."""


class RankUndefinedLast(keras.callbacks.Callback):
    """Give an objective that is not defined the worst value, and stop when the loss is NaN.

    Early in training no threshold may satisfy a constraint, and the score is NaN. Neither
    `EarlyStopping` nor Keras Tuner would ever find another epoch better than that. A NaN loss has
    made the weights NaN, and no later epoch changes that.
    """

    def __init__(self, name: str, direction: str) -> None:
        super().__init__()
        self.name = name
        self.worst = -math.inf if direction == "max" else math.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Change the logs that all later callbacks see."""
        logs = {} if logs is None else logs
        if self.name not in logs:
            raise SearchError(
                f"The objective must be one of the logs ({', '.join(logs)}). Received: objective "
                f"named {self.name!r}. Give the tuner `objective=hypermodel.objective`."
            )
        if math.isnan(float(logs[self.name])):
            logs[self.name] = self.worst
        if math.isnan(float(logs.get("loss", 0.0))):
            self.model.stop_training = True


def train(model: keras.Model, data: Data, plan: Plan) -> keras.callbacks.History:
    """Fit the model, stop where its objective no longer gets better, and keep the best epoch.

    Args:
        model: compiled model with a `BinaryHead`.
        data: rows with validation rows.
        plan: how to train.

    Returns:
        The `History` of `keras.Model.fit`, with `fit_seconds` in it.

    Raises:
        FailedTrialError: if the objective was not defined in any epoch: there is no best one.
        SearchError: if the loss became NaN because of NaN or infinity in a data set.
    """
    start = time.perf_counter()
    history = fit_with_validation(model, data, plan)
    seconds = time.perf_counter() - start
    check_loss(history.history, plan)
    check_defined(history.history[plan.monitor], plan)
    history.history["fit_seconds"] = [seconds] * len(history.epoch)
    return history


def fit_with_validation(model: keras.Model, data: Data, plan: Plan) -> keras.callbacks.History:
    """Fit the model, validate it after each epoch, and restore the weights of its best epoch."""
    first = [RankUndefinedLast(plan.monitor, plan.direction), ThresholdTuner()]
    callbacks = [*first, *plan.callbacks, *_make_stopping(plan)]
    options = {"validation_data": data.validation, "callbacks": callbacks, **plan.options}
    return fit_once(model, data, plan, **options)


def check_defined(values: Sequence[float], plan: Plan) -> None:
    """Raise if the objective has no value; Keras Tuner would rank such a trial without a model."""
    if not np.isfinite(values).any():
        raise keras_tuner.errors.FailedTrialError(
            f"{plan.monitor!r} was not defined in any of {len(values)} epochs. {plan.why_undefined}"
        )


def _make_stopping(plan: Plan) -> list[keras.callbacks.Callback]:
    """Return the early stopping, unless the user gave one."""
    has_own = any(isinstance(c, keras.callbacks.EarlyStopping) for c in plan.callbacks)
    if plan.patience is None or has_own:
        return []
    stopping = keras.callbacks.EarlyStopping(
        plan.monitor, patience=plan.patience, mode=plan.direction, restore_best_weights=True
    )
    return [stopping]


def fit_once(model: keras.Model, data: Data, plan: Plan, **arguments: Any) -> Any:
    """Call `model.fit`, with several steps an execution where no callback watches each batch."""
    previous = model.steps_per_execution
    model.steps_per_execution = _choose_steps(previous, plan.callbacks)
    _forget_functions(model)
    with forgetting_steps(), allowing_nan_loss(model):
        try:
            return model.fit(data.x, data.y, **_weight(data, plan.class_weights), **arguments)
        finally:
            model.steps_per_execution = previous
            _forget_functions(model)


def _forget_functions(model: keras.Model) -> None:
    """Drop the compiled functions, which are made for one number of steps an execution."""
    model.train_function = model.test_function = model.predict_function = None


def _weight(data: Data, class_weights: tuple[float, float] | None) -> dict[str, Any]:
    """Return the arguments of `fit` that weight the rows."""
    if data.is_dataset:
        return {"class_weight": class_weights and dict(enumerate(class_weights))}
    if class_weights is None:
        return {"sample_weight": data.sample_weight}
    weights = np.where(data.y == 1, class_weights[1], class_weights[0]).astype("float32")
    return {"sample_weight": weights * (1 if data.sample_weight is None else data.sample_weight)}


def _choose_steps(steps: int, callbacks: Sequence[keras.callbacks.Callback]) -> int:
    """Return how many steps run at once: those of the model where somebody looks at each."""
    if keras.backend.backend() == "torch" or steps != 1:
        return steps
    watched = [callback for callback in callbacks if not hasattr(callback, "tuner")]
    looks = any(
        getattr(type(callback), hook) is not getattr(keras.callbacks.Callback, hook)
        for callback in watched
        for hook in BATCH_HOOKS
    )
    return 1 if looks else STEPS_PER_EXECUTION
