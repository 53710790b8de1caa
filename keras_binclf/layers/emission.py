"""Logits from a head that emits probabilities, without a change of the head."""

import contextlib
import contextvars
import threading
from collections.abc import Iterator

import keras

# Each thread has its own value: for other threads, the head stays as it is.
_EMITTING: contextvars.ContextVar[keras.Layer | None] = contextvars.ContextVar(
    "_EMITTING", default=None
)
# `torch.compile` breaks its graph at a context variable, so that is read only where a thread is in
# a block.
_num_blocks = 0
_counting = threading.Lock()


@contextlib.contextmanager
def emit_logits(head: keras.Layer) -> Iterator[None]:
    """Let a head emit logits in the current thread, inside of the block.

    A function that is compiled inside keeps giving logits afterwards, and one that was compiled
    before gives probabilities inside, too.
    """
    token = _EMITTING.set(head)
    _count_blocks(1)
    try:
        yield
    finally:
        _count_blocks(-1)
        _EMITTING.reset(token)


def is_emitting_logits(head: keras.Layer) -> bool:
    """Whether the current thread is in a block of `emit_logits` of this head."""
    return _num_blocks > 0 and _EMITTING.get() is head


def _count_blocks(change: int) -> None:
    global _num_blocks
    with _counting:
        _num_blocks += change
