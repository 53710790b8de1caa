"""Values of the hyperparameters that Optuna chooses, instead of Keras Tuner."""

from collections.abc import Callable
from typing import Any

import keras_tuner


def choose_with_optuna(trial: Any, declare: Callable[[Any], Any]) -> keras_tuner.HyperParameters:
    """Return the hyperparameters that a trial of Optuna chose.

    Args:
        trial: `optuna.Trial`.
        declare: registers all hyperparameters in the `HyperParameters` that it is given.
    """
    chosen: dict[str, Any] = {}
    while True:
        hp = keras_tuner.HyperParameters()
        hp.values = dict(chosen)
        declare(hp)
        # Defaults were filled in, which decide nothing.
        hp.values = dict(chosen)
        missing = [p for p in hp.space if p.name not in chosen and hp.is_active(p)]
        if not missing:
            return hp
        # One at a time: parents come first, and decide which of the others are active.
        chosen[missing[0].name] = _suggest(trial, missing[0])


def _suggest(trial: Any, parameter: Any) -> Any:
    name, kind, config = parameter.name, type(parameter).__name__, parameter.get_config()
    if kind == "Fixed":
        return parameter.value
    # Optuna takes steps on a linear scale alone.
    if kind in ("Choice", "Boolean") or (config["sampling"] != "linear" and config["step"]):
        return trial.suggest_categorical(name, list(parameter.values))
    ask = trial.suggest_int if kind == "Int" else trial.suggest_float
    options = {"step": config["step"]} if config["step"] else {}
    if config["sampling"] == "log":
        options = {"log": True}
    return ask(name, config["min_value"], config["max_value"], **options)
