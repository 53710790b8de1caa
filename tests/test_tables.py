"""Arrays, tables, sparse matrices and lists are read alike by everything that takes rows."""

import keras
import ml_dtypes
import numpy as np
import pytest
from zoo import with_random_head

from keras_binclf import (
    BinaryClassifierHyperModel,
    Predictor,
    binary_classifier,
    calibrate,
    predict_labels,
    tune_threshold,
)
from keras_binclf._data.tables import is_dataset, is_empty_dataset, is_missing, to_array
from keras_binclf.tuner.trial.data import Given, check_data
from keras_binclf.tuner.trial.inputs import read_input_shape
from keras_binclf.tuner.trial.row_check import RowCheck

pd = pytest.importorskip("pandas")
sparse = pytest.importorskip("scipy.sparse")

RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.normal(size=40).round(3)
FLAGS = RANDOM.random(40) < 0.5
COUNTS = RANDOM.integers(0, 5, 40)
MATRIX = np.stack([NUMBERS, FLAGS, COUNTS], axis=1)
LABELS = (NUMBERS + FLAGS + RANDOM.normal(size=40) > 0.5).astype("int32")

FRAMES = {
    "numpy": {"n": NUMBERS, "f": FLAGS, "c": COUNTS},
    "nullable": {
        "n": pd.array(NUMBERS, "Float64"),
        "f": pd.array(FLAGS, "boolean"),
        "c": pd.array(COUNTS, "Int64"),
    },
    "mixed": {"n": NUMBERS, "f": FLAGS, "c": pd.array(COUNTS, "Int8")},
    "sparse": {"n": NUMBERS, "f": FLAGS, "c": pd.arrays.SparseArray(COUNTS)},
    "objects": {"n": NUMBERS.astype(object), "f": FLAGS, "c": COUNTS},
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return with_random_head(binary_classifier(3, metrics=None))


def read(value, **options):
    return to_array(value, "x", "score", **options)


@pytest.mark.parametrize("name", FRAMES)
def test_numeric_columns_of_any_type_are_one_matrix(name):
    array = read(pd.DataFrame(FRAMES[name]))
    assert array.dtype == "float64"
    np.testing.assert_array_equal(array, MATRIX)


def test_types_that_numpy_joins_are_kept():
    assert read(pd.DataFrame({"a": FLAGS, "b": FLAGS})).dtype == bool
    assert read(pd.DataFrame({"a": NUMBERS.astype("float32")})).dtype == "float32"
    assert read(pd.DataFrame({"a": FLAGS, "b": COUNTS.astype("int8")})).dtype == "int8"
    assert read(pd.DataFrame(index=range(3))).shape == (3, 0)


def test_columns_of_one_name_are_all_there():
    frame = pd.DataFrame({"a": NUMBERS, "b": FLAGS}).set_axis(["a", "a"], axis=1)
    np.testing.assert_array_equal(read(frame), MATRIX[:, :2])


@pytest.mark.parametrize("values", [[1, None, 3], [1.0, pd.NA, 3.0], [True, None, False]])
@pytest.mark.parametrize("kind", ["object", "nullable"])
def test_missing_values_become_nan(values, kind):
    nullable = "boolean" if values[0] is True else "Float64"
    column = pd.Series(values, dtype="object" if kind == "object" else nullable)
    expected = np.array([values[0], np.nan, values[2]], "float64")
    np.testing.assert_array_equal(read(column), expected)
    np.testing.assert_array_equal(read(column.to_frame())[:, 0], expected)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            np.array(["a", "b"] * 20),
            r"column 'plan' of dtype object, such as 'a'\. Let a `keras_binclf.TabularEncoder`",
        ),
        (pd.Categorical(["a", "b"] * 20), r"column 'plan' of dtype object, such as 'a'"),
        (["1.5", "2"] * 20, r"column 'plan' of dtype object, such as '1\.5'"),
        (pd.date_range("2020-01-01", periods=40), r"column 'plan' of dtype datetime64\[\w+\]\."),
        (NUMBERS + 1j, r"column 'plan' of dtype complex128\."),
    ],
    ids=["words", "categories", "numbers_as_text", "dates", "complex"],
)
def test_column_that_is_not_numeric_is_named(column, message, model):
    frame = pd.DataFrame({"n": NUMBERS, "plan": column, "c": COUNTS})
    hypermodel = BinaryClassifierHyperModel(3)
    for owner, call in {
        "Predictor": lambda: Predictor(model)(frame),
        "predict_labels": lambda: predict_labels(model, frame),
        "tune_threshold": lambda: tune_threshold(model, frame, LABELS),
        "calibrate": lambda: calibrate(model, frame, LABELS),
        r"BinaryClassifierHyperModel\.fit": lambda: hypermodel.preflight(
            frame, LABELS, validation_split=0.3
        ),
    }.items():
        with pytest.raises(TypeError, match=f"`x` of {owner} must be numbers.*{message}"):
            call()


