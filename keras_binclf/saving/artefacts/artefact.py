"""Export a classifier to a file that other runtimes serve."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_binclf._data.heads import choose_head
from keras_binclf._data.inputs import list_schemas, read_inputs
from keras_binclf._validation import check_bool, check_choice, error_message, suggest_nearest
from keras_binclf._version import __version__
from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts._elsewhere import write_and_run, write_and_run_elsewhere
from keras_binclf.saving.artefacts._format import Artefact, Format
from keras_binclf.saving.artefacts._formats import FORMATS
from keras_binclf.saving.artefacts._inputs import (
    check_inputs,
    check_tables,
    declare_inputs,
    join,
    serve_inputs,
    suggest_way_out,
)
from keras_binclf.saving.artefacts._sample import read_sample, read_tables
from keras_binclf.saving.artefacts._served_inputs import Batch, ServedInputs
from keras_binclf.saving.artefacts._verification import Verification, shorten
from keras_binclf.saving.replacing import write_and_replace

OWNER = "export"


@dataclasses.dataclass(frozen=True)
class Exported:
    """The result of `export`: where the artefact is, and how it compares with the model.

    Args:
        path: where it is.
        format: name of its format.
        num_rows: number of rows that were compared; 0 with `verify=False`.
        max_difference: the largest difference of a probability, or None.
        num_disagreements: number of labels that differ from the model's, or None.

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
        """Return a summary in one line."""
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
    """Export a model to a file that another runtime serves, and compare the two.

    Use it where the model is served without Keras or this package. The artefact takes the inputs of
    the model by their names, any number of rows at once, and has two outputs of the shape of the
    head's, mostly `(n, 1)`: `probability`, float32, also where the head emits logits, and `label`,
    int32, 1 where the probability is above the head's threshold, else 0. Dimensions without a size,
    as in `keras.Input((None,))`, stay so. Class names, threshold and the version of this package
    are in its metadata:

    | format | path | runtime | metadata |
    |---|---|---|---|
    | `"tf_saved_model"` | a folder | TensorFlow | `assets.extra/keras_binclf.json` |
    | `"onnx"` | `.onnx` | ONNX Runtime | `metadata_props`, each as JSON |
    | `"litert"` | `.tflite` | LiteRT | `keras_binclf.json` in a zip archive behind the model |
    | `"openvino"` | `.xml`, and `.bin` beside it | OpenVINO | `rt_info`, each as JSON |

    In place of the table of a `TabularEncoder`, SavedModel and ONNX take its columns, each as an
    input of shape `(n,)` by its name: words as strings, everything else as float64, dates as days
    since 1970-01-01 in UTC; a gap is empty text or NaN. The others take the encoded table. The
    metadata holds the schema, by which rows are encoded without this package.

    TensorFlow writes all formats. A model on JAX or PyTorch is saved, and written by another Python
    process, which takes some seconds; your own classes in it must be registered with Keras, in a
    module that can be imported.

    With `verify`, the artefact is run in its runtime, and appears at `path` only if its
    probabilities and labels are the model's: within 1e-6 for a SavedModel and 1e-5 for the others,
    whose kernels sum in another order; by twice as much as `model(x)` and `model.predict(x)`
    differ, at most 2e-3, is added where a layer amplifies rounding. Of inputs without a size, rows
    of more than one size are compared.

    LiteRT can quantize the weights. Then `verify` refuses probabilities that differ on average by
    more than a quarter of their mean absolute deviation, and the result tells how many labels
    changed. Compare ROC AUC on rows with labels before you serve it.

    | quantization | bytes a weight | activations |
    |---|---|---|
    | `"float16"` | 2; a scaler must not need more than 65,504 | float32 |
    | `"dynamic_range"` | 1 in kernels from 1,024 weights on | float32 between layers |

    Args:
        model: Keras model with a `BinaryHead`, built.
        path: where to write; must not exist.
        format: a format of the table. Defaults to `"tf_saved_model"`.
        head: name or path of the head, or the head itself, where the model has several. Defaults
            to `None`.
        sample: rows to compare on, as `model.predict` takes them, or a table where the model holds
            an encoder; needed where an input is text; `None` for random ones. Defaults to `None`.
        verify: bool, whether to run and compare the artefact. Defaults to `True`.
        quantization: a quantization of the table, for `"litert"` only, or `None`. Defaults to
            `None`.

    Returns:
        An `Exported`, which prints as one line.

    Raises:
        FileExistsError: if there is something at `path`.
        ImportError: if a package is missing, with the extra that installs it.
        OSError: if its folder cannot be written.
        RuntimeError: if the format cannot express the model, and if the artefact gives other
            numbers than the model; nothing is left behind.
        TypeError: if `model` is no Keras model, and for encoded rows where columns go in.
        ValueError: for an unknown format or quantization, a path without the format's suffix, a
            model without exactly one head, one that was never built, an input that the format
            cannot have, and a sample that is empty or does not fit the inputs.

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

    References:
        Google, LiteRT post-training quantization:
        https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization
    """
    path = Path(path)
    check_bool(verify, "verify", OWNER)
    spec = _check_format(format, path)
    _check_quantization(quantization, spec)
    chosen = choose_head(model, head, OWNER)
    inputs = read_inputs(model, OWNER)
    given = None if sample is None else read_sample(inputs, sample, OWNER)
    inputs = declare_inputs(inputs, model, given, OWNER)
    served = serve_inputs(inputs, spec)
    check_inputs(served, spec, OWNER)
    _check_packages(spec, verify)
    verification, batches = None, []
    if verify:
        tables = read_tables(inputs, sample, OWNER)
        check_tables(served, tables, spec, OWNER)
        verification = Verification(model, chosen, inputs, given, tables, OWNER)
        batches = [served.name_columns(batch, tables) for batch in verification.batches]
    notes = _make_notes(model, chosen, served, quantization)
    with write_and_replace(path, OWNER) as place:
        artefact = Artefact(format, place, notes, quantization)
        return _write(artefact, path, model, chosen, served, verification, batches)


