"""Exported models with inputs of text, of any size and name; layers that amplify rounding."""

import importlib.util

import keras
import numpy as np
import pytest
import zoo
from keras import layers

from keras_binclf import BinaryHead, MLPBlock, predict_labels
from keras_binclf._data.inputs import read_inputs
from keras_binclf.saving import export
from keras_binclf.saving.artefacts._formats import FORMATS
from keras_binclf.saving.artefacts._inputs import declare_inputs
from keras_binclf.saving.artefacts._sample import read_sample
from keras_binclf.saving.artefacts._verification import Verification

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere it takes a process")
elsewhere = pytest.mark.skipif(BACKEND == "tensorflow", reason="written by this process")


def of(name):
    """A format as a parameter, skipped where its packages are not installed."""
    is_missing = any(
        importlib.util.find_spec(module) is None
        for module in (*FORMATS[name].writers, *FORMATS[name].runners)
    )
    return pytest.param(name, marks=pytest.mark.skipif(is_missing, reason="not installed"))


EACH_FORMAT = [of(name) for name in FORMATS]


def path_of(folder, format):
    return folder / f"model{FORMATS[format].suffix}"


def is_empty(folder):
    return list(folder.iterdir()) == []


# Text

WORDS = ["DSL", "größer", "Fiber optic"]
TEXTS = np.array([["DSL"], ["größer"], ["?"], [""], ["Fiber optic"], ["dsl"]])


@pytest.fixture(scope="module")
def with_text():
    """A model of words and numbers, its rows, and the probabilities for them."""
    keras.utils.set_random_seed(0)
    word, charge = keras.Input((1,), dtype="string", name="word"), keras.Input((1,), name="charge")
    looked_up = layers.StringLookup(vocabulary=WORDS, output_mode="one_hot")(word)
    hidden = MLPBlock(8)(layers.concatenate([looked_up, charge]))
    model = keras.Model({"word": word, "charge": charge}, BinaryHead()(hidden))
    x = {"word": TEXTS, "charge": np.linspace(-1, 1, 6, dtype="float32")[:, None]}
    expected = model.predict({k: keras.ops.convert_to_tensor(v) for k, v in x.items()}, verbose=0)
    assert len(np.unique(expected)) == 6
    return model, x, expected


@on_tensorflow
@pytest.mark.parametrize(
    ("format", "convert"),
    [
        pytest.param(*of("tf_saved_model").values, np.asarray, id="tf_saved_model-str"),
        pytest.param(
            *of("tf_saved_model").values, keras.ops.convert_to_tensor, id="tf_saved_model-tensor"
        ),
        pytest.param("onnx", lambda x: x.astype(object), marks=of("onnx").marks, id="onnx-object"),
        pytest.param(
            "litert",
            lambda x: np.char.encode(x, "utf-8"),
            marks=of("litert").marks,
            id="litert-bytes",
        ),
    ],
)
def test_text_goes_into_the_artefact(with_text, format, convert, tmp_path):
    """Words of any alphabet, unknown and empty ones, given in any of the forms of text."""
    model, x, expected = with_text
    path = path_of(tmp_path, format)
    exported = export(model, path, format, sample={**x, "word": convert(x["word"])})
    assert exported.num_rows == 6
    outputs = FORMATS[format].run(path, {**x, "word": x["word"].astype(object)})
    np.testing.assert_allclose(outputs["probability"], expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(outputs["label"], predict_labels(model, as_tensors(x)))


def as_tensors(x):
    return {name: keras.ops.convert_to_tensor(values) for name, values in x.items()}


@on_tensorflow
def test_text_needs_no_sample_without_verification(with_text, tmp_path):
    model, x, expected = with_text
    assert export(model, tmp_path / "model", verify=False).max_difference is None
    outputs = FORMATS["tf_saved_model"].run(tmp_path / "model", x)
    np.testing.assert_allclose(outputs["probability"], expected, rtol=0, atol=1e-6)


@on_tensorflow
def test_text_without_a_sample_asks_for_one(with_text, tmp_path):
    with pytest.raises(ValueError, match=r"given for input 'word', since text .* `sample=x`"):
        export(with_text[0], tmp_path / "model")
    assert is_empty(tmp_path)


@on_tensorflow
@pytest.mark.parametrize("verify", [True, False])
def test_format_without_text_is_an_error_that_names_the_input(with_text, verify, tmp_path):
    model, x, _ = with_text
    message = (
        r"input 'word' as 'openvino', which has no inputs of text\. Export as 'tf_saved_model'"
    )
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / "model.xml", "openvino", sample=x, verify=verify)
    assert is_empty(tmp_path)


