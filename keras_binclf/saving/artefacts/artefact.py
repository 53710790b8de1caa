"""A classifier as a file that other runtimes serve."""

import dataclasses
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_binclf._data.heads import choose_head, select_tensor
from keras_binclf._data.inputs import ModelInputs, RowReader, read_inputs
from keras_binclf._layer_state import iterate_layers
from keras_binclf._validation import check_bool, check_choice, error_message, suggest_nearest
from keras_binclf._version import __version__
from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts import _consumers, _writers
from keras_binclf.saving.artefacts._elsewhere import write_elsewhere
from keras_binclf.saving.artefacts._writers import QUANTIZATIONS, Artefact

OWNER = "export"
Array = np.ndarray[Any, Any]
NUM_ROWS = 256
"""Rows that are compared."""
QUANTIZED_SHARE = 0.25
"""How far probabilities may be from the model's after quantization: in the mean, as a share of how
far those lie from their own mean, since a rare class's are all small. Single ones, in the middle of
a steep sigmoid, move by more. At 1, all could be the same."""


@dataclasses.dataclass(frozen=True)
class Format:
    """What a format needs.

    Attributes:
        suffix: how its path ends; a folder has none.
        extra: the extra of this package that brings what writes and runs it.
        writers: modules that write it.
        consumers: modules that run it.
        tolerance: how far its probabilities may be from the model's.
    """

    suffix: str
    extra: str
    writers: tuple[str, ...]
    consumers: tuple[str, ...]
    tolerance: float


FORMATS = {
    "tf_saved_model": Format("", "", (), (), 1e-6),
    "onnx": Format(".onnx", "onnx", ("onnx", "tf2onnx"), ("onnxruntime",), 1e-5),
    "litert": Format(".tflite", "litert", (), ("ai_edge_litert",), 1e-5),
    "openvino": Format(".xml", "openvino", ("openvino",), ("openvino",), 1e-5),
}


