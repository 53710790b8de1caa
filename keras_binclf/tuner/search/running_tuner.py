"""The Keras Tuner tuner that runs a trial: found through its callback, its objective checked."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_binclf.metrics.base import get_direction

HINT = "Give the tuner `objective=hypermodel.objective`."


def find_tuner(callbacks: Sequence[Any]) -> Any:
    """Return the tuner that runs the trial, through the callback that it adds; else None."""
    tuners = (getattr(callback, "tuner", None) for callback in callbacks)
    return next((tuner for tuner in tuners if hasattr(tuner, "oracle")), None)


def find_finished(callbacks: Sequence[Any]) -> dict[str, float] | None:
    """Return the scores of the trial if it was completed before; else None.

    A search that is killed just when a trial ends may have written the trial, and not that it is
    over. Keras Tuner would then run it again.
    """
    trial: Any = next((c.trial for c in callbacks if hasattr(c, "trial")), None)
    score = getattr(trial, "score", None)
    if score is None or score != score:
        return None
    return {name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics}


def check_objective(given: Any, own: Any, metrics: Sequence[keras.metrics.Metric]) -> Any:
    """Return the objective to train for: the tuner's, if it makes a metric better.

    Args:
        given: the tuner's objective.
        own: that of the hypermodel, which also stops a search for several objectives.
        metrics: those of each trial.

    Raises:
        ValueError: for no objective, and for one that would make a metric worse.
    """
    if given.name == "default_objective":
        raise ValueError(f"The tuner has no objective. {HINT}")
    several = getattr(given, "objectives", None)
    directions = {
        f"val_{metric.name}": get_direction(metric)
        for metric in metrics
        if getattr(metric, "_direction", None)
    }
    for objective in several or [given]:
        right = directions.get(objective.name, objective.direction)
        if objective.direction != right:
            raise ValueError(
                f"The tuner would make {objective.name!r} worse: it has the direction "
                f"{objective.direction!r}, the metric {right!r}. {HINT}"
            )
    return own if several else given
