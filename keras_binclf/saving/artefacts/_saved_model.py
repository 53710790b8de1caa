"""SavedModel: for TensorFlow and TensorFlow Serving, and the way to LiteRT and OpenVINO."""

import json
import keyword
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts._format import METADATA, Artefact, Format
from keras_binclf.saving.artefacts._served_inputs import Batch, ServedInputs
from keras_binclf.saving.artefacts._serving_function import make_function

ENDPOINT = "serve"
EXTRA_ASSETS = "assets.extra"
"""Folder of a SavedModel that TensorFlow does not read."""
PLAIN_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")


class SavedModel(Format):
    """The format of TensorFlow."""

    name = "tf_saved_model"
    suffix = ""
    tolerance = 1e-6
    takes_columns = True

    def write(
        self, artefact: Artefact, model: keras.Model, head: BinaryHead, inputs: ServedInputs
    ) -> None:
        """Write a SavedModel, with the metadata among its extra assets."""
        save(artefact.path, model, head, inputs)
        extra = artefact.path / EXTRA_ASSETS
        extra.mkdir()
        (extra / METADATA).write_text(json.dumps(artefact.notes))

    def run(self, path: Path, rows: Batch) -> Mapping[str, Any]:
        """Load it as TensorFlow does, and call its signature."""
        import tensorflow as tf

        loaded = tf.saved_model.load(str(path))
        serve = loaded.signatures["serving_default"]
        outputs = serve(**{name: tf.constant(array) for name, array in rows.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def simplify_name(self, name: str) -> str:
        """Return the name of the argument that a signature has in Python."""
        simple = "".join(letter if letter.isalnum() else "_" for letter in name)
        return simple if simple[0].isalpha() else f"arg_{simple}"


def save(path: Path, model: keras.Model, head: BinaryHead, inputs: ServedInputs) -> None:
    """Write a SavedModel without metadata."""
    names = [spec.name for spec in inputs.specs]
    real = dict(zip(_make_plain_names(names), names, strict=True))
    archive = keras.export.ExportArchive()
    archive.track(model)
    function, tables = make_function(model, head, inputs, list(real))
    for table in tables:
        archive.track(table)
    archive.add_endpoint(ENDPOINT, function)
    archive.write_out(str(path), verbose=False)
    changed = {plain: name for plain, name in real.items() if plain != name}
    if changed:
        _rename_inputs(path, changed)


def _make_plain_names(names: list[str]) -> list[str]:
    """Return names that the arguments of a TensorFlow function can have: the same, where they can.

    They are compared without regard to case there.
    """
    cases = Counter(name.lower() for name in names)
    return [
        name
        if PLAIN_NAME.fullmatch(name) and not keyword.iskeyword(name) and cases[name.lower()] == 1
        else f"keras_binclf_input_{i:04}"
        for i, name in enumerate(names)
    ]


def _rename_inputs(path: Path, names: Mapping[str, str]) -> None:
    """Give the inputs of a SavedModel names that TensorFlow's functions cannot have.

    The file can hold them, and is read by `tf.saved_model.load`, by TensorFlow Serving, and by the
    converters of LiteRT and OpenVINO.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        for definition in graph.signature_def.values():
            for plain in [name for name in definition.inputs if name in names]:
                definition.inputs[names[plain]].CopyFrom(definition.inputs[plain])
                del definition.inputs[plain]
        for node in graph.object_graph_def.nodes:
            keywords = node.bare_concrete_function.argument_keywords
            if any(keyword in names for keyword in keywords):
                keywords[:] = [names.get(keyword, keyword) for keyword in keywords]
    file.write_bytes(saved.SerializeToString())
    # It holds a checksum of the file as it was. TensorFlow does without.
    (path / "fingerprint.pb").unlink(missing_ok=True)
