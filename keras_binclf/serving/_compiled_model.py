"""The forward pass of a model as compiled functions, one way for each backend.

The only module of this room that imports a backend.
"""

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_binclf._data.heads import select_tensor
from keras_binclf._data.inputs import ModelInputs
from keras_binclf._data.tables import Array
from keras_binclf._layer_state import iterate_layers, list_parts
from keras_binclf._validation import Tensor
from keras_binclf.layers import BinaryHead

Run = Callable[[list[Array]], Array]
"""Takes the arrays of a batch and returns its probabilities."""

# One trace at a time in a process: while they trace, Keras and the backends use global state.
_TRACING = threading.RLock()


class CompiledModel:
    """Probabilities of a model as it is built now, with its current weights.

    Each shape and dtype of a batch is compiled once, at its first call, by one thread. The values
    of all weights are read in each call. Updates of state are dropped.

    Args:
        model: built Keras model.
        head: the head whose output counts.
        inputs: the inputs of the model.
        count: called whenever the model is traced.
    """

    def __init__(
        self,
        model: keras.Model,
        head: BinaryHead,
        inputs: ModelInputs,
        count: Callable[[], None],
    ) -> None:
        self._model = model
        self._head = head
        self._inputs = inputs
        self._count = count
        self._all_layers = list(iterate_layers(model))
        self._parts = list_parts(self._all_layers)
        self._variables: list[keras.Variable] = model.variables
        self._runs: dict[Any, Run] = {}
        self._use_xla = _supports_xla(self._all_layers)

    def is_current(self) -> bool:
        """Whether the model still has the variables and layers that were compiled."""
        parts = list_parts(self._all_layers)
        return len(parts) == len(self._parts) and all(map(operator.is_, parts, self._parts))

    def __call__(self, arrays: list[Array]) -> Array:
        """Return the probabilities of one batch in float32."""
        key = tuple((array.shape, array.dtype) for array in arrays)
        run = self._runs.get(key)
        if run is None:
            with _TRACING:
                run = self._runs.get(key)
                if run is None:
                    run = self._runs[key] = self._compile(arrays)
        return run(arrays)

    def _compile(self, arrays: list[Array]) -> Run:
        backend = keras.backend.backend()
        if backend == "tensorflow":
            return self._compile_on_tensorflow(arrays)
        if backend == "jax":
            return self._compile_on_jax(arrays)
        run = self._compile_on_torch(arrays)
        run(arrays)  # Traces, where that was not done yet, while nobody else does.
        return run

    def _forward(self, values: Sequence[Tensor] | None, tensors: Sequence[Tensor]) -> Tensor:
        """Return probabilities, with `values` in place of those that the variables have."""
        mapping = None if values is None else list(zip(self._variables, values, strict=True))
        with keras.StatelessScope(mapping):
            outputs = self._inputs.call(self._model, tensors)
            output = select_tensor(self._model, self._head, outputs)
            return ops.cast(self._head.probabilities(output), "float32")

    def _trace(self, values: Sequence[Tensor] | None, tensors: Sequence[Tensor]) -> Tensor:
        self._count()
        return self._forward(values, tensors)

    def _make_flat(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return `function` with all values and tensors as arguments of their own."""
        count = len(self._variables)
        return lambda *tensors: function(tensors[:count], tensors[count:])

    def _compile_on_tensorflow(self, arrays: list[Array]) -> Run:
        import tensorflow as tf

        function = tf.function(
            lambda *tensors: self._trace(None, tensors),
            autograph=False,
            jit_compile=self._use_xla,
        )
        specs = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]
        # Called directly, it need not find out which of its graphs fits.
        concrete = function.get_concrete_function(*specs)

        def run(arrays: list[Array]) -> Array:
            result: Array = concrete(*[tf.constant(array) for array in arrays]).numpy()
            return result

        try:
            run(arrays)
        except tf.errors.OpError:
            if not self._use_xla:
                raise
            self._use_xla = False  # An operation of this model is unknown to XLA.
            return self._compile_on_tensorflow(arrays)
        return run

    def _compile_on_jax(self, arrays: list[Array]) -> Run:
        import jax

        # JAX flattens lists in each call, which takes longer than a small network.
        function = jax.jit(self._make_flat(self._trace))

        def run(arrays: list[Array]) -> Array:
            return np.asarray(function(*self._read_values(), *arrays))

        run(arrays)  # compiles
        return run

    def _compile_on_torch(self, arrays: list[Array]) -> Run:
        import torch

        device = self._read_values()[0].device
        forward = self._trace_on_torch(arrays, device)

        def run(arrays: list[Array]) -> Array:
            with torch.inference_mode():
                tensors = [torch.tensor(array, device=device) for array in arrays]
                result: Array = forward(*self._read_values(), *tensors).cpu().numpy()
            return result

        return run

    def _trace_on_torch(self, arrays: list[Array], device: Any) -> Callable[..., Tensor]:
        """Return the recorded operations of the model, or the eager model where recording fails."""
        import torch
        from torch.fx.experimental.proxy_tensor import make_fx

        eager = self._make_flat(self._forward)
        with torch.inference_mode():
            tensors = [*self._read_values(), *(torch.tensor(x, device=device) for x in arrays)]
            expected = eager(*tensors)
            try:
                # Fake tensors have no values that a Python branch could depend on.
                tracer = make_fx(
                    self._make_flat(self._trace), tracing_mode="fake", _allow_non_fake_inputs=True
                )
                graph: Callable[..., Tensor] = tracer(*tensors).forward
                if torch.allclose(graph(*tensors), expected, equal_nan=True):
                    return graph
            except Exception:  # A layer that cannot be traced can still be called.
                return eager
        return eager

    def _read_values(self) -> list[Tensor]:
        # `variable.value` takes ten times as long, and gives initial values where there are none.
        values = [variable._value for variable in self._variables]
        if any(value is None for value in values):
            raise RuntimeError(
                f"The weights of model {self._model.name!r} are with a `fit` of another model "
                "that holds it. Predict when that is done, or with a Predictor of that model."
            )
        return values


def _supports_xla(layers: list[keras.Layer]) -> bool:
    # XLA answers a number beyond the vocabulary with the nearest word instead of an error.
    return all(
        layer.supports_jit and not isinstance(layer, keras.layers.Embedding) for layer in layers
    )
