import keras
import numpy as np
import pytest
import reference
from keras import ops

from keras_binclf import BinaryHead


def to_numpy(x):
    return ops.convert_to_numpy(x)


def head_with(kernel, bias, **arguments):
    head = BinaryHead(**arguments)
    head.build((None, len(kernel)))
    head.set_weights(
        [np.reshape(kernel, (-1, 1)), np.array([bias]), to_numpy(head.threshold_weight)]
    )
    return head


X = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
KERNEL, BIAS = [0.5, -1.0, 2.0], 0.25
LOGITS = X.astype("float64") @ np.reshape(KERNEL, (3, 1)) + BIAS


def test_emits_probabilities_by_default():
    outputs = head_with(KERNEL, BIAS)(X)
    # float32 sums of three terms
    np.testing.assert_allclose(to_numpy(outputs), reference.sigmoid(LOGITS), rtol=1e-5)


def test_emits_logits_without_activation():
    outputs = head_with(KERNEL, BIAS, activation=None)(X)
    np.testing.assert_allclose(to_numpy(outputs), LOGITS, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_probabilities_and_labels_do_not_depend_on_what_is_emitted(activation):
    head = head_with(KERNEL, BIAS, activation=activation, threshold=0.7)
    outputs = head(X)
    expected = reference.sigmoid(LOGITS)
    np.testing.assert_allclose(to_numpy(head.probabilities(outputs)), expected, rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(head.labels(outputs)), expected > 0.7)
    assert keras.backend.standardize_dtype(head.labels(outputs).dtype) == "int32"


@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_cross_entropy_of_what_the_head_emits(activation, smoothing):
    head = head_with(KERNEL, BIAS, activation=activation)
    y = (np.arange(50) % 3 == 0).astype("float32")[:, None]
    loss = head.loss(label_smoothing=smoothing)(y, head(X))
    expected = reference.cross_entropy(
        y * (1 - smoothing) + 0.5 * smoothing, reference.sigmoid(LOGITS)
    )
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-5)


def test_loss_refuses_from_logits():
    with pytest.raises(TypeError, match=r"sets `from_logits` itself.*Received: from_logits=True"):
        BinaryHead().loss(from_logits=True)


@pytest.mark.parametrize("prior", [0.5, 0.01, 1e-6, 1 - 1e-6])
def test_prior_is_the_first_probability(prior):
    head = BinaryHead(prior=prior)
    outputs = to_numpy(head(np.zeros((4, 3), "float32")))
    # 1 - 1e-6 is 17 float32 steps below 1
    np.testing.assert_allclose(outputs, prior, rtol=1e-5)
    np.testing.assert_allclose(
        to_numpy(head.bias), np.log(prior / (1 - prior)), rtol=1e-6, atol=1e-7
    )


def test_score_equal_to_threshold_is_negative():
    head = BinaryHead(threshold=0.3)
    head.build((None, 1))
    scores = np.array([[0.3]], "float32")
    below, above = np.nextafter(scores, np.float32(0)), np.nextafter(scores, np.float32(1))
    for score, label in ((below, 0), (scores, 0), (above, 1)):
        assert to_numpy(head.labels(score)).item() == label


def test_threshold_reads_as_assigned_before_and_after_build():
    head = BinaryHead(threshold=0.3)
    assert head.threshold == 0.3
    head.threshold = 0.05
    assert head.threshold == 0.05
    head.build((None, 4))
    assert head.threshold == 0.05
    head.threshold = 0.123
    assert head.threshold == 0.123
    assert to_numpy(head.threshold_weight) == np.float32(0.123)
    assert head.get_config()["threshold"] == 0.123


def test_threshold_reads_as_the_float32_that_is_stored():
    head = BinaryHead(threshold=0.123456789012345)
    unbuilt = head.threshold
    head.build((None, 4))
    assert unbuilt == head.threshold
    assert np.float32(head.threshold) == np.float32(0.123456789012345)


def test_weight_that_is_no_threshold_does_not_make_a_file_that_cannot_be_loaded(tmp_path):
    model = keras.Sequential([keras.Input((3,)), BinaryHead(threshold=0.2)])
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").layers[-1].threshold == 0.0


def test_labels_before_and_after_build_agree():
    head = BinaryHead(threshold=0.3)
    scores = np.array([0.2, 0.3, 0.4], "float32")
    before = to_numpy(head.labels(scores))
    head.build((None, 4))
    np.testing.assert_array_equal(before, to_numpy(head.labels(scores)))
    np.testing.assert_array_equal(before, [0, 0, 1])


def test_threshold_is_a_weight_that_training_does_not_touch():
    model = keras.Sequential([keras.Input((3,)), BinaryHead(threshold=0.2)])
    assert len(model.trainable_weights) == 2
    assert [weight.name for weight in model.non_trainable_weights] == ["threshold"]
    model.compile(keras.optimizers.AdamW(1.0, weight_decay=0.5), loss=model.layers[-1].loss())
    model.fit(X, X[:, 0] > 0, epochs=2, verbose=0)
    model.layers[-1].trainable = False
    model.layers[-1].trainable = True
    assert len(model.trainable_weights) == 2
    assert model.layers[-1].threshold == 0.2


