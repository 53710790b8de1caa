"""What is computed on the device: a step's tensors, and what each is reduced to.

All that is wanted of a step comes back as one array of float32, so that one transfer is enough.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_binclf._validation import Tensor
from keras_binclf.callbacks._optimizers import Rule

CHUNK = 16_384
"""Entries that are reduced together where memory is read in turn, as processors do it."""

SCALE = 2.0**32
"""What second moments are multiplied by before they are squared.

They are squares of gradients: squared again, those of a vanishing gradient would be 0 in float32.
"""

EDGES = tuple(2.0**exponent for exponent in range(-45, 17, 2))
"""Inner edges of the 32 bins of a histogram of absolute values, two octaves each."""

LOW_BITS = 2**20
"""Steps are sent as two numbers, since float32 counts only to 2^24."""


class Total(NamedTuple):
    """One number for each variable: a tensor of the step, reduced to a scalar.

    Attributes:
        tensor: str, attribute of `Step`.
        reduction: str, key of `REDUCTIONS`.
    """

    tensor: str
    reduction: str


class Clock:
    """How far the optimizer was before and after a step, and what bias correction that means.

    All in float32. `1 - beta^t` is computed without the rounding of `beta^t`, which at the first
    steps would take three digits of it.

    Args:
        rule: Rule, the numbers of the optimizer.
        before: integer tensor, count before.
        after: integer tensor, count after.
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
        clock: Clock, how far it is.
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
        self.first_before, self.weight_before = map(to_float, before)
        first, second, maximum, weight = after
        self.m, self.weight = to_float(first), to_float(weight)
        self.v = ops.square(to_float(second)) if rule.norm else to_float(second)
        self.v_max = self.v if maximum is None else to_float(maximum)

    @functools.cached_property
    def gradient(self) -> Tensor:
        """The gradient that the optimizer applied, from the change of its mean."""
        rest = self.clock.first_rest
        return (self.m - (1.0 - rest) * self.first_before) / rest

    @functools.cached_property
    def update(self) -> Tensor:
        """By what the step changed the weights."""
        return self.weight - self.weight_before

    @functools.cached_property
    def m_hat(self) -> Tensor:
        """The first moment as the step of Nadam uses it."""
        return self.clock.first_scale * self.m + self.clock.gradient_scale * self.gradient

    @functools.cached_property
    def v_hat(self) -> Tensor:
        """The bias-corrected second moment, the root of which the step divides by."""
        return self.v_max * self.clock.second_scale

    @functools.cached_property
    def surprise(self) -> Tensor:
        """The squared gradient as a multiple of its mean."""
        floor = self.rule.epsilon**2 or _TINY
        return ops.square(self.gradient) / ops.maximum(self.v_hat, floor)

    @functools.cached_property
    def under_epsilon(self) -> Tensor:
        """1 where epsilon outweighs the second moment, else 0."""
        return to_float(self.v_hat < self.rule.epsilon**2)


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
"""How a tensor becomes a number: what is done to each entry, to two of them, and to all."""


def to_float(x: Tensor) -> Tensor:
    """Cast to float32."""
    return ops.cast(x, "float32")


@functools.lru_cache(maxsize=16)
def make_observer(
    rule: Rule,
    totals: tuple[Total, ...],
    shapes: tuple[tuple[int, ...], ...],
    in_chunks: bool,
    jit_compile: bool,
) -> Callable[..., Tensor]:
    """Return a compiled function that reduces a step to one array.

    It is kept for the next training of a model of these shapes.

    Args:
        rule: Rule, the numbers of the optimizer.
        totals: tuple of Total, what is wanted of each variable.
        shapes: tuple of the shapes of the variables.
        in_chunks: bool, whether large variables are gone through once, `CHUNK` by `CHUNK`, and not
            once for each total. Several times faster on processors, slower on GPUs.
        jit_compile: bool, whether TensorFlow compiles with XLA.

    Returns:
        Function of `(counts, product, before, after)`: two counts, the product of Nadam or `None`,
        and for each variable the tensors that `Step` takes. It gives the number of steps taken, the
        last step in two parts, and the totals of each variable.
    """

    def observe(
        counts: Sequence[Tensor],
        product: Tensor | None,
        before: Sequence[Sequence[Tensor]],
        after: Sequence[Sequence[Tensor | None]],
    ) -> Tensor:
        clock = Clock(rule, counts[0], counts[1], product)
        numbers = [clock.taken, to_float(clock.low), to_float(clock.high)]
        for shape, old, new in zip(shapes, before, after, strict=True):
            make_step = functools.partial(_make_step, rule, clock, old, new)
            numbers += _reduce(make_step, totals, math.prod(shape), in_chunks)
        return ops.stack(numbers)

    return compiled(observe, jit_compile)


