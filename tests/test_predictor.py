import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import zoo

from keras_binclf import BinaryHead, MLPBlock, binary_classifier, find_head, predict_labels
from keras_binclf._data.heads import select_output
from keras_binclf.serving import Predictor, _compiled_model

BACKEND = keras.backend.backend()
FEATURES = 6
X = np.random.default_rng(0).normal(size=(300, FEATURES)).astype("float32")

# Batches of other sizes add up in another order, and XLA computes the sigmoid in its own way: a
# few steps of float32 below 1.
CLOSE = {"rtol": 0, "atol": 1e-6}


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


def expected_probabilities(model, x, head=None):
    head = find_head(model, head)
    outputs = select_output(model, head, model.predict(x, verbose=0))
    return sigmoid(outputs) if head.from_logits else outputs


def take(x, rows):
    return {name: part[rows] for name, part in x.items()} if isinstance(x, dict) else x[rows]


@keras.saving.register_keras_serializable(package="tests")
class Watch(keras.layers.Layer):
    """Passes its inputs on, and counts in Python how often it is called."""

    calls = 0

    def call(self, inputs):
        type(self).calls += 1
        return inputs * 1.0

    def compute_output_shape(self, input_shape):
        return input_shape


class Stateful(keras.layers.Layer):
    """Counts in a weight how often it is called."""

    def build(self, input_shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.count.assign_add(1.0)
        return inputs


def make_model(*layers, **options):
    options = {"hidden_units": (8, 4), "prior": 0.4, "compile": False, **options}
    base = zoo.with_random_head(binary_classifier(FEATURES, **options))
    if not layers:
        return base
    return keras.Sequential([keras.Input((FEATURES,)), *layers, MLPBlock(4), BinaryHead()])


def shake(model, seed=1):
    rng = np.random.default_rng(seed)
    head = find_head(model)
    threshold = head.threshold
    # The variance of a scaler or a normalization must stay positive.
    model.set_weights([np.abs(w + rng.normal(0, 0.3, w.shape)) for w in model.get_weights()])
    head.threshold = threshold


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    scaler = keras.layers.Normalization()
    scaler.adapt(X)
    return make_model(scaler=scaler, normalization="batch", dropout_rate=0.5)


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model, batch_sizes=(1, 8))


@pytest.mark.parametrize(
    "make", [*zoo.PLAIN, *zoo.WITH_OWN_CLASSES], ids=lambda make: make.__name__
)
def test_every_kind_of_model_is_scored_as_predict_does(make):
    """One batch size, so that 16 rows come in chunks, the last one padded."""
    model, x, _ = make()
    for head in ("returns", "buys") if make is zoo.two_heads else (None,):
        predictor = Predictor(model, head=head, batch_sizes=[5])
        expected = expected_probabilities(model, x, head)
        # Half way between two rows in the middle, which are different enough.
        scores = np.unique(expected)
        predictor.head.threshold = float(scores[len(scores) // 2 - 1 :][:2].mean())
        probabilities, labels = predictor(x), predictor.labels(x)
        np.testing.assert_allclose(probabilities, expected, **CLOSE)
        np.testing.assert_array_equal(labels, predict_labels(model, x, head=head))
        assert probabilities.shape == labels.shape == expected.shape
        assert (probabilities.dtype, labels.dtype) == (np.float32, np.int32)
        assert 0 < labels.sum() < labels.size
        one = predictor(take(x, 3))
        np.testing.assert_allclose(
            one, np.squeeze(expected[3], 0 if one.ndim == 0 else ()), **CLOSE
        )
        assert predictor.num_compilations == 1


def test_numbers_are_those_of_a_forward_pass_in_numpy():
    scaler = keras.layers.Normalization()
    scaler.adapt(X * 3 + 1)
    model = make_model(scaler=scaler, activation_out=None)
    *_, mean, variance, _, k1, b1, k2, b2, k3, b3, _ = [0, 0, *model.get_weights()]
    hidden = (X - mean) / np.sqrt(variance)
    for kernel, bias in ((k1, b1), (k2, b2)):
        hidden = np.maximum(hidden @ kernel + bias, 0)
    np.testing.assert_allclose(Predictor(model)(X), sigmoid(hidden @ k3 + b3), **CLOSE)


def test_one_row_is_a_number_and_no_rows_are_an_empty_array(predictor):
    one, label = predictor(X[4]), predictor.labels(X[4])
    assert isinstance(one, np.float32)
    assert isinstance(label, np.int32)
    assert one == predictor(X[4:5])[0, 0]
    assert predictor(X[4:5]).shape == (1, 1)
    assert predictor(list(X[4])) == predictor(X[4].astype("float64")) == one
    assert predictor(keras.ops.convert_to_tensor(X[4])) == one
    assert predictor([X[4:5]]) == predictor([list(X[4])]) == one
    for empty in (predictor(X[:0]), predictor.labels(X[:0])):
        assert empty.shape == (0, 1)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (None, 2)])