def test_columns_that_are_not_numeric_are_all_named():
    frame = pd.DataFrame({"a": list("xy"), "b": [1, 2], "c": list("uv")})
    with pytest.raises(TypeError, match=r"'a' of dtype.*'c' of dtype.*TabularEncoder`"):
        read(frame)


FORMS = {
    "frame": lambda x: pd.DataFrame(FRAMES["mixed"]).iloc[: len(x)],
    "csr_matrix": sparse.csr_matrix,
    "coo_array": sparse.coo_array,
    "lists": lambda x: x.tolist(),
    "objects": lambda x: x.astype(object),
    "tensor": lambda x: keras.ops.convert_to_tensor(x, "float32"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_rows_gives_the_numbers_of_the_array(form, model):
    x = FORMS[form](MATRIX)
    expected = model.predict(MATRIX, verbose=0)
    np.testing.assert_allclose(Predictor(model)(x), expected, rtol=1e-5)
    tuned = tune_threshold(model, x, LABELS)
    again = tune_threshold(model, MATRIX, LABELS)
    assert (tuned.threshold, tuned.value) == (again.threshold, again.value)
    np.testing.assert_array_equal(predict_labels(model, x), expected > np.float32(tuned.threshold))


@pytest.mark.parametrize("form", ["frame", "csr_matrix", "objects", "lists"])
def test_a_search_trains_on_the_numbers_of_the_array(form):
    x = FORMS[form](MATRIX)
    check = RowCheck(read_input_shape((3,), "search"), None)
    data = check_data(Given(x, LABELS, None, (x, LABELS), None, None), check)
    np.testing.assert_array_equal(data.x, MATRIX)
    np.testing.assert_array_equal(data.validation[0], MATRIX)


def test_labels_and_weights_may_be_columns(model):
    weights = np.linspace(1, 2, 40)
    expected = tune_threshold(model, MATRIX, LABELS, sample_weight=weights)
    for y in (pd.Series(LABELS, dtype="Int64"), pd.DataFrame({"y": LABELS == 1}), LABELS.tolist()):
        w = pd.Series(weights, dtype="Float64")
        tuned = tune_threshold(model, MATRIX, y, sample_weight=w)
        assert (tuned.threshold, tuned.value) == (expected.threshold, expected.value)


MISSING = r"must be 0 and 1\. Received: 0\.0, 1\.0, nan\. Leave out the rows without a label"


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.array([0, 1, None, 1], object), ValueError, MISSING),
        (pd.Series([0, 1, None, 1], dtype="Int64"), ValueError, MISSING),
        (pd.Series([False, True, None, True], dtype="boolean"), ValueError, MISSING),
        ([0.0, 1.0, np.nan, 1.0], ValueError, MISSING),
        (
            np.array([0, 1, "1", 1], object),
            TypeError,
            r"numbers 0 and 1\. Received: '1', 0, 1, of dtype object\. They are of several types",
        ),
        (
            np.array(["no", "yes", None, "yes"], object),
            TypeError,
            r"'no', 'yes', None, of dtype object\. Leave out the rows without a label, and map",
        ),
        (
            pd.Series(["no", "yes", "no", "yes"]),
            TypeError,
            r"'no', 'yes', of dtype object\. Map them, as in `y = \(y == 'yes'\)",
        ),
    ],
    ids=["none", "int_na", "bool_na", "nan", "mixed", "words_and_none", "words"],
)
def test_labels_that_are_not_0_and_1_are_told(labels, error, message, model):
    for call in (tune_threshold, calibrate):
        with pytest.raises(error, match=f"Labels of {call.__name__} {message}|{message}"):
            call(model, MATRIX[:4], labels)


MASKED = r"an array without masked values\. Received: 2 of 4 values masked\. Leave out those rows"
COMPLEX = r"real numbers\. Received: complex numbers"
ROWS = {"x": MATRIX[:4], "y": np.array([0, 1, 0, 1]), "sample_weight": np.ones(4)}


