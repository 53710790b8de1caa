"""Logits from a head that emits probabilities, without a change of the head."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras

# Each thread has its own value: for other threads, the head stays as it is.
_EMITTING: contextvars.ContextVar[keras.Layer | None] = contextvars.ContextVar(
    "_EMITTING", default=None
)


@contextlib.contextmanager
def emit_logits(head: keras.Layer) -> Iterator[None]:
    """Let a head emit logits in the current thread, inside of the block.

    A function that is compiled inside keeps giving logits afterwards, and one that was compiled
    before gives probabilities inside, too.
    """
    token = _EMITTING.set(head)
    try:
        yield
    finally:
        _EMITTING.reset(token)


def is_emitting_logits(head: keras.Layer) -> bool:
    """Whether the current thread is in a block of `emit_logits` of this head."""
    return _EMITTING.get() is head