def test_rows_as_lists_are_the_same_as_arrays(shape):
    """Arrays of the dtype of the input take a shorter way to the model."""
    inputs = keras.Input(shape)
    sums = keras.ops.sum(inputs, axis=tuple(range(1, len(shape) + 1)), keepdims=True)
    outputs = BinaryHead()(keras.ops.reshape(sums, (-1, 1)))
    predictor = Predictor(keras.Model(inputs, outputs))
    rows = np.random.default_rng(0).normal(size=(3, *(size or 5 for size in shape)))
    rows = rows.astype("float32")
    expected = predictor(rows.tolist())
    assert expected.shape == (3, 1)
    np.testing.assert_array_equal(predictor(rows), expected)
    np.testing.assert_array_equal(predictor(rows.astype("float64")), expected)
    np.testing.assert_array_equal(predictor(np.asfortranarray(rows)), expected)
    for given in (rows[0], rows[0].tolist()):
        one = predictor(given)
        assert np.shape(one) == ()
        np.testing.assert_allclose(one, expected[0, 0], **CLOSE)
    for wrong in (rows[..., None, None], rows.astype(str)):
        with pytest.raises((TypeError, ValueError), match="`x` of Predictor"):
            predictor(wrong)


def test_no_rows_of_a_sequence_model_keep_its_shape():
    model, x, _ = zoo.time_distributed_head()
    assert Predictor(model, batch_sizes=[2])(x[:0]).shape == (0, zoo.STEPS, 1)


def test_all_batch_sizes_compile_once_each_and_rows_stay_what_they_are():
    model = make_model(Watch())
    predictor = Predictor(model)
    expected = model.predict(X, verbose=0)
    Watch.calls = 0
    for size in range(1, 258):
        np.testing.assert_allclose(predictor(X[:size]), expected[:size], **CLOSE)
    assert predictor.num_compilations == len(predictor.batch_sizes) == 4
    # PyTorch also calls the layers once as they are, to compare.
    assert Watch.calls == (8 if BACKEND == "torch" else 4)
    predictor(np.repeat(X, 4, axis=0))
    assert predictor.num_compilations == 4


def test_rows_are_padded_with_real_rows(model, monkeypatch):
    seen = []
    call = _compiled_model.CompiledModel.__call__
    monkeypatch.setattr(
        _compiled_model.CompiledModel, "__call__", lambda self, a: seen.append(a) or call(self, a)
    )
    Predictor(model, batch_sizes=[4])(X[:6])
    np.testing.assert_array_equal(np.concatenate([a[0] for a in seen]), X[[0, 1, 2, 3, 4, 5, 5, 5]])


def test_weights_and_threshold_are_those_of_now():
    model = make_model(normalization="batch")
    predictor = Predictor(model, batch_sizes=[4])
    before = predictor(X[:4])
    shake(model)
    after = predictor(X[:4])
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, expected_probabilities(model, X[:4]), **CLOSE)
    model.compile("sgd", loss="binary_crossentropy")
    model.fit(X, (X[:, :1] > 0).astype("float32"), verbose=0)
    np.testing.assert_allclose(predictor(X[:4]), expected_probabilities(model, X[:4]), **CLOSE)
    assert predictor.num_compilations == 1
    for threshold in (0.999, 1e-6):
        predictor.head.threshold = threshold
        np.testing.assert_array_equal(predictor.labels(X[:4]), predict_labels(model, X[:4]))
    assert predictor.labels(X[:4]).all()


def test_row_at_the_threshold_is_negative():
    predictor = Predictor(make_model(), batch_sizes=[1])
    probability = predictor(X[0])
    predictor.head.threshold = float(probability)
    assert predictor.labels(X[0]) == 0
    predictor.head.threshold = float(np.nextafter(probability, np.float32(0)))
    assert predictor.labels(X[0]) == 1


