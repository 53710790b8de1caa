"""The table of hyperparameters: to add one, add its entry here and use its value in `trial`.

`trial/model.py` puts the values into the model, `trial/fit_options.py` into `keras.Model.fit`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from keras_binclf.layers.mlp_block import NORMALIZATIONS
from keras_binclf.tuner.space.domains import Choice, Domain, Fixed, Range

NONE = "none"
"""Written for `None` among strings, since the values of a choice in Keras Tuner have one type."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A hyperparameter with the values that are searched unless `space` gives others.

    Attributes:
        domain: its values and its default, which is that of `binary_classifier`.
        expected: the allowed values, for messages.
        is_valid: whether a value is allowed.
        kind: `int`, `float`, `bool` or `str`.
        parent: name of the hyperparameter on which it depends whether this one is used.
        when: for which values of the parent it is used.
        in_block: whether it belongs to the hidden layers, which a backbone replaces.
        by_size: string values in the order of the model's size, the smallest one first.
        hint: the way out for values that are not allowed, for messages.
    """

    domain: Domain
    expected: str
    is_valid: Callable[[Any], bool]
    kind: type
    parent: str | None = None
    when: Callable[[Any], bool] = lambda value: True
    in_block: bool = False
    by_size: tuple[str, ...] = ()
    hint: str = ""


def _is_activation(value: Any) -> bool:
    try:
        return keras.activations.get(value) is not None
    except ValueError:
        return False


def _choice(*values: Any, default: Any = None) -> Choice:
    return Choice(values, values[0] if default is None else default)


SHAPES = ("halving", "constant", "doubling")
NARROWEST = 8
"""Units under which `halving` and `doubling` do not go, unless `units` does."""

PARAMETERS: dict[str, Parameter] = {
    "num_layers": Parameter(
        Range(0, 4, 2), "an int of at least 0", lambda v: v >= 0, int, in_block=True
    ),
    "units": Parameter(
        _choice(16, 32, 64, 128, 256, 512, default=64),
        "a positive int",
        lambda v: v >= 1,
        int,
        "num_layers",
        lambda number: number >= 1,
        in_block=True,
    ),
    "width_shape": Parameter(
        _choice(*SHAPES),
        "one of " + ", ".join(map(repr, SHAPES)),
        lambda v: v in SHAPES,
        str,
        "num_layers",
        lambda number: number >= 2,
        in_block=True,
        by_size=("halving", "doubling", "constant"),
    ),
    "activation": Parameter(
        _choice("relu", "gelu", "silu"),
        "the name of a Keras activation",
        _is_activation,
        str,
        "num_layers",
        lambda number: number >= 1,
        in_block=True,
    ),
    "dropout_rate": Parameter(
        _choice(0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
        "a float in [0, 1)",
        lambda v: 0 <= v < 1,
        float,
        "num_layers",
        lambda number: number >= 1,
        in_block=True,
    ),
    "normalization": Parameter(
        _choice(NONE, *NORMALIZATIONS),
        "None or one of " + ", ".join(map(repr, NORMALIZATIONS)),
        lambda v: v == NONE or v in NORMALIZATIONS,
        str,
        "num_layers",
        lambda number: number >= 1,
        in_block=True,
        by_size=(NONE, "rms", "layer", "batch"),
    ),
    "residual": Parameter(
        _choice(False, True),
        "a bool",
        lambda v: True,
        bool,
        "num_layers",
        lambda number: number >= 1,
        in_block=True,
    ),
    "prior_bias": Parameter(_choice(True, False), "a bool", lambda v: True, bool),
    "optimizer": Parameter(
        _choice("adam", "adamw"),
        "'adam' or 'adamw'",
        lambda v: v in ("adam", "adamw"),
        str,
        hint="Another optimizer is an argument of the tuner: `RandomSearch(..., optimizer=...)`.",
    ),
    "weight_decay": Parameter(
        Range(1e-4, 1e-1, 4e-3, "log"),
        "a non-negative, finite float",
        lambda v: v >= 0,
        float,
        "optimizer",
        lambda name: name == "adamw",
    ),
    "learning_rate": Parameter(
        Range(1e-4, 1e-2, 1e-3, "log"), "a positive, finite float", lambda v: v > 0, float
    ),
    "label_smoothing": Parameter(
        _choice(0.0, 0.05, 0.1), "a float in [0, 1)", lambda v: 0 <= v < 1, float
    ),
    "class_weight": Parameter(
        _choice(NONE, "balanced"), "None or 'balanced'", lambda v: v in (NONE, "balanced"), str
    ),
    "batch_size": Parameter(
        _choice(64, 128, 256, 512, default=128), "a positive int", lambda v: v >= 1, int
    ),
    "epochs": Parameter(Fixed(100), "a positive int", lambda v: v >= 1, int),
}
BLOCK_OPTIONS = ("activation", "dropout_rate", "normalization", "residual")
WIDTHS = ("num_layers", "units", "width_shape")
HIDDEN_UNITS = "hidden_units"
