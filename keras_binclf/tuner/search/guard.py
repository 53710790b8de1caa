"""The tuner that runs a trial: whether it searches for the right thing, and when it must stop.

Keras Tuner notes what a trial raises and goes on, unless it is one of its fatal errors. So a
search whose every trial fails ends without a word if it has fewer trials than Keras Tuner's limit
of consecutive failures.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import keras_tuner

from keras_binclf.metrics.base import get_direction
from keras_binclf.tuner.trial.training import MissingObjectiveError

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


@contextlib.contextmanager
def stopping_search() -> Iterator[None]:
    """Make errors such that Keras Tuner raises them, rather than noting a failed trial."""
    try:
        yield
    except keras_tuner.errors.FatalError:
        raise
    except TypeError as error:
        raise keras_tuner.errors.FatalTypeError(str(error)) from error
    except ValueError as error:
        raise keras_tuner.errors.FatalValueError(str(error)) from error
    except OSError as error:
        raise _explain_disk(error) from error


@contextlib.contextmanager
def explaining_failure(callbacks: Sequence[Any], attempts: dict[str, int]) -> Iterator[None]:
    """Stop the search for what no other trial would survive, and if there is no other one.

    Args:
        callbacks: those of the trial.
        attempts: failures of each trial so far; counted here.
    """
    try:
        yield
    except MissingObjectiveError as error:
        raise keras_tuner.errors.FatalValueError(str(error)) from error
    except OSError as error:
        raise _explain_disk(error) from error
    except keras_tuner.errors.FatalError:
        raise
    except Exception as error:
        # Keras Tuner tries a trial again, unless the trial says that it failed for good.
        final = isinstance(error, keras_tuner.errors.FailedTrialError)
        if _is_last_chance(callbacks, attempts, final):
            raise keras_tuner.errors.FatalRuntimeError(
                f"No trial of the search was completed. The last one failed with: {error}"
            ) from error
        raise


def _explain_disk(error: OSError) -> keras_tuner.errors.FatalRuntimeError:
    return keras_tuner.errors.FatalRuntimeError(
        f"A trial could not read or write: {error}. What was completed is kept: make room, and run "
        "the same search again to go on."
    )


def _is_last_chance(callbacks: Sequence[Any], attempts: dict[str, int], final: bool) -> bool:
    """Whether no trial was completed, and this one, which is over if `final`, was the last."""
    tuner = find_tuner(callbacks)
    trials = getattr(getattr(tuner, "oracle", None), "trials", None)
    # A worker of a distributed search does not know of the others' trials.
    if trials is None or not tuner.oracle.max_trials:
        return False
    trial = next(callback.trial for callback in callbacks if hasattr(callback, "trial"))
    attempts[trial.trial_id] = attempts.get(trial.trial_id, 0) + 1
    completed = any(other.status == "COMPLETED" for other in trials.values())
    retries_left = not final and attempts[trial.trial_id] <= tuner.oracle.max_retries_per_trial
    return not (completed or retries_left or len(trials) < tuner.oracle.max_trials)