def test_scaler_that_was_adapted_again_is_used():
    """Keras keeps its mean and variance outside of the weights."""
    scaler = keras.layers.Normalization()
    scaler.adapt(X)
    model = make_model(scaler=scaler)
    predictor = Predictor(model, batch_sizes=[4])
    before = predictor(X[:4])
    scaler = next(part for part in model.layers if isinstance(part, keras.layers.Normalization))
    scaler.adapt(X * 3 + 2)
    expected = keras.ops.convert_to_numpy(model(X[:4]))
    assert np.abs(expected - before).max() > 1e-3
    np.testing.assert_allclose(predictor(X[:4]), expected, **CLOSE)


@pytest.mark.parametrize("change", ["quantize", "enable_lora"])
def test_model_whose_weights_were_replaced_is_compiled_again(change):
    """Guards the private lists in which Keras keeps a layer's variables."""
    model = make_model()
    predictor = Predictor(model, batch_sizes=[4])
    predictor(X[:4])
    if change == "quantize":
        model.get_layer("mlp_block").quantize("int8")
    else:
        model.get_layer("mlp_block").layers[0].enable_lora(2)
    shake(model)
    expected = keras.ops.convert_to_numpy(model(X[:4], training=False))
    # Quantized values are rounded: one step of float32 in the input can become one of int8.
    tolerance = {"rtol": 0, "atol": 1e-3} if change == "quantize" else CLOSE
    np.testing.assert_allclose(predictor(X[:4]), expected, **tolerance)


def test_model_stays_as_it_is():
    model = make_model(Stateful(), keras.layers.BatchNormalization(), keras.layers.Dropout(0.9))
    before = [zoo.to_numpy(variable) for variable in model.variables]
    predictor = Predictor(model, batch_sizes=[4])
    first = predictor(X[:10])
    np.testing.assert_array_equal(predictor(X[:10]), first)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(zoo.to_numpy(variable), value)
    model.compile("sgd", loss="binary_crossentropy")
    history = model.fit(X, (X[:, :1] > 0).astype("float32"), verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_what_is_returned_is_the_callers_own(predictor):
    first = predictor(X[:8])
    kept = first.copy()
    first[:] = 2.0
    np.testing.assert_array_equal(predictor(X[:8]), kept)


def test_threads_may_share_a_predictor_from_the_first_call_on(model):
    rng = np.random.default_rng(0)
    parts = [X[start : start + size] for start, size in rng.integers(1, 40, size=(64, 2))]
    predictor = Predictor(model, batch_sizes=(1, 4, 16))
    barrier = threading.Barrier(8)

    def work(worker):
        barrier.wait()
        return [predictor(part) for part in parts[worker::8]]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    assert predictor.num_compilations == 3
    for worker, probabilities in enumerate(found):
        for part, mine in zip(parts[worker::8], probabilities, strict=True):
            np.testing.assert_array_equal(mine, predictor(part))
            np.testing.assert_allclose(mine, expected_in_batches(predictor, part), **CLOSE)


def expected_in_batches(predictor, rows):
    return np.concatenate([predictor(row)[None, None] for row in rows])


def test_callback_may_score_during_fit():
    """On JAX, `fit` holds the weights outside of the model."""
    model = make_model(normalization="batch")
    model.compile("sgd", loss="binary_crossentropy")
    predictor = Predictor(model, batch_sizes=[4])
    found = []

    class Score(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found.append((predictor(X[:4]), zoo.to_numpy(self.model(X[:4], training=False))))

    y = (X[:64, :1] > 0).astype("float32")
    model.fit(X[:64], y, verbose=0, callbacks=[Score()])
    assert len(found) == 2
    for probabilities, expected in found:
        np.testing.assert_allclose(probabilities, expected, **CLOSE)


def make_two_inputs(wrap):
    table, codes = keras.Input((3,), name="table"), keras.Input((2,), name="codes", dtype="int32")
    words = keras.layers.Flatten()(keras.layers.Embedding(5, 2)(codes))
    hidden = keras.layers.Concatenate()([table, words])
    return keras.Model(wrap(table, codes), BinaryHead()(hidden))


TABLE, CODES = X[:9, :3], np.arange(18).reshape(9, 2) % 5


@pytest.fixture(scope="module")
def by_name():
    keras.utils.set_random_seed(0)
    model = make_two_inputs(lambda table, codes: {"table": table, "codes": codes})
    return Predictor(model, batch_sizes=[4])


def test_inputs_by_name_and_by_place_are_the_same(by_name):
    model = make_two_inputs(lambda table, codes: [table, codes])
    model.set_weights(by_name.model.get_weights())
    by_place = Predictor(model, batch_sizes=[4])
    x = {"table": TABLE, "codes": CODES}
    expected = by_name.model.predict(x, verbose=0)
    for found in (by_name(x), by_place([TABLE, CODES]), by_place((TABLE, CODES)), by_place(x)):
        np.testing.assert_allclose(found, expected, **CLOSE)
    one = {"table": list(TABLE[2]), "codes": CODES[2].astype("float64")}
    np.testing.assert_allclose(by_name(one), expected[2, 0], **CLOSE)
    with pytest.raises(ValueError, match=r"must be a list of 2 inputs\. Received: ndarray"):
        by_place(TABLE)


def test_word_beyond_the_vocabulary_gets_no_score(by_name):
    with pytest.raises(Exception, match=r"(?i)indices\[|index out of range|gave NaN for"):
        by_name({"table": TABLE, "codes": CODES + 1})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (TABLE, r"must be a dict with the keys 'codes', 'table'\. Received: ndarray"),
        ({"table": TABLE, "code": CODES}, r"Received: a dict without 'codes' and with 'code'\."),
        ({"table": TABLE}, r"Received: a dict without 'codes'\."),
        (
            {"table": TABLE, "codes": CODES[:4]},
            r"of equal length in all inputs\. Received: 4 rows of 'codes', 9 rows of 'table'",
        ),
        ({"table": TABLE, "codes": CODES[0]}, r"one row in all inputs, or many in all"),
        (
            {"table": TABLE, "codes": CODES + 0.5},
            r"whole numbers that int32 holds \(input 'codes'\)\. Received: dtype float64",
        ),
        ({"table": TABLE, "codes": CODES + 2**32}, r"whole numbers that int32 holds"),
        ({"table": TABLE, "codes": CODES * np.nan}, r"finite in float64 \(input 'codes'\)"),
        (
            {"table": TABLE[:, :2], "codes": CODES},
            r"of shape \(n, 3\), or .* \(input 'table'\)\. Received: shape \(9, 2\)",
        ),
    ],
)
def test_wrong_inputs_of_several_are_refused(by_name, x, message):
    with pytest.raises(ValueError, match=message):
        by_name(x)


