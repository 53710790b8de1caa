"""Raw columns, encoded in a TensorFlow graph and in ONNX Runtime from a schema written by hand.

The oracle is NumPy and Python's dicts; the codes are 0 missing, 1 unknown, 2 rare, 3 + i.
"""

import functools
import importlib.util

import keras
import numpy as np
import pytest

from keras_binclf.saving.artefacts import _onnx
from keras_binclf.saving.artefacts._graph_encoder import GraphEncoder, iterate_cases
from keras_binclf.saving.artefacts._raw_columns import Column

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="writes a graph")
ROWS = 10_000
PARTS = ["elapsed", "time_of_day", "day_of_week", "day_of_year"]
SCHEMA = [
    {"name": "age", "kind": "number", "source": "number", "offset": 0.0},
    {"name": "stamp", "kind": "number", "source": "number", "offset": 1.7e9},
    {"name": "charge", "kind": "number", "source": "text", "offset": 0.0},
    {
        "name": "job",
        "kind": "category",
        "source": "text",
        "categories": ["clerk", "größer", "X"],
        "has_rare": True,
    },
    {
        "name": "town",
        "kind": "category",
        "source": "text",
        "categories": ["x", "y z"],
        "has_rare": False,
    },
    {
        "name": "size",
        "kind": "category",
        "source": "number",
        "categories": [3.0, 1.5, 7],
        "has_rare": True,
    },
    {"name": "churn", "kind": "boolean", "source": "text", "true": "yes", "false": "no"},
    {"name": "flag", "kind": "boolean", "source": "boolean"},
    {"name": "joined", "kind": "date", "source": "date", "offset": 19000.25, "parts": PARTS},
]
WORDS = {
    "job": ["clerk", "größer", "X", "x", "?", "", "  "],
    "town": ["x", "y z", "y  z", "\t", "        "],
    "churn": ["yes", "No", "YES", "nO", "", " "],
}
COLUMNS = [Column(schema["name"], schema) for schema in SCHEMA]


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    drawn = {name: random.choice(words, ROWS).astype(object) for name, words in WORDS.items()}
    drawn |= {
        "age": random.normal(40, 10, ROWS),
        "stamp": 1.7e9 + random.normal(0, 1e4, ROWS),
        "charge": random.normal(0, 1e3, ROWS),
        "size": random.choice([3, 1.5, 7, 2], ROWS),
        "flag": random.integers(0, 2, ROWS).astype("float64"),
        "joined": random.normal(10_000, 9_000, ROWS),  # before 1970, too
    }
    for column in COLUMNS:
        if not column.is_text:
            drawn[column.input][random.random(ROWS) < 0.1] = np.nan
    return {column.input: drawn[column.input] for column in COLUMNS}


@pytest.fixture(scope="module")
def expected(rows):
    parts = []
    for column in COLUMNS:
        values, schema = rows[column.input], column.schema
        if schema["kind"] == "category":
            codes = {category: 3 + i for i, category in enumerate(schema["categories"])}
            other = 2 if schema["has_rare"] else 1
            parts.append([0 if is_gap(value) else codes.get(value, other) for value in values])
        elif column.is_text:
            known = {schema["true"]: 1.0, schema["false"]: 0.0}
            parts.append([known.get(word.lower(), np.nan) for word in values])
        elif schema["kind"] == "date":
            parts += [values - schema["offset"], np.mod(values, 1)]
            parts += [np.mod(np.floor(values) + 3, 7), np.mod(values, 365.2425)]
        else:
            parts.append(values - schema.get("offset", 0.0))
    return np.stack([np.asarray(part, "float64") for part in parts], axis=1).astype("float32")


def is_gap(value):
    return not value.strip() if isinstance(value, str) else np.isnan(value)


@pytest.fixture(scope="module")
def function():
    import tensorflow as tf

    encode = GraphEncoder(COLUMNS)
    signature = [
        tf.TensorSpec((None,), "string" if column.is_text else "float64", name=column.input)
        for column in COLUMNS
    ]
    return tf.function(lambda *tensors: {"matrix": encode(tensors)}, input_signature=signature)


def test_graph_encodes_as_the_oracle_bit_for_bit(function, rows, expected):
    found = function(*rows.values())["matrix"].numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "tf2onnx", "onnxruntime"))), reason="no ONNX"
)
def test_onnx_encodes_as_the_oracle_bit_for_bit(function, rows, expected):
    """Several columns of text, each with a table of its own."""
    import onnxruntime
    import tf2onnx

    graph = function.get_concrete_function().graph
    captures = {inner.name: outer for outer, inner in graph.captures}
    convert = functools.partial(_onnx._convert_lookup, _onnx._read_tables(graph, captures))
    proto, _ = tf2onnx.convert.from_function(
        function, function.input_signature, custom_op_handlers={_onnx.LOOKUP: (convert, [])}
    )
    _onnx._fill_captures(proto, captures)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    kinds = {entry.name: entry.type for entry in session.get_inputs()}
    assert kinds["job"] == "tensor(string)"
    assert kinds["joined"] == "tensor(double)"
    np.testing.assert_array_equal(session.run(["matrix"], rows)[0], expected)


@pytest.mark.parametrize(
    ("word", "number", "some"),
    [("no", 4, {"no", "No", "nO", "NO"}), ("engaged", 3, {"engaged", "Engaged", "ENGAGED"})],
)
def test_words_of_booleans_are_listed_in_both_cases(word, number, some):
    found = set(iterate_cases(word))
    assert len(found) == number
    assert some <= found
