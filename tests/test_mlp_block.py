import json

import keras
import numpy as np
import pytest
import reference
from keras import ops

from keras_binclf import BinaryHead, MLPBlock

PARTS = ("dense", "normalization", "activation", "dropout", "projection")
X = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")


def to_numpy(x):
    return ops.convert_to_numpy(x)


def named(block, prefix):
    return {layer.name: layer for layer in block.layers if layer.name.startswith(prefix)}


@pytest.mark.parametrize("normalization", [None, "batch", "layer", "rms"])
@pytest.mark.parametrize("residual", [False, True])
def test_computes_what_numpy_computes(normalization, residual):
    block = MLPBlock((5, 7, 7), normalization=normalization, residual=residual)
    outputs = to_numpy(block(X))
    dense = named(block, "dense").values()
    projections = named(block, "projection")
    expected = reference.mlp(
        X,
        [to_numpy(layer.kernel) for layer in dense],
        [to_numpy(layer.bias) for layer in dense],
        normalization,
        [
            to_numpy(projections[name].kernel) if name in projections else None
            for name in ("projection_0", "projection_1", "projection_2")
        ]
        if residual
        else None,
    )
    assert list(projections) == (["projection_1"] if residual else [])
    # float32 against float64 through three layers, up to two of them normalized
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_each_step_is_dense_normalization_activation_dropout():
    block = MLPBlock(
        (4, 3), keras.layers.PReLU(), dropout_rate=0.5, normalization="rms", residual=True
    )
    block.build((None, 5))
    names = [f"{part}_{i}" for i in (0, 1) for part in PARTS]
    assert [layer.name for layer in block.layers] == names


def test_dropout_acts_in_training_only_and_per_layer():
    block = MLPBlock((400, 400), "linear", dropout_rate=[0.25, 0.0], kernel_initializer="identity")
    x = np.ones((50, 400), "float32")
    np.testing.assert_array_equal(to_numpy(block(x)), x)
    trained = to_numpy(block(x, training=True))
    # 20,000 draws: the share dropped is within 5 standard deviations of 0.25
    assert abs((trained == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 20_000)
    np.testing.assert_allclose(trained[trained != 0], 1 / 0.75, rtol=1e-6)
    assert list(named(block, "dropout")) == ["dropout_0"]


def test_batch_normalization_leaves_masked_steps_out():
    x = np.random.default_rng(1).normal(size=(8, 4, 3)).astype("float32")
    mask = np.arange(4) < np.array([[4], [3], [2], [1]] * 2)
    garbage = np.where(mask[..., None], x, 1e3).astype("float32")
    means = []
    for values in (x, garbage):
        keras.utils.set_random_seed(3)
        block = MLPBlock(6, normalization="batch")
        block(values, mask=ops.convert_to_tensor(mask), training=True)
        means.append(to_numpy(named(block, "normalization")["normalization_0"].moving_mean))
    np.testing.assert_allclose(means[0], means[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "deviation"),
    [
        ("relu", np.sqrt(2 / 500)),
        ("gelu", np.sqrt(2 / 500)),
        (keras.layers.LeakyReLU(), np.sqrt(2 / 500)),
        (keras.layers.Activation("relu"), np.sqrt(2 / 500)),
        ("selu", np.sqrt(1 / 500)),
        ("tanh", np.sqrt(2 / 1000)),
        (None, np.sqrt(2 / 1000)),
    ],
)
def test_kernel_initializer_follows_the_activation(activation, deviation):
    block = MLPBlock(500, activation)
    block.build((None, 500))
    kernel = to_numpy(block.layers[0].kernel)
    # 250,000 draws estimate a standard deviation to 0.2 %
    np.testing.assert_allclose(kernel.std(), deviation, rtol=0.01)


def test_kernels_of_equal_shape_start_different():
    block = MLPBlock((8, 8, 8), kernel_initializer=keras.initializers.HeNormal())
    block.build((None, 8))
    kernels = [to_numpy(layer.kernel) for layer in block.layers]
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])