def spoil(value):
    x = X[:40].astype("float64")
    x[[5, 9], 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            X[:, :4],
            ValueError,
            r"`x` of Predictor must be of shape \(n, 6\), or \(6,\) for one row",
        ),
        (X[:, :4], ValueError, r"Received: shape \(300, 4\)\.$"),
        (X[0, :4], ValueError, r"Received: shape \(4,\)\.$"),
        (X[None], ValueError, r"Received: shape \(1, 300, 6\)\.$"),
        (1.0, ValueError, r"Received: shape \(\)\.$"),
        (
            [[1.0, 2.0], [1.0]],
            ValueError,
            r"array\. Received: parts of different shapes",
        ),
        ({"wrong": X}, ValueError, r"must be a dict with the keys"),
        (np.full((2, FEATURES), "a"), TypeError, r"must be numbers\. Received: dtype <U1"),
        (None, TypeError, r"must be numbers\. Received: None"),
        (spoil(np.nan), ValueError, r"NaN or infinity in 2 of 40 rows, the first at index 5\."),
        (spoil(-np.inf), ValueError, r"NaN or infinity in 2 of 40 rows.* replace missing values"),
        (spoil(1e39), ValueError, r"must be finite in float32\. Received: NaN or infinity in 2"),
    ],
)
def test_wrong_rows_are_refused(predictor, x, error, message):
    with pytest.raises(error, match=message):
        predictor(x)


def test_probability_that_is_nan_is_refused():
    model = make_model(hidden_units=None)
    predictor = Predictor(model, batch_sizes=[4])
    kernel, *rest = model.get_weights()
    model.set_weights([np.full_like(kernel, np.nan), *rest])
    with pytest.raises(ValueError, match="The model gave NaN for 2 of 2 rows"):
        predictor(X[:2])


def test_threshold_that_is_no_probability_is_refused():
    model = make_model(hidden_units=None)
    predictor = Predictor(model, batch_sizes=[1])
    predictor.head.threshold_weight.assign(1.0)
    with pytest.raises(ValueError, match=r"must be in \(0, 1\)\. Received: threshold=1\.0"):
        predictor.labels(X[0])


class Late(keras.Model):
    """A subclassed model of a dict of inputs."""

    def __init__(self):
        super().__init__()
        self.block, self.head = MLPBlock(4), BinaryHead()

    def call(self, inputs):
        return self.head(self.block(keras.ops.concatenate([inputs["b"], inputs["a"]], axis=-1)))


