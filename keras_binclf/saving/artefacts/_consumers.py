"""How each format is run where it is served, each by the runtime that users have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray[Any, Any]]


def run(format: str, path: Path, inputs: Arrays) -> dict[str, Any]:
    """Return what an artefact gives for rows, by the names of its outputs.

    Args:
        format: one of `CONSUMERS`.
        path: where the artefact is.
        inputs: rows by the names of the inputs.
    """
    outputs = CONSUMERS[format](path, inputs)
    return {name: np.asarray(values) for name, values in outputs.items()}


def _run_saved_model(path: Path, inputs: Arrays) -> Mapping[str, Any]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    outputs: dict[str, Any] = serve(**{name: tf.constant(rows) for name, rows in inputs.items()})
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def _run_onnx(path: Path, inputs: Arrays) -> Mapping[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _run_litert(path: Path, inputs: Arrays) -> Mapping[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    outputs: dict[str, Any] = runner(**inputs)
    return outputs


def _run_openvino(path: Path, inputs: Arrays) -> Mapping[str, Any]:
    import openvino

    # Processors that have it compute in bfloat16 unless told otherwise.
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    outputs = openvino.compile_model(path, "CPU", precision)(dict(inputs))
    return {port.any_name: values for port, values in outputs.items()}


CONSUMERS = {
    "tf_saved_model": _run_saved_model,
    "onnx": _run_onnx,
    "litert": _run_litert,
    "openvino": _run_openvino,
}
