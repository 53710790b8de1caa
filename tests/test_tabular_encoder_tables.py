"""TabularEncoder on tables of all libraries: the same table gives the same numbers."""

import decimal

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tabular import make_table

from keras_binclf import TabularEncoder


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module")
def encoder(table):
    encoder = TabularEncoder()
    encoder.adapt(table)
    return encoder


def to_polars(table):
    polars = pytest.importorskip("polars")
    return polars.DataFrame({name: to_list(table[name]) for name in table})


def to_arrow(table):
    arrow = pytest.importorskip("pyarrow")
    return arrow.table({name: to_list(table[name]) for name in table})


def to_list(column):
    values = column.astype(object).where(column.notna(), None).tolist()
    return [v.to_pydatetime() if isinstance(v, pd.Timestamp) else v for v in values]


FORMS = {
    "pandas": lambda table: table,
    "objects": lambda table: table.astype(object),
    "nullable": lambda table: table.convert_dtypes(),
    "arrow_dtypes": lambda table: to_arrow(table).to_pandas(types_mapper=pd.ArrowDtype),
    "polars": to_polars,
    "arrow": to_arrow,
    "lists": lambda table: {name: to_list(table[name]) for name in table},
    "vectors": lambda table: {name: table[name].to_numpy() for name in table},
    "series": lambda table: dict(table.items()),
    "series_of_polars": lambda table: {c.name: c for c in to_polars(table)},
    "columns_of_arrow": lambda table: {
        name: to_arrow(table)[name].combine_chunks() for name in table
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_all_libraries_give_the_same_schema_and_matrix(form, table, encoder):
    if form == "arrow_dtypes":
        pytest.importorskip("pyarrow")
    other = FORMS[form](table)
    np.testing.assert_array_equal(encoder.encode(other), encoder.encode(table))
    learned = TabularEncoder()
    learned.adapt(other)
    # How gaps alone are stored tells nothing.
    expected = [c.to_dict() for c in encoder.columns if c.name != "empty"]
    assert [c.to_dict() for c in learned.columns if c.name != "empty"] == expected


def test_columns_are_found_by_name(table, encoder):
    expected = encoder.encode(table)
    turned = table[table.columns[::-1]].assign(extra="x")
    np.testing.assert_array_equal(encoder.encode(turned), expected)
    ignored = [c.name for c in encoder.columns if c.kind == "ignored"]
    np.testing.assert_array_equal(encoder.encode(table.drop(columns=ignored)), expected)
    with pytest.raises(ValueError, match=r"must have column 'city'.* Did you mean 'City'\?"):
        encoder.encode(table.rename(columns={"city": "City"}))


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_order_of_columns_and_of_rows_changes_nothing(data):
    table, encoder = SHARED
    expected = encoder.encode(table)
    names = data.draw(st.permutations(list(table)))
    rows = data.draw(st.lists(st.integers(0, len(table) - 1), max_size=8))
    np.testing.assert_array_equal(encoder.encode(table[names].iloc[rows]), expected[rows])


def make_shared():
    table, encoder = make_table(), TabularEncoder()
    encoder.adapt(table)
    return table, encoder


SHARED = make_shared()


def test_row_by_row_equals_the_table(table, encoder):
    expected = encoder.encode(table)
    records = [{name: to_list(table[name])[i] for name in table} for i in range(12)]
    for i, record in enumerate(records):
        np.testing.assert_array_equal(encoder.encode_row(record), expected[i : i + 1])
        np.testing.assert_array_equal(encoder.encode_row(table.iloc[i]), expected[i : i + 1])
    strange = {"age": np.float32(40.5), "visits": decimal.Decimal(3), "city": b"Rome"}
    row = encoder.encode_row({**records[0], **strange, "flag": 1, "member": "YES"})
    assert row[0, :3].tolist() == [40.5, 3.0, 3.0]
    assert row[0, 4:6].tolist() == [1.0, 1.0]


def test_rows_are_refused_like_tables(table, encoder):
    record = table.iloc[0].to_dict()
    with pytest.raises(ValueError, match=r"must have column 'age'"):
        encoder.encode_row({"Age": 1.0})
    with pytest.raises(ValueError, match=r"Column 'age' .* must hold numbers.*'old'"):
        encoder.encode_row({**record, "age": "old"})
    with pytest.raises(ValueError, match=r"Column 'age' .* must be finite"):
        encoder.encode_row({**record, "age": float("inf")})
    with pytest.raises(TypeError, match=r"`row` of .* must be a dict of values by column"):
        encoder.encode_row([1.0, 2.0])
    with pytest.raises(TypeError, match=r"Column 'age' .*`encode_row` takes one row"):
        encoder.encode(record)


def test_a_column_of_gaps_in_new_rows_works(table, encoder):
    polars_gap = [None] * len(table)
    for name in ("age", "city", "charge", "member", "flag", "joined", "born", "size"):
        for gaps in (polars_gap, np.full(len(table), np.nan)):
            matrix = encoder.encode({**dict(table.items()), name: gaps})
            places = [i for i, n in enumerate(encoder.encoded_names) if n.split("/")[0] == name]
            values = matrix[:, places]
            assert (np.isnan(values) | (values == 0)).all()
            assert np.isfinite(keras.ops.convert_to_numpy(encoder(matrix))).all()


def test_no_rows_encode_to_no_rows(table, encoder):
    assert encoder.encode(table[:0]).shape == (0, encoder.num_encoded)
    with pytest.raises(ValueError, match=r"must have rows. Received: none"):
        TabularEncoder().adapt(table[:0])


# ---- arrays


def test_arrays_have_numbered_columns():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    encoder = TabularEncoder()
    encoder.adapt(x)
    assert not encoder.is_named
    assert [column.name for column in encoder.columns] == [0, 1, 2]
    np.testing.assert_array_equal(encoder.encode(x), x.astype("float32"))
    np.testing.assert_array_equal(encoder.encode_row(x[0]), x[:1].astype("float32"))
    mixed = np.array([[1.0, "a"], [2.5, "b"], [None, "a"], [4.0, "b"]], dtype=object)
    other = TabularEncoder(kinds={1: {"kind": "category", "min_count": 1}})
    other.adapt(mixed)
    assert [column.kind for column in other.columns] == ["number", "category"]
    again = TabularEncoder.from_config(other.get_config())
    np.testing.assert_array_equal(again.encode(mixed), other.encode(mixed))
    with pytest.raises(ValueError, match=r"must have 3 columns, as in `adapt`. Received: 2"):
        encoder.encode(x[:, :2])


def test_tables_and_arrays_are_not_mixed_up(encoder):
    x = np.zeros((5, len(encoder.columns)))
    with pytest.raises(ValueError, match=r"must be a table of named columns.*Received: an array"):
        encoder.encode(x)
    numbered = TabularEncoder()
    numbered.adapt(np.random.default_rng(0).normal(size=(9, 2)))
    with pytest.raises(
        ValueError, match=r"must be an array of numbered columns.*Received: a table"
    ):
        numbered.encode(pd.DataFrame({"a": [1.0], "b": [2.0]}))


def test_names_that_are_numbers_are_text():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 2)))
    encoder = TabularEncoder(kinds={1: "ignored"})
    encoder.adapt(frame)
    assert [(column.name, column.kind) for column in encoder.columns] == [
        ("0", "number"),
        ("1", "ignored"),
    ]
    np.testing.assert_array_equal(encoder.encode(frame), frame[[0]].to_numpy("float32"))