def test_kernels_of_equal_shape_start_different_from_one_seed():
    def kernels():
        initializer = keras.initializers.HeNormal(seed=1)
        block = MLPBlock((8, 8), residual=True, kernel_initializer=initializer)
        block.build((None, 7))
        return [to_numpy(layer.kernel) for layer in block.layers]

    dense_0, projection_0, dense_1 = kernels()
    assert dense_0.shape == projection_0.shape
    assert not np.array_equal(dense_0, projection_0)
    assert not np.array_equal(dense_0, dense_1[:7])
    np.testing.assert_array_equal(kernels()[0], dense_0)


def test_function_that_a_file_would_mistake_for_another_is_refused():
    def relu(x):
        return 2.0 * x

    with pytest.raises(ValueError, match="would name it like a function of Keras"):
        MLPBlock(activation=relu)
    with pytest.raises(ValueError, match="give its name"):
        MLPBlock(activation=ops.gelu)


def test_own_function_without_registration_loads_with_custom_objects():
    def own(x):
        return ops.tanh(2.0 * x)

    block = MLPBlock(4, own)
    with keras.utils.custom_object_scope({"own": own}):
        assert MLPBlock.from_config(block.get_config()).activation is own


def test_activation_layers_have_weights_of_their_own():
    template = keras.layers.PReLU(alpha_initializer=keras.initializers.Constant(0.1))
    block = MLPBlock((4, 3), template)
    block.build((None, 5))
    assert [layer.alpha.shape for layer in named(block, "activation").values()] == [(4,), (3,)]
    assert not template.built
    np.testing.assert_allclose(to_numpy(block.layers[1].alpha), 0.1)
    assert block.count_params() == 5 * 4 + 4 + 4 + 4 * 3 + 3 + 3


def test_regularization_losses_cover_every_kernel():
    block = MLPBlock((4, 3), residual=True, kernel_regularizer=keras.regularizers.L2(0.1))
    block.build((None, 5))
    kernels = [to_numpy(layer.kernel) for layer in block.layers]
    assert len(kernels) == 4
    expected = 0.1 * sum((kernel**2).sum() for kernel in kernels)
    np.testing.assert_allclose(
        sum(float(to_numpy(loss)) for loss in block.losses), expected, rtol=1e-5
    )


def test_frozen_block_keeps_its_batch_statistics():
    block = MLPBlock(4, normalization="batch", trainable=False)
    block(X + 5.0, training=True)
    np.testing.assert_array_equal(to_numpy(block.layers[1].moving_mean), 0.0)
    assert block.trainable_weights == []
    block.trainable = True
    block(X + 5.0, training=True)
    assert np.abs(to_numpy(block.layers[1].moving_mean)).max() > 0


def test_summary_shows_the_sublayers():
    model = keras.Sequential(
        [keras.Input((5,)), MLPBlock((4, 3), normalization="batch"), BinaryHead()]
    )
    lines = []
    model.summary(expand_nested=True, print_fn=lines.append)
    for name in ("dense_0", "normalization_0", "dense_1", "normalization_1"):
        assert name in "\n".join(lines)


