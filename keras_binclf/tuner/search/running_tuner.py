"""The Keras Tuner tuner that runs a trial: its objective, and its arguments that compile anew."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import keras

from keras_binclf.metrics.base import get_direction

HINT = "Give the tuner `objective=hypermodel.objective`."

REPLACED = {
    "optimizer": ("optimizer", "learning_rate", "weight_decay"),
    "loss": ("label_smoothing",),
    "metrics": (),
}
"""Arguments with which Keras Tuner compiles each model anew; the hyperparameters they replace."""


def find_tuner(callbacks: Sequence[Any]) -> Any:
    """Return the tuner that runs the trial, through the callback that it adds; else None."""
    tuners = (getattr(callback, "tuner", None) for callback in callbacks)
    return next((tuner for tuner in tuners if hasattr(tuner, "oracle")), None)


def call_at_end(tuner: Any, function: Callable[[], None]) -> None:
    """Call a function once, when the running search of a tuner ends."""
    usual = tuner.on_search_end

    def on_search_end() -> None:
        tuner.on_search_end = usual
        function()
        usual()

    tuner.on_search_end = on_search_end


def find_finished(callbacks: Sequence[Any]) -> dict[str, float] | None:
    """Return the scores of the trial if it was completed before; else None.

    A search that is killed when a trial ends may have written the trial's scores, but not that the
    trial is over. Keras Tuner would then run it again.
    """
    trial: Any = next((c.trial for c in callbacks if hasattr(c, "trial")), None)
    score = getattr(trial, "score", None)
    if score is None or score != score:
        return None
    return {name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics}


def find_objective(tuner: Any, own: Any, metrics: Sequence[keras.metrics.Metric]) -> Any:
    """Return the objective to train for: the tuner's, if it makes a metric better.

    Args:
        tuner: the tuner, or None.
        own: the objective of the hypermodel, which also stops a search for several objectives.
        metrics: those of the hypermodel.

    Raises:
        ValueError: for no objective, and for one that would make a metric worse.
    """
    if tuner is None:
        return own
    given = tuner.oracle.objective
    if given.name == "default_objective":
        raise ValueError(f"The tuner has no objective. {HINT}")
    several = getattr(given, "objectives", None)
    directions = {
        f"val_{_get_name(metric)}": get_direction(metric)
        for metric in merge_metrics(tuner, metrics)
    }
    for objective in several or [given]:
        right = directions.get(objective.name) or objective.direction
        if objective.direction != right:
            raise ValueError(
                f"The tuner would make {objective.name!r} worse: it has the direction "
                f"{objective.direction!r}, the metric {right!r}. {HINT}"
            )
    return own if several else given


def compile_for(tuner: Any, model: keras.Model, metrics: Sequence[keras.metrics.Metric]) -> None:
    """Compile a model with the `optimizer`, `loss` and `metrics` of its tuner, where it has them.

    Keras Tuner does so itself, but replaces the metrics of the model, which the objective and the
    threshold need.

    Args:
        tuner: the tuner, or None.
        model: compiled model of a trial.
        metrics: those of each trial, not used before.
    """
    if not _list_given(tuner):
        return
    strategy = tuner.distribution_strategy
    with strategy.scope() if strategy is not None else nullcontext():
        model.compile(
            optimizer=_copy_optimizer(tuner.optimizer) if tuner.optimizer else model.optimizer,
            loss=tuner.loss or model.loss,
            metrics=merge_metrics(tuner, metrics),
            run_eagerly=model.run_eagerly,
        )
        model.optimizer.build(model.trainable_variables)


def merge_metrics(tuner: Any, metrics: Sequence[keras.metrics.Metric]) -> list[Any]:
    """Return the metrics of a trial and those of its tuner, which replace ours of the same name."""
    theirs = keras.tree.flatten(getattr(tuner, "metrics", None) or [])
    names = set(map(_get_name, theirs))
    return [*(metric for metric in metrics if metric.name not in names), *theirs]


def check_overrides(tuner: Any, hp: Any) -> None:
    """Check the arguments with which the tuner compiles each model anew.

    Args:
        tuner: the tuner, or None.
        hp: `keras_tuner.HyperParameters` in which all hyperparameters are registered.

    Raises:
        ValueError: for a loss or a metric that reads logits; models of the search have none.
    """
    searched = {parameter.name for parameter in hp.space}
    for argument in _list_given(tuner):
        for part in keras.tree.flatten(getattr(tuner, argument)):
            if _reads_logits(part):
                raise ValueError(
                    f"`{argument}` of the tuner must read probabilities, which the models of the "
                    f"search emit. Received: {part!r} with `from_logits=True`."
                )
        without_effect = [name for name in REPLACED[argument] if name in searched]
        if without_effect:
            names = ", ".join(f"`{name}`" for name in without_effect)
            warnings.warn(
                f"`{argument}` of the tuner replaces the one that each trial chooses: searching "
                f"{names} has no effect. Fix each to one value in `space`, or leave `{argument}` "
                "of the tuner out.",
                stacklevel=2,
            )


def _list_given(tuner: Any) -> list[str]:
    """Return which of the arguments that compile anew a tuner was given."""
    return [argument for argument in REPLACED if getattr(tuner, argument, None)]


def _copy_optimizer(optimizer: Any) -> keras.optimizers.Optimizer:
    if isinstance(optimizer, str):
        return keras.optimizers.get(optimizer)
    return keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))


def _get_name(metric: Any) -> str:
    """Return the name under which Keras logs a metric: a string, a function or an object."""
    if isinstance(metric, str):
        return metric
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", ""))


def _reads_logits(part: Any) -> bool:
    config = part.get_config() if hasattr(part, "get_config") else {}
    return bool(config.get("from_logits", False))
