"""Memory that the backends keep of each training, freed between trials.

TensorFlow: `tf.custom_gradient`, called in a graph, registers a function under a name of its own,
which nothing removes (tensorflow/python/ops/custom_gradient.py), and which holds the whole graph.
Each optimizer of Keras calls it (through `ReplicaContext.all_reduce`), and so does `silu`, so that
each `fit` of a new model leaves megabytes for as long as the process lives.

JAX: the compiled functions of a model go with it, but each single operation, such as drawing
initial weights, is compiled and kept for each shape, and a search goes through many.
"""

import contextlib
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import keras

PREFIX = "CustomGradient-"
STEP = "one_step_on_data"
"""Name of the graph of a step of training, validation or prediction, as Keras traces it."""
TRIALS_BETWEEN = 5
"""Trials after which JAX forgets: to compile all again takes about five seconds."""
MAX_DEPTH = 5
"""Depth of the tensors in an entry: in a list of a function of a function."""


@contextlib.contextmanager
def forgetting_steps() -> Iterator[None]:
    """Let go of the graphs of Keras's steps that were traced in this context.

    Whoever opens it drops the functions that were made of those graphs. Gradients of other graphs,
    such as a `tf.function` of the user's own inside a layer, stay registered, since somebody may
    take them yet. Where TensorFlow keeps its gradients in another way, nothing is let go.
    """
    before = set(_read_registry())
    try:
        yield
    finally:
        registry = _read_registry()
        # Another thread may train beside this one, and change the registry at any time.
        for name in set(registry) - before:
            if name.startswith(PREFIX) and STEP in _list_graphs(registry.get(name), MAX_DEPTH):
                registry.pop(name, None)


def _read_registry() -> dict[str, Any]:
    """Return the gradients that TensorFlow knows by name; none elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return {}
    from tensorflow.python.framework import ops

    registry = getattr(getattr(ops, "gradient_registry", None), "_registry", None)
    return registry if isinstance(registry, dict) else {}


def _list_graphs(value: Any, depth: int) -> set[str]:
    """Return the names of the graphs whose tensors a function holds in its closures."""
    if isinstance(value, FunctionType):
        parts = [_read_cell(cell) for cell in value.__closure__ or ()]
    elif isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        name = getattr(getattr(value, "graph", None), "name", None)
        return {name} if isinstance(name, str) else set()
    return set().union(*(_list_graphs(part, depth - 1) for part in parts)) if depth else set()


def _read_cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # It was never filled.
        return None


def forget_compiled(num_trials: int) -> None:
    """Free the compiled functions of JAX after every fifth trial; it compiles again if needed."""
    if keras.backend.backend() == "jax" and num_trials % TRIALS_BETWEEN == 0:
        import jax

        jax.clear_caches()  # type: ignore[no-untyped-call]
