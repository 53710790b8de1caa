"""Sparse matrices and tables are made dense one batch at a time by everything that predicts."""

import tracemalloc

import keras
import numpy as np
import pytest
from zoo import with_random_head

from keras_binclf import (
    BinaryHead,
    MLPBlock,
    Predictor,
    binary_classifier,
    calibrate,
    predict_labels,
    tune_threshold,
)
from keras_binclf._data.sparse import find_rows, keep_sparse
from keras_binclf._data.sparse import predict as predict_sparse

pd = pytest.importorskip("pandas")
sparse = pytest.importorskip("scipy.sparse")

RANDOM = np.random.default_rng(0)
NUM_ROWS, NUM_COLUMNS = 70, 5
DENSE = np.where(RANDOM.random((NUM_ROWS, NUM_COLUMNS)) < 0.3, RANDOM.normal(size=(70, 5)), 0)
DENSE[:, 0] += RANDOM.normal(size=NUM_ROWS)
LABELS = (DENSE[:, 0] + RANDOM.normal(size=NUM_ROWS) > 0).astype("int32")


def with_duplicates(dense):
    """A COO matrix that gives each value in two halves."""
    rows, columns = np.nonzero(dense)
    halves = np.tile(dense[rows, columns] / 2, 2)
    return sparse.coo_matrix((halves, (np.tile(rows, 2), np.tile(columns, 2))), dense.shape)


def to_sparse_frame(dense, fill=0.0):
    columns = {f"c{i}": pd.arrays.SparseArray(dense[:, i], fill_value=fill) for i in range(5)}
    return pd.DataFrame(columns)


def to_mixed_frame(dense):
    """A table with dense columns beside sparse ones, of several fill values."""
    frame = to_sparse_frame(dense)
    frame["c1"] = dense[:, 1]
    frame["c2"] = pd.array(dense[:, 2], "Float64")
    frame["c3"] = pd.arrays.SparseArray(dense[:, 3], fill_value=7.0)
    return frame


FORMS = {
    "csr_matrix": sparse.csr_matrix,
    "csc_array": sparse.csc_array,
    "coo": with_duplicates,
    "frame": to_sparse_frame,
    "frame_filled_with_nan": lambda dense: to_sparse_frame(dense, np.nan),
    "mixed_frame": to_mixed_frame,
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return with_random_head(binary_classifier(NUM_COLUMNS, metrics=None))


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model, batch_sizes=(4, 32))


@pytest.mark.parametrize("form", FORMS)
def test_sparse_rows_give_the_numbers_of_the_array(form, model, predictor):
    x = FORMS[form](DENSE)
    expected = model.predict(DENSE, verbose=0)
    np.testing.assert_allclose(predictor(x), expected, rtol=1e-5)
    tuned = tune_threshold(model, x, LABELS, batch_size=16)
    again = tune_threshold(model, DENSE, LABELS)
    assert tuned.num_rows == NUM_ROWS
    assert tuned.threshold == pytest.approx(again.threshold, rel=1e-6)
    labels = predict_labels(model, x, batch_size=16)
    np.testing.assert_array_equal(labels, expected > np.float32(tuned.threshold))


@pytest.mark.parametrize("form", ["csr_matrix", "frame"])
def test_calibration_on_sparse_rows_is_that_on_the_array(form):
    found = []
    for x in (DENSE, FORMS[form](DENSE)):
        keras.utils.set_random_seed(0)
        head = with_random_head(binary_classifier(NUM_COLUMNS, metrics=None))
        found.append(calibrate(head, x, LABELS, method="platt"))
    assert found[1].slope == pytest.approx(found[0].slope, rel=1e-5)
    assert found[1].num_rows == NUM_ROWS


@pytest.mark.once
@pytest.mark.parametrize("form", FORMS)
def test_every_sparse_form_is_one_csr_matrix(form):
    kept = keep_sparse(FORMS[form](DENSE))
    assert kept.format == "csr"
    assert kept.has_canonical_format
    np.testing.assert_array_equal(kept.toarray(), DENSE)