def test_subclassed_model_takes_what_it_was_built_with():
    model = Late()
    with pytest.raises(ValueError, match=r"needs a built model.*Call it once on a few rows"):
        Predictor(model)
    x = {"a": X[:7, :2], "b": X[:7, 2:].round()}
    model(x)
    predictor = Predictor(model, batch_sizes=[3])
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(predictor(x), expected, **CLOSE)
    np.testing.assert_allclose(predictor(take(x, 2)), expected[2, 0], **CLOSE)
    integers = {"a": x["a"], "b": x["b"].astype("int64")}
    np.testing.assert_allclose(predictor(integers), model.predict(integers, verbose=0), **CLOSE)
    with pytest.raises(ValueError, match=r"of shape \(n, 2\)"):
        predictor({"a": X[:7], "b": X[:7, 2:]})


def test_length_that_is_not_known_is_compiled_when_it_comes():
    hidden = [keras.layers.Dense(4), keras.layers.GlobalAveragePooling1D()]
    model = keras.Sequential([keras.Input((None, FEATURES)), *hidden, BinaryHead()])
    predictor = Predictor(model, batch_sizes=[2])
    for length in (3, 5, 3):
        x = X[: 2 * length].reshape(2, length, FEATURES)
        np.testing.assert_allclose(predictor(x), model.predict(x, verbose=0), **CLOSE)
        np.testing.assert_allclose(predictor(x[1]), predictor(x)[1, 0], **CLOSE)
    assert predictor.num_compilations == 2


@pytest.mark.parametrize("policy", ["float64", "mixed_float16", "mixed_bfloat16"])
def test_other_precisions_are_scored(policy):
    if policy == "float64" and BACKEND == "jax":
        pytest.skip("JAX has no float64 unless it is told to.")
    keras.config.set_dtype_policy(policy)
    model = make_model()
    predictor = Predictor(model, batch_sizes=[4])
    assert predictor(X[:4]).dtype == np.float32
    # Three digits of bfloat16, where XLA rounds less often.
    tolerance = CLOSE if policy == "float64" else {"rtol": 0, "atol": 2e-2}
    np.testing.assert_allclose(predictor(X[:4]), model.predict(X[:4], verbose=0), **tolerance)


@pytest.mark.parametrize("batch_sizes", [[], [0, 2], [2, 2]])
def test_batch_sizes_must_be_different_positive_ints(model, batch_sizes):
    with pytest.raises(ValueError, match="`batch_sizes` of Predictor must be a non-empty list"):
        Predictor(model, batch_sizes=batch_sizes)


@pytest.mark.parametrize("batch_sizes", [8, [1.0], [True]])
def test_batch_sizes_of_another_type_are_refused(model, batch_sizes):
    with pytest.raises(TypeError, match="`batch_sizes` of Predictor must be a non-empty list"):
        Predictor(model, batch_sizes=batch_sizes)


def test_batch_sizes_are_sorted(model):
    assert Predictor(model, batch_sizes=np.array([64, 1])).batch_sizes == (1, 64)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(TypeError, match=r"`model` of Predictor must be a keras\.Model"):
        Predictor(BinaryHead())
    with pytest.raises(ValueError, match="has no BinaryHead"):
        Predictor(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match="has 2 heads"):
        Predictor(zoo.two_heads()[0])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Strings are for TensorFlow alone.")
def test_strings_are_refused():
    words = keras.Input((1,), dtype="string", name="word")
    codes = keras.layers.StringLookup(vocabulary=["a"], output_mode="one_hot")(words)
    with pytest.raises(ValueError, match=r"input 'word' is of dtype string.*Look the words up"):
        Predictor(keras.Model(words, BinaryHead()(codes)))


class NotForCompilers(keras.layers.Layer):
    """Does what XLA, or a trace of PyTorch, cannot do."""

    def call(self, inputs):
        if BACKEND == "tensorflow":
            import tensorflow as tf

            return tf.strings.to_number(tf.strings.as_string(inputs, precision=9))
        return inputs if float(inputs.sum()) > 0 else -inputs

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.skipif(BACKEND == "jax", reason="`jax.jit` is all that JAX has.")
def test_model_that_cannot_be_compiled_so_is_called_as_it_is():
    model = make_model(NotForCompilers())
    predictor = Predictor(model, batch_sizes=[4])
    for rows in (X[:4], -X[:4]):
        expected = zoo.to_numpy(model(rows, training=False))
        np.testing.assert_allclose(predictor(rows), expected, **CLOSE)