def reload(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
@pytest.mark.parametrize("through", ["model", "block"])
def test_int8_stays_near_and_survives_saving(tmp_path, through):
    model = keras.Sequential(
        [keras.Input((5,)), MLPBlock((64, 32), residual=True, dropout_rate=0.1), BinaryHead()]
    )
    before = to_numpy(model(X))
    (model if through == "model" else model.layers[0]).quantize("int8")
    after = to_numpy(model(X))
    dense = [layer for layer in model.layers[0].layers if isinstance(layer, keras.layers.Dense)]
    assert len(dense) == 4
    assert {keras.backend.standardize_dtype(layer._kernel.dtype) for layer in dense} == {"int8"}
    assert 0 < np.abs(after - before).max() < 0.05
    again = reload(model, tmp_path)
    np.testing.assert_array_equal(to_numpy(again(X)), after)
    assert again.layers[0].layers[0].quantization_mode == "int8"
    configs = [json.dumps(each.layers[0].get_config()) for each in (model, again)]
    assert configs[0] == configs[1]


def test_lora_survives_saving_and_goes_on_training(tmp_path):
    model = keras.Sequential([keras.Input((5,)), MLPBlock((8, 4)), BinaryHead()])
    model.layers[0].layers[1].enable_lora(2)
    model.compile("adam", loss="binary_crossentropy")
    model.train_on_batch(X, X[:, :1] > 0)
    again = reload(model, tmp_path)
    np.testing.assert_array_equal(to_numpy(again(X)), to_numpy(model(X)))
    assert [layer.lora_enabled for layer in again.layers[0].layers] == [False, True]
    assert again.layers[0].layers[1].lora_rank == 2
    names = [(weight.name, weight.shape) for weight in model.trainable_weights]
    assert names == [(weight.name, weight.shape) for weight in again.trainable_weights]
    assert np.isfinite(again.train_on_batch(X, X[:, :1] > 0))


def test_one_frozen_sublayer_survives_saving(tmp_path):
    model = keras.Sequential([keras.Input((5,)), MLPBlock((8, 4)), BinaryHead()])
    model.layers[0].layers[0].trainable = False
    again = reload(model, tmp_path)
    assert [layer.trainable for layer in again.layers[0].layers] == [False, True]
    np.testing.assert_array_equal(to_numpy(again(X)), to_numpy(model(X)))


def test_whatever_was_changed_in_a_sublayer_survives_saving(tmp_path):
    block = MLPBlock((8, 4), dropout_rate=0.1, normalization="batch")
    model = keras.Sequential([keras.Input((5,)), block, BinaryHead()])
    assert block.get_config()["sublayers"] is None
    parts = {layer.name: layer for layer in block.layers}
    parts["dropout_1"].rate = 0.5
    parts["normalization_0"].momentum = 0.5
    parts["dense_1"].dtype_policy = "mixed_bfloat16"
    again = reload(model, tmp_path).layers[0]
    parts = {layer.name: layer for layer in again.layers}
    assert parts["dropout_1"].rate == 0.5
    assert parts["normalization_0"].momentum == 0.5
    assert parts["dense_1"].compute_dtype == "bfloat16"
    assert list(again.get_config()["sublayers"]) == ["normalization_0", "dense_1", "dropout_1"]


def test_what_a_loaded_block_keeps_does_not_say_where_objects_lay_in_memory(tmp_path):
    """Keras marks shared objects by address, and takes the marks of a loaded file seriously."""
    block = MLPBlock((8, 8, 8), keras.layers.PReLU(), normalization="batch", dropout_rate=0.1)
    block.build((None, 5))
    block.layers[0].trainable = False
    model = keras.Sequential([keras.Input((5,)), block, BinaryHead()])
    for _ in range(5):
        model = reload(model, tmp_path)
        config = model.layers[0].get_config()
        assert "shared_object_id" not in json.dumps(config)
        assert list(config["sublayers"]) == ["dense_0"]


def test_hidden_units_may_be_an_int_or_any_sequence():
    assert MLPBlock(8).get_config()["hidden_units"] == [8]
    assert MLPBlock(np.int64(8)).hidden_units == (8,)
    assert MLPBlock(np.array([8, 4]), dropout_rate=np.array([0.1, 0.2])).hidden_units == (8, 4)
    assert MLPBlock(range(1, 4), residual=np.True_).hidden_units == (1, 2, 3)


def test_any_keras_activation_works():
    # `glu` halves the width, `threshold` needs arguments.
    others = {"get", "serialize", "deserialize", "glu", "threshold"}
    functions = [
        name for name in dir(keras.activations) if not name.startswith("_") and name not in others
    ]
    assert len(functions) > 20
    for name in functions:
        block = MLPBlock(4, name)
        again = MLPBlock.from_config(block.get_config())
        assert again.activation is block.activation, name
        assert np.isfinite(to_numpy(block(X))).all(), name
