"""The rows on which an artefact is compared: given, made up, or in other sizes than given."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_binclf._data.inputs import InputSpec, ModelInputs
from keras_binclf._data.row_reader import RowReader
from keras_binclf._layer_state import iterate_layers
from keras_binclf._validation import error_message
from keras_binclf.saving.artefacts._made_up_table import make_up_table
from keras_binclf.saving.artefacts._served_inputs import Batch

Array = np.ndarray[Any, Any]

NUM_ROWS = 256
"""Rows that are made up."""
SIZES = (32, 48)
"""Sizes that are made up where a dimension has none. Networks that halve and double their inputs
need multiples of a power of 2."""
NUM_ROWS_PER_SIZE = 64
"""Rows of each size where a dimension has none: such inputs are large."""


def read_sample(inputs: ModelInputs, sample: Any, owner: str) -> list[Array]:
    """Return the rows in `sample`, one array for each input.

    Args:
        inputs: inputs of the model.
        sample: rows as `model.predict` takes them.
        owner: name of the public function, for messages.

    Raises:
        TypeError: for values that are not numeric, where the input is no text.
        ValueError: for wrong names and shapes, and for no rows.
    """
    rows = RowReader(inputs, owner, "sample").read(sample)
    if not len(rows):
        raise ValueError(f"`sample` of {owner} must have rows. Received: none.")
    return rows.arrays


def read_tables(inputs: ModelInputs, sample: Any, owner: str) -> dict[str, Any]:
    """Return the table for each encoder of a model, by input: from the sample, or made up."""
    if sample is None:
        random = np.random.default_rng(0)
        return {
            spec.name: make_up_table(spec.encoder, NUM_ROWS, random)
            for spec in inputs.specs
            if spec.encoder is not None
        }
    parts = RowReader(inputs, owner, "sample").collect_parts(sample)
    pairs = zip(inputs.specs, parts, strict=True)
    return {spec.name: part for spec, part in pairs if spec.encoder is not None}


def name_rows(inputs: ModelInputs, given: list[Array]) -> dict[str, Array]:
    """Return rows by the names of their inputs, in the dtypes of these."""
    pairs = zip(inputs.specs, given, strict=True)
    return {spec.name: _convert(rows, spec) for spec, rows in pairs}


def _convert(rows: Array, spec: InputSpec) -> Array:
    if spec.dtype != "string":
        return rows.astype(spec.host_dtype)
    # Of objects, not all runtimes take bytes, and NumPy saves none without pickle.
    texts = [text.decode() if isinstance(text, bytes) else text for text in rows.ravel().tolist()]
    return np.array(texts, dtype=str).reshape(rows.shape)


def make_up_batches(
    model: keras.Model, inputs: ModelInputs, tables: Mapping[str, Any], owner: str
) -> Iterator[dict[str, Array]]:
    """Yield random rows, in several sizes if the model takes any.

    Args:
        model: built Keras model.
        inputs: its inputs.
        tables: a table for each encoder, by input.
        owner: name of the public function, for messages.

    Raises:
        ValueError: if an input is text.
    """
    random = np.random.default_rng(0)
    has_sizes = not list_unknown_axes(inputs)
    num_rows = NUM_ROWS if has_sizes else NUM_ROWS_PER_SIZE
    for size in SIZES[: 1 if has_sizes else None]:
        batch = {}
        for spec in inputs.specs:
            if spec.encoder is not None:
                batch[spec.name] = spec.encoder.encode(tables[spec.name])[:num_rows]
                continue
            sizes = [size if known is None else known for known in spec.shape or ()]
            batch[spec.name] = _make_up(spec, (num_rows, *sizes), model, owner, random)
        yield batch


def _make_up(
    spec: InputSpec,
    shape: tuple[int, ...],
    model: keras.Model,
    owner: str,
    random: np.random.Generator,
) -> Array:
    """Return random values: 0 and 1 for integers, else those that the model's scalers expect."""
    if spec.dtype == "string":
        hint = "Give rows: `sample=x`."
        expected = f"given for input {spec.name!r}, since text cannot be made up"
        raise ValueError(error_message("sample", owner, expected, None, hint))
    if not keras.backend.is_float_dtype(spec.dtype):
        integers: Array = random.integers(0, 2, shape)
        return integers.astype(spec.dtype)
    rows: Array = random.normal(0, 2, shape)
    for layer in iterate_layers(model):
        if not _is_adapted(layer):
            continue
        mean = np.asarray(keras.ops.convert_to_numpy(layer.mean))
        if mean.shape[-1:] == shape[-1:]:
            rows = rows * np.sqrt(keras.ops.convert_to_numpy(layer.variance)) + mean
    return rows.astype(spec.dtype)


def _is_adapted(layer: keras.Layer) -> bool:
    is_scaler = isinstance(layer, keras.layers.Normalization) and not layer.invert
    return is_scaler and layer.built and getattr(layer, "mean", None) is not None


def list_unknown_axes(inputs: ModelInputs) -> list[tuple[str, int]]:
    """Return name of the input and axis for each dimension, but the first, without a size."""
    return [
        (spec.name, axis)
        for spec in inputs.specs
        for axis, size in enumerate(spec.shape or (), start=1)
        if size is None
    ]


def shorten_size(size: int) -> int:
    """Return three quarters of a size; of one that is too small for that, one more."""
    return size - size // 4 if size >= 4 else size + 1


def double_size(size: int) -> int:
    """Return twice the size."""
    return 2 * size


def resize_batch(
    inputs: ModelInputs, batch: Batch, change: Callable[[int], int]
) -> dict[str, Array]:
    """Return rows that are cut off, or repeated, along the axes without a size.

    Args:
        inputs: inputs of the model.
        batch: rows.
        change: gives the new size for the old one.
    """
    resized = {name: array[:NUM_ROWS_PER_SIZE] for name, array in batch.items()}
    for name, axis in list_unknown_axes(inputs):
        size = resized[name].shape[axis]
        resized[name] = resized[name].take(np.arange(change(size)) % size, axis)
    return resized