@on_tensorflow
@pytest.mark.parametrize("format", [of("onnx")])
def test_tables_of_integers_are_exported(format, tmp_path):
    codes = keras.Input((1,), dtype="int64", name="code")
    looked_up = layers.IntegerLookup(vocabulary=[7, 2**40, -3], output_mode="one_hot")(codes)
    model = keras.Model(codes, BinaryHead()(looked_up))
    x = np.array([[7], [2**40], [-3], [5]])
    path = path_of(tmp_path, format)
    export(model, path, format, sample=x)
    found = FORMATS[format].run(path, {"code": x})["probability"]
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=0, atol=1e-6)


@on_tensorflow
@pytest.mark.parametrize("format", [of("onnx"), of("litert")])
def test_operation_that_a_format_lacks_is_named(format, tmp_path):
    word = keras.Input((1,), dtype="string", name="word")
    model = keras.Model(word, BinaryHead()(layers.Hashing(8, output_mode="one_hot")(word)))
    message = (
        r"could not write .* StringToHashBucketFast\. If the text of input 'word' is the reason"
    )
    with pytest.raises(RuntimeError, match=message):
        export(model, path_of(tmp_path, format), format, sample=TEXTS)
    assert is_empty(tmp_path)


@elsewhere
def test_text_is_not_compared_where_keras_computes_none(tmp_path):
    word = keras.Input((1,), dtype="string", name="word")
    looked_up = layers.StringLookup(vocabulary=WORDS, output_mode="one_hot")(word)
    model = keras.Model(word, BinaryHead()(looked_up))
    message = rf"text on the {BACKEND} backend.* input 'word'\. Export with `verify=False`, or load"
    for sample in (None, TEXTS):
        with pytest.raises(ValueError, match=message):
            export(model, tmp_path / "model", sample=sample)
    assert is_empty(tmp_path)


# Sizes that are not known


def recurrent():
    words = keras.Input((None,), dtype="int32", name="words")
    return keras.Model(words, BinaryHead()(layers.LSTM(4)(layers.Embedding(20, 4)(words))))


def convolutional(kernel_size=3, padding="valid"):
    steps = keras.Input((None, 2), name="steps")
    hidden = layers.Conv1D(4, kernel_size, padding=padding)(steps)
    return keras.Model(steps, BinaryHead()(layers.GlobalMaxPooling1D()(hidden)))


def images():
    inputs = keras.Input((None, None, 2), name="image")
    hidden = layers.UpSampling2D()(layers.MaxPooling2D()(inputs))
    hidden = layers.Conv2D(3, 3)(layers.concatenate([hidden, inputs]))
    return keras.Model(inputs, BinaryHead()(layers.GlobalAveragePooling2D()(hidden)))


def draw(model, size):
    """Return three rows of a size."""
    (tensor,) = model.inputs
    shape = (3, *(size if known is None else known for known in tensor.shape[1:]))
    if tensor.dtype == "int32":
        return np.random.default_rng(0).integers(0, 20, shape, dtype="int32")
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@on_tensorflow
@pytest.mark.parametrize(
    ("make", "format"),
    [
        pytest.param(recurrent, "onnx", marks=of("onnx").marks),
        pytest.param(recurrent, "openvino", marks=[*of("openvino").marks, pytest.mark.slow]),
        pytest.param(images, "tf_saved_model"),
        pytest.param(convolutional, "openvino", marks=of("openvino").marks),
        pytest.param(convolutional, "litert", marks=of("litert").marks),
    ],
)
def test_inputs_of_any_size_stay_so(make, format, tmp_path):
    model = zoo.with_random_head(make())
    path = path_of(tmp_path, format)
    exported = export(model, path, format)
    assert exported.num_rows == 2 * 64
    for size in (4, 10):
        x = draw(model, size)
        found = FORMATS[format].run(path, {model.inputs[0].name: x})["probability"]
        np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=0, atol=2e-6)


