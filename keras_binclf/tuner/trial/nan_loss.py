"""A loss that becomes NaN ends a trial, with its cause, in the same way on every backend."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np

from keras_binclf.tuner.trial.plan import Plan, SearchError


@contextlib.contextmanager
def allowing_nan_loss(model: keras.Model) -> Iterator[None]:
    """Make the loss of NaN outputs NaN on PyTorch, as it is on the other backends.

    PyTorch's binary cross entropy refuses NaN: by an error on a CPU; on a GPU by an assertion after
    which the process can use the GPU no more, so that one trial would end the whole search.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    compute_loss = model.compute_loss

    def compute_loss_or_nan(
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        numbers = keras.ops.where(keras.ops.isnan(y_pred), 0.5, y_pred)
        loss = compute_loss(x, y, numbers, sample_weight, training=training)
        # Adds NaN to the loss and its gradients if an output is NaN; else exactly 0.
        return loss + keras.ops.sum(0.0 * y_pred)

    model.compute_loss = compute_loss_or_nan
    try:
        yield
    finally:
        del model.compute_loss


def check_loss(logs: dict[str, list[float]], plan: Plan) -> None:
    """Warn of a loss that became NaN; raise if the model has no earlier epoch to go back to.

    Args:
        logs: values of each epoch by name.
        plan: how the trial trained.

    Raises:
        FailedTrialError: if no epoch has a value of the objective.
        SearchError: if a data set holds NaN or infinity.
    """
    losses = {"": logs["loss"], "validation ": logs.get("val_loss", [])}
    epochs = {name: _find_nan(values) for name, values in losses.items()}
    name, epoch = next(((n, e) for n, e in epochs.items() if e is not None), ("", None))
    if epoch is None:
        return
    try:
        plan.check_all_batches()
    except ValueError as error:
        raise SearchError(str(error)) from error
    text = (
        f"The {name}loss of a trial became NaN in epoch {epoch + 1}, although all rows are finite. "
        "Usual causes: features far from the range -10 to 10, which a `scaler` changes; a scaler "
        'with NaN in its statistics; a large learning rate (`space={"learning_rate": '
        '{"max_value": 0.001}}`).'
    )
    if not np.isfinite(logs.get(plan.monitor, [])).any():
        raise keras_tuner.errors.FailedTrialError(text)
    warnings.warn(f"{text} The best epoch before it is kept.", stacklevel=2)


def _find_nan(values: Sequence[float]) -> int | None:
    """Return the first place of NaN, or None."""
    return next((i for i, value in enumerate(values) if math.isnan(value)), None)
