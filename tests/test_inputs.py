"""The inputs of models: their names before and after saving, and rows given by name."""

from inspect import signature

import keras
import numpy as np
import pandas as pd
import pytest
import zoo

from keras_binclf import BinaryHead, MLPBlock, Predictor, predict_labels, tune_threshold
from keras_binclf._data.arrangement import arrange_rows
from keras_binclf._data.inputs import InputSpec, read_inputs
from keras_binclf._data.row_reader import RowReader
from keras_binclf._data.shapes import fit_rows

ZIP, AGE = np.array([[1], [2], [3]], "int32"), np.array([[0.4], [0.5], [-0.6]], "float32")
ROWS = {"zip": ZIP, "age": AGE}


def wire(structure):
    """A model of a table with codes, whose inputs come in the given structure."""
    keras.utils.set_random_seed(0)
    code, age = keras.Input((1,), name="zip", dtype="int32"), keras.Input((1,), name="age")
    words = keras.layers.Flatten()(keras.layers.Embedding(10, 2)(code))
    hidden = keras.layers.Concatenate()([words, age])
    return keras.Model(structure(code, age), BinaryHead()(hidden))


STRUCTURES = {
    "list": lambda code, age: [code, age],  # not the order of the sorted names
    "dict": lambda code, age: {"zip": code, "age": age},
    "nested": lambda code, age: {"codes": {"zip": code}, "table": [age]},
}


@pytest.fixture(scope="module", params=STRUCTURES)
def by_name(request):
    return wire(STRUCTURES[request.param])


@pytest.fixture(scope="module")
def listed():
    return wire(STRUCTURES["list"])


def unnamed():
    a, b = keras.Input((3,)), keras.Input((2,))
    return keras.Model([a, b], BinaryHead()(keras.layers.Concatenate()([a, b])))