@on_tensorflow
def test_artefact_that_differs_in_other_sizes_is_refused(tmp_path, monkeypatch):
    """As one that was traced for the size of the sample."""
    model = convolutional()
    target, sizes = FORMATS["tf_saved_model"], []
    run = target.run

    def differ(path, rows):
        sizes.append(rows["steps"].shape[1])
        outputs = run(path, rows)
        return outputs if sizes[-1] == 8 else {**outputs, "probability": outputs["label"] + 0.1}

    monkeypatch.setattr(target, "run", differ)
    with pytest.raises(RuntimeError, match="gives other probabilities than the model"):
        export(model, tmp_path / "model", sample=draw(model, 8))
    assert sizes == [8, 6]
    assert is_empty(tmp_path)


def verify(model, sample):
    inputs = read_inputs(model, "export")
    given = None if sample is None else read_sample(inputs, sample, "export")
    inputs = declare_inputs(inputs, model, given, "export")
    return Verification(model, model.layers[-1], inputs, given, {}, "export")


@pytest.mark.parametrize(
    ("make", "size", "sizes"),
    [
        (convolutional, 8, [8, 6]),
        (convolutional, 3, [3, 4]),  # a row of two steps is too short for three
        (lambda: convolutional(kernel_size=8), 8, [8, 16]),
        (images, 8, [8, 6]),
    ],
)
def test_rows_are_compared_in_two_sizes(make, size, sizes):
    model = make()
    found = verify(model, draw(model, size))
    shapes = [next(iter(batch.values())).shape for batch in found.batches]
    unknown = [i for i, known in enumerate(model.inputs[0].shape) if known is None][1:]
    assert [{shape[i] for i in unknown} for shape in shapes] == [{sizes[0]}, {sizes[1]}]


def test_model_of_one_size_is_compared_in_that_size():
    steps = keras.Input((None, 2), name="steps")
    model = keras.Model(steps, BinaryHead()(layers.Reshape((14,))(steps)))
    assert [batch["steps"].shape for batch in verify(model, draw(model, 7)).batches] == [(3, 7, 2)]


def test_rows_that_cannot_be_made_up_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"made up rows that .* 'steps' \(64, 32, 2\)\. Give rows"):
        export(convolutional(kernel_size=100), tmp_path / "model")
    assert is_empty(tmp_path)


def test_rows_without_a_probability_are_refused(tmp_path):
    inputs = keras.Input((2,), name="table")
    model = keras.Model(inputs, BinaryHead()(keras.ops.log(inputs)))
    with pytest.raises(
        ValueError, match=r"256 rows that were made up, of which \d+ are NaN\. Give"
    ):
        export(model, tmp_path / "model")
    assert is_empty(tmp_path)


@on_tensorflow
def test_format_that_needs_sizes_names_the_input(tmp_path):
    pytest.importorskip("ai_edge_litert")
    message = (
        r"could not write .* If the unknown size of input 'image' is the reason, build the model"
    )
    with pytest.raises(RuntimeError, match=message):
        export(images(), tmp_path / "model.tflite", "litert")
    assert is_empty(tmp_path)


# Names

NAMES = ["word id", "a:0", "größe", "a.b", "b-a", "class", "1st", "_x", "Amount", "amount"]


def called(*names):
    inputs = {name: keras.Input((2,), name=name) for name in names}
    model = keras.Model(inputs, BinaryHead()(layers.concatenate(list(inputs.values()))))
    random = np.random.default_rng(0)
    return model, {name: random.normal(size=(3, 2)).astype("float32") for name in names}


@pytest.fixture(scope="module")
def with_names():
    keras.utils.set_random_seed(0)
    return called(*NAMES)


@on_tensorflow
@pytest.mark.parametrize("format", EACH_FORMAT)
def test_names_of_inputs_are_those_of_the_model(with_names, format, tmp_path):
    model, x = with_names
    path = path_of(tmp_path, format)
    export(model, path, format, sample=x)
    found = FORMATS[format].run(path, x)["probability"]
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=0, atol=2e-6)


@on_tensorflow
def test_names_of_inputs_are_those_that_tensorflow_serving_reads(with_names, tmp_path):
    """It has no Python: it reads the signature, and feeds the tensors named there."""
    import tensorflow as tf

    model, x = with_names
    export(model, tmp_path / "model", sample=x)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        graph = v1.saved_model.load(session, ["serve"], str(tmp_path / "model"))
        signature = graph.signature_def["serving_default"]
        assert set(signature.inputs) == set(NAMES)
        feed = {signature.inputs[name].name: values for name, values in x.items()}
        found = session.run(signature.outputs["probability"].name, feed)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=0, atol=1e-6)