@dataclasses.dataclass(frozen=True)
class Exported:
    """What `export` wrote, and how it compares with the model.

    Args:
        path: where it is.
        format: as it was asked for.
        num_rows: how many rows were compared; 0 where that was not asked for.
        max_difference: the largest difference of a probability, or None.
        num_disagreements: rows with another label than the model gives, or None.

    Example:

    ```python
    import keras_binclf

    exported = keras_binclf.export(keras_binclf.binary_classifier(4), "churn")
    assert exported.num_rows == 256
    assert exported.num_disagreements == 0
    print(exported)
    ```
    """

    path: Path
    format: str
    num_rows: int
    max_difference: float | None
    num_disagreements: int | None

    def __str__(self) -> str:
        """Return all of it in one line."""
        if self.num_rows == 0:
            return f"{self.path}: {self.format}, not compared"
        return (
            f"{self.path}: {self.format}, probabilities within {self.max_difference:.1e} of the "
            f"model's, {self.num_disagreements} other labels, in {self.num_rows} rows"
        )


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    format: str = "tf_saved_model",
    *,
    head: str | BinaryHead | None = None,
    sample: Any = None,
    verify: bool = True,
    quantization: str | None = None,
) -> Exported:
    """Write a model for other runtimes, so that it gives probability and label there.

    The artefact takes the inputs of the model under their names, any number of rows at once, and
    has two outputs of the shape that the head emits, mostly `(n, 1)`: `probability`, float32, also
    where the head emits logits, and `label`, int32, 1 where the probability is above the head's
    threshold, else 0. Raw features go in if the model has a scaler. The names of the classes, the
    threshold and the version of this package go with it:

    | format | path | run by | where the metadata are |
    |---|---|---|---|
    | `"tf_saved_model"` | a folder | TensorFlow | `assets.extra/keras_binclf.json` |
    | `"onnx"` | `.onnx` | ONNX Runtime | `metadata_props`, each as JSON |
    | `"litert"` | `.tflite` | LiteRT | a zip archive behind the model, `keras_binclf.json` |
    | `"openvino"` | `.xml`, and `.bin` beside it | OpenVINO | `rt_info`, each as JSON |

    All formats are written from TensorFlow. A model on JAX or PyTorch is saved, and written by
    another Python process, which takes some seconds; classes of your own in it must be registered
    with Keras, in a module that can be imported.

    With `verify` the artefact is run after writing, and its probabilities and labels are compared
    with the model's. It appears at `path` only if they agree: within 1e-6 for a SavedModel, 1e-5
    for the others, whose kernels add up in another order.

    LiteRT alone can quantize, which costs accuracy: then `verify` only refuses probabilities that
    differ by more, in the mean, than a quarter of how far they lie from their own mean, and tells
    by how much they differ at most and how many labels changed. Compare ROC AUC on rows with labels
    before you serve it.

    | quantization | bytes a weight | activations |
    |---|---|---|
    | `"float16"` | 2; a scaler must not need more than 65,504 | float32 |
    | `"dynamic_range"` | 1 in kernels from 1,024 weights on | float32 between layers |

    Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization

    Args:
        model: Keras model with a `BinaryHead`, built.
        path: where to write; must not exist.
        format: one of those of the table. Defaults to `"tf_saved_model"`.
        head: name or path of the head, or the head itself, where the model has several. Defaults
            to `None`.
        sample: rows to compare on, as `model.predict` takes them; `None` for 256 rows made up at
            random, which text cannot be. Defaults to `None`.
        verify: bool, whether to run and compare it. Defaults to `True`.
        quantization: one of the table, for `"litert"` only, or `None`. Defaults to `None`.

    Returns:
        An `Exported`, which prints as one line.

    Raises:
        FileExistsError: if there is something at `path`.
        ImportError: if a package is missing, with the extra that brings it.
        OSError: if its folder cannot be written.
        RuntimeError: if the format has no place for what the model does, and if the artefact gives
            other numbers than the model; nothing is left behind.
        TypeError: for what is no Keras model.
        ValueError: for an unknown format or quantization, a path that does not end as the format
            wants, a model without exactly one head, one that was never built, sizes that are not
            known, and a sample that is empty or does not fit the inputs.

    Example:

    ```python
    import numpy as np
    import tensorflow as tf
    import keras_binclf
    from keras_binclf import export

    model = keras_binclf.binary_classifier(4)
    keras_binclf.find_head(model).threshold = 0.2
    exported = export(model, "churn")
    assert exported.max_difference <= 1e-6

    serve = tf.saved_model.load("churn").signatures["serving_default"]
    outputs = serve(features=tf.zeros((3, 4)))
    assert outputs["label"].numpy().tolist() == [[1], [1], [1]]
    ```
    """
    path = Path(path)
    check_bool(verify, "verify", OWNER)
    spec = _check_format(format, path)
    _check_quantization(quantization, format)
    chosen = choose_head(model, head, OWNER)
    inputs = read_inputs(model, OWNER)
    given = None if sample is None else _read_sample(inputs, sample)
    inputs = _declare(inputs, model, given)
    _check_packages(format, spec, verify)
    rows = {}
    if verify:
        rows = _make_sample(model, inputs) if given is None else _name_rows(inputs, given)
    with _make_folder(path) as folder:
        notes = _make_notes(model, chosen, inputs, quantization)
        artefact = Artefact(format, Path(folder) / path.name, notes, quantization)
        try:
            outputs = _write_and_run(artefact, model, chosen, inputs, rows)
        except Exception as error:
            raise RuntimeError(
                f"{OWNER} could not write {model.name!r} as {format!r}: {_shorten(error)}"
            ) from error
        exported = Exported(path, format, 0, None, None)
        if verify:
            exported = _compare(exported, model, chosen, inputs, rows, outputs, quantization)
        for file in sorted(Path(folder).iterdir()):
            os.replace(file, path.with_name(file.name))
    return exported


