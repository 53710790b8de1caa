"""Points of the space: the values of one trial, and those of the largest model."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from keras_binclf.tuner.space.domains import Choice, Domain, Fixed, Range
from keras_binclf.tuner.space.hyperparameters import HIDDEN_UNITS, NARROWEST, NONE, PARAMETERS


def read_stack(text: str) -> tuple[int, ...] | None:
    """Return the widths that a string such as "64-32" stands for."""
    return None if text == NONE else tuple(int(size) for size in str(text).split("-"))


def read_point(hp: Any, domains: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the value of each hyperparameter that this trial uses.

    Those that are new are registered, in the conditional scopes of Keras Tuner.

    Args:
        hp: `keras_tuner.HyperParameters`.
        domains: returned by `make_domains`.

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
    """Return the hyperparameter on which another depends, and for which of its values."""
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
