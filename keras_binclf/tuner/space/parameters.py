"""What is searched, as data: each hyperparameter, its values, and when it means something."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import keras

from keras_binclf._validation import is_integer
from keras_binclf.layers.mlp_block import NORMALIZATIONS

NONE = "none"
"""How `None` is written among strings: Keras Tuner's choices have one type."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values of the same type."""

    values: tuple[Any, ...]
    default: Any

    def ask(self, hp: Any, name: str) -> Any:
        """Return the value of this trial; register the hyperparameter if it is new."""
        if set(self.values) == {True, False} and isinstance(self.values[0], bool):
            return hp.Boolean(name, default=self.default)
        return hp.Choice(name, list(self.values), default=self.default)

    def list_values(self) -> list[Any]:
        """Return all values."""
        return list(self.values)


@dataclasses.dataclass(frozen=True)
class Range:
    """A number between two others, both included."""

    min_value: Any
    max_value: Any
    default: Any
    sampling: str = "linear"
    step: Any = None

    def ask(self, hp: Any, name: str) -> Any:
        """Return the value of this trial; register the hyperparameter if it is new."""
        method = hp.Int if is_integer(self.min_value) else hp.Float
        return method(name, **dataclasses.asdict(self))

    def list_values(self) -> list[Any]:
        """Return all values of a range of integers."""
        return list(range(self.min_value, self.max_value + 1))


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A value that is not searched."""

    value: Any

    def ask(self, hp: Any, name: str) -> Any:
        """Return the value; nothing is registered."""
        return self.value

    def list_values(self) -> list[Any]:
        """Return the one value."""
        return [self.value]

    @property
    def default(self) -> Any:
        """The value."""
        return self.value


Domain = Choice | Range | Fixed


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A hyperparameter as the package searches it unless told otherwise.

    Attributes:
        domain: its values, and the default one, which is that of `binary_classifier`.
        expected: which values there can be, for messages.
        is_valid: whether a value is one of them.
        kind: `int`, `float`, `bool` or `str`.
        parent: the name of the hyperparameter that decides whether this one means something.
        when: for which values of the parent it does.
        in_block: whether it belongs to the hidden layers, which a backbone replaces.
        by_size: names of values from the smallest model to the largest; numbers say it themselves.
    """

    domain: Domain
    expected: str
    is_valid: Callable[[Any], bool]
    kind: type
    parent: str | None = None
    when: Callable[[Any], bool] = lambda value: True
    in_block: bool = False
    by_size: tuple[str, ...] = ()


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
        _choice("adam", "adamw"), "'adam' or 'adamw'", lambda v: v in ("adam", "adamw"), str
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


def read_stack(text: str) -> tuple[int, ...] | None:
    """Return the widths that a string such as "64-32" stands for."""
    return None if text == NONE else tuple(int(size) for size in str(text).split("-"))


def read_point(hp: Any, domains: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the value of each hyperparameter that means something in this trial.

    Those that are new are registered, in the conditional scopes of Keras Tuner.

    Args:
        hp: `keras_tuner.HyperParameters`.
        domains: what `make_domains` returned.

    Returns:
        Values by name. Inactive ones are absent.
    """
    point: dict[str, Any] = {}
    for name, domain in domains.items():
        parent, active_for = _find_parent(name, domains)
        if parent is None:
            point[name] = domain.ask(hp, name)
            continue
        possible = domains[parent].list_values()
        active = [value for value in possible if active_for(value)]
        if not active:
            continue
        conditional = len(active) < len(possible)
        scope = hp.conditional_scope(parent, active) if conditional else nullcontext()
        with scope:
            value = domain.ask(hp, name)
        if point[parent] in active:
            point[name] = value
    return point


def _find_parent(
    name: str, domains: Mapping[str, Domain]
) -> tuple[str | None, Callable[[Any], bool]]:
    """Return the name of what decides over a hyperparameter, and for which values it is active."""
    parameter = PARAMETERS.get(name)
    if parameter is None or parameter.parent is None:
        return None, lambda value: True
    if parameter.parent in domains:
        return parameter.parent, parameter.when
    return HIDDEN_UNITS, lambda stack: stack != NONE


def find_largest(domains: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the values that make the largest model, as `hp.values` holds them."""
    searched = {name: d for name, d in domains.items() if not isinstance(d, Fixed)}
    return {name: _pick_largest(name, domain) for name, domain in searched.items()}


def _pick_largest(name: str, domain: Choice | Range) -> Any:
    if isinstance(domain, Range):
        return domain.max_value
    if name == HIDDEN_UNITS:
        return max(domain.values, key=_count_products)
    order = PARAMETERS[name].by_size
    return max(domain.values, key=order.index) if order else max(domain.values)


def _count_products(stack: str) -> int:
    """Return about how many weights a stack of layers has between them."""
    widths = read_stack(stack) or (0,)
    return sum(a * b for a, b in zip((max(widths), *widths), widths, strict=False))


def get_hidden_units(point: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the widths of the hidden layers; None for no hidden layer."""
    if HIDDEN_UNITS in point:
        return read_stack(str(point[HIDDEN_UNITS]))
    number = int(point["num_layers"])
    if number == 0:
        return None
    widest = int(point["units"])
    shape = point.get("width_shape", "constant")
    if shape == "constant":
        return (widest,) * number
    narrowest = min(widest, NARROWEST)
    widths = tuple(max(widest // 2**place, narrowest) for place in range(number))
    return widths if shape == "halving" else widths[::-1]