def test_threshold_travels_with_set_weights_and_checkpoints(tmp_path):
    def make():
        return keras.Sequential([keras.Input((3,)), BinaryHead()])

    model = make()
    model.layers[-1].threshold = 0.0625
    for transfer in (
        lambda other: other.set_weights(model.get_weights()),
        lambda other: (
            model.save_weights(tmp_path / "checkpoint.weights.h5"),
            other.load_weights(tmp_path / "checkpoint.weights.h5"),
        ),
    ):
        other = make()
        transfer(other)
        assert other.layers[-1].threshold == 0.0625


def test_best_checkpoint_brings_its_threshold_back(tmp_path):
    model = keras.Sequential([keras.Input((3,)), BinaryHead()])
    model.compile("adam", loss=model.layers[-1].loss())

    class CutElsewhere(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[-1].threshold = 0.1 * (epoch + 1)
            logs["val_score"] = [1.0, 3.0, 2.0][epoch]

    path = tmp_path / "best.keras"
    model.fit(
        X,
        X[:, 0] > 0,
        epochs=3,
        verbose=0,
        callbacks=[
            CutElsewhere(),
            keras.callbacks.ModelCheckpoint(path, "val_score", save_best_only=True, mode="max"),
        ],
    )
    assert model.layers[-1].threshold == 0.3
    assert keras.models.load_model(path).layers[-1].threshold == 0.2


@pytest.mark.parametrize(
    "policy",
    [
        *("mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "int8_from_mixed_bfloat16"),
        keras.saving.serialize_keras_object(keras.DTypePolicy("mixed_float16")),
    ],
    ids=lambda policy: policy if isinstance(policy, str) else "config",
)
def test_computes_in_float32_under_lower_policies(policy):
    head = BinaryHead(dtype=policy)
    outputs = head(ops.cast(X, "float16"))
    dtypes = [
        head.compute_dtype,
        head.variable_dtype,
        outputs.dtype,
        *[w.dtype for w in head.weights],
    ]
    assert {keras.backend.standardize_dtype(dtype) for dtype in dtypes} == {"float32"}


def test_computes_in_float64_where_asked():
    if keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only where the whole process switches it on")
    head = BinaryHead(dtype="float64")
    assert keras.backend.standardize_dtype(head(X).dtype) == "float64"
    assert keras.backend.standardize_dtype(head.threshold_weight.dtype) == "float32"


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_gradient_is_alive_at_a_wrong_logit_of_15_in_mixed_float16(activation):
    keras.config.set_dtype_policy("mixed_float16")
    head = head_with([15.0], 0.0, activation=activation)
    model = keras.Sequential([keras.Input((1,)), head])
    model.compile(keras.optimizers.SGD(1.0), loss=head.loss(), auto_scale_loss=False)
    model.train_on_batch(np.ones((1, 1)), np.zeros((1, 1)))
    # d loss / d bias = probability - label, which is 1 - 3e-7 here
    np.testing.assert_allclose(to_numpy(head.bias), -1.0, atol=1e-3)


def test_gradient_is_exact_from_logits_however_wrong():
    head = head_with([100.0], 0.0, activation=None)
    model = keras.Sequential([keras.Input((1,)), head])
    model.compile(keras.optimizers.SGD(1.0), loss=head.loss())
    loss = model.train_on_batch(np.ones((1, 1)), np.zeros((1, 1)))
    np.testing.assert_allclose(loss, 100.0)
    np.testing.assert_allclose(to_numpy(head.bias), -1.0)


def test_quantize_leaves_the_head_as_it_is():
    model = keras.Sequential([keras.Input((3,)), BinaryHead(threshold=0.3)])
    before = to_numpy(model(X))
    model.layers[-1].quantize("int8")
    np.testing.assert_array_equal(to_numpy(model(X)), before)


def test_regularizers_add_their_losses():
    head = BinaryHead(
        kernel_regularizer=keras.regularizers.L2(0.1), bias_regularizer="l1", prior=0.9
    )
    head.build((None, 3))
    kernel, bias = to_numpy(head.kernel), to_numpy(head.bias)
    expected = 0.1 * (kernel**2).sum() + 0.01 * np.abs(bias).sum()
    np.testing.assert_allclose(
        sum(float(to_numpy(loss)) for loss in head.losses), expected, rtol=1e-6
    )


def test_class_names_are_a_pair_and_survive():
    head = BinaryHead(class_names=["ham", "spam"])
    assert head.class_names == ("ham", "spam")
    assert BinaryHead.from_config(head.get_config()).class_names == ("ham", "spam")
    head.class_names = None
    assert head.class_names is None


def test_wrong_number_of_features_is_refused():
    head = BinaryHead()
    head.build((None, 3))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 3"):
        head(np.ones((2, 4), "float32"))