def compiled(function: Callable[..., Any], jit_compile: bool = True) -> Callable[..., Any]:
    """Return the function as the backend runs it fastest, without recording gradients."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "tensorflow":
        import tensorflow as tf

        in_graph: Callable[..., Any] = tf.function(function, jit_compile=jit_compile)
        return in_graph
    import torch

    without_gradients: Callable[..., Any] = torch.no_grad()(function)
    return without_gradients


@functools.lru_cache(maxsize=1)
def make_snapshot() -> Callable[[list[Tensor]], list[Tensor]]:
    """Return a function that copies tensors so that the next step of training leaves them alone.

    A tensor that was read from a variable of TensorFlow is a value, and stays. PyTorch changes it
    in place, and on JAX the trainer gives its memory to the next step.
    """
    if keras.backend.backend() == "tensorflow":
        return lambda tensors: tensors
    return compiled(lambda tensors: [ops.copy(x) for x in tensors])


def _rest(beta: float, steps: Tensor) -> Tensor:
    """`1 - beta^steps`."""
    return -ops.expm1(math.log(beta) * steps) if beta > 0 else 1.0


def _make_step(
    rule: Rule,
    clock: Clock,
    before: Sequence[Tensor],
    after: Sequence[Tensor | None],
    part: Callable[[Tensor], Tensor],
) -> Step:
    """Return the step of a part of each tensor."""
    old, new = ([x if x is None else part(x) for x in tensors] for tensors in (before, after))
    return Step(rule, clock, old, new)


def _reduce(
    make_step: Callable[[Callable[[Tensor], Tensor]], Step],
    totals: tuple[Total, ...],
    size: int,
    in_chunks: bool,
) -> list[Tensor]:
    if not in_chunks or size < 2 * CHUNK:
        return _reduce_at_once(make_step(lambda x: x), totals)
    chunks = size // CHUNK

    def add(index: Tensor, sums: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        step = make_step(lambda x: ops.slice(ops.reshape(x, (-1,)), (index * CHUNK,), (CHUNK,)))
        return tuple(
            REDUCTIONS[reduction][1](total, REDUCTIONS[reduction][0](getattr(step, tensor)))
            for total, (tensor, reduction) in zip(sums, totals, strict=True)
        )

    sums = ops.fori_loop(0, chunks, add, tuple(ops.zeros((CHUNK,)) for _ in totals))
    numbers = [REDUCTIONS[t.reduction][2](x) for x, t in zip(sums, totals, strict=True)]
    if size % CHUNK:
        rest = make_step(lambda x: ops.reshape(x, (-1,))[chunks * CHUNK :])
        numbers = [
            REDUCTIONS[total.reduction][1](*pair)
            for total, *pair in zip(totals, numbers, _reduce_at_once(rest, totals), strict=True)
        ]
    return numbers


def _reduce_at_once(step: Step, totals: tuple[Total, ...]) -> list[Tensor]:
    """Reduce along one axis after the other, which rounds less than all at once."""
    numbers = []
    for tensor, reduction in totals:
        prepare, _, reduce = REDUCTIONS[reduction]
        number = prepare(getattr(step, tensor))
        while len(number.shape):
            number = reduce(number, axis=0)
        numbers.append(number)
    return numbers