def _check_format(format: Any, path: Path) -> Format:
    check_choice(format, "format", OWNER, FORMATS, suggest_nearest(format, FORMATS))
    spec = FORMATS[format]
    if path.suffix != spec.suffix and spec.suffix:
        hint = f"As in {str(path.with_suffix(spec.suffix))!r}."
        expected = f"a path that ends in {spec.suffix!r} for {format!r}"
        raise ValueError(error_message("path", OWNER, expected, str(path), hint))
    existing = [file for file in spec.list_files(path) if file.exists()]
    if existing:
        raise FileExistsError(
            f"{OWNER} writes to a new path. Received: {str(path)!r}, but {str(existing[0])!r} "
            "exists. Remove it, or give another path."
        )
    return spec


def _check_quantization(value: Any, spec: Format) -> None:
    if value is None:
        return
    known = [name for other in FORMATS.values() for name in other.quantizations]
    check_choice(value, "quantization", OWNER, known, suggest_nearest(value, known))
    if value not in spec.quantizations:
        able = [other.name for other in FORMATS.values() if value in other.quantizations]
        expected = f"None for {spec.name!r}"
        hint = f"It is a quantization of {join(able)}."
        raise ValueError(error_message("quantization", OWNER, expected, value, hint))


def _check_packages(spec: Format, verify: bool) -> None:
    missing = spec.list_missing_packages(verify)
    if missing:
        raise ImportError(
            f'`{OWNER}(format="{spec.name}")` needs {" and ".join(missing)}: '
            f'`pip install "keras-binclf[{spec.extra}]"`.'
        )


def _make_notes(
    model: keras.Model, head: BinaryHead, inputs: ServedInputs, quantization: str | None
) -> dict[str, Any]:
    """Return the metadata."""
    columns = {
        column.input: {"table": table, "column": column.schema["name"]}
        for table, each in inputs.columns.items()
        for column in each
    }
    return {
        "keras_binclf": __version__,
        "threshold": head.threshold,
        "class_names": head.class_names,
        "model": model.name,
        "inputs": {
            spec.name: {"shape": (None, *(spec.shape or ())), "dtype": spec.dtype}
            | columns.get(spec.name, {})
            for spec in inputs.specs
        },
        "tables": list_schemas(inputs.inputs),
        "quantization": quantization,
        "rule": "label is 1 where probability > threshold, else 0",
    }


def _write(
    artefact: Artefact,
    path: Path,
    model: keras.Model,
    head: BinaryHead,
    inputs: ServedInputs,
    verification: Verification | None,
    batches: Sequence[Batch],
) -> Exported:
    """Write the artefact, compare it with the model, and return the result for `path`."""
    is_tensorflow = keras.backend.backend() == "tensorflow"
    write = write_and_run if is_tensorflow else write_and_run_elsewhere
    try:
        outputs, rounding = write(artefact, model, head, inputs, batches)
    except Exception as error:
        raise RuntimeError(
            f"{OWNER} could not write {model.name!r} as {artefact.format!r}: {shorten(error)}"
            f"{suggest_way_out(inputs.inputs)}"
        ) from error
    if verification is None:
        return Exported(path, artefact.format, 0, None, None)
    target = FORMATS[artefact.format]
    found = verification.compare(outputs, target, artefact.quantization, rounding)
    return Exported(path, artefact.format, **vars(found))