@pytest.mark.parametrize("name", ROWS)
def test_masked_values_and_complex_numbers_are_refused(name, model):
    masked = np.ma.array(ROWS[name], mask=False)
    call = {**ROWS, name: masked}
    assert tune_threshold(model, **call).num_rows == 4  # A mask that hides nothing is no mask.
    first = masked[:, 0] if masked.ndim > 1 else masked
    first[1:3] = np.ma.masked
    message = MASKED.replace("of 4", "of 12") if name == "x" else MASKED
    with pytest.raises(TypeError, match=f"`{name}` of tune_threshold must be {message}"):
        tune_threshold(model, **{**ROWS, name: masked})
    for values in (ROWS[name] + 1j, keras.ops.convert_to_tensor(ROWS[name] + 1j)):
        with pytest.raises(TypeError, match=f"`{name}` of tune_threshold must be {COMPLEX}"):
            tune_threshold(model, **{**ROWS, name: values})


def test_masked_values_and_complex_numbers_are_refused_by_what_predicts(model):
    masked = np.ma.masked_less(MATRIX, 0)
    for call in (Predictor(model), lambda x: predict_labels(model, x)):
        with pytest.raises(TypeError, match="without masked values"):
            call(masked)
        with pytest.raises(TypeError, match=COMPLEX):
            call(MATRIX + 1j)
    with pytest.raises(TypeError, match="without masked values"):
        read(list(masked))


@pytest.mark.parametrize("value", [1.0, np.float32(1), np.array(1.0)], ids=type)
def test_a_number_is_no_rows(value, model):
    for call in (Predictor(model), lambda x: predict_labels(model, x)):
        with pytest.raises(ValueError, match=r"of shape \(n, 3\).* Received: shape \(\)"):
            call(value)


def test_rows_of_different_lengths_are_refused(model):
    for call in (Predictor(model), lambda x: predict_labels(model, x)):
        with pytest.raises(ValueError, match=r"rectangular array\. Received: parts of different"):
            call([[1.0, 2.0, 3.0], [1.0]])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a type of TensorFlow")
def test_distributed_data_sets_get_labels(model):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    distribute = strategy.experimental_distribute_dataset
    dataset = tf.data.Dataset.from_tensor_slices(MATRIX.astype("float32"))
    labels = predict_labels(model, distribute(dataset.batch(2)))
    assert np.array_equal(labels, predict_labels(model, MATRIX))
    with pytest.raises(ValueError, match=r"predict_labels needs rows\. Received: an empty data"):
        predict_labels(model, distribute(dataset.take(0).batch(2)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_short_floats_are_numbers(dtype, model):
    short = MATRIX.astype(getattr(ml_dtypes, dtype))
    assert read(short).dtype == "float32"
    expected = predict_labels(model, short.astype("float32"))
    assert np.array_equal(predict_labels(model, short), expected)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a type of TensorFlow")
def test_ragged_tensors_are_refused(model):
    import tensorflow as tf

    ragged = tf.ragged.constant([[1.0, 2.0, 3.0], [1.0]])
    with pytest.raises(ValueError, match=r"rectangular array\. Received: a ragged tensor"):
        predict_labels(model, ragged)


def test_text_is_read_where_it_is_allowed():
    words = [["a"], ["b"]]
    assert read(words, allow_text=True).tolist() == words
    assert read(pd.DataFrame({"w": ["a", "b"]}), allow_text=True).tolist() == words
    with pytest.raises(TypeError, match=r"must be numbers\. Received: dtype <U1, such as 'a'"):
        read(words)


@pytest.mark.parametrize("value", [None, pd.NA, pd.NaT, float("nan"), np.float32("nan")], ids=str)
def test_values_that_stand_for_nothing(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, "", 0.0, False, "nan", np.array([1])], ids=repr)
def test_values_that_stand_for_themselves(value):
    assert not is_missing(value)


def test_data_sets_are_told_from_rows():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

    frame = pd.DataFrame({"a": [1]})
    rows = [MATRIX, MATRIX.tolist(), frame, frame["a"], sparse.csr_matrix(MATRIX), {"a": 1}, "a", 3]
    assert not any(map(is_dataset, rows))
    assert all(map(is_dataset, [Batches(), (row for row in MATRIX), iter([1]), range(3)]))


def test_labels_of_an_empty_data_set_are_an_error(model):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 0

    class Unknown:
        def __len__(self):
            raise TypeError("As of a torch DataLoader of an IterableDataset.")

    assert not is_empty_dataset(iter([MATRIX]))  # It does not tell.
    assert not is_empty_dataset(Unknown())
    with pytest.raises(
        ValueError, match=r"predict_labels needs rows\. Received: an empty data set"
    ):
        predict_labels(model, Batches())