@pytest.mark.once
def test_gaps_of_sparse_columns_stay_gaps():
    column = np.array([0, np.nan, 2.0, 0])
    for fill in (0.0, np.nan):
        frame = pd.DataFrame({"a": pd.arrays.SparseArray(column, fill_value=fill)})
        np.testing.assert_array_equal(keep_sparse(frame).toarray()[:, 0], column)


@pytest.mark.once
def test_sparse_columns_keep_the_type_that_numpy_joins():
    frame = pd.get_dummies(pd.Series(list("abca")), sparse=True)
    assert keep_sparse(frame).dtype == bool
    np.testing.assert_array_equal(keep_sparse(frame).toarray(), frame.to_numpy())
    frame["n"] = np.arange(4, dtype="int8")
    assert keep_sparse(frame).dtype == "int8"
    frame["w"] = list("wxyz")
    assert keep_sparse(frame) is None
    assert keep_sparse(pd.DataFrame({"a": [1.0]})) is None
    assert keep_sparse(sparse.csr_matrix((0, 3))) is None


@pytest.mark.once
def test_given_matrices_do_not_change():
    unsorted = sparse.csr_matrix(([1.0, 2.0, 3.0], [4, 1, 4], [0, 3]), shape=(1, 5))
    kept = keep_sparse(unsorted)
    assert kept.toarray().tolist() == [[0, 2, 0, 0, 4]]
    assert unsorted.indices.tolist() == [4, 1, 4]
    assert unsorted.data.tolist() == [1, 2, 3]


@pytest.mark.once
def test_rows_of_stored_values():
    matrix = sparse.csr_matrix([[0, 0], [1, 2], [0, 0], [3, 0]])
    assert find_rows(matrix, np.array([0, 1, 2])).tolist() == [1, 3]


WIDE = 4000
HUGE = 1500  # dense: 24 MB in float32


@pytest.fixture(scope="module")
def wide_model():
    inputs = keras.Input((WIDE,))
    return with_random_head(keras.Model(inputs, BinaryHead()(inputs)))


def make_wide(kind):
    matrix = sparse.random(HUGE, WIDE, 1e-3, "csr", dtype="float32", random_state=0)
    if kind == "frame":
        return pd.DataFrame.sparse.from_spmatrix(matrix)
    return matrix.asformat(kind)


CALLS = {
    "predict_labels": lambda model, x, y: predict_labels(model, x),
    "tune_threshold": tune_threshold,
    "calibrate": lambda model, x, y: calibrate(model, x, y, method="platt"),
    "Predictor": lambda model, x, y: Predictor(model, batch_sizes=(32,))(x),
}


