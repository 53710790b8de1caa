"""ONNX: for ONNX Runtime, in any language and in browsers."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts._format import Artefact, Format
from keras_binclf.saving.artefacts._served_inputs import Batch, ServedInputs
from keras_binclf.saving.artefacts._serving_function import make_function

LOOKUP = "LookupTableFindV2"
Captures = dict[str, Any]
"""Tensors that a TensorFlow function takes from outside, such as tables, by their names in it."""


class ONNX(Format):
    """The open format of many runtimes."""

    name = "onnx"
    suffix = ".onnx"
    extra = "onnx"
    writers = ("onnx", "tf2onnx")
    runners = ("onnxruntime",)
    tolerance = 1e-5
    # A graph has one name for each of its values.
    has_separate_names = False
    takes_columns = True

    def write(
        self, artefact: Artefact, model: keras.Model, head: BinaryHead, inputs: ServedInputs
    ) -> None:
        """Convert the function, with the metadata as JSON strings in `metadata_props`."""
        import onnx
        import tf2onnx

        function, _ = make_function(model, head, inputs)
        graph = function.get_concrete_function().graph
        captures = {inner.name: outer for outer, inner in graph.captures}
        tables = _read_tables(graph, captures)
        proto, _ = tf2onnx.convert.from_function(
            function,
            function.input_signature,
            custom_op_handlers={
                "Erfc": (_convert_erfc, []),
                LOOKUP: (functools.partial(_convert_lookup, tables), []),
            },
        )
        _fill_captures(proto, captures)
        notes = {key: json.dumps(value) for key, value in artefact.notes.items()}
        onnx.helper.set_model_props(proto, notes)
        onnx.checker.check_model(proto)
        onnx.save(proto, artefact.path)

    def run(self, path: Path, rows: Batch) -> Mapping[str, Any]:
        """Run it in ONNX Runtime."""
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(rows)), strict=True))


def _convert_erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Write `Erfc`, of which TensorFlow makes GELU and which ONNX lacks, as `1 - erf(x)`."""
    one = graph.make_const(f"{name}_one", np.ones((), "float32")).output[0]
    erf = graph.make_node("Erf", node.input).output[0]
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(name)
    graph.make_node("Sub", [one, erf], name=name, outputs=node.output, shapes=shapes, dtypes=dtypes)


def _read_tables(graph: Any, captures: Captures) -> dict[str, dict[str, Any]]:
    """Return the tables of a TensorFlow graph, such as the vocabulary of `StringLookup`.

    Returns:
        The attributes of a `LabelEncoder` for each table, by the name of its tensor.
    """
    import tensorflow as tf

    tables = {}
    for operation in [each for each in graph.get_operations() if each.type == LOOKUP]:
        table, keys, default = operation.inputs
        pairs = tf.raw_ops.LookupTableExportV2(
            table_handle=captures[table.name], Tkeys=keys.dtype, Tvalues=default.dtype
        )
        kinds = ["strings" if part.dtype == tf.string else "int64s" for part in pairs]
        tables[table.name] = {
            f"keys_{kinds[0]}": pairs[0].numpy().tolist(),
            f"values_{kinds[1]}": pairs[1].numpy().tolist(),
            f"default_{kinds[1].removesuffix('s')}": captures[default.name].numpy(),
        }
    return tables


def _convert_lookup(
    tables: dict[str, dict[str, Any]], graph: Any, node: Any, name: str, arguments: Any
) -> None:
    """Write a lookup in a table as a `LabelEncoder`.

    tf2onnx itself finds tables in SavedModels only, and converts none from integers to integers.
    """
    table, keys, _ = node.input
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(name)
    graph.make_node(
        "LabelEncoder",
        [keys],
        attr=tables[table],
        name=name,
        outputs=node.output,
        shapes=shapes,
        dtypes=dtypes,
        domain="ai.onnx.ml",
    )


def _fill_captures(proto: Any, captures: Captures) -> None:
    """Make constants of captured tensors, such as means, which tf2onnx writes as inputs."""
    import onnx

    graph = proto.graph
    used = {name for node in graph.node for name in node.input}
    for entry in [entry for entry in graph.input if entry.name in captures]:
        graph.input.remove(entry)
        if entry.name in used:
            array = captures[entry.name].numpy()
            graph.initializer.append(onnx.numpy_helper.from_array(array, entry.name))