def _check_format(format: Any, path: Path) -> Format:
    check_choice(format, "format", OWNER, FORMATS, suggest_nearest(format, FORMATS))
    spec = FORMATS[format]
    if path.suffix != spec.suffix and spec.suffix:
        hint = f"As in {str(path.with_suffix(spec.suffix))!r}."
        expected = f"a path that ends in {spec.suffix!r} for {format!r}"
        raise ValueError(error_message("path", OWNER, expected, str(path), hint))
    written = [path, path.with_suffix(".bin")] if format == "openvino" else [path]
    existing = [file for file in written if file.exists()]
    if existing:
        raise FileExistsError(
            f"{OWNER} writes to a new path. Received: {str(path)!r}, but {str(existing[0])!r} "
            "exists. Remove it, or give another path."
        )
    return spec


def _check_quantization(value: Any, format: str) -> None:
    if value is None:
        return
    check_choice(value, "quantization", OWNER, QUANTIZATIONS, suggest_nearest(value, QUANTIZATIONS))
    if format != "litert":
        expected = f"None for {format!r}, only LiteRT can"
        raise ValueError(error_message("quantization", OWNER, expected, value))


def _check_packages(format: str, spec: Format, verify: bool) -> None:
    needed = [*spec.writers, *(spec.consumers if verify else ())]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'`{OWNER}(format="{format}")` needs {" and ".join(missing)}: '
            f'`pip install "keras-binclf[{spec.extra}]"`.'
        )


