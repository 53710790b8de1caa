"""Reads the argument `space`: values, lists of them, ranges and stacks of widths."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras_binclf._validation import error_message, is_integer, is_real, suggest_nearest
from keras_binclf.tuner.space.domains import Choice, Domain, Fixed, Range
from keras_binclf.tuner.space.hyperparameters import HIDDEN_UNITS, NONE, PARAMETERS, WIDTHS
from keras_binclf.tuner.space.points import read_stack

OWNER = "BinaryClassifierHyperModel"


def make_domains(
    space: Mapping[str, Any], has_backbone: bool, has_prior: bool, tune_batch_size: bool
) -> dict[str, Domain]:
    """Return the values of each hyperparameter of a search.

    Args:
        space: the argument of the hypermodel.
        has_backbone: whether a function replaces the hidden layers.
        has_prior: whether the share of positives is known.
        tune_batch_size: whether the search chooses the batch size.

    Returns:
        Domains by name, parents before their children.

    Raises:
        TypeError: for an entry of the wrong kind.
        ValueError: for an unknown name, an empty range, and a value that cannot be.
    """
    names = _list_names(space, has_backbone, has_prior, tune_batch_size)
    domains: dict[str, Domain] = {}
    if HIDDEN_UNITS in space:
        domains[HIDDEN_UNITS] = _parse_hidden_units(space[HIDDEN_UNITS])
        names = [name for name in names if name not in WIDTHS]
    for name in names:
        domain = PARAMETERS[name].domain
        domains[name] = _parse(name, space[name]) if name in space else domain
    return domains


def _list_names(
    space: Mapping[str, Any], has_backbone: bool, has_prior: bool, tune_batch_size: bool
) -> list[str]:
    """Return the names of the hyperparameters of the search, or raise for another in `space`."""
    absent = {}
    if has_backbone:
        absent = {name: "`backbone`" for name, entry in PARAMETERS.items() if entry.in_block}
        absent[HIDDEN_UNITS] = "`backbone`"
    if not has_prior:
        absent["prior_bias"] = "`prior=None`"
    if not tune_batch_size:
        absent["batch_size"] = "`tune_batch_size=False`"
    for name in space:
        if name in absent:
            hint = f"Take it out of `space`: {absent[name]} leaves nothing to choose."
            expected = f"left out with {absent[name]}"
            raise ValueError(error_message(f'space["{name}"]', OWNER, expected, space[name], hint))
        if name in WIDTHS and HIDDEN_UNITS in space:
            hint = "`hidden_units` gives all widths."
            expected = "left out beside `hidden_units`"
            raise ValueError(error_message(f'space["{name}"]', OWNER, expected, space[name], hint))
        if name not in PARAMETERS and name != HIDDEN_UNITS:
            raise ValueError(_explain_unknown(name, [*PARAMETERS, HIDDEN_UNITS], "space"))
    return [name for name in PARAMETERS if name not in absent]


def _explain_unknown(name: Any, known: Sequence[str], where: str, cutoff: float = 0.6) -> str:
    hint = suggest_nearest(name, known, cutoff)
    text = f"`{where}` of {OWNER} has no {name!r}. {hint}".rstrip()
    return f"{text} There are: {', '.join(known)}."


def _parse(name: str, value: Any) -> Domain:
    """Return the domain of one entry of `space`: a range, choices, or one value."""
    if isinstance(value, Mapping):
        return _parse_range(name, value)
    if isinstance(value, list | tuple):
        values = tuple(_check(name, item) for item in value)
        if not values:
            hint = "Give one value to fix it, or leave it out of `space`."
            expected = "a value, a non-empty list of values, or a range"
            raise ValueError(error_message(f'space["{name}"]', OWNER, expected, value, hint))
        default = PARAMETERS[name].domain.default
        values = tuple(dict.fromkeys(values))
        if len(values) == 1:
            return Fixed(values[0])
        return Choice(values, default if default in values else values[0])
    return Fixed(_check(name, value))


def _check(name: str, value: Any) -> Any:
    """Return one value of a hyperparameter in its own type, or raise."""
    parameter = PARAMETERS[name]
    if value is None and isinstance(parameter.domain, Choice) and NONE in parameter.domain.values:
        return NONE
    right_kind = {
        int: is_integer(value),
        float: is_real(value),
        bool: isinstance(value, bool),
        str: isinstance(value, str),
    }[parameter.kind]
    label = f'space["{name}"]'
    if not right_kind:
        raise TypeError(error_message(label, OWNER, parameter.expected, value, parameter.hint))
    if not parameter.is_valid(value) or (is_real(value) and not math.isfinite(value)):
        raise ValueError(error_message(label, OWNER, parameter.expected, value, parameter.hint))
    return parameter.kind(value)


RANGE_KEYS = ("min_value", "max_value", "step", "sampling", "default")


def _parse_range(name: str, given: Mapping[str, Any]) -> Domain:
    label = f'space["{name}"]'
    parameter = PARAMETERS[name]
    if parameter.kind not in (int, float):
        expected = f"a value or a list of values, each {parameter.expected}"
        raise TypeError(error_message(label, OWNER, expected, given, parameter.hint))
    for key in given:
        if key not in RANGE_KEYS:
            # "max" and "min" are half of a key.
            raise ValueError(_explain_unknown(key, RANGE_KEYS, label, cutoff=0.5))
    known = dataclasses.asdict(parameter.domain) if isinstance(parameter.domain, Range) else {}
    for key in ("min_value", "max_value"):
        if key not in {**known, **given}:
            hint = 'Such as `{"min_value": 16, "max_value": 64}`, or a list of values.'
            expected = f"a range with `{key}`"
            raise ValueError(error_message(label, OWNER, expected, given, hint))
    low, high = (_check(name, {**known, **given}[key]) for key in ("min_value", "max_value"))
    if low > high:
        expected = "a range whose `min_value` is not above its `max_value`"
        raise ValueError(error_message(label, OWNER, expected, {**known, **given}))
    if low == high:
        return Fixed(low)
    default = _check(name, given["default"]) if "default" in given else parameter.domain.default
    if not low <= default <= high:
        if "default" in given:
            expected = f"a range that contains its default, from {low} to {high}"
            raise ValueError(error_message(label, OWNER, expected, given))
        # Of the new range, the value nearest to the old default.
        default = low if default < low else high
    sampling = given.get("sampling", known.get("sampling", "linear"))
    domain = Range(low, high, default, sampling, _get_step(name, given))
    domain = _check_sampling(label, domain, given)
    if domain.step is None or sampling != "linear" or parameter.kind is int:
        return domain
    return _list_steps(domain)


def _get_step(name: str, given: Mapping[str, Any]) -> Any:
    """Return the step of a range; that of the package only where its other parts hold too."""
    if "step" in given:
        return given["step"]
    domain = PARAMETERS[name].domain
    return None if "sampling" in given or not isinstance(domain, Range) else domain.step


def _check_sampling(label: str, domain: Range, given: Mapping[str, Any]) -> Range:
    if domain.sampling not in ("linear", "log", "reverse_log"):
        expected = "a range with `sampling` one of 'linear', 'log', 'reverse_log'"
        raise ValueError(error_message(label, OWNER, expected, dict(given)))
    if domain.sampling != "linear" and domain.min_value <= 0:
        expected = "a range above 0 where it is sampled by its logarithm"
        raise ValueError(error_message(label, OWNER, expected, dict(given)))
    step = domain.step
    if step is not None and not (is_real(step) and step > (domain.sampling != "linear")):
        expected = "a range with a positive `step` (one above 1 where it multiplies)"
        raise ValueError(error_message(label, OWNER, expected, dict(given)))
    return domain


def _list_steps(domain: Range) -> Choice:
    """Return the values of a range with steps.

    Keras Tuner would count them by a division that rounds down: 0.5 is not among its values from 0
    to 0.5 in steps of 0.1.
    """
    number = math.floor((domain.max_value - domain.min_value) / domain.step + 1e-9) + 1
    values = tuple(round(domain.min_value + i * domain.step, 12) for i in range(number))
    return Choice(values, min(values, key=lambda value: abs(value - domain.default)))


def _parse_hidden_units(value: Any) -> Domain:
    """Return stacks of widths, each written as a string such as "64-32", or "none"."""
    if not isinstance(value, list):
        return Fixed(_write_stack(value))
    stacks = tuple(dict.fromkeys(_write_stack(item) for item in value))
    if not stacks:
        expected = "widths such as `(64, 32)`, or a non-empty list of such"
        raise ValueError(error_message('space["hidden_units"]', OWNER, expected, value))
    if len(stacks) == 1:
        return Fixed(stacks[0])
    default = "64-32"
    return Choice(stacks, default if default in stacks else stacks[0])


def _write_stack(value: Any) -> str:
    if value is None:
        return NONE
    units = (value,) if is_integer(value) else value
    expected = "an int, a tuple of ints, None, or a list of such, of which one is chosen"
    if not isinstance(units, tuple) or not all(is_integer(size) for size in units):
        raise TypeError(error_message('space["hidden_units"]', OWNER, expected, value))
    if not units or min(units) < 1:
        raise ValueError(error_message('space["hidden_units"]', OWNER, expected, value))
    return "-".join(str(int(size)) for size in units)


def to_json(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return `space` with lists for tuples, and stacks of widths as strings."""
    written: dict[str, Any] = {}
    for name, value in space.items():
        if name == HIDDEN_UNITS:
            is_list = isinstance(value, list)
            written[name] = [_write_stack(v) for v in value] if is_list else _write_stack(value)
        elif isinstance(value, Mapping):
            written[name] = dict(value)
        else:
            written[name] = list(value) if isinstance(value, list | tuple) else value
    return written


def from_json(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `space` that was given to `to_json`."""
    read = dict(space)
    stacks = read.get(HIDDEN_UNITS)
    if stacks is not None:
        is_list = isinstance(stacks, list)
        read[HIDDEN_UNITS] = [read_stack(s) for s in stacks] if is_list else read_stack(stacks)
    return read