# ---- streams


def test_batches_are_read_as_one_table(table, encoder):
    y = (table["age"].fillna(0) > 40).to_numpy()
    parts = [slice(0, 60), slice(60, 61), slice(61, None)]
    for batches in (
        (table[part] for part in parts),
        ((to_polars(table[part]), y[part]) for part in parts),
        ((dict(table[part].items()), y[part], y[part]) for part in parts),
    ):
        learned = TabularEncoder()
        learned.adapt(batches)
        expected = [c.to_dict() for c in encoder.columns if c.name != "empty"]
        assert [c.to_dict() for c in learned.columns if c.name != "empty"] == expected
        np.testing.assert_array_equal(learned.encode(table), encoder.encode(table))
    with pytest.warns(UserWarning, match=r"Column 'target' .* tells every label"):
        TabularEncoder().adapt((table.assign(target=y)[part], y[part]) for part in parts)


def test_data_sets_of_tensorflow_and_keras_are_read(table):
    tf = pytest.importorskip("tensorflow")
    columns = {"age": table["age"].to_numpy(), "city": table["city"].fillna("").to_numpy(str)}
    expected = TabularEncoder()
    expected.adapt(columns)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return {name: column[i * 100 : i * 100 + 100] for name, column in columns.items()}

    for data in (tf.data.Dataset.from_tensor_slices(columns).batch(64), Batches()):
        learned = TabularEncoder()
        learned.adapt(data)
        assert learned.columns == expected.columns
    endless = tf.data.Dataset.from_tensor_slices(columns).batch(64).repeat()
    with pytest.raises(ValueError, match=r"a data set without end"):
        TabularEncoder().adapt(endless)


def test_batches_must_agree():
    with pytest.raises(ValueError, match=r"batches of the same columns"):
        TabularEncoder().adapt({name: [1.0, 2.0]} for name in "ab")
    with pytest.raises(ValueError, match=r"one type in all batches. Received: number and text"):
        TabularEncoder().adapt({"a": column} for column in ([1.0, 2.0], ["x", "y"]))
    with pytest.raises(ValueError, match=r"a data set of no batches"):
        TabularEncoder().adapt(batch for batch in ())
