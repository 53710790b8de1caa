"""Computation on the device: the tensors of a step, and their reduction to scalars.

All scalars of a step come back in one array of float32, so that one transfer is enough.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_binclf._validation import Tensor
from keras_binclf.callbacks.adam_moments._optimizers import Rule

CHUNK = 65_536
"""Number of entries of a chunk, where a large variable is reduced chunk by chunk."""

SMALL = 4096
"""Largest number of entries of a variable whose tensors are stacked and reduced together."""

LANES = 256
"""Number of partial sums of a tensor: adding them up pair by pair rounds less than in a row."""

SCALE = 2.0**32
"""Factor of second moments before they are squared.

The square of a small second moment, the fourth power of a gradient, would be 0 in float32.
"""

EDGES = tuple(2.0**exponent for exponent in range(-45, 17, 2))
"""Inner edges of the 32 bins of a histogram of absolute values, two octaves each."""

LOW_BITS = 2**20
"""A step is sent as quotient and remainder of this number, since float32 counts only to 2^24."""


class Total(NamedTuple):
    """One number for each variable: a tensor of the step, reduced to a scalar.

    Attributes:
        tensor: str, attribute of `Step`.
        reduction: str, key of `REDUCTIONS`.
    """

    tensor: str
    reduction: str


class Clock:
    """Numbers of steps before and after a batch, and the factors of the bias correction.

    All are float32. `1 - beta^t` is computed by `expm1`: at the first steps, the rounding of
    `beta^t` would cost it three digits.

    Args:
        rule: Rule, the numbers of the optimizer.
        before: integer tensor, `optimizer.iterations` before the batch.
        after: integer tensor, `optimizer.iterations` after it.
        product: tensor with the product of Nadam's decays, or `None`.
    """

    def __init__(self, rule: Rule, before: Tensor, after: Tensor, product: Tensor | None) -> None:
        last = ops.floor_divide(after, rule.accumulation)
        self.low, self.high = ops.mod(last, LOW_BITS), ops.floor_divide(last, LOW_BITS)
        taken = last - ops.floor_divide(before, rule.accumulation)
        self.taken, self.step = to_float(taken), to_float(last)
        self.first_rest = _rest(rule.beta_1, self.taken)
        # The norm of Adamax starts unbiased.
        self.second_scale = 1.0 if rule.norm else 1.0 / _rest(rule.beta_2, self.step)
        self.first_scale, self.gradient_scale = 1.0 / _rest(rule.beta_1, self.step), None
        if product is not None:
            now, ahead = (
                rule.beta_1 * (1.0 - 0.5 * ops.exp(math.log(0.96) * (self.step + shift)))
                for shift in (0.0, 1.0)
            )
            product = to_float(product)
            self.first_scale = ahead / (1.0 - product * ahead)
            self.gradient_scale = (1.0 - now) / (1.0 - product)


class Step:
    """The tensors of one variable at one step, or a part of each, in float32.

    Args:
        rule: Rule, the numbers of the optimizer.
        clock: Clock, the count of steps and the bias correction.
        before: first moment and weight before the step.
        after: first moment, second moment, maximum (or `None`) and weight after the step.
    """

    def __init__(
        self,
        rule: Rule,
        clock: Clock,
        before: Sequence[Tensor],
        after: Sequence[Tensor | None],
    ) -> None:
        self.rule, self.clock = rule, clock
        first_before, weight_before = before
        first, second, maximum, weight = after
        self.first_before, self.m = to_float(first_before), to_float(first)
        self.weight_before, self.weight = _widen(weight_before), _widen(weight)
        self.v = ops.square(to_float(second)) if rule.norm else to_float(second)
        self.v_max = self.v if maximum is None else to_float(maximum)

    def get(self, name: str) -> Tensor:
        """Return a tensor by name, in float32."""
        return to_float(getattr(self, name))

    @functools.cached_property
    def gradient(self) -> Tensor:
        """The gradient that the optimizer applied, from the change of the first moment."""
        rest = self.clock.first_rest
        return (self.m - (1.0 - rest) * self.first_before) / rest

    @functools.cached_property
    def update(self) -> Tensor:
        """The change of the weights by the step."""
        change = self.weight - self.weight_before
        return to_float(change)

    @functools.cached_property
    def m_hat(self) -> Tensor:
        """The bias-corrected first moment of Nadam, to which a share of the gradient is added."""
        return self.clock.first_scale * self.m + self.clock.gradient_scale * self.gradient

    @functools.cached_property
    def v_hat(self) -> Tensor:
        """The bias-corrected second moment; the step divides by its root."""
        return self.v_max * self.clock.second_scale

    @functools.cached_property
    def surprise(self) -> Tensor:
        """The squared gradient divided by the bias-corrected second moment."""
        return ops.square(self.gradient) / ops.maximum(self.v_hat, self._floor)

    @functools.cached_property
    def under_epsilon(self) -> Tensor:
        """1 where the root of the second moment is below epsilon, else 0."""
        return to_float(self.v_hat < self._floor)

    @property
    def _floor(self) -> float:
        """The square of epsilon, at least the smallest number that devices do not round to 0."""
        return max(self.rule.epsilon**2, _TINY)


_TINY = 2.0**-126


def _find_above(edge: float) -> Callable[[Tensor], Tensor]:
    """Return a function that gives 1 where the absolute value reaches `edge`, else 0."""
    return lambda x: to_float(ops.abs(x) >= edge)


REDUCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[..., Tensor], Any]] = {
    "sum": (lambda x: x, ops.add, ops.sum),
    "square": (ops.square, ops.add, ops.sum),
    "scaled_square": (lambda x: ops.square(x * SCALE), ops.add, ops.sum),
    "max": (ops.abs, ops.maximum, ops.max),
    **{f"above_{i}": (_find_above(edge), ops.add, ops.sum) for i, edge in enumerate(EDGES)},
}
"""Reductions of a tensor to a scalar: functions of each entry, of two results, and of all."""


def _widen(x: Tensor) -> Tensor:
    """Cast to float32, but keep float64, where small updates come from large weights."""
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else to_float(x)


def to_float(x: Tensor) -> Tensor:
    """Cast to float32."""
    return ops.cast(x, "float32")


@functools.lru_cache(maxsize=16)
def make_observer(
    rule: Rule,
    totals: tuple[Total, ...],
    shapes: tuple[tuple[int, ...], ...],
    in_chunks: bool,
) -> Callable[..., Tensor]:
    """Return a function that reduces a step to one array, still to be compiled.

    Calls with equal arguments return the same function, which is then compiled only once.

    Args:
        rule: Rule, the numbers of the optimizer.
        totals: tuple of Total, computed of each variable.
        shapes: tuple of the shapes of the variables.
        in_chunks: bool, whether a large variable is read once, `CHUNK` entries at a time, and not
            once for each total. Several times faster on CPUs, slower on GPUs.

    Returns:
        Function of two lists of tensors, after the batch and before it. After: the count, the
        product of Nadam, and for each variable the first and second moment, the maximum of AMSGrad
        and the weight. Before: the count, and for each variable the first moment and the weight. It
        returns the number of steps of the batch, the last step in two parts, and the totals of
        each variable.
    """

    def observe(after: list[Tensor], before: list[Tensor]) -> Tensor:
        new, old = iter(after), iter(before)
        clock = Clock(rule, next(old), next(new), next(new) if rule.nesterov else None)
        numbers = [ops.stack([clock.taken, to_float(clock.low), to_float(clock.high)])]
        for shape in shapes:
            tensors = (
                (next(old), next(old)),
                (next(new), next(new), next(new) if rule.amsgrad else None, next(new)),
            )
            make_step = functools.partial(_make_step, rule, clock, *tensors)
            numbers.append(_reduce(make_step, totals, math.prod(shape), in_chunks))
        return ops.concatenate(numbers)

    return observe


def _rest(beta: float, steps: Tensor) -> Tensor:
    """Return `1 - beta^steps`."""
    return -ops.expm1(math.log(beta) * steps) if beta > 0 else 1.0


def _make_step(
    rule: Rule,
    clock: Clock,
    before: Sequence[Tensor],
    after: Sequence[Tensor | None],
    part: Callable[[Tensor], Tensor],
) -> Step:
    """Return the step of the entries that `part` picks from each tensor."""
    old, new = ([x if x is None else part(x) for x in tensors] for tensors in (before, after))
    return Step(rule, clock, old, new)


def _reduce(
    make_step: Callable[[Callable[[Tensor], Tensor]], Step],
    totals: tuple[Total, ...],
    size: int,
    in_chunks: bool,
) -> Tensor:
    """Return the totals of a variable as a vector."""
    if size <= SMALL:
        return _reduce_together(make_step(lambda x: x), totals)
    if not in_chunks or size < 2 * CHUNK:
        return _reduce_each(make_step(lambda x: x), totals)
    chunks = size // CHUNK

    def add(index: Tensor, sums: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        step = make_step(lambda x: ops.slice(ops.reshape(x, (-1,)), (index * CHUNK,), (CHUNK,)))
        return tuple(
            REDUCTIONS[reduction][1](total, REDUCTIONS[reduction][0](step.get(tensor)))
            for total, (tensor, reduction) in zip(sums, totals, strict=True)
        )

    sums = ops.fori_loop(0, chunks, add, tuple(ops.zeros((CHUNK,)) for _ in totals))
    numbers = [_collapse(x, REDUCTIONS[t.reduction][2]) for x, t in zip(sums, totals, strict=True)]
    if size % CHUNK:
        rest = _reduce_each(make_step(lambda x: ops.reshape(x, (-1,))[chunks * CHUNK :]), totals)
        numbers = [
            REDUCTIONS[total.reduction][1](number, rest[i])
            for i, (total, number) in enumerate(zip(totals, numbers, strict=True))
        ]
    return ops.stack(numbers)


def _reduce_each(step: Step, totals: tuple[Total, ...]) -> Tensor:
    """Return the totals, each from one pass over a tensor."""
    return ops.stack(
        [
            _collapse(REDUCTIONS[reduction][0](step.get(tensor)), REDUCTIONS[reduction][2])
            for tensor, reduction in totals
        ]
    )


def _reduce_together(step: Step, totals: tuple[Total, ...]) -> Tensor:
    """Return the totals, from one pass for all neighbours with the same reduction."""
    vectors = []
    for reduce, group in itertools.groupby(totals, lambda total: REDUCTIONS[total.reduction][2]):
        rows = [REDUCTIONS[t.reduction][0](step.get(t.tensor)) for t in group]
        vectors.append(reduce(ops.stack([ops.reshape(row, (-1,)) for row in rows]), axis=1))
    return ops.concatenate(vectors)


def _collapse(x: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """Reduce to a scalar along one axis after another, which rounds less than all at once."""
    if len(x.shape) == 1 and x.shape[0] % LANES == 0:
        x = ops.reshape(x, (-1, LANES))
    while len(x.shape):
        x = reduce(x, axis=0)
    return x
