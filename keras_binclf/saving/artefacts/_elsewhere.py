"""Writing in another Python process, which runs on TensorFlow."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_binclf._data.heads import list_heads
from keras_binclf._data.inputs import ModelInputs, read_inputs
from keras_binclf._layer_state import iterate_layers
from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts import _consumers, _writers
from keras_binclf.saving.artefacts._writers import Artefact

MODULE = "keras_binclf.saving.artefacts._elsewhere"
MAIN = "__main__"
JOB, MODEL, INPUTS, OUTPUTS = "job.json", "model.keras", "inputs.npz", "outputs.npz"


def write_elsewhere(
    artefact: Artefact,
    model: keras.Model,
    head: BinaryHead,
    inputs: ModelInputs,
    rows: Mapping[str, Any],
) -> dict[str, Any]:
    """Save the model, and let a process on TensorFlow write the artefact and run it.

    Runtimes of other libraries are not loaded beside JAX and PyTorch: OpenVINO forks the process
    that imports it, of which JAX warns that it may hang.

    Args:
        artefact: what to write.
        model: model on another backend.
        head: its head.
        inputs: its inputs, of known shape and dtype.
        rows: rows to run it on, by the names of the inputs; may be empty.

    Returns:
        What the artefact gives for them, by the names of its outputs.

    Raises:
        RuntimeError: if the other process fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder / MODEL)
        np.savez(folder / INPUTS, **rows)
        job = {
            "artefact": {**vars(artefact), "path": str(artefact.path.absolute())},
            "shapes": [spec.shape for spec in inputs.specs],
            "dtypes": [spec.dtype for spec in inputs.specs],
            "head": [own is head for own in list_heads(model)].index(True),
            "modules": _list_modules(model),
        }
        (folder / JOB).write_text(json.dumps(job))
        done = subprocess.run(
            [sys.executable, "-m", MODULE, name],
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "CUDA_VISIBLE_DEVICES": "-1",
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(
                done.stderr.strip() or f"the process on TensorFlow ended with {done.returncode}"
            )
        return dict(np.load(folder / OUTPUTS))


def _list_modules(model: keras.Model) -> list[str]:
    """Return where the classes of the model come from, so that they are known elsewhere."""
    classes = {type(layer) for layer in iterate_layers(model)}
    for cls in classes:
        if cls.__module__ == MAIN:
            raise ValueError(
                f"{cls.__name__} is a class of the script or notebook itself, which the process on "
                "TensorFlow cannot import. Move it to a module, and import it from there."
            )
    modules = {cls.__module__ for cls in classes}
    return sorted(m for m in modules if m.split(".")[0] not in ("keras", "keras_binclf"))


def main(folder: Path) -> None:
    """Do what `write_elsewhere` asks for."""
    job = json.loads((folder / JOB).read_text())
    for name in job["modules"]:
        importlib.import_module(name)
    model = keras.models.load_model(folder / MODEL, compile=False)
    head = list_heads(model)[job["head"]]
    inputs = read_inputs(model, "export").declare(job["shapes"], job["dtypes"])
    given = job["artefact"]
    artefact = Artefact(**{**given, "path": Path(given["path"])})
    _writers.write(artefact, model, head, inputs)
    rows = dict(np.load(folder / INPUTS))
    outputs = _consumers.run(artefact.format, artefact.path, rows) if rows else {}
    np.savez(folder / OUTPUTS, **outputs)


if __name__ == MAIN:
    main(Path(sys.argv[1]))
