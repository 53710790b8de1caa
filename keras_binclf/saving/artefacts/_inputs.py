"""The inputs of the model as inputs of an artefact: known, and possible in its format."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_binclf._data.inputs import ModelInputs
from keras_binclf.saving.artefacts._format import OUTPUTS, Format
from keras_binclf.saving.artefacts._formats import FORMATS
from keras_binclf.saving.artefacts._raw_columns import list_columns
from keras_binclf.saving.artefacts._served_inputs import ServedInputs

Array = np.ndarray[Any, Any]

TEXT = "OSUT"
"""Kinds of NumPy dtypes that hold text."""


def declare_inputs(
    inputs: ModelInputs, model: keras.Model, given: list[Array] | None, owner: str
) -> ModelInputs:
    """Return inputs of known rank and dtype: of the rows, where the model does not tell.

    Args:
        inputs: inputs of the model.
        model: the model.
        given: rows, or None.
        owner: name of the public function, for messages.

    Raises:
        ValueError: if the rank of an input is not known.
    """
    shapes = [None] * len(inputs.specs) if given is None else [rows.shape[1:] for rows in given]
    kinds = ["f"] * len(inputs.specs) if given is None else [rows.dtype.kind for rows in given]
    dtypes = ["string" if kind in TEXT else model.input_dtype for kind in kinds]
    declared = inputs.declare(shapes, dtypes)
    for spec in declared.specs:
        if spec.shape is None:
            raise ValueError(
                f"{owner} needs to know the shape of input {spec.name!r}, of which Keras keeps "
                "none. Give rows, `sample=...`, or the model a `build` with a shape for each "
                "argument of `call`."
            )
    return declared


def serve_inputs(inputs: ModelInputs, target: Format) -> ServedInputs:
    """Return the inputs of an artefact: of the model, with columns where the format takes them."""
    if not target.takes_columns:
        return ServedInputs(inputs, {})
    taken = [spec.name for spec in inputs.specs if spec.encoder is None]
    taken += [] if target.has_separate_names else OUTPUTS
    simple = [target.simplify_name(name) for name in taken]
    columns = list_columns(inputs, target.simplify_name, simple)
    return ServedInputs(inputs, columns)


def check_inputs(inputs: ServedInputs, target: Format, owner: str) -> None:
    """Raise `ValueError` for inputs that a format cannot have, with the formats that can."""
    clash = _find_clash(inputs, target)
    if clash is not None:
        able = [other.name for other in FORMATS.values() if _find_clash(inputs, other) is None]
        raise ValueError(
            f"{owner} cannot write input {clash[0]!r} as {target.name!r}, which cannot tell its "
            f"name from that of {clash[1]}. Rename the input, as in `keras.Input(..., "
            f"name='features')`, or export as {join(able)}."
        )
    texts = [spec.name for spec in inputs.specs if spec.dtype == "string"]
    if texts and not target.has_text:
        able = [other.name for other in FORMATS.values() if other.has_text]
        raise ValueError(
            f"{owner} cannot write input {texts[0]!r} as {target.name!r}, which has no inputs of "
            f"text. Export as {join(able)}, or export a model that takes the numbers of the words."
        )


def check_tables(
    inputs: ServedInputs, tables: Mapping[str, Any], target: Format, owner: str
) -> None:
    """Raise `TypeError` for rows that are encoded already, where the artefact takes columns."""
    for name in inputs.columns:
        if keras.ops.is_tensor(tables[name]):
            raise TypeError(
                f"`sample` of {owner} must be a table for input {name!r}, since {target.name!r} "
                "takes its columns. Received: a tensor of encoded rows."
            )


def _find_clash(inputs: ServedInputs, target: Format) -> tuple[str, str] | None:
    """Return an input, and another input or an output that has the same name in a format."""
    taken = {}
    if not target.has_separate_names:
        taken = {target.simplify_name(name): f"output {name!r}" for name in OUTPUTS}
    for spec in inputs.specs:
        simple = target.simplify_name(spec.name)
        if simple in taken:
            return spec.name, taken[simple]
        taken[simple] = f"input {spec.name!r}"
    return None


def suggest_way_out(inputs: ModelInputs) -> str:
    """Return advice for a format that failed, by the inputs that not all formats can have."""
    advice = ""
    unknown = [spec.name for spec in inputs.specs if None in (spec.shape or ())]
    if unknown:
        advice += (
            f". If the unknown size of input {join(unknown)} is the reason, build the model with a "
            "fixed size in `keras.Input`, or choose another format"
        )
    texts = [spec.name for spec in inputs.specs if spec.dtype == "string"]
    if texts:
        advice += (
            f". If the text of input {join(texts)} is the reason, export as 'tf_saved_model', or "
            "export a model that takes the numbers of the words"
        )
    return advice and f"{advice}."


def join(names: list[str]) -> str:
    """Return names in quotes, for messages."""
    return " or ".join(map(repr, names))
