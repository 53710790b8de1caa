"""Results of a search: its best model, and a table of its trials."""

import os
from typing import TYPE_CHECKING, Any

import keras

from keras_binclf.saving.replacing import write_and_replace

if TYPE_CHECKING:
    import pandas as pd

COMPLETED = "COMPLETED"


def build_best(tuner: Any, filepath: str | os.PathLike[str] | None = None) -> keras.Model:
    """Return the model of the best trial, as the search trained it, threshold included.

    It is the model whose score the search reports: weights and decision threshold of the best
    epoch of the best trial. (`tuner.hypermodel.build(best_hyperparameters)` is an untrained one of
    the same form, and training that again gives another score.) Of trials with several executions
    it is the best execution's.

    Args:
        tuner: a Keras Tuner `Tuner` whose search is over, or was resumed from its folder.
        filepath: path ending in `.keras` to save the model at, or `None`. A file that is there is
            replaced when the new one is complete. Defaults to `None`.

    Returns:
        A compiled `keras.Model`.

    Raises:
        OSError: if the file cannot be written; an earlier one stays.
        TypeError: for anything that is no tuner, and on a worker of a distributed search.
        RuntimeError: if no trial was completed, with the error of the last one.

    Example:

    ```python
    import keras
    import keras_tuner
    import numpy as np
    from keras_binclf import BinaryClassifierHyperModel, build_best, find_head

    x = np.random.default_rng(0).normal(size=(200, 3)).astype("float32")
    y = (x[:, 0] > 0.5).astype("float32")
    hypermodel = BinaryClassifierHyperModel(3)
    tuner = keras_tuner.RandomSearch(
        hypermodel, hypermodel.objective, max_trials=1, directory="search",
        project_name=hypermodel.project_name, overwrite=True,
    )
    tuner.search(x[:100], y[:100], validation_data=(x[100:], y[100:]), epochs=2, verbose=0)
    threshold = find_head(build_best(tuner, "best.keras")).threshold
    assert find_head(keras.models.load_model("best.keras")).threshold == threshold
    ```
    """
    trials = list_trials(tuner, "build_best")
    completed = [trial for trial in trials if trial.status == COMPLETED]
    if not completed:
        raise RuntimeError(_explain_none(trials))
    model = tuner.load_model(completed[0])
    if filepath is not None:
        _save(model, filepath)
    return model


def results_dataframe(tuner: Any) -> "pd.DataFrame":
    """Return a table of the trials, the best one first.

    Args:
        tuner: a Keras Tuner `Tuner`, after or during a search.

    Returns:
        A `pandas.DataFrame` with a row for each trial: `trial`, `status`, `score` (the objective),
        `best_epoch` (from 0; NaN unless completed), the hyperparameters (missing where a
        trial did not use them), and the logs of the best epoch. `fit_seconds` is the time of the
        whole training.

    Raises:
        ImportError: if pandas is not installed.
        TypeError: for anything that is no tuner, and on a worker of a distributed search.

    Example:

    ```python
    import keras_tuner
    import numpy as np
    from keras_binclf import BinaryClassifierHyperModel, results_dataframe

    x = np.random.default_rng(0).normal(size=(200, 3)).astype("float32")
    y = (x[:, 0] > 0.5).astype("float32")
    hypermodel = BinaryClassifierHyperModel(3)
    tuner = keras_tuner.RandomSearch(
        hypermodel, hypermodel.objective, max_trials=2, directory="search",
        project_name=hypermodel.project_name, overwrite=True,
    )
    tuner.search(x[:100], y[:100], validation_data=(x[100:], y[100:]), epochs=2, verbose=0)
    table = results_dataframe(tuner)
    assert table["score"].is_monotonic_decreasing
    assert table.loc[0, "score"] == table.loc[0, "val_auc"]
    ```
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            '`results_dataframe` needs pandas: `pip install "keras-binclf[pandas]"`.'
        ) from error
    rows = [_describe(trial) for trial in list_trials(tuner, "results_dataframe")]
    table = pd.DataFrame(rows, columns=["trial", "status", "score", "best_epoch"])
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame(rows, columns=[*table.columns, *(n for n in names if n not in table)])


def list_trials(tuner: Any, owner: str) -> list[Any]:
    """Return the trials of a search, completed ones first, the best one before all.

    Raises:
        TypeError: for anything that is no tuner, and on a worker of a distributed search.
    """
    oracle: Any = getattr(tuner, "oracle", None)
    trials = getattr(oracle, "trials", None)
    if trials is None:
        hint = "Call it on the chief." if oracle is not None else ""
        text = f"`tuner` of {owner} must be a Keras Tuner tuner that has the trials. Received: "
        raise TypeError(f"{text}{type(tuner).__name__}. {hint}".rstrip())
    sign = -1 if oracle.objective.direction == "max" else 1

    def rank(trial: Any) -> tuple[bool, float, str]:
        # Of equal ones the first: a tuner that was loaded has its trials in any order.
        completed = trial.status == COMPLETED
        return not completed, sign * trial.score if completed else 0.0, trial.trial_id

    return sorted(trials.values(), key=rank)


def _save(model: keras.Model, filepath: str | os.PathLike[str]) -> None:
    if "://" in str(filepath):
        # Keras writes to such places as a whole.
        model.save(filepath)
        return
    with write_and_replace(filepath, "build_best") as path:
        model.save(path)


def _describe(trial: Any) -> dict[str, Any]:
    completed = trial.status == COMPLETED
    return {
        "trial": trial.trial_id,
        "status": trial.status,
        "score": trial.score if completed else None,
        "best_epoch": trial.best_step if completed else None,
        **trial.hyperparameters.values,
        **{name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics},
    }


def _explain_none(trials: list[Any]) -> str:
    if not trials:
        return "No trial of the search was completed: none was started. Call `tuner.search`."
    message = (trials[-1].message or "it did not end").strip().splitlines()[-1]
    return (
        f"No trial of the search was completed. Received: {len(trials)} trials, of which the last "
        f"says: {message}"
    )
