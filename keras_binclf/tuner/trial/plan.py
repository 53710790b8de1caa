"""How a trial trains, and the error that ends the search of which it is a part."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a trial trains, beside its data.

    Attributes:
        monitor: name of the objective in the logs.
        direction: `"max"` or `"min"`.
        patience: epochs without improvement after which to stop, or None.
        class_weights: of negatives and positives, in training alone; or None.
        callbacks: those of the user and of Keras Tuner.
        options: further arguments of `keras.Model.fit`.
        why_undefined: why the objective may have no value although the loss is finite.
        check_all_batches: raises `ValueError` for NaN or infinity in a data set.
    """

    monitor: str
    direction: str
    patience: int | None
    class_weights: tuple[float, float] | None
    callbacks: Sequence[keras.callbacks.Callback]
    options: dict[str, Any]
    why_undefined: str = ""
    check_all_batches: Callable[[], None] = lambda: None


class SearchError(ValueError):
    """An error that every other trial would meet too, so that the search must stop."""
