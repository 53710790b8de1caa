"""Serve every artefact in a folder, as a project does that has no `keras_binclf`.

    python serve_elsewhere.py FOLDER

Beside each `NAME.npz` with rows, by the names of the inputs, lie artefacts `NAME`, `NAME.onnx`,
`NAME.tflite`, `NAME.xml` and `NAME.keras`, or some of them. What came of the rows, and what the
artefact says of itself, go to `ARTEFACT.served.npz`. Rows of a table are its columns; what
takes them encoded gets the matrix that the lines of docs/production.md make of them.
"""

import json
import os
import re
import sys
import zipfile
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parent.parent / "docs" / "production.md"


class NoPackage:
    """As if `keras_binclf` were not installed, also where it is."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_binclf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def encode_tables(inputs, notes):
    """Return the rows with each table of columns as one matrix."""
    names = {column["name"] for table in notes["tables"].values() for column in table}
    encoded = {name: rows for name, rows in inputs.items() if name not in names}
    for name, columns in notes["tables"].items():
        encoded[name] = load_encode_rows()(inputs, columns)
    return encoded


def load_encode_rows():
    """Return the function that the page shows, which needs no more than NumPy."""
    (block,) = re.findall(
        r"^```python\n([^`]*^def encode_rows.*?)^```", PAGE.read_text(), re.M | re.S
    )
    namespace = {}
    exec(block, namespace)
    return namespace["encode_rows"]


def serve_saved_model(path, inputs):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    tensors = {name: tf.constant(rows) for name, rows in inputs.items()}
    outputs = loaded.signatures["serving_default"](**tensors)
    notes = json.loads((path / "assets.extra" / "keras_binclf.json").read_text())
    return {name: tensor.numpy() for name, tensor in outputs.items()}, notes


def serve_onnx(path, inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    probability, label = session.run(["probability", "label"], inputs)
    notes = session.get_modelmeta().custom_metadata_map
    notes = {key: json.loads(value) for key, value in notes.items()}
    return {"probability": probability, "label": label}, notes


def serve_litert(path, inputs):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    notes = json.loads(zipfile.ZipFile(path).read("keras_binclf.json"))
    return runner(**encode_tables(inputs, notes)), notes


def serve_openvino(path, inputs):
    import openvino

    model = openvino.Core().read_model(path)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    notes = {key: json.loads(value.value) for key, value in model.rt_info["keras_binclf"].items()}
    found = compiled(encode_tables(inputs, notes))
    return {name: found[name] for name in ("probability", "label")}, notes


def serve_keras(path, inputs):
    import keras

    model = keras.models.load_model(path)
    schema = path.with_suffix(".json")
    if schema.exists():
        inputs = encode_tables(inputs, {"tables": json.loads(schema.read_text("utf-8"))})
    (only,) = inputs.values() if len(inputs) == 1 else (dict(inputs),)
    return model.predict(only, verbose=0), {}


SERVERS = {
    "": serve_saved_model,
    ".onnx": serve_onnx,
    ".tflite": serve_litert,
    ".xml": serve_openvino,
    ".keras": serve_keras,
}


def serve(folder):
    sys.meta_path.insert(0, NoPackage())
    for rows in sorted(folder.glob("*.npz")):
        if rows.name.endswith(".served.npz"):
            continue
        for suffix, server in SERVERS.items():
            path = rows.with_name(rows.stem + suffix)
            if path.exists():
                outputs, notes = server(path, dict(np.load(rows)))
                np.savez(f"{path}.served.npz", notes=json.dumps(notes), **outputs)
    assert "keras_binclf" not in sys.modules


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    serve(Path(sys.argv[1]))
