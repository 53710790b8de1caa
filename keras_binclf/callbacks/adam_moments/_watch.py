"""Observation of one optimizer while it trains, around the scheduled steps only."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_binclf._validation import Tensor
from keras_binclf.callbacks.adam_moments._compiling import compile_reading, copy_all
from keras_binclf.callbacks.adam_moments._observation import CHUNK, LOW_BITS, make_observer
from keras_binclf.callbacks.adam_moments._optimizers import (
    Moments,
    Reader,
    get_counter,
    get_product,
    list_moments,
    make_rule,
)
from keras_binclf.callbacks.adam_moments._quantities import Plan

Schedule = Callable[[int], bool]

MAX_UNSURE = 64
"""Number of batches after which the count is read where some may have been skipped."""


class Watch:
    """Observes the logged variables of one optimizer of the Adam family.

    Steps are counted here, so that training need not wait for the device. Where the count is not
    sure (a dynamic loss scale skips batches, and one call may train several), it is read from the
    optimizer, but only when the next batch may be a scheduled one. In a `train_step` of one's own a
    batch may make any number of steps: there it is read before each batch.

    Args:
        model: keras.Model, the trained one.
        adam: optimizer, built.
        moments: list of Moments of the logged variables.
        names: tuple of str, their keys.
        quantities: tuple of str, names of quantities.
        schedule: function of a step that tells whether it is logged.
        skips: bool, whether the optimizer may skip batches.
        is_custom: bool, whether a batch may make any number of steps.
    """

    def __init__(
        self,
        model: Any,
        adam: Any,
        moments: Sequence[Moments],
        names: tuple[str, ...],
        quantities: tuple[str, ...],
        schedule: Schedule,
        skips: bool,
        is_custom: bool,
    ) -> None:
        self.model, self.moments, self.names, self.schedule = model, moments, names, schedule
        self.key = _make_key(model, adam)
        self.rule = make_rule(adam)
        self.plan = Plan(quantities, self.rule)
        self.counter, self.product = get_counter(adam), get_product(adam)
        self.batches = model.steps_per_execution
        self.is_custom = is_custom
        self.is_sure = self.batches == 1 and not skips and not is_custom
        self.most: int | None = None  # counts of one batch of a custom step, of those seen so far
        self.shapes = tuple(tuple(row.weight.shape) for row in moments)
        self.sizes = np.array([float(math.prod(shape)) for shape in self.shapes])
        self.lowest = self.highest = -1
        self.before: list[Tensor] | None = None
        self._compile(bool(model.jit_compile))

    def _compile(self, jit_compile: bool) -> None:
        old = [self.counter, *(v for row in self.moments for v in (row.first, row.weight))]
        new = [self.counter, *([] if self.product is None else [self.product])]
        new += [v for row in self.moments for v in row if v is not None]
        # XLA takes a second to compile, and graphs of small reductions run no faster for it.
        jit_compile &= self.sizes.max() >= 2 * CHUNK
        in_chunks = jit_compile and _runs_on_cpu()
        observe = make_observer(self.rule, self.plan.totals, self.shapes, in_chunks)
        self.readers = [Reader(self.model, variables) for variables in (old, new, [self.counter])]
        self.look = compile_reading(copy_all, self.readers[0], False)
        self.observe = compile_reading(observe, self.readers[1], jit_compile)

    def is_for(self, model: Any, adam: Any, moments: Sequence[Moments]) -> bool:
        """Whether this observes these variables of this optimizer, compiled as it is now."""
        same = [_ids(row) for row in self.moments] == [_ids(row) for row in moments]
        return same and self.key == _make_key(model, adam)

    def forget(self) -> None:
        """Drop the values of a training that has ended, also with an error."""
        self.before = None
        self.lose_count()

    def lose_count(self) -> None:
        """Read the count and the places of the variables anew before the next batch."""
        self.lowest = self.highest = -1
        for reader in self.readers:
            reader.forget()

    def begin_batch(self) -> None:
        """Take a snapshot if the next batch may complete a scheduled step."""
        if self._is_due():
            self.before = self.look()
        self._count_batch()

    def begin_first(self, values: dict[int, Tensor]) -> None:
        """Do the same for the first batch, when the optimizer was not built before it.

        Args:
            values: dict of the values of variables, by `id`. Moments were 0, the count too if it is
                not known; weights that did not exist are NaN.
        """

        def find(variable: keras.Variable, default: float) -> Tensor:
            if id(variable) in values:
                return values[id(variable)]
            return ops.full(variable.shape, default, variable.dtype)

        count = find(self.counter, 0)
        self.lowest = self.highest = int(ops.convert_to_numpy(count))
        if self._is_scheduled():
            self.before = [count]
            for row in self.moments:
                self.before += [find(row.first, 0.0), find(row.weight, np.nan)]
        self._count_batch()

    def end_batch(self) -> Tensor | None:
        """Return the numbers of the batch that has just been trained, still on the device."""
        if self.before is None:
            return None
        before, self.before = self.before, None
        return self.observe(before)

    def derive(self, numbers: Tensor) -> tuple[int, np.ndarray] | None:
        """Return the step and its columns, or None if the batch completed no scheduled step."""
        taken, low, high, *totals = ops.convert_to_numpy(numbers)
        if taken < 1:
            return None
        step = int(high) * LOW_BITS + int(low)
        if not self._is_any_scheduled(step - int(taken) + 1, step):
            return None
        by_variable = np.reshape(totals, (len(self.moments), -1))
        return step, self.plan.derive(by_variable, step, self.sizes)

    def warn_of_rounding(self) -> None:
        """Warn where the dtype of the variables rounds `beta_2` to 1, so that nothing moves."""
        for dtype in {row.second.dtype for row in self.moments}:
            rounded = float(ops.cast(ops.cast(self.rule.beta_2, dtype), "float32"))
            if rounded == 1.0 and not self.rule.norm:
                warnings.warn(
                    f"In {dtype}, beta_2={self.rule.beta_2:g} is 1: the bias correction of the "
                    "second moment is 0, and Adam stands still. Keep the variables in float32 "
                    f'(`keras.config.set_dtype_policy("mixed_{dtype}")`), or lower `beta_2`.',
                    stacklevel=2,
                )

    def _is_due(self) -> bool:
        if self.lowest < 0 or self.is_custom:
            self._read_count()
        due = self._is_scheduled()
        unsure = self.lowest != self.highest
        if unsure and (due or self.highest - self.lowest >= MAX_UNSURE * self.batches):
            self._read_count()
            due = self._is_scheduled()
        return due

    def _is_scheduled(self) -> bool:
        """Whether the next batch may complete a scheduled step."""
        if self.is_custom and self.most is None:
            return True
        first = self.lowest // self.rule.accumulation + 1
        most = self.most or self.batches
        return self._is_any_scheduled(first, (self.highest + most) // self.rule.accumulation)

    def _is_any_scheduled(self, first: int, last: int) -> bool:
        return any(self.schedule(step) for step in range(first, last + 1))

    def _count_batch(self) -> None:
        self.highest += self.batches
        if self.is_sure:
            self.lowest = self.highest

    def _read_count(self) -> None:
        (value,) = self.readers[2]()
        count = int(ops.convert_to_numpy(value))
        if self.is_custom and self.lowest >= 0:
            self.most = max(self.most or 0, count - self.lowest, self.batches)
        self.lowest = self.highest = count


def list_watched(adams: Sequence[Any]) -> list[tuple[Any, list[Moments], tuple[str, ...]]]:
    """Return each built optimizer with its moments and their keys.

    A `MultiOptimizer` does not build an optimizer that trains no variable. The key of a variable is
    its path; the second variable of a path gets `#2` after it.
    """
    seen: dict[str, int] = {}
    watched = []
    for adam in (adam for adam in adams if adam.built):
        moments, names = list_moments(adam), []
        for row in moments:
            path = row.weight.path
            seen[path] = seen.get(path, 0) + 1
            names.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
        watched.append((adam, moments, tuple(names)))
    return watched


def _make_key(model: Any, adam: Any) -> tuple[Any, ...]:
    ids = id(model), id(getattr(model, "optimizer", None)), id(adam)
    return *ids, make_rule(adam), model.steps_per_execution, model.jit_compile


def _ids(row: Moments) -> list[int]:
    return [id(variable) for variable in row]


def _runs_on_cpu() -> bool:
    """Whether variables are whole on one processor, and a compiler makes loops fast."""
    if keras.backend.backend() == "torch" or keras.distribution.distribution() is not None:
        return False
    return all(device.startswith("cpu") for device in keras.distribution.list_devices())