@keras.saving.register_keras_serializable("test_inputs")
class Two(keras.Model):
    """A subclassed model whose `call` takes two arguments, and that can be loaded."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = BinaryHead()

    def build(self, b_shape, a_shape):
        self.head.build((None, b_shape[-1] + a_shape[-1]))
        self.built = True

    def call(self, b, a, training=None, scale=1.0):
        return self.head(keras.ops.concatenate([b * scale, a], axis=-1))


class TwoWithoutBuild(keras.Model):
    """As above, so that Keras keeps the shape of the first argument only."""

    def __init__(self):
        super().__init__()
        self.head = BinaryHead()

    def call(self, b, a, mask=None):
        return self.head(keras.ops.concatenate([b, a], axis=-1))


class Deep(keras.Model):
    """Takes one argument, a nested structure."""

    def __init__(self):
        super().__init__()
        self.head = BinaryHead()

    def call(self, parts):
        return self.head(keras.ops.concatenate([parts["x"]["a"], *parts["y"]], axis=-1))


B, A = np.arange(12.0, dtype="float32").reshape(4, 3) / 9, np.ones((4, 2), "float32")


def save_and_load(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def names_of(model):
    return [spec.name for spec in read_inputs(model, "test").specs]


def test_unnamed_inputs_have_one_name_before_and_after_saving(tmp_path):
    model = unnamed()
    loaded = save_and_load(model, tmp_path)
    assert names_of(model) == names_of(loaded)
    rows = dict(zip(names_of(model), (B, A), strict=True))
    for each in (model, loaded):
        np.testing.assert_allclose(Predictor(each)(rows), model.predict([B, A], verbose=0), 1e-6)
        np.testing.assert_array_equal(predict_labels(each, rows), predict_labels(model, [B, A]))
    # Keras goes by the names of the tensors, which differ.
    by_tensor = {tensor.name: x for tensor, x in zip(model.inputs, (B, A), strict=True)}
    np.testing.assert_array_equal(Predictor(model)(by_tensor), Predictor(model)(rows))


def test_unnamed_input_of_a_sequential_model_is_called_like_its_layer(tmp_path):
    model = keras.Sequential([keras.Input((3,)), BinaryHead()])
    assert names_of(model) == names_of(save_and_load(model, tmp_path))


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")
def test_keys_are_the_names_where_a_model_takes_a_dict(tmp_path):
    a, b = keras.Input((3,)), keras.Input((2,))
    outputs = BinaryHead()(keras.layers.Concatenate()([a, b]))
    model = keras.Model({"q": b, "p": a}, outputs)
    assert names_of(model) == names_of(save_and_load(model, tmp_path)) == ["p", "q"]


def test_columns_are_found_by_name_in_every_structure(by_name):
    nested = {"codes": {"zip": ZIP}, "table": [AGE]}
    is_nested = "codes" in by_name.input
    # Keras knows no flat names of a nested structure.
    expected = by_name.predict(nested if is_nested else ROWS, verbose=0)
    forms = [ROWS, dict(reversed(ROWS.items()))] + [nested] * is_nested
    for rows in forms:
        np.testing.assert_allclose(Predictor(by_name)(rows), expected, rtol=1e-5)
        tune_threshold(by_name, rows, [1, 0, 1])
        cut = by_name.layers[-1].threshold
        np.testing.assert_array_equal(predict_labels(by_name, rows), expected > np.float32(cut))


def test_a_table_holds_the_columns_of_several_inputs(by_name):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"age": AGE[:, 0], "zip": ZIP[:, 0]})
    np.testing.assert_array_equal(Predictor(by_name)(frame), Predictor(by_name)(ROWS))
    np.testing.assert_array_equal(predict_labels(by_name, frame), predict_labels(by_name, ROWS))


@pytest.mark.parametrize(
    ("rows", "received"),
    [
        ({**ROWS, "id": AGE}, "a dict with 'id'"),
        ({"zip": ZIP}, "a dict without 'age'"),
        ({"zip": ZIP, "Age": AGE}, "a dict without 'age' and with 'Age'"),
    ],
)
@pytest.mark.parametrize("structure", ["list", "dict"])
def test_missing_and_unexpected_columns_are_named_everywhere(rows, received, structure):
    model = wire(STRUCTURES[structure])
    for call in (
        Predictor(model),
        lambda x: predict_labels(model, x),
        lambda x: tune_threshold(model, x, [0, 1, 1]),
        RowReader(read_inputs(model, "export"), "export", "sample").read,
    ):
        keys = "'zip', 'age'" if structure == "list" else "'age', 'zip'"
        message = f"must be a dict with the keys {keys}\\. Received: {received}\\."
        with pytest.raises(ValueError, match=message):
            call(rows)


def test_data_sets_of_named_columns_are_read_by_name(listed):
    batches = [(dict(reversed(ROWS.items())), [0, 1, 1])] * 2
    expected = tune_threshold(listed, ROWS, [0, 1, 1])
    assert tune_threshold(listed, batches).threshold == expected.threshold


def test_data_sets_may_hold_more_than_the_model_takes(by_name):
    """As for `fit` and `predict`; a key that is missing is an error."""
    values = {"zip": ZIP, "age": AGE}
    structure = keras.tree.map_structure(lambda tensor: values[tensor.name], by_name.input)
    expected = tune_threshold(by_name, structure, [0, 1, 1])
    if isinstance(structure, dict) and "codes" in structure:
        structure = {**structure, "id": ZIP}
    else:
        structure = {**values, "id": ZIP}
    assert tune_threshold(by_name, [(structure, [0, 1, 1])]).threshold == expected.threshold
    with pytest.raises(ValueError, match=r"of tune_threshold must be a dict with the keys"):
        tune_threshold(by_name, [({"id": ZIP}, [0, 1, 1])])


def test_columns_that_repeat_are_no_inputs(listed):
    table = pd.DataFrame(np.ones((3, 3)), columns=["zip", "age", "age"])
    with pytest.raises(ValueError, match=r"each column once\. Received: several of 'age'\."):
        predict_labels(listed, table)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a type of TensorFlow")
@pytest.mark.skipif("ragged" not in signature(keras.Input).parameters, reason="newer Keras")
def test_ragged_tensors_are_for_ragged_inputs():
    import tensorflow as tf

    inputs = keras.Input((None,), ragged=True)
    mean = keras.layers.Lambda(
        lambda rows: tf.reduce_mean(rows, axis=1, keepdims=True), output_shape=(1,)
    )
    model = keras.Model(inputs, BinaryHead(kernel_initializer="ones")(mean(inputs)))
    ragged = tf.ragged.constant([[1.0, 3.0], [-1.0]])
    assert predict_labels(model, ragged).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("dtype", "value"), [("int32", 2**32 + 1), ("int32", 0.5), ("uint8", -1), ("bool", 2)]
)
def test_numbers_that_an_input_cannot_hold_are_told(dtype, value):
    inputs = keras.Input((1,), dtype=dtype)
    model = keras.Model(inputs, BinaryHead()(keras.layers.Embedding(3, 1)(inputs)))
    with pytest.raises(ValueError, match=f"whole numbers that {dtype} holds"):
        predict_labels(model, [[value]])
    assert predict_labels(model, [[1]]).shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([None, None], r"given in one input at least\. Received: None in all"),
        ([ZIP, AGE[:2]], r"of equal length in all inputs\. Received: 3 rows of 'zip', 2 rows of"),
        ([ZIP, np.zeros((3, 2))], r"of shape \(n, 1\) \(input 'age'\)\. Received: shape \(3, 2\)"),
        ([ZIP + 0.5, AGE], r"whole numbers that int32 holds \(input 'zip'\)"),
        ([ZIP], r"a list of 2 inputs\. Received: 1 parts"),
        (AGE, r"a list of 2 inputs\. Received: ndarray"),
    ],
)
def test_parts_that_do_not_fit_are_told_before_the_model_runs(rows, message, listed):
    with pytest.raises(ValueError, match=f"`x` of predict_labels must be {message}"):
        predict_labels(listed, rows)


def test_vectors_are_columns_as_in_keras(listed):
    vectors = {"zip": ZIP[:, 0], "age": AGE[:, 0]}
    np.testing.assert_array_equal(predict_labels(listed, vectors), predict_labels(listed, ROWS))
    assert [x.shape for x in arrange_rows(listed, vectors, "test")] == [(3, 1), (3, 1)]


@pytest.mark.parametrize(
    ("shape", "row", "expected"),
    [
        ((5, 2), (2,), (5, 2)),
        ((5,), (1,), (5, 1)),
        ((5, 1), (), (5,)),
        ((5, 7, 2), (None, 2), (5, 7, 2)),
        ((5, 7), (None, 1), (5, 7, 1)),
        ((5, 2, 1), (2,), (5, 2)),
        ((5, 3), (2,), None),
        ((5,), (2,), None),
        ((), (2,), None),
        ((), (1,), None),
    ],
)
def test_rows_are_fitted_as_keras_does(shape, row, expected):
    fitted = fit_rows(np.zeros(shape), row)
    assert (None if fitted is None else fitted.shape) == expected


@pytest.mark.parametrize("loaded", [False, True])
def test_call_of_several_arguments_is_read(loaded, tmp_path):
    model = Two()
    expected = keras.ops.convert_to_numpy(model(B, A))
    if loaded:
        model = save_and_load(model, tmp_path)
    assert read_inputs(model, "test").specs == (
        InputSpec("b", (3,), None),
        InputSpec("a", (2,), None),
    )
    predictor = Predictor(model)
    for rows in ({"a": A, "b": B}, [B, A], (B, A)):
        np.testing.assert_allclose(predictor(rows), expected, rtol=1e-6)
    np.testing.assert_allclose(predictor({"a": A[1], "b": B[1]}), expected[1, 0], rtol=1e-6)


def test_call_whose_shapes_keras_does_not_keep_takes_the_shapes_of_rows():
    model = TwoWithoutBuild()
    expected = keras.ops.convert_to_numpy(model(B, A))
    inputs = read_inputs(model, "test")
    assert [spec.shape for spec in inputs.specs] == [(3,), None]
    np.testing.assert_allclose(Predictor(model)([B, A]), expected, rtol=1e-6)
    declared = inputs.declare([(9,), (2,)], ["float32", "float32"])
    assert [spec.shape for spec in declared.specs] == [(3,), (2,)]  # 9 is not what it has.


def test_nested_argument_of_a_subclassed_model_has_a_name_for_each_part():
    model = Deep()
    rows = {"x": {"a": B}, "y": [A, A]}
    expected = keras.ops.convert_to_numpy(model(rows))
    assert names_of(model) == ["x_a", "y_0", "y_1"]
    for given in (rows, {"x_a": B, "y_0": A, "y_1": A}):
        np.testing.assert_allclose(Predictor(model)(given), expected, rtol=1e-6)


def test_inputs_of_text_are_read():
    words = keras.Input((1,), name="words", dtype="string")
    if keras.backend.backend() == "tensorflow":
        numbers = keras.layers.StringLookup(vocabulary=["a"])(words)
        inputs = read_inputs(keras.Model(words, numbers), "export")
    else:
        spec = InputSpec("words", (1,), "string")
        inputs = type(read_inputs(unnamed(), "export"))((spec,), (spec,), ("inputs",))
    reader = RowReader(inputs, "export", "sample")
    assert inputs.specs[0].dtype == "string"
    assert reader.read([["a"], ["b"]]).arrays[0].tolist() == [["a"], ["b"]]
    assert reader.read({"words": np.array(["a", "b"], object)}).arrays[0].shape == (2, 1)


def test_model_that_hides_its_inputs_takes_what_keras_takes():
    class Hidden(Two):
        def get_build_config(self):
            return None

        def call(self, b):
            return super().call(b["b"], b["a"])

        def build(self, shape):
            super().build(shape["b"], shape["a"])

    model = Hidden()
    rows = {"a": A, "b": B}
    model(rows)
    with pytest.raises(ValueError, match="Predictor needs to know the inputs of a model"):
        Predictor(model)
    expected = model.predict(rows, verbose=0) > 0.5
    np.testing.assert_array_equal(predict_labels(model, rows), expected)


def test_model_that_was_never_built_is_told():
    with pytest.raises(ValueError, match=r"test needs a built model\. Received: model 'new'"):
        read_inputs(keras.Sequential([BinaryHead()], name="new"), "test")


def test_no_rows_get_no_labels(listed):
    none = {name: rows[:0] for name, rows in ROWS.items()}
    for labels in (predict_labels(listed, none), Predictor(listed).labels(none)):
        assert (labels.shape, labels.dtype) == ((0, 1), "int32")
    steps = keras.Sequential([keras.Input((None, 2)), MLPBlock((3,)), BinaryHead()])
    assert predict_labels(steps, np.zeros((0, 5, 2))).shape == (0, 5, 1)


@pytest.mark.parametrize("make", zoo.PLAIN, ids=lambda make: make.__name__)
def test_rows_of_every_model_stay_what_they_are(make):
    model, x = make()[:2]
    arranged = arrange_rows(model, x, "test")
    for given, found in zip(keras.tree.flatten(x), keras.tree.flatten(arranged), strict=True):
        np.testing.assert_array_equal(given, found)
