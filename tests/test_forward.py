"""Steps that a Keras mask hides, logits of one head, and the lock of a head."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest
from zoo import with_random_head

from keras_binclf import (
    BinaryHead,
    MLPBlock,
    ThresholdMetric,
    calibrate,
    find_head,
    tune_threshold,
)
from keras_binclf._data.forward import Forward, hides_steps, hold
from keras_binclf._data.heads import list_heads
from keras_binclf._data.readers import ATTRIBUTE, get_reader
from keras_binclf.layers.emission import emit_logits

RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(1, 7, 40)
KEEP = np.arange(6) < LENGTHS[:, None]
X = (RANDOM.normal(size=(40, 6, 3)) * KEEP[..., None]).astype("float32")
WORDS = RANDOM.integers(1, 9, (40, 6)) * KEEP
Y = (RANDOM.random((40, 6, 1)) < 0.4).astype("float32")
WEIGHTS = RANDOM.random(40).round(2) + 0.5


def functional():
    inputs = keras.Input((6, 3))
    hidden = keras.layers.GRU(4, return_sequences=True)(keras.layers.Masking()(inputs))
    return keras.Model(inputs, BinaryHead()(MLPBlock((4,))(hidden))), X


def sequential():
    word = keras.layers.Embedding(9, 4, mask_zero=True)
    recurrent = keras.layers.LSTM(4, return_sequences=True)
    return keras.Sequential([keras.Input((6,)), word, recurrent, BinaryHead()]), WORDS


def nested():
    inner, x = functional()
    inputs = keras.Input((6, 3))
    return keras.Model(inputs, inner(inputs)), x


def two_heads():
    inputs = keras.Input((6, 3), name="steps")
    hidden = keras.layers.GRU(4, return_sequences=True)(keras.layers.Masking()(inputs))
    pooled = keras.layers.GlobalAveragePooling1D()(hidden)
    outputs = [BinaryHead(name="all")(pooled), BinaryHead(name="each")(hidden)]
    return keras.Model([inputs], outputs), {"steps": X}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.mask, self.head = keras.layers.Masking(), BinaryHead(None)
        self.recurrent = keras.layers.GRU(4, return_sequences=True)

    def call(self, inputs):
        return self.head(self.recurrent(self.mask(inputs)))


def subclassed():
    model = Subclassed()
    model(X[:1])
    return model, X


def own_mask():
    inputs = keras.Input((6, 3))
    return keras.Model(inputs, BinaryHead()(MLPBlock((4,))(HidesZeros()(inputs)))), X


class HidesZeros(keras.layers.Layer):
    """A layer with a mask that Keras does not know."""

    def call(self, inputs):
        return inputs * 1.0

    def compute_mask(self, inputs, mask=None):
        return keras.ops.any(keras.ops.not_equal(inputs, 0), axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape


MAKERS = [functional, sequential, nested, two_heads, subclassed, own_mask]


def make(maker):
    """A model, its rows, and the head for steps, with weights that tell them apart."""
    keras.utils.set_random_seed(0)
    model, x = maker()
    head = list_heads(model)[-1]
    head.kernel.assign(np.random.default_rng(2).normal(size=head.kernel.shape))
    return model, x, head


def follow(model, x):
    """Labels that mostly follow the scores of a model."""
    scores = model.predict(x, verbose=0)
    spread = 0.5 * scores.std()
    return (scores + RANDOM.normal(0, spread, scores.shape) > np.median(scores)).astype("float32")


@pytest.fixture(scope="module")
def masked():
    return make(functional)


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_hidden_steps_do_not_count(maker):
    model, x, head = make(maker)
    before = (list(model.layers), model.predict_function, len(model.variables))
    expected = tune_threshold(model, x, Y, head=head, sample_weight=KEEP.astype("float32"))
    padded = np.where(KEEP[..., None], Y, -1)
    tuned = tune_threshold(model, x, padded, head=head)
    assert tuned.num_rows == expected.num_rows == KEEP.sum()
    assert (tuned.threshold, tuned.value) == (expected.threshold, expected.value)
    assert (list(model.layers), model.predict_function, len(model.variables)) == before


@pytest.mark.parametrize("maker", [functional, two_heads], ids=lambda maker: maker.__name__)
def test_hidden_steps_of_data_sets_do_not_count(maker):
    model, x, head = make(maker)
    expected = tune_threshold(model, x, Y, head=head)
    batches = []
    for rows in (slice(0, 25), slice(25, 40)):
        part = {name: v[rows] for name, v in x.items()} if isinstance(x, dict) else x[rows]
        batches.append((part, Y[rows]))
    tuned = tune_threshold(model, batches, head=head)
    assert (tuned.num_rows, tuned.true_positives) == (expected.num_rows, expected.true_positives)
    assert tuned.threshold == pytest.approx(expected.threshold, rel=1e-6)


def test_weights_of_examples_hold_for_the_steps_that_are_seen(masked):
    model, x, head = masked
    tuned = tune_threshold(model, x, Y, head=head, sample_weight=WEIGHTS)
    total = tuned.true_positives + tuned.false_positives
    total += tuned.false_negatives + tuned.true_negatives
    assert total == pytest.approx((KEEP * WEIGHTS[:, None]).sum())


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_calibration_leaves_hidden_steps_out(method):
    found = []
    labels = None
    for weights in (None, KEEP.astype("float32")):
        model, x, _ = make(functional)
        labels = follow(model, x) if labels is None else labels
        found.append(calibrate(model, x, labels, method=method, sample_weight=weights))
    assert found[0].num_rows == found[1].num_rows == KEEP.sum()
    assert found[0].slope == pytest.approx(found[1].slope, rel=1e-9)


def test_threshold_is_judged_on_the_steps_of_the_metric(masked):
    model, x, _ = masked
    tuned = tune_threshold(model, x, Y)
    metric = ThresholdMetric("f1", tuned.threshold)
    model.compile(loss="binary_crossentropy", metrics=[metric])
    logs = model.evaluate(x, Y, verbose=0, return_dict=True)
    assert logs[metric.name] == pytest.approx(tuned.value, rel=1e-5)


def test_models_without_masks_predict_themselves():
    inputs = keras.Input((6, 3))
    recurrent = keras.layers.GRU(2, return_sequences=True)(MLPBlock((3,))(inputs))
    model = keras.Model(inputs, BinaryHead()(recurrent))
    assert not hides_steps(model)
    outputs, mask = Forward(model, find_head(model)).predict(X, verbose=0)
    assert mask is None
    np.testing.assert_array_equal(outputs, model.predict(X, verbose=0))
    assert not hides_steps(keras.Sequential([keras.layers.Embedding(3, 2), BinaryHead()]))


def test_logits_are_read_without_a_change_of_the_head(masked):
    model, x, head = masked
    probabilities = model.predict(x, verbose=0)
    logits, _ = Forward(model, head, logits=True).predict(x, verbose=0)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), probabilities, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(x, verbose=0), probabilities)
    assert head.activation == "sigmoid"


def test_logits_are_for_one_head_and_one_thread():
    head, other = BinaryHead(), BinaryHead()
    rows = np.full((1, 2), 30.0, "float32")
    for each in (head, other):
        each.build((None, 2))
        each.kernel.assign(np.ones((2, 1)))

    def score(head):
        return keras.ops.convert_to_numpy(head(rows))[0, 0]

    found = []
    with emit_logits(head):
        thread = threading.Thread(target=lambda: found.append(score(head)))
        thread.start()
        thread.join()
        assert score(head) == 60
        assert score(other) <= 1
    assert found[0] <= 1
    assert score(head) <= 1


def test_one_lock_for_a_head_in_all_models_that_hold_it():
    model, _ = functional()
    outer = keras.Sequential([keras.Input((6, 3)), model])
    assert hold(find_head(outer)) is hold(find_head(model))
    assert hold(BinaryHead()) is not hold(BinaryHead())


def test_tuning_holds_the_head_until_its_threshold_is_set(monkeypatch):
    """Else a calibration in between would get the threshold of the scores before it."""
    model = keras.Sequential([keras.Input((3,)), BinaryHead()])
    x = RANDOM.normal(size=(20, 3)).astype("float32")
    free = []

    def try_lock(owner, rows):
        thread = threading.Thread(
            target=lambda: free.append(hold(find_head(model)).acquire(blocking=False))
        )
        thread.start()
        thread.join()

    monkeypatch.setattr("keras_binclf.decision.tuned_threshold.check_both_classes", try_lock)
    tune_threshold(model, x, np.arange(20) % 2)
    assert free == [False]


class Halving(keras.Model):
    """Predicts, by a step of its own, for half of its inputs."""

    def predict_step(self, *arguments):
        *state, data = arguments
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return super().predict_step(*state, (x / 2,))


@pytest.mark.parametrize("function", [tune_threshold, calibrate])
@pytest.mark.parametrize("is_dataset", [False, True])
def test_predict_step_of_the_model_is_kept(function, is_dataset):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 3))
    hidden = keras.layers.GRU(4, return_sequences=True)(keras.layers.Masking()(inputs))
    outputs = BinaryHead(kernel_initializer="glorot_uniform")(hidden)
    plain, halving = keras.Model(inputs, outputs), Halving(inputs, outputs)
    options = {"method": "platt"} if function is calibrate else {}
    weights, y = plain.get_weights(), follow(plain, X / 2)
    found = []
    for model, x in ((plain, X / 2), (halving, X)):
        model.set_weights(weights)
        rows = ([(x, y)],) if is_dataset else (x, y)
        found.append(function(model, *rows, **options))
    assert repr(found[0]) == repr(found[1])


def count_traces(model):
    """Count how often the outputs of a model are traced, in a layer after its first."""
    traces = []
    layer = model.layers[-2]
    inner = layer.call

    def call(*args, **kwargs):
        traces.append(1)
        return inner(*args, **kwargs)

    layer.call = call
    return traces


@pytest.fixture(scope="module")
def counted():
    model, x, _ = make(functional)
    return model, x, count_traces(model)


is_compiled = pytest.mark.skipif(keras.backend.backend() == "torch", reason="runs eagerly")


@is_compiled
def test_masked_models_are_traced_once(counted):
    model, x, traces = counted
    tune_threshold(model, x, Y)
    first = len(traces)
    assert first > 0
    for score in ("mcc", "recall"):
        tune_threshold(model, x, Y, score=score)
    model.set_weights(model.get_weights())
    tune_threshold(model, x, Y)
    assert len(traces) == first


@is_compiled
def test_calibration_traces_once(counted):
    model, x, traces = counted
    labels = follow(model, x)
    calibrate(model, x, labels, method="platt")
    first = len(traces)
    calibrate(model, x, labels, method="platt")
    assert len(traces) == first


@pytest.mark.parametrize("change", ["layer", "head", "eager"])
def test_changed_models_are_read_anew(change):
    inputs = keras.Input((6, 3))
    hidden = keras.layers.Rescaling(1.0)(keras.layers.Masking()(inputs))
    model = with_random_head(keras.Model(inputs, BinaryHead()(hidden)))
    x, head = X, find_head(model)
    before = Forward(model, head).predict(x, verbose=0)[0]
    if change == "layer":
        next(i for i in model.layers if hasattr(i, "scale")).scale = 3.0
    elif change == "head":
        head.activation = None
    else:
        model.run_eagerly = True
    after, mask = Forward(model, head).predict(x, verbose=0)
    expected = keras.Model(model.inputs, model.outputs).predict(x, verbose=0)
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    np.testing.assert_array_equal(mask, KEEP)
    assert np.allclose(after, before) == (change == "eager")


def test_compiling_reads_a_model_anew():
    """As Keras traces anew then, also for layers whose settings it does not know."""
    model, _, head = make(functional)
    reader = get_reader(model, head, False)
    assert get_reader(model, head, False) is reader
    assert get_reader(model, head, True) is not reader
    model.compile("sgd")
    assert get_reader(model, head, False) is not reader


def test_readers_leave_no_trace_in_copies_and_files(tmp_path):
    model, x, head = make(functional)
    Forward(model, head).predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    for copy in (
        keras.models.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
    ):
        assert ATTRIBUTE not in vars(copy)
        assert len(copy.layers) == len(model.layers)


def test_readers_are_freed_with_their_model():
    model, x, head = make(functional)
    Forward(model, head).predict(x, verbose=0)
    reader = weakref.ref(get_reader(model, head, False))
    del model, head
    keras.utils.clear_session(free_memory=True)
    gc.collect()
    assert reader() is None
