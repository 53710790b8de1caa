"""Functions that take rows take the table, where the model holds an encoder."""

import keras
import numpy as np
import pytest

from keras_binclf import (
    BinaryHead,
    Predictor,
    TabularEncoder,
    binary_classifier,
    calibrate,
    find_head,
    predict_class_names,
    predict_labels,
    tune_threshold,
)

pd = pytest.importorskip("pandas")

ROWS = 120


def make_frame(seed, rows=ROWS):
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 80, rows).astype("float64"),
            "job": random.choice(["clerk", "nurse", "pilot"], rows),
            "member": random.random(rows) < 0.5,
            "joined": pd.Timestamp("2020-01-01")
            + pd.to_timedelta(random.integers(0, 900, rows), unit="D"),
        }
    )
    labels = ((frame.age > 50) ^ (frame.job == "nurse")).astype("int32").to_numpy()
    frame.loc[::7, "age"] = np.nan
    frame.loc[3::11, "job"] = None
    return frame, labels


FRAME, LABELS = make_frame(0)
NEW, NEW_LABELS = make_frame(1)
NEW.loc[0, "job"] = "astronaut"


@pytest.fixture(scope="module")
def encoder():
    encoder = TabularEncoder()
    encoder.adapt(FRAME)
    return encoder


@pytest.fixture(scope="module")
def model(encoder):
    keras.utils.set_random_seed(0)
    model = binary_classifier(encoder, learning_rate=0.01)
    model.fit(encoder.encode(FRAME), LABELS, epochs=5, verbose=0)
    find_head(model).class_names = ("stays", "leaves")
    return model


@pytest.fixture(scope="module")
def expected(model, encoder):
    """Probabilities by Keras itself, of rows that were encoded by hand."""
    return model.predict(encoder.encode(NEW), verbose=0)


def batches(x, y, size=50):
    for start in range(0, len(y), size):
        yield x[start : start + size], y[start : start + size]


def polars_of(frame):
    return pytest.importorskip("polars").from_pandas(frame)


def arrow_of(frame):
    return pytest.importorskip("pyarrow").Table.from_pandas(frame, preserve_index=False)


def columns_of(frame):
    return {name: frame[name].to_numpy() for name in frame}


FORMS = {
    "pandas": lambda frame: frame,
    "other order": lambda frame: frame[frame.columns[::-1]],
    "more columns": lambda frame: frame.assign(note="x"),
    "dict": columns_of,
    "dict of the input": lambda frame: {"features": frame},
    "polars": polars_of,
    "pyarrow": arrow_of,
}


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_a_table_are_those_of_its_encoded_rows(model, expected, form):
    labels = predict_labels(model, FORMS[form](NEW))
    np.testing.assert_array_equal(labels, expected > find_head(model).threshold)


def test_class_names_of_a_table(model, expected):
    names = predict_class_names(model, NEW)
    np.testing.assert_array_equal(names == "leaves", expected > find_head(model).threshold)


DATA_SETS = {
    "pandas": lambda encoder: (NEW, NEW_LABELS),
    "dict": lambda encoder: (columns_of(NEW), NEW_LABELS),
    "tables in a data set": lambda encoder: (batches(NEW, NEW_LABELS),),
    "dicts in a data set": lambda encoder: (
        ((columns_of(frame), labels) for frame, labels in batches(NEW, NEW_LABELS)),
    ),
    "encoded rows in a data set": lambda encoder: (batches(encoder.encode(NEW), NEW_LABELS),),
}


@pytest.fixture
def changed(model):
    """The model, whose weights are put back after the test."""
    weights = model.get_weights()
    yield model
    model.set_weights(weights)


@pytest.mark.parametrize("form", DATA_SETS)
def test_threshold_of_a_table_is_that_of_its_probabilities(changed, encoder, expected, form):
    metrics = pytest.importorskip("sklearn.metrics")
    tuned = tune_threshold(changed, *DATA_SETS[form](encoder))
    labels = expected[:, 0] > tuned.threshold
    assert tuned.num_rows == ROWS
    assert tuned.value == pytest.approx(metrics.f1_score(NEW_LABELS, labels), abs=1e-6)


@pytest.mark.parametrize("form", DATA_SETS)
def test_calibration_of_a_table_is_that_of_its_encoded_rows(changed, encoder, form):
    weights = changed.get_weights()
    found = calibrate(changed, *DATA_SETS[form](encoder))
    changed.set_weights(weights)
    of_matrix = calibrate(changed, batches(encoder.encode(NEW), NEW_LABELS))
    assert found.slope == pytest.approx(of_matrix.slope, rel=1e-5)
    assert found.intercept == pytest.approx(of_matrix.intercept, abs=1e-5)


