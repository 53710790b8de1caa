"""TabularEncoder: which kinds it finds, how it encodes them, and what the layer makes of them."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from contract import to_numpy
from tabular import ROWS, make_table

from keras_binclf import NumericalEmbedding, TabularEncoder


def adapt(table, y=None, **arguments):
    encoder = TabularEncoder(**arguments)
    encoder.adapt(table, y)
    return encoder


def describe(column, **arguments):
    """The JSON of what is learned of one column, beside one that is always there."""
    column = list(column) if not hasattr(column, "dtype") else column
    ever = np.arange(len(column)) % 2 > 0
    return adapt({"a": column, "other": ever}, **arguments).columns[0].to_dict()


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module")
def encoder(table):
    return adapt(table)


def test_every_kind_is_found(encoder):
    kinds = {column.name: column.kind for column in encoder.columns}
    assert kinds == {
        "age": "number",
        "visits": "number",
        "city": "category",
        "charge": "number",
        "member": "boolean",
        "flag": "boolean",
        "joined": "date",
        "born": "date",
        "size": "category",
        "customer": "ignored",
        "row": "ignored",
        "constant": "ignored",
        "empty": "ignored",
    }


def test_numbers_are_the_values_with_nan_for_gaps(encoder, table):
    matrix = encoder.encode(table)
    age = matrix[:, encoder.encoded_names.index("age")]
    np.testing.assert_array_equal(age, table["age"].to_numpy("float32"))
    charge = matrix[:, encoder.encoded_names.index("charge")]
    # The oracle reads the text by itself.
    expected = pd.to_numeric(table["charge"].str.strip(), errors="coerce").to_numpy("float32")
    np.testing.assert_array_equal(charge, expected)
    assert np.isnan(charge).sum() == 2


def test_codes_are_ranks_by_frequency(encoder, table):
    codes = encoder.encode(table)[:, encoder.encoded_names.index("city")]
    counts = table["city"].value_counts()
    frequent = [word for word in counts.index if counts[word] >= 2]
    rank = {word: 3 + i for i, word in enumerate(frequent)}
    expected = [0 if not isinstance(w, str) else rank.get(w, 2) for w in table["city"]]
    np.testing.assert_array_equal(codes, expected)
    assert {0, 2, 3, 4, 5} <= set(codes.tolist())


def test_unknown_words_are_rare_ones_or_unknown():
    with_rare = adapt({"a": ["x"] * 5 + ["y"] * 4 + ["z"]})
    without = adapt({"a": ["x"] * 5 + ["y"] * 5})
    for encoder, code in ((with_rare, 2), (without, 1)):
        assert encoder.encode({"a": ["new", None, " "]}).tolist() == [[code], [0], [0]]
    matrix = with_rare.encode({"a": ["new", "z"]})
    outputs = to_numpy(with_rare(matrix))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not to_numpy(without(without.encode({"a": ["new"]}))).any()


def test_most_frequent_categories_have_codes():
    words = [f"w{i}" for i in range(20) for _ in range(i + 1)]
    column = describe(words, max_categories=5)
    assert column["categories"] == ["w19", "w18", "w17", "w16", "w15"]
    assert column["has_rare"]
    assert describe(words, min_count=20)["categories"] == ["w19"]
    kinds = {"a": {"max_categories": 2, "min_count": 1}}
    assert describe(words, kinds=kinds)["categories"] == ["w19", "w18"]


def test_ties_of_counts_do_not_depend_on_the_order_of_rows():
    words = ["b", "c", "a"] * 3
    assert describe(words)["categories"] == describe(words[::-1])["categories"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["1", "2.5", " ", "-3e2", ".5", "7."], "number"),
        (["1", "2.5", "1,234.5", "3", "4", "1"], "category"),
        (["1", "0", "1", "0", "1", "0"], "number"),
        (["1_000", "nan", "inf", "1_000", "nan", "inf"], "category"),
        (["Yes", "no", "YES", "NO", "", "no"], "boolean"),
        (["t", "F", "T", "f", "t", "f"], "boolean"),
        (["y", "yes", "no", "n", "y", "n"], "category"),
        (["2024-05-31", "2023-01-01", "", None, "2020-02-29", "2020-02-29"], "date"),
        (["2024-05-31 12:30", "2023-01-01T00:00:01.5", "2022-01-01", None, "", ""], "date"),
        (["2024-05-31", "2023-02-30", "2024-05-31", "2023-02-30", "a", "a"], "category"),
        ([b"yes", b"no", b"yes", b"no", b"yes", None], "boolean"),
        ([True, None, False, True, None, True], "boolean"),
        ([1, None, 3.5, 1, 2, 3], "number"),
    ],
)
def test_kinds_of_objects(words, kind):
    assert describe(words)["kind"] == kind


def test_text_that_is_nearly_numbers_says_why_it_is_words():
    column = describe(["1", "2", "3", "1,234.5"] * 3)
    assert column["note"] == "words, since '1,234.5' is no number"


def test_large_numbers_are_centred_so_that_float32_keeps_their_digits():
    stamps = 1_700_000_000.0 + np.arange(100) ** 2
    encoder = adapt({"a": stamps})
    column = encoder.columns[0]
    encoded = encoder.encode({"a": stamps})[:, 0].astype("float64")
    np.testing.assert_array_equal(encoded + column.offset, stamps)
    assert len(np.unique(encoded)) == 100 > len(np.unique(stamps.astype("float32")))
    # float32 input is widened before the offset is subtracted.
    rounded = stamps.astype("float32")
    again = encoder.encode({"a": rounded})[:, 0]
    np.testing.assert_array_equal(again, rounded.astype("float64") - column.offset)
    assert describe(np.arange(100.0) ** 2)["offset"] == 0.0


def test_parts_of_dates_are_those_of_pandas():
    days = pd.date_range("2018-03-01 06:30", periods=1500, freq="31h")
    encoder = adapt(pd.DataFrame({"d": days}))
    assert encoder.encoded_names == (
        "d/elapsed",
        "d/time_of_day",
        "d/day_of_week",
        "d/day_of_year",
    )
    matrix = encoder.encode(pd.DataFrame({"d": days}))
    hours = (days - days.normalize()) / pd.Timedelta(days=1)
    np.testing.assert_allclose(matrix[:, 1], hours, atol=1e-6)
    np.testing.assert_array_equal(matrix[:, 2], days.day_of_week)
    # Phases of a mean year and of the calendar's differ by a day and its quarters.
    expected = days.day_of_year - 1 + hours
    gap = (matrix[:, 3] - expected + 182) % 365.2425 - 182
    assert np.abs(gap - np.median(gap)).max() < 1.5
    np.testing.assert_allclose(np.diff(matrix[:, 0]), 31 / 24, atol=1e-4)


def test_parts_that_do_not_come_again_are_left_out():
    assert describe(pd.date_range("2024-01-01", periods=5))["parts"] == ["elapsed"]
    assert describe(pd.date_range("2024-01-01", periods=20))["parts"] == ["elapsed", "day_of_week"]


def test_time_zones_go_to_utc():
    rome = pd.date_range("2024-01-01", periods=9, freq="7h", tz="Europe/Rome")
    encoder = adapt(pd.DataFrame({"d": rome}))
    expected = encoder.encode(pd.DataFrame({"d": rome.tz_convert("UTC")}))
    np.testing.assert_array_equal(encoder.encode(pd.DataFrame({"d": rome})), expected)
    text = {"d": [moment.isoformat() for moment in rome]}
    np.testing.assert_array_equal(encoder.encode(text), expected)
    objects = {"d": list(rome.to_pydatetime())}
    np.testing.assert_array_equal(encoder.encode(objects), expected)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([None, np.nan, "", " "], "nothing but gaps"),
        ([1.0] * 4, "all its values are equal"),
        (["a"] * 4, "its only value is 'a'"),
        ([f"id{i}" for i in range(30)], "30 in 30 rows"),
        (np.random.default_rng(0).permutation(60) + 1000, "numbers the rows"),
        (["a", "b", "c", "d"], "no value is in 2 rows or more"),
    ],
)
def test_columns_that_tell_nothing_are_ignored_and_say_why(column, reason):
    learned = describe(column)
    assert learned["kind"] == "ignored"
    assert reason in learned["reason"]


def test_one_value_beside_gaps_tells_something():
    assert describe([1.0, None, 1.0, None])["kind"] == "number"
    assert describe(["a", None, "a", None])["kind"] == "category"


def test_kinds_override_what_adapt_would_choose():
    numbers = [3, 1, 1, 2, 2, 2]
    column = describe(numbers, kinds={"a": "category"}, min_count=1)
    assert column["categories"] == [2, 1, 3]
    encoder = adapt({"a": numbers}, kinds={"a": "category"}, min_count=1)
    # 2, 2.0 and "2" are one category.
    for twos in ([2, 9], [2.0, 9.5], ["2", "9"]):
        assert encoder.encode({"a": twos}).tolist() == [[3], [1]]
    assert encoder.encode({"a": [None]}).tolist() == [[0]]
    assert describe(np.arange(100), kinds={"a": "number"})["kind"] == "number"
    assert describe([0, 1, 0, 1], kinds={"a": "boolean"})["kind"] == "boolean"
    assert describe([True, False] * 2, kinds={"a": "category"})["categories"] == [False, True]
    assert describe([1.5, 2.5, 1.0], kinds={"a": "ignored"})["reason"] == "`kinds` says so"


def test_declared_categories_are_categories(table):
    column = describe(pd.Series([1, 2, 1, 2, 3, 3, 3], dtype="category"))
    assert (column["kind"], column["source"], column["categories"]) == (
        "category",
        "number",
        [3, 1, 2],
    )
    words = pd.Categorical(["1", "2"] * 4, categories=["1", "2", "never"])
    assert describe(pd.Series(words))["categories"] == ["1", "2"]


# ---- the layer


def test_layer_is_scaling_sines_and_one_hot_by_numpy():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "word": rng.choice(["a", "b", "c"], 200, p=[0.5, 0.3, 0.2]),
            "number": rng.normal(5, 2, 200),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 40, 200), "D"),
        }
    )
    table.loc[:9, "number"] = np.nan
    encoder = adapt(table)
    outputs = to_numpy(encoder(encoder.encode(table)))

    def scale(values):
        values = values.astype("float32").astype("float64")
        z = (values - np.nanmedian(values)) / np.subtract(*np.nanpercentile(values, [75, 25]))
        return np.where(np.isnan(z), 0.0, z / np.sqrt(1 + (z / 3) ** 2))

    days = (table["day"] - pd.Timestamp("1970-01-01")).dt.days.to_numpy("float64")
    angle = 2 * np.pi * table["day"].dt.day_of_week.to_numpy() / 7
    number = table["number"].to_numpy()
    expected = [
        scale(number),
        scale(days - np.floor(np.median(days))),
        np.isnan(number),
        np.sin(angle),
        np.cos(angle),
        *(table["word"] == word for word in "abc"),
    ]
    # float32 arithmetic on values of size one.
    np.testing.assert_allclose(outputs, np.transpose(expected), atol=2e-6)


def test_gaps_of_dates_have_neither_sine_nor_cosine():
    days = pd.Series(pd.date_range("2024-01-01", periods=30))
    days[3] = pd.NaT
    encoder = adapt(pd.DataFrame({"d": days}))
    outputs = to_numpy(encoder(encoder.encode(pd.DataFrame({"d": days}))))
    assert outputs.shape == (30, 4)
    assert outputs[3].tolist() == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("method", ["piecewise_linear", "periodic"])
def test_numbers_go_through_the_embedding(method, table):
    encoder = adapt(table, embedding=NumericalEmbedding(4, method))
    plain = adapt(table)
    matrix = encoder.encode(table)
    assert encoder(matrix).shape == encoder.compute_output_shape(matrix.shape)
    assert (
        encoder.compute_output_shape(matrix.shape)[1] > plain.compute_output_shape(matrix.shape)[1]
    )
    assert np.isfinite(to_numpy(encoder(matrix))).all()
    child = encoder.numerical_embedding
    assert (child.dim, child.method) == (4, method)
    assert len(child.feature_bins) == plain.scaler.num_outputs


def test_config_is_json_and_encodes_equally(encoder, table):
    config = json.loads(json.dumps(encoder.get_config()))
    again = TabularEncoder.from_config(config)
    assert again.columns == encoder.columns
    np.testing.assert_array_equal(again.encode(table), encoder.encode(table))


def test_a_new_encoder_of_the_same_arguments_can_be_adapted_again(table):
    encoder = adapt(table, embedding="piecewise_linear", kinds={"visits": "category"})
    fresh = TabularEncoder.from_config({**encoder.get_config(), "columns": None})
    fresh.adapt(table[: ROWS // 2])
    assert fresh.columns[1].kind == "category"
    with pytest.raises(ValueError, match=r"is adapted already"):
        fresh.adapt(table)


def test_printing_shows_every_column_in_short_lines(encoder):
    lines = str(encoder).splitlines()
    assert lines[0].split() == ["column", "kind", "learned", "gap", "new", "word"]
    assert [line.split()[0] for line in lines[2:-1]] == [c.name for c in encoder.columns]
    assert max(map(len, lines)) <= 100
    assert lines[-1] == "13 columns: 3 number, 2 category, 2 boolean, 2 date, 4 ignored"
    wide = str(adapt(np.random.default_rng(0).normal(size=(9, 80)))).splitlines()
    assert len(wide) == 2 + 60 + 2
    assert wide[-2:] == ["and 20 more", "80 columns: 80 number"]


def test_printing_shows_what_was_learned(encoder, table):
    cells = {line.split()[0]: re.split("  +", line) for line in str(encoder).splitlines()[2:-1]}
    quartiles = table["age"].quantile([0.25, 0.5, 0.75])
    expected = f"quartiles {', '.join(f'{value:.4g}' for value in quartiles)}"
    assert cells["age"][2:] == [expected, "median + mark", "error"]
    assert cells["charge"][2].startswith("text; quartiles 9")
    words = table["city"].value_counts().index[:3]
    assert cells["city"][2:] == [f"3 and rare ones: {', '.join(words)}", "own vector", "as rare"]
    days = table["joined"].dropna().dt.strftime("%Y-%m-%d")
    expected = f"{days.min()} to {days.max()}; by day, week, year"
    assert cells["joined"][2] == expected
    assert cells["member"][2:] == ["yes or no", "median", "error"]
    assert cells["empty"][1:] == ["ignored", "it holds nothing but gaps"]


def test_numbers_are_printed_with_as_many_digits_as_tell_them_apart():
    rng = np.random.default_rng(0)
    stamps = 1_700_000_000 + rng.integers(0, 5000, 100)
    lines = str(adapt({"when": stamps, "tiny": rng.normal(0, 1e-9, 100)})).splitlines()
    printed = [float(word.rstrip(",")) for word in lines[2].split()[3:6]]
    np.testing.assert_allclose(printed, np.quantile(stamps, [0.25, 0.5, 0.75]), atol=500)
    assert len(set(printed)) == 3
    assert "e-10" in lines[3]


def test_words_are_printed_on_one_line():
    lines = str(adapt({"a\tb": ["x\ny", "u, v", " w"] * 3})).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith(r"'a\tb'")
    assert r"3: ' w', 'u, v', 'x\ny'" in lines[2]


def test_target_among_the_columns_is_warned_of(table):
    y = (table["age"].fillna(0) > 40).astype(int)
    leaking = table.assign(target=y.map({0: "stays", 1: "leaves"}), gap=y.where(y > 0))
    with pytest.warns(UserWarning, match=r"Column '(target|gap)' .* tells every label") as warned:
        adapt(leaking, y)
    assert len(warned) == 2
    adapt(table, y)
    with pytest.raises(ValueError, match=r"one label a row. Received: 3 labels for 200 rows"):
        adapt(table, [0, 1, 0])


def test_a_million_levels_are_few_codes():
    rng = np.random.default_rng(0)
    words = np.char.add("w", rng.integers(0, 10**6, 200_000).astype(str))
    column = describe(words.astype(object), max_categories=1000)
    assert len(column["categories"]) == 1000
    assert column["has_rare"]