@pytest.mark.once
@pytest.mark.parametrize("call", CALLS)
def test_memory_is_that_of_a_batch(call, wide_model):
    x = make_wide("csc")
    scores = x @ keras.ops.convert_to_numpy(wide_model.layers[-1].kernel)[:, 0]
    y = scores + RANDOM.normal(0, scores.std(), HUGE) > np.median(scores)
    tracemalloc.start()
    try:
        CALLS[call](wide_model, x, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < HUGE * WIDE * 4 / 10


@pytest.mark.once
def test_memory_of_a_sparse_table_is_that_of_its_values():
    frame = make_wide("frame").iloc[:, :300]
    tracemalloc.start()
    try:
        kept = keep_sparse(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.shape == (HUGE, 300)
    assert peak < HUGE * 300 * 4 / 2


class BatchSizes(keras.callbacks.Callback):
    """Collects the number of rows in each batch."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def on_predict_batch_end(self, batch, logs=None):
        self.sizes.append(len(logs["outputs"]))


@pytest.mark.parametrize(("batch_size", "sizes"), [(None, [32, 32, 6]), (50, [50, 20])])
def test_batches_are_as_large_as_asked_for(batch_size, sizes, model):
    seen = BatchSizes()
    x = sparse.csr_matrix(DENSE)
    found = predict_sparse(model, x, batch_size, verbose=0, callbacks=[seen])
    assert seen.sizes == sizes
    np.testing.assert_allclose(found, model.predict(DENSE, verbose=0), rtol=1e-5)


@pytest.fixture(scope="module")
def two_inputs():
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((3,), name="a"), keras.Input((2,), name="b")]
    hidden = MLPBlock((4,))(keras.layers.Concatenate()(inputs))
    return with_random_head(keras.Model(inputs, BinaryHead()(hidden)))


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_sparse_inputs_stand_beside_arrays(kind, two_inputs):
    a, b = sparse.csr_matrix(DENSE[:, :3]), DENSE[:, 3:]
    x = [a, b] if kind == "list" else {"b": b, "a": a}
    expected = two_inputs.predict([DENSE[:, :3], b], verbose=0)
    np.testing.assert_allclose(Predictor(two_inputs)(x), expected, rtol=1e-5)
    tuned = tune_threshold(two_inputs, x, LABELS)
    assert tuned.num_rows == NUM_ROWS
    labels = predict_labels(two_inputs, x)
    np.testing.assert_array_equal(labels, expected > np.float32(tuned.threshold))


def test_sparse_batches_of_a_data_set(model):
    batches = [(sparse.csr_matrix(DENSE[i : i + 30]), LABELS[i : i + 30]) for i in (0, 30, 60)]
    tuned = tune_threshold(model, batches)
    expected = tune_threshold(model, DENSE, LABELS)
    assert (tuned.num_rows, tuned.value) == (NUM_ROWS, expected.value)


def test_sparse_whole_numbers_stay_whole():
    counts = np.where(RANDOM.random((20, 3)) < 0.5, 0, RANDOM.integers(1, 9, (20, 3)))
    inputs = keras.Input((3,), dtype="int32")
    hidden = keras.layers.Flatten()(keras.layers.Embedding(9, 2)(inputs))
    model = with_random_head(keras.Model(inputs, BinaryHead()(hidden)))
    x = sparse.csr_matrix(counts.astype("float64"))
    expected = model.predict(counts, verbose=0)
    np.testing.assert_allclose(Predictor(model)(x), expected, rtol=1e-5)
    np.testing.assert_array_equal(predict_labels(model, x), expected > 0.5)
    x.data[0] = 1.5
    for call in (Predictor(model), lambda x: predict_labels(model, x)):
        with pytest.raises(ValueError, match=r"must be whole numbers that int32 holds"):
            call(x)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_rows_that_are_not_finite_are_counted_in_the_whole_matrix(value, predictor):
    dense = DENSE.copy()
    dense[[41, 60], [2, 3]] = dense[41, 4] = value
    message = "NaN or infinity in 2 of 70 rows, the first at index 41"
    for x in (dense, sparse.csr_matrix(dense), to_sparse_frame(dense)):
        with pytest.raises(ValueError, match=message):
            predictor(x)


def test_sparse_rows_of_a_wrong_shape_are_refused_before_they_are_dense(
    model, predictor, two_inputs
):
    x = sparse.csr_matrix((10**6, 10**6), dtype="float32")  # 4 TB
    for call in (predictor, lambda x: predict_labels(model, x)):
        with pytest.raises(ValueError, match=r"of shape \(n, 5\).*Received: shape \(1000000, "):
            call(x)
    with pytest.raises(ValueError, match="70 rows of 'a', 69 rows of 'b'"):
        Predictor(two_inputs)([sparse.csr_matrix(DENSE[:, :3]), DENSE[1:, 3:]])
    with pytest.raises(ValueError, match="one row in all inputs, or many in all"):
        Predictor(two_inputs)([sparse.csr_matrix(DENSE[:, :3]), DENSE[0, 3:]])
