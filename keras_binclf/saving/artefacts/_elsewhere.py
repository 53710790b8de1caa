"""Writing an artefact in another Python process, which runs on TensorFlow."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_binclf._data.heads import list_heads
from keras_binclf._data.inputs import read_inputs
from keras_binclf._layer_state import iterate_layers
from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts._format import Artefact
from keras_binclf.saving.artefacts._formats import FORMATS
from keras_binclf.saving.artefacts._raw_columns import Column
from keras_binclf.saving.artefacts._served_inputs import Batch, ServedInputs
from keras_binclf.saving.artefacts._verification import measure_rounding

MODULE = "keras_binclf.saving.artefacts._elsewhere"
MAIN = "__main__"
JOB, MODEL, INPUTS, OUTPUTS = "job.json", "model.keras", "inputs-{}.npz", "outputs-{}.npz"
ROUNDING = "rounding.npy"

Outputs = list[Mapping[str, Any]]


def write_and_run_elsewhere(
    artefact: Artefact,
    model: keras.Model,
    head: BinaryHead,
    inputs: ServedInputs,
    batches: Sequence[Batch],
) -> tuple[Outputs, float]:
    """Save the model, and let a process on TensorFlow write the artefact and run it.

    That process also keeps the runtimes of other libraries out of JAX and PyTorch: OpenVINO forks
    the process that imports it, and JAX warns that it may hang then.

    Args:
        artefact: the artefact to write.
        model: model on another backend.
        head: its head.
        inputs: inputs of the artefact, of known shape and dtype.
        batches: rows to run the artefact on; may be empty.

    Returns:
        The outputs of the artefact by name, for each batch, and the rounding of the model on
        TensorFlow.

    Raises:
        RuntimeError: if the other process fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder / MODEL)
        for i, batch in enumerate(batches):
            np.savez(folder / INPUTS.format(i), **dict[str, Any](batch))
        job = {
            "artefact": {**vars(artefact), "path": str(artefact.path.absolute())},
            "shapes": [spec.shape for spec in inputs.inputs.specs],
            "dtypes": [spec.dtype for spec in inputs.inputs.specs],
            "columns": {name: list(map(vars, each)) for name, each in inputs.columns.items()},
            "head": [own is head for own in list_heads(model)].index(True),
            "modules": _list_modules(model),
            "num_batches": len(batches),
        }
        (folder / JOB).write_text(json.dumps(job))
        _run_python(name)
        outputs: Outputs = [dict(np.load(folder / OUTPUTS.format(i))) for i in range(len(batches))]
        return outputs, float(np.load(folder / ROUNDING))


def _run_python(folder: str) -> None:
    """Run this module in a Python on TensorFlow that finds the same modules."""
    done = subprocess.run(
        [sys.executable, "-m", MODULE, folder],
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


def _list_modules(model: keras.Model) -> list[str]:
    """Return the modules of the model's own classes, for the other process to import."""
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
    """Do the job that `write_and_run_elsewhere` left in a folder."""
    job = json.loads((folder / JOB).read_text())
    for name in job["modules"]:
        importlib.import_module(name)
    model = keras.models.load_model(folder / MODEL, compile=False)
    head = list_heads(model)[job["head"]]
    declared = read_inputs(model, "export").declare(job["shapes"], job["dtypes"])
    columns = {name: tuple(Column(**one) for one in each) for name, each in job["columns"].items()}
    inputs = ServedInputs(declared, columns)
    given = job["artefact"]
    artefact = Artefact(**{**given, "path": Path(given["path"])})
    batches = [dict(np.load(folder / INPUTS.format(i))) for i in range(job["num_batches"])]
    for i, outputs in enumerate(write_and_run(artefact, model, head, inputs, batches)[0]):
        np.savez(folder / OUTPUTS.format(i), **outputs)
    encoded = [inputs.encode_batch(batch) for batch in batches]
    np.save(folder / ROUNDING, measure_rounding(model, head, declared, encoded))


def write_and_run(
    artefact: Artefact,
    model: keras.Model,
    head: BinaryHead,
    inputs: ServedInputs,
    batches: Sequence[Batch],
) -> tuple[Outputs, float]:
    """As `write_and_run_elsewhere`, in this process, of a model on TensorFlow."""
    spec = FORMATS[artefact.format]
    spec.write(artefact, model, head, inputs)
    return [spec.run(artefact.path, batch) for batch in batches], 0.0


if __name__ == MAIN:
    main(Path(sys.argv[1]))
