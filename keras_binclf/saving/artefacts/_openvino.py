"""OpenVINO: for processors of Intel."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts._format import Artefact, Format
from keras_binclf.saving.artefacts._saved_model import save
from keras_binclf.saving.artefacts._served_inputs import Batch, ServedInputs


class OpenVINO(Format):
    """The format of Intel's runtime: a graph, and its weights in a file beside it."""

    name = "openvino"
    suffix = ".xml"
    extra = "openvino"
    writers = ("openvino",)
    runners = ("openvino",)
    tolerance = 1e-5
    # Without its extension for tokenizers.
    has_text = False
    # A value that is both has one set of names.
    has_separate_names = False

    def write(
        self, artefact: Artefact, model: keras.Model, head: BinaryHead, inputs: ServedInputs
    ) -> None:
        """Convert a SavedModel, with the metadata as JSON strings in `rt_info`."""
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), model, head, inputs)
            converted = openvino.convert_model(folder)
        for key, value in artefact.notes.items():
            converted.set_rt_info(json.dumps(value), ["keras_binclf", key])
        # Its default, half precision, changes probabilities by 1e-3.
        openvino.save_model(converted, artefact.path, compress_to_fp16=False)

    def run(self, path: Path, rows: Batch) -> Mapping[str, Any]:
        """Run it on the processor, in float32: some would compute in bfloat16."""
        import openvino

        precision = {"INFERENCE_PRECISION_HINT": "f32"}
        outputs = openvino.compile_model(path, "CPU", precision)(dict(rows))
        return {port.any_name: values for port, values in outputs.items()}

    def list_files(self, path: Path) -> list[Path]:
        """Return the graph and the weights."""
        return [path, path.with_suffix(".bin")]
