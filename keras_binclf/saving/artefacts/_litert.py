"""LiteRT, once TensorFlow Lite: for phones and small devices."""

import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts._format import METADATA, Artefact, Format
from keras_binclf.saving.artefacts._saved_model import save
from keras_binclf.saving.artefacts._served_inputs import Batch, ServedInputs


class LiteRT(Format):
    """The format of phones and small devices.

    It has no `"integer"` quantization here: probabilities would come in steps of 1/256, too coarse
    for the threshold of a rare class, and all columns of an input would share one scale.
    """

    name = "litert"
    suffix = ".tflite"
    extra = "litert"
    runners = ("ai_edge_litert",)
    tolerance = 1e-5
    quantizations = ("float16", "dynamic_range")

    def write(
        self, artefact: Artefact, model: keras.Model, head: BinaryHead, inputs: ServedInputs
    ) -> None:
        """Convert a SavedModel, with the metadata in a zip archive appended to the model."""
        import tensorflow as tf

        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), model, head, inputs)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            if artefact.quantization is not None:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if artefact.quantization == "float16":
                converter.target_spec.supported_types = [tf.float16]
            artefact.path.write_bytes(_convert(converter))
        # Where LiteRT keeps the files of a model: https://ai.google.dev/edge/litert
        with zipfile.ZipFile(artefact.path, "a") as archive:
            archive.writestr(METADATA, json.dumps(artefact.notes))

    def run(self, path: Path, rows: Batch) -> Mapping[str, Any]:
        """Run it in the interpreter of LiteRT."""
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
        outputs: dict[str, Any] = runner(**rows)
        return outputs


def _convert(converter: Any) -> Any:
    """Convert a model, and name the operations that LiteRT lacks rather than dump the graph."""
    try:
        return converter.convert()
    except Exception as error:
        missing = re.search("TF Select ops: (.+)", str(error))
        if missing is None:
            raise
        raise NotImplementedError(f"LiteRT lacks the operations {missing[1]}") from error