@on_tensorflow
@pytest.mark.parametrize("format", [of("tf_saved_model"), of("litert")])
def test_input_called_like_an_output(format, tmp_path):
    (model, x), path = called("label", "probability"), path_of(tmp_path, format)
    export(model, path, format, sample=x)
    found = FORMATS[format].run(path, x)
    assert set(found) == {"label", "probability"}
    np.testing.assert_allclose(found["probability"], model.predict(x, verbose=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_input_called_like_an_output_where_the_names_are_one(format, tmp_path):
    message = (
        rf"input 'label' as '{format}', which cannot tell .* of output 'label'\. Rename .* 'litert'"
    )
    with pytest.raises(ValueError, match=message):
        export(called("label", "table")[0], path_of(tmp_path, format), format)
    assert is_empty(tmp_path)


@on_tensorflow
def test_names_that_are_one_in_python(tmp_path):
    """Of TensorFlow's signatures, which replace what no argument can be called."""
    model, x = called("a.b", "a b")
    message = r"input 'a.b' as 'tf_saved_model', .* of input 'a b'\. Rename .* export as 'onnx' or"
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / "model", sample=x)
    assert is_empty(tmp_path)


@on_tensorflow
@pytest.mark.parametrize("format", [of("litert")])
def test_names_that_are_one_in_python_are_two_elsewhere(format, tmp_path):
    model, x = called("a.b", "a b")
    export(model, path_of(tmp_path, format), format, sample=x)
    found = FORMATS[format].run(path_of(tmp_path, format), x)["probability"]
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=0, atol=1e-6)


@elsewhere
@pytest.mark.parametrize("format", [of("onnx")])
def test_names_and_sizes_go_through_the_other_process(format, tmp_path):
    steps = keras.Input((None, 2), name="größe: 0")
    hidden = layers.GlobalMaxPooling1D()(layers.Conv1D(4, 3)(steps))
    model = keras.Model(steps, BinaryHead()(hidden))
    path = path_of(tmp_path, format)
    assert export(model, path, format).num_rows == 2 * 64
    x = draw(model, 9)
    found = FORMATS[format].run(path, {"größe: 0": x})["probability"]
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=0, atol=2e-6)


# Rounding


def test_layer_that_amplifies_rounding_is_exported(tmp_path):
    """LayerNormalization over one channel divides rounding errors by themselves."""
    inputs = keras.Input((60, 1))
    x = layers.MultiHeadAttention(2, 8)(inputs, inputs)
    x = layers.LayerNormalization(epsilon=1e-6)(x) + inputs
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv1D(1, 1)(x)) + x
    x = layers.GlobalAveragePooling1D(data_format="channels_first")(x)
    model = keras.Model(inputs, BinaryHead()(MLPBlock(128)(x)))
    rows = np.random.default_rng(0).normal(size=(64, 60, 1)).astype("float32")
    assert export(model, tmp_path / "model", sample=rows).max_difference < 2e-3


class Unsteady(layers.Layer):
    """Gives something else in graphs than outside of them."""

    def __init__(self, difference, **kwargs):
        super().__init__(**kwargs)
        self.difference = difference

    def call(self, inputs):
        import tensorflow as tf

        return inputs if tf.executing_eagerly() else inputs + self.difference


def unsteady(difference):
    inputs = keras.Input((2,), name="table")
    return keras.Model(inputs, BinaryHead(name="head")(Unsteady(difference)(inputs)))


@on_tensorflow
def test_tolerance_grows_with_how_far_the_model_differs_from_itself(tmp_path):
    difference = export(unsteady(1e-4), tmp_path / "model").max_difference
    assert 1e-6 < difference < 1e-4


@on_tensorflow
def test_model_that_differs_too_far_from_itself_is_refused(tmp_path):
    message = (
        r"differ by up to .*, at most 2e-03 was expected, .* "
        r"`model\(x\)` and `model\.predict\(x\)` themselves differ by .* "
        r"amplifies rounding, .* `verify=False`"
    )
    with pytest.raises(RuntimeError, match=message):
        export(unsteady(0.1), tmp_path / "model")
    assert is_empty(tmp_path)
    assert export(unsteady(0.1), tmp_path / "model", verify=False).num_rows == 0
