"""Compiled functions of the values of variables, on each backend.

The only module of this room that imports a backend.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_binclf._validation import Tensor


def compile_reading(
    function: Callable[..., Any], read: Callable[[], list[Tensor]], jit_compile: bool
) -> Callable[..., Any]:
    """Return a compiled function that is called with the values of variables before its arguments.

    Args:
        function: function of a list of tensors, and of other arguments.
        read: function without arguments that reads the list.
        jit_compile: bool, whether TensorFlow compiles with XLA.

    Returns:
        Function of the other arguments.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Reading a variable outside of a graph takes ten times as long.
        in_graph: Callable[..., Any] = tf.function(
            lambda *arguments: function(read(), *arguments),
            autograph=False,
            jit_compile=jit_compile,
        )
        return in_graph
    run = _compile(function)
    return lambda *arguments: run(read(), *arguments)


@functools.lru_cache(maxsize=16)
def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import torch

    without_gradients: Callable[..., Any] = torch.no_grad()(function)
    return without_gradients


def copy_all(tensors: list[Tensor]) -> list[Tensor]:
    """Return copies of tensors, which the next step of training does not change.

    PyTorch changes values in place, and on JAX the trainer donates their memory to the next step.
    TensorFlow keeps a value that is referenced, but then the step cannot reuse its memory: in a
    network of 20 million weights, a reference made a step half as long again, a copy a tenth.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return [tf.raw_ops.DeepCopy(x=x) for x in tensors]
    return [ops.copy(x) for x in tensors]


def read_variable(variable: keras.Variable) -> Tensor:
    """Return the value of a variable as a tensor."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(variable.value)
    return ops.convert_to_tensor(variable)
