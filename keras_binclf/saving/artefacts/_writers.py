"""How each format is written, from a model on the TensorFlow backend."""

import dataclasses
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_binclf._data.heads import select_tensor
from keras_binclf._data.inputs import ModelInputs
from keras_binclf.layers import BinaryHead

METADATA = "keras_binclf.json"
"""The name of the metadata, wherever a format keeps them."""
ENDPOINT = "serve"
EXTRA_ASSETS = "assets.extra"
"""Where a SavedModel keeps what TensorFlow does not read."""
QUANTIZATIONS = ("float16", "dynamic_range")
"""What LiteRT calls its kinds of quantization after training.

Not `"integer"`: probabilities come in steps of 1/256 there, which no threshold of a rare class
survives, and one scale holds for all columns of an input.
"""


@dataclasses.dataclass(frozen=True)
class Artefact:
    """What is to be written.

    Attributes:
        format: one of `WRITERS`.
        path: where to write.
        notes: the metadata, as JSON can hold them.
        quantization: one of `QUANTIZATIONS`, or None.
    """

    format: str
    path: Path
    notes: Mapping[str, Any]
    quantization: str | None = None


def write(artefact: Artefact, model: keras.Model, head: BinaryHead, inputs: ModelInputs) -> None:
    """Write an artefact with the outputs `probability` and `label`.

    Args:
        artefact: what to write.
        model: model on the TensorFlow backend.
        head: its head.
        inputs: its inputs, of known shape and dtype.
    """
    WRITERS[artefact.format](artefact, model, make_function(model, head, inputs))


def make_function(model: keras.Model, head: BinaryHead, inputs: ModelInputs) -> Any:
    """Return the `tf.function` of the inputs, as positional arguments with their names."""
    import tensorflow as tf

    specs = [
        tf.TensorSpec((None, *(spec.shape or ())), spec.dtype, name=spec.name)
        for spec in inputs.specs
    ]

    @tf.function(input_signature=specs)
    def serve(*tensors: Any) -> dict[str, Any]:
        output = select_tensor(model, head, inputs.call(model, tensors))
        probability = ops.cast(head.probabilities(output), "float32")
        return {"probability": probability, "label": head.labels(output)}

    return serve


def _write_saved_model(artefact: Artefact, model: keras.Model, function: Any) -> None:
    _save(model, function, artefact.path, artefact.notes)


def _save(model: keras.Model, function: Any, path: Path, notes: Mapping[str, Any]) -> None:
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(ENDPOINT, function)
    archive.write_out(str(path), verbose=False)
    extra = path / EXTRA_ASSETS
    extra.mkdir()
    (extra / METADATA).write_text(json.dumps(notes))


def _write_onnx(artefact: Artefact, model: keras.Model, function: Any) -> None:
    import onnx
    import tf2onnx

    proto, _ = tf2onnx.convert.from_function(
        function,
        function.input_signature,
        custom_op_handlers={"Erfc": (_convert_erfc, [])},
    )
    _fill_captures(proto, function.get_concrete_function())
    # ONNX holds strings.
    notes = {key: json.dumps(value) for key, value in artefact.notes.items()}
    onnx.helper.set_model_props(proto, notes)
    onnx.checker.check_model(proto)
    onnx.save(proto, artefact.path)


def _convert_erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Write what GELU is made of on TensorFlow, which ONNX lacks, as `1 - erf(x)`."""
    one = graph.make_const(f"{name}_one", np.ones((), "float32")).output[0]
    erf = graph.make_node("Erf", node.input).output[0]
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(name)
    graph.make_node("Sub", [one, erf], name=name, outputs=node.output, shapes=shapes, dtypes=dtypes)


def _fill_captures(proto: Any, function: Any) -> None:
    """Give the constants that a TensorFlow function captured, such as means, their values.

    tf2onnx takes them for inputs.
    """
    import onnx

    graph = proto.graph
    captured = {inner.name: outer for outer, inner in function.graph.captures}
    used = {name for node in graph.node for name in node.input}
    for entry in [entry for entry in graph.input if entry.name in captured]:
        graph.input.remove(entry)
        if entry.name in used:
            array = captured[entry.name].numpy()
            graph.initializer.append(onnx.numpy_helper.from_array(array, entry.name))


def _write_litert(artefact: Artefact, model: keras.Model, function: Any) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "saved_model"
        _save(model, function, saved, artefact.notes)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
        if artefact.quantization is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if artefact.quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        artefact.path.write_bytes(converter.convert())
    # Files that go with a model are a zip archive behind it: https://ai.google.dev/edge/litert
    with zipfile.ZipFile(artefact.path, "a") as archive:
        archive.writestr(METADATA, json.dumps(artefact.notes))


def _write_openvino(artefact: Artefact, model: keras.Model, function: Any) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "saved_model"
        _save(model, function, saved, artefact.notes)
        converted = openvino.convert_model(str(saved))
    for key, value in artefact.notes.items():
        converted.set_rt_info(json.dumps(value), ["keras_binclf", key])
    # Half precision is its default, which moves probabilities by 1e-3.
    openvino.save_model(converted, artefact.path, compress_to_fp16=False)


WRITERS = {
    "tf_saved_model": _write_saved_model,
    "onnx": _write_onnx,
    "litert": _write_litert,
    "openvino": _write_openvino,
}