def _make_folder(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a folder beside `path`, from where a file moves there at once."""
    try:
        return tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".export-")
    except OSError as error:
        raise type(error)(
            f"{OWNER} cannot write to {str(path.absolute().parent)!r}: {error}"
        ) from None


def _make_notes(
    model: keras.Model, head: BinaryHead, inputs: ModelInputs, quantization: str | None
) -> dict[str, Any]:
    """Return the metadata."""
    return {
        "keras_binclf": __version__,
        "threshold": head.threshold,
        "class_names": head.class_names,
        "model": model.name,
        "inputs": {
            f.name: {"shape": (None, *(f.shape or ())), "dtype": f.dtype} for f in inputs.specs
        },
        "quantization": quantization,
        "rule": "label is 1 where probability > threshold, else 0",
    }


def _write_and_run(
    artefact: Artefact,
    model: keras.Model,
    head: BinaryHead,
    inputs: ModelInputs,
    rows: dict[str, Any],
) -> dict[str, Any]:
    """Write the artefact, and return what it gives for `rows`, unless there are none."""
    if keras.backend.backend() != "tensorflow":
        return write_elsewhere(artefact, model, head, inputs, rows)
    _writers.write(artefact, model, head, inputs)
    return _consumers.run(artefact.format, artefact.path, rows) if rows else {}


def _read_sample(inputs: ModelInputs, sample: Any) -> list[Array]:
    rows = RowReader(inputs, OWNER, "sample").read(sample)
    if not len(rows):
        raise ValueError(f"`sample` of {OWNER} must have rows. Received: none.")
    return rows.arrays


def _declare(inputs: ModelInputs, model: keras.Model, given: list[Array] | None) -> ModelInputs:
    """Return inputs of known shape and dtype, where need be those of given rows."""
    shapes = [None] * len(inputs.specs) if given is None else [rows.shape[1:] for rows in given]
    kinds = ["f"] * len(inputs.specs) if given is None else [rows.dtype.kind for rows in given]
    dtypes = ["string" if kind in "OSU" else model.input_dtype for kind in kinds]
    declared = inputs.declare(shapes, dtypes)
    for spec in declared.specs:
        if spec.shape is None:
            raise ValueError(
                f"{OWNER} needs to know the shape of input {spec.name!r}, of which Keras keeps "
                "none. Give rows, `sample=...`, or the model a `build` with a shape for each "
                "argument of `call`."
            )
        if None in spec.shape:
            raise ValueError(
                f"{OWNER} needs inputs whose sizes are known, but for the number of rows. "
                f"Received: input {spec.name!r} of shape {(None, *spec.shape)}. Build the model "
                "with `keras.Input` of a fixed shape."
            )
    return declared


def _name_rows(inputs: ModelInputs, given: list[Array]) -> dict[str, Any]:
    """Return rows by the names of the inputs."""
    pairs = zip(inputs.specs, given, strict=True)
    return {spec.name: rows.astype(spec.host_dtype) for spec, rows in pairs}


def _make_sample(model: keras.Model, inputs: ModelInputs) -> dict[str, Any]:
    """Return rows made up at random, by the names of the inputs."""
    random = np.random.default_rng(0)
    scales = [layer for layer in iterate_layers(model) if _is_adapted(layer)]
    sample = {}
    for field in inputs.specs:
        shape = (NUM_ROWS, *(size or 1 for size in field.shape or ()))
        if field.dtype == "string":
            hint = "Give rows: `sample=x`."
            expected = "given for inputs of text, which cannot be made up"
            raise ValueError(error_message("sample", OWNER, expected, None, hint))
        if not keras.backend.is_float_dtype(field.dtype):
            sample[field.name] = random.integers(0, 2, shape).astype(field.dtype)
            continue
        rows = random.normal(0, 2, shape)
        for layer in scales:
            mean = np.asarray(keras.ops.convert_to_numpy(layer.mean))
            if mean.shape[-1:] == shape[-1:]:
                rows = rows * np.sqrt(keras.ops.convert_to_numpy(layer.variance)) + mean
        sample[field.name] = rows.astype(field.dtype)
    return sample


def _is_adapted(layer: keras.Layer) -> bool:
    is_scaler = isinstance(layer, keras.layers.Normalization) and not layer.invert
    return is_scaler and layer.built and getattr(layer, "mean", None) is not None


def _compare(
    exported: Exported,
    model: keras.Model,
    head: BinaryHead,
    inputs: ModelInputs,
    rows: dict[str, Any],
    outputs: dict[str, Any],
    quantization: str | None,
) -> Exported:
    """Return how the artefact compares with the model, or raise where they differ."""
    output = select_tensor(model, head, inputs.call(model, rows.values()))
    probability = keras.ops.convert_to_numpy(head.probabilities(output)).astype("float32")
    label = keras.ops.convert_to_numpy(head.labels(output))
    differences = np.abs(outputs["probability"] - probability)
    difference = float(differences.max())
    if quantization is None:
        tolerance = FORMATS[exported.format].tolerance
        extent, how = difference, "by up to"
    else:
        spread = float(np.abs(probability - probability.mean()).mean())
        tolerance = QUANTIZED_SHARE * spread + FORMATS[exported.format].tolerance
        extent, how = float(differences.mean()), "in the mean by"
    if not extent <= tolerance:
        raise RuntimeError(
            f"The {exported.format!r} of {model.name!r} gives other probabilities than the model: "
            f"they differ {how} {extent:.1e}, at most {tolerance:.0e} was expected, in "
            f"{len(probability)} rows. Nothing was written to the path."
        )
    other = outputs["label"] != label
    # A row within rounding of the threshold may fall on either side of it.
    near = np.abs(probability - np.float32(head.threshold)) <= difference
    if (other & ~near).any():
        raise RuntimeError(
            f"The {exported.format!r} of {model.name!r} gives other labels than the model for "
            f"{int((other & ~near).sum())} of {len(label)} rows. Nothing was written to the path."
        )
    num_disagreements = int(other.sum())
    return Exported(exported.path, exported.format, len(probability), difference, num_disagreements)


def _shorten(error: Exception) -> str:
    """Return the last line of what a converter says, which may be pages."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
