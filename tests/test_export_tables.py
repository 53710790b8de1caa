"""Exported models that take a table: raw columns, or the encoded matrix and its schema."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
import serve_elsewhere
import zoo
from tabular import make_table
from test_export import AVAILABLE, SUFFIXES, cut_between_scores

from keras_binclf import (
    BinaryHead,
    TabularEncoder,
    binary_classifier,
    predict_labels,
    to_core_layers,
)
from keras_binclf._data.inputs import read_inputs
from keras_binclf.saving import export
from keras_binclf.saving.artefacts._formats import FORMATS
from keras_binclf.saving.artefacts._inputs import serve_inputs
from keras_binclf.saving.artefacts._made_up_table import make_up_table

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere it takes a process")
# On other backends each takes a process of ten seconds.
KINDS = SUFFIXES if BACKEND == "tensorflow" else {"onnx": ".onnx"}
TEXTS = ["city", "member", "size"]
DAYS = ["joined", "born"]
NUMBERS = ["age", "visits", "charge", "flag"]


def make_rows(rows=2_000):
    """Rows with words that the encoder has not seen, and gaps in each column that can have them."""
    table = make_table(rows, seed=1)
    random = np.random.default_rng(2)
    table["size"] = table["size"].astype(object)
    for name, words in {
        "city": ["Atlantis", "rome", "größer", None, "", "   ", "\t", "Bergen"],
        "size": ["XL", "s", None],
        "member": ["YES", "no", None, " "],
        "charge": ["1e2", " ", "-3.50", None],
        "born": ["1969-12-31", "1912-02-29", None],
    }.items():
        place = random.random(rows) < 0.3
        table.loc[place, name] = random.choice(np.array(words, object), place.sum())
    for name in ("age", "joined"):
        table.loc[random.random(rows) < 0.1, name] = None
    return table


def read_columns(table):
    """The columns as the page says, by pandas."""
    columns = {name: table[name].fillna("").to_numpy(str) for name in TEXTS}
    for name in DAYS:
        since = pd.to_datetime(table[name]) - pd.Timestamp("1970-01-01")
        columns[name] = (since / pd.Timedelta(days=1)).to_numpy("float64")
    for name in NUMBERS:
        columns[name] = pd.to_numeric(table[name], errors="coerce").to_numpy("float64")
    return columns


@pytest.fixture(scope="module")
def encoder():
    encoder = TabularEncoder(embedding="piecewise_linear")
    encoder.adapt(make_table())
    return encoder


@pytest.fixture(scope="module")
def table():
    return make_rows()


@pytest.fixture(scope="module")
def model(encoder, table):
    keras.utils.set_random_seed(0)
    model = zoo.with_random_head(binary_classifier(encoder, hidden_units=16))
    cut_between_scores(model, encoder.encode(table))
    return model


def test_rows_hold_what_is_hard(encoder, table):
    """Each column has gaps where the matrix can have them; words are unknown, and rare."""
    matrix = dict(zip(encoder.encoded_names, encoder.encode(table).T, strict=True))
    assert set(matrix["city"]) == {0, 2, 3, 4, 5}
    assert set(matrix["size"]) == {0, 1, 3, 4, 5}
    for name in ("age", "charge", "member", "joined/elapsed", "born/elapsed"):
        assert 0.01 < np.isnan(matrix[name]).mean() < 0.3
    assert {"joined/time_of_day", "joined/day_of_week", "born/day_of_year"} <= set(matrix)


@pytest.fixture(scope="module")
def served(model, table, tmp_path_factory):
    """The folder with artefacts and what a process without the package made of raw columns."""
    folder = tmp_path_factory.mktemp("tables")
    found = {}
    for kind in [kind for kind in KINDS if kind in AVAILABLE]:
        # In another order, and with columns that are not used.
        sample = table[table.columns[::-1]]
        found[kind] = export(model, folder / f"table{SUFFIXES[kind]}", kind, sample=sample)
    core = to_core_layers(model, labels=True, schema_path=folder / "table.json")
    core.save(folder / "table.keras")
    np.savez(folder / "table.npz", **read_columns(table))
    zoo.run_python(serve_elsewhere.__file__, folder, backend="tensorflow", cwd=folder)
    return folder, found


@pytest.mark.parametrize("format", KINDS)
def test_raw_columns_give_the_labels_of_the_model(served, model, encoder, table, format):
    if format not in AVAILABLE:
        pytest.skip("its runtime is not installed")
    folder, exported = served
    outputs = np.load(folder / f"table{SUFFIXES[format]}.served.npz")
    expected = model.predict(encoder.encode(table), verbose=0)
    np.testing.assert_allclose(outputs["probability"], expected, rtol=0, atol=2e-6)
    labels = predict_labels(model, table)
    np.testing.assert_array_equal(outputs["label"], labels)
    assert 0.2 < labels.mean() < 0.8
    assert exported[format].num_rows == len(table)
    assert exported[format].num_disagreements == 0


def test_core_layers_with_their_schema_give_the_labels_of_the_model(served, model, table):
    outputs = np.load(served[0] / "table.keras.served.npz")
    np.testing.assert_array_equal(outputs["label"], predict_labels(model, table))


@pytest.mark.parametrize("format", KINDS)
def test_metadata_tells_the_columns(served, encoder, format):
    if format not in AVAILABLE:
        pytest.skip("its runtime is not installed")
    found = np.load(served[0] / f"table{SUFFIXES[format]}.served.npz")
    notes = json.loads(str(found["notes"]))
    assert notes["tables"] == {"features": encoder.get_config()["columns"]}
    inputs = notes["inputs"]
    if not FORMATS[format].takes_columns:
        shape = [None, encoder.num_encoded]
        assert inputs == {"features": {"shape": shape, "dtype": "float32"}}
        return
    assert {name for name, about in inputs.items() if about["dtype"] == "string"} == set(TEXTS)
    others = {name for name, about in inputs.items() if about["dtype"] == "float64"}
    assert others == {*DAYS, *NUMBERS}
    assert all(about["column"] == name for name, about in inputs.items())
    assert all(about["shape"] == [None] for about in inputs.values())


@pytest.mark.once
def test_lines_of_the_page_encode_as_the_encoder_does(encoder, table):
    columns = json.loads(json.dumps(encoder.get_config()["columns"]))
    found = serve_elsewhere.load_encode_rows()(read_columns(table), columns)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, encoder.encode(table))


@pytest.mark.once
@pytest.mark.parametrize("format", ["tf_saved_model", "litert"])
def test_rows_are_made_up_with_gaps_and_unknown_words(encoder, model, format, tmp_path):
    if format not in AVAILABLE:
        pytest.skip("its runtime is not installed")
    found = export(model, tmp_path / f"model{SUFFIXES[format]}", format)
    assert found.num_rows == 256
    assert found.num_disagreements == 0


def adapt_to_every_kind(numbered=False):
    """Return an encoder of each kind and each way to store it."""
    table = make_table(60)
    kinds = {"visits": "category", "odd": "category", "bit": "boolean"}
    table["odd"] = np.arange(60) % 3 == 0
    table["bit"] = np.arange(60) % 2
    table["seen"] = pd.date_range("2024-01-01", periods=60, freq="37h", tz="Europe/Rome")
    table["stamp"] = 1.7e9 + np.random.default_rng(0).normal(size=60)
    names = list(table)
    if numbered:
        kinds = {names.index(name): kind for name, kind in kinds.items()}
        table = table.astype(object).to_numpy()
    encoder = TabularEncoder(kinds=kinds)
    encoder.adapt(table)
    return encoder


@pytest.mark.parametrize("numbered", [False, True])
def test_made_up_tables_are_like_those_that_were_learned(numbered):
    encoder = adapt_to_every_kind(numbered)
    table = make_up_table(encoder, 500, np.random.default_rng(0))
    matrix = encoder.encode(table)
    kept = [column for column in encoder.columns if column.kind != "ignored"]
    assert {(column.kind, column.source) for column in kept} >= {
        *(("number", "number"), ("number", "text"), ("boolean", "text"), ("boolean", "boolean")),
        *(("boolean", "number"), ("category", "text"), ("category", "number")),
        *(("category", "boolean"), ("date", "text"), ("date", "date")),
    }
    places = {column.name: encoder.encoded_names.index(column.encoded_names[0]) for column in kept}
    for column in kept:
        values = matrix[:, places[column.name]]
        if column.kind != "category":
            assert 0.05 < np.isnan(values).mean() < 0.2
            continue
        codes = {0, *range(3, 3 + len(column.categories))}
        codes |= {2 if column.has_rare else 1} if column.source != "boolean" else set()
        assert set(values) == codes
    scaled = keras.ops.convert_to_numpy(encoder(matrix))
    numbers = list(range(sum(column.kind != "category" for column in kept)))
    assert (np.std(scaled[:, numbers], axis=0) > 0.3).all()


# Names


def name_columns(model, format):
    served = serve_inputs(read_inputs(model, "export"), FORMATS[format])
    return {c.input: c.schema["name"] for columns in served.columns.values() for c in columns}


def classify(tables):
    """A model of several tables, by name of the input."""
    inputs, parts = {}, []
    for name, table in tables.items():
        encoder = TabularEncoder(name=f"{name}_encoder", kinds=dict.fromkeys(table, "number"))
        encoder.adapt(table)
        inputs[name] = keras.Input((encoder.num_encoded,), name=name)
        parts.append(encoder(inputs[name]))
    merged = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    return zoo.with_random_head(keras.Model(inputs, BinaryHead()(merged)))


VALUES = np.arange(12) ** 1.5


@pytest.mark.parametrize(
    ("tables", "format", "expected"),
    [
        ({"t": ["age", "capital-gain"]}, "onnx", {"age": "age", "capital-gain": "capital-gain"}),
        ({"t": ["", "größe"]}, "onnx", {"column_0": "", "größe": "größe"}),
        ({"t": ["a.b", "a b"]}, "onnx", {"a.b": "a.b", "a b": "a b"}),
        # TensorFlow's signatures have one name for both.
        ({"t": ["x", "a.b", "a b"]}, "tf_saved_model", {"x": "x", "t/column_1": "a.b"}),
        ({"t": ["label"]}, "onnx", {"t/label": "label"}),
        ({"t": ["label"]}, "tf_saved_model", {"label": "label"}),
        ({"t": ["t"]}, "tf_saved_model", {"t": "t"}),
        (
            {"one": ["age", "a"], "two": ["age", "b"]},
            "onnx",
            {"one/age": "age", "a": "a", "two/age": "age", "b": "b"},
        ),
    ],
)
def test_columns_keep_their_names_where_these_can_be_told_apart(tables, format, expected):
    tables = {name: dict.fromkeys(columns, VALUES) for name, columns in tables.items()}
    found = name_columns(classify(tables), format)
    assert expected.items() <= found.items()
    simple = [FORMATS[format].simplify_name(name) for name in found]
    assert len(set(simple)) == len(found) == sum(map(len, tables.values()))


@on_tensorflow
@pytest.mark.parametrize("format", ["tf_saved_model", "onnx"])
def test_names_that_clash_and_other_inputs_are_exported(format, tmp_path):
    """Two tables and an array; names that no identifier has."""
    if format not in AVAILABLE:
        pytest.skip("its runtime is not installed")
    random = np.random.default_rng(0)
    names = {"one": ["age", "a b", "a.b", "größe:0", "label", ""], "two": ["age", "class"]}
    rows = {
        table: {name: random.normal(size=40) for name in columns}
        for table, columns in names.items()
    }
    parts, inputs = [], {}
    for name, table in rows.items():
        encoder = TabularEncoder(name=f"{name}_encoder")
        encoder.adapt(table)
        inputs[name] = keras.Input((encoder.num_encoded,), name=name)
        parts.append(encoder(inputs[name]))
    inputs["extra"] = keras.Input((3,), name="extra")
    parts.append(inputs["extra"])
    model = keras.Model(inputs, BinaryHead()(keras.layers.Concatenate()(parts)))
    sample = {**rows, "extra": random.normal(size=(40, 3))}
    path = tmp_path / f"model{SUFFIXES[format]}"
    found = export(model, path, format, sample=sample)
    assert (found.num_rows, found.num_disagreements) == (40, 0)
    assert export(model, tmp_path / f"other{SUFFIXES[format]}", format).num_rows == 256


@on_tensorflow
def test_columns_of_an_array_are_numbered(tmp_path):
    encoder = adapt_to_every_kind(numbered=True)
    model = zoo.with_random_head(binary_classifier(encoder))
    assert export(model, tmp_path / "model").num_disagreements == 0
    notes = json.loads((tmp_path / "model" / "assets.extra" / "keras_binclf.json").read_text())
    assert {name: about["column"] for name, about in notes["inputs"].items()} == {
        f"column_{column.name}": column.name
        for column in encoder.columns
        if column.kind != "ignored"
    }


# What cannot be


def test_encoded_rows_are_no_sample_where_columns_go_in(model, encoder, table, tmp_path):
    matrix = keras.ops.convert_to_tensor(encoder.encode(table))
    message = "`sample` of export must be a table for input 'features', since 'tf_saved_model'"
    with pytest.raises(TypeError, match=message):
        export(model, tmp_path / "model", sample=matrix)
    assert list(tmp_path.iterdir()) == []


def test_sample_without_a_column_names_it(model, table, tmp_path):
    with pytest.raises(ValueError, match=r"must have column 'city'"):
        export(model, tmp_path / "model", sample=table.drop(columns="city"))
