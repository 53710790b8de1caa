"""Errors of a trial: which of them end the whole search.

Keras Tuner records the error of a trial and goes on, unless it is one of its fatal errors. A search
in which every trial fails would end without an error if it has fewer trials than Keras Tuner's
limit of consecutive failures.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras_tuner

from keras_binclf.tuner.search.running_tuner import find_tuner
from keras_binclf.tuner.trial.plan import SearchError


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
    """Stop the search for an error that every trial would meet, and after the last failed trial.

    Args:
        callbacks: those of the trial.
        attempts: failures of each trial so far; counted here.
    """
    try:
        yield
    except SearchError as error:
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