@pytest.mark.parametrize("form", ["tables", "dicts", "tensors", "encoded"])
def test_labels_of_a_data_set_are_those_of_its_rows(model, encoder, expected, form):
    of_batch = {
        "tables": lambda frame: frame,
        "dicts": columns_of,
        "tensors": lambda frame: keras.ops.convert_to_tensor(encoder.encode(frame)),
        "encoded": encoder.encode,
    }[form]
    data = [(of_batch(frame), labels) for frame, labels in batches(NEW, NEW_LABELS)]
    labels = predict_labels(model, (pair for pair in data))
    np.testing.assert_array_equal(labels, expected > find_head(model).threshold)


def test_generator_that_ends_at_once_is_an_error(model):
    with pytest.raises(ValueError, match="needs rows"):
        predict_labels(model, (batch for batch in []))


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model, batch_sizes=(8,))


def test_predictor_takes_a_table_with_gaps(predictor, expected):
    np.testing.assert_allclose(predictor(NEW), expected, atol=1e-6)


ROW_FORMS = {
    "dict": lambda i: NEW.iloc[i].to_dict(),
    "series": lambda i: NEW.iloc[i],
    "dict of NumPy scalars": lambda i: {name: NEW[name].to_numpy()[i] for name in NEW},
    "other order": lambda i: dict(reversed(NEW.iloc[i].to_dict().items())),
}


@pytest.mark.parametrize("form", ROW_FORMS)
@pytest.mark.parametrize("i", [0, 3, 7, 8])
def test_predictor_takes_one_row_by_column_names(predictor, expected, form, i):
    probability = predictor(ROW_FORMS[form](i))
    assert np.shape(probability) == ()
    assert probability == pytest.approx(expected[i, 0], abs=1e-6)
    assert predictor.labels(ROW_FORMS[form](i)) == (expected[i, 0] > predictor.head.threshold)


def test_array_for_a_model_of_named_columns_is_an_error(model, encoder):
    with pytest.raises((TypeError, ValueError), match=r"table"):
        predict_labels(model, encoder.encode(NEW))


def test_one_row_where_a_table_is_expected_is_an_error(model):
    with pytest.raises(ValueError, match=r"`x` of predict_labels must be a table of rows"):
        predict_labels(model, NEW.iloc[0].to_dict())


def test_missing_column_is_an_error_that_names_it(predictor):
    for rows in (NEW.drop(columns="job"), NEW.drop(columns="job").iloc[0].to_dict()):
        with pytest.raises(ValueError, match="'job'"):
            predictor(rows)


def test_zero_rows_have_zero_labels(model):
    assert predict_labels(model, NEW.iloc[:0]).shape == (0, 1)


def test_models_of_one_encoder_train_embeddings_of_their_own(encoder):
    first, second = (binary_classifier(encoder, metrics=None) for _ in range(2))
    shared = {id(weight) for weight in first.weights} & {id(weight) for weight in second.weights}
    assert not shared


def test_encoder_beside_a_scaler_is_an_error(encoder):
    scaler = keras.layers.Rescaling(1.0)
    with pytest.raises(ValueError, match="must be None beside an encoder"):
        binary_classifier(encoder, scaler=scaler)


def test_encoder_that_was_not_adapted_is_an_error():
    with pytest.raises(ValueError, match=r"must be adapted.*Call `encoder.adapt\(table\)`"):
        binary_classifier(TabularEncoder())


def test_array_encoder_takes_arrays_and_no_tables():
    random = np.random.default_rng(0)
    x = np.stack([random.normal(size=80), random.integers(0, 3, 80)], axis=1)
    encoder = TabularEncoder(kinds={1: "category"})
    encoder.adapt(x)
    keras.utils.set_random_seed(0)
    model = binary_classifier(encoder, metrics=None)
    model.get_layer("binary_head").kernel.assign(np.ones((32, 1)))
    expected = model.predict(encoder.encode(x), verbose=0)
    np.testing.assert_array_equal(predict_labels(model, x), expected > 0.5)
    predictor = Predictor(model)
    assert predictor(x[5]) == pytest.approx(expected[5, 0], abs=1e-6)
    with pytest.raises((TypeError, ValueError), match="array"):
        predict_labels(model, pd.DataFrame(x, columns=["a", "b"]))


def build_two_tables(encoder):
    """A model of two tables, each with an encoder of its own."""
    other = TabularEncoder(name="ages")
    other.adapt(FRAME[["age"]])
    encoders = {"left": encoder, "right": other}
    inputs = {name: keras.Input((e.num_encoded,), name=name) for name, e in encoders.items()}
    features = [encoders[name](inputs[name]) for name in inputs]
    return keras.Model(inputs, BinaryHead()(keras.layers.Concatenate()(features))), other


def test_each_input_is_encoded_by_its_own_encoder(encoder):
    model, other = build_two_tables(encoder)
    rows = {"left": NEW, "right": NEW[["age"]]}
    encoded = {"left": encoder.encode(NEW), "right": other.encode(NEW)}
    expected = model.predict(encoded, verbose=0)
    np.testing.assert_array_equal(predict_labels(model, rows), expected > 0.5)
    np.testing.assert_allclose(Predictor(model, batch_sizes=(8,))(rows), expected, atol=1e-6)
