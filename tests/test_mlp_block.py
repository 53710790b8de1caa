import json

import keras
import numpy as np
import pytest
import reference
from keras import ops

from keras_binclf import BinaryHead, MLPBlock, export, to_core_layers
from keras_binclf._layer_state import iterate_layers

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


@pytest.mark.parametrize(
    ("policy", "is_global"),
    [
        ("int8_from_float32", True),
        ("int4_from_mixed_bfloat16", False),
        ("float8_from_mixed_float16", False),
    ],
)
def test_quantized_policy_quantizes_dense_sublayers_only(policy, is_global, tmp_path):
    if is_global:
        keras.config.set_dtype_policy(policy)
    options = {} if is_global else {"dtype": policy}
    options |= {"dropout_rate": 0.1, "residual": True, "activation": keras.layers.PReLU()}
    block = MLPBlock((5, 4), normalization="batch", **options)
    head = BinaryHead()
    keras.config.set_dtype_policy("float32")
    model = keras.Sequential([keras.Input((5,)), block, head])
    mode, source = policy.split("_from_")
    found = {layer.name.split("_")[0]: layer.dtype_policy.name for layer in block.layers}
    assert found == dict.fromkeys(PARTS, source) | {"dense": policy, "projection": policy}
    assert block.layers[0].quantization_mode == mode
    assert block.compute_dtype == keras.DTypePolicy(source).compute_dtype
    assert head.compute_dtype == "float32"
    model.compile(optimizer="adam", loss=head.loss(), jit_compile=False)
    assert np.isfinite(model.train_on_batch(X, X[:, :1] > 0))
    again = reload(model, tmp_path)
    np.testing.assert_array_equal(to_numpy(again(X)), to_numpy(model(X)))
    assert again.layers[0].get_config() == block.get_config()
    assert block.get_config()["sublayers"] is None


def test_block_of_a_quantized_policy_computes_what_quantizing_it_gives():
    """Its kernels start from zeros, as those of `Dense`: weights come from a file."""
    block, quantized = MLPBlock((8, 4)), MLPBlock((8, 4), dtype="int8_from_float32")
    block.build((None, 5))
    quantized.build((None, 5))
    block.quantize("int8")
    for ours, theirs in zip(quantized.layers, block.layers, strict=True):
        store = {}
        theirs.save_own_variables(store)
        ours.load_own_variables({name: to_numpy(value) for name, value in store.items()})
    np.testing.assert_array_equal(to_numpy(quantized(X)), to_numpy(block(X)))
    assert np.abs(to_numpy(block(X))).max() > 0


def test_map_of_policies_leaves_out_what_cannot_be_quantized():
    policies = keras.dtype_policies.DTypePolicyMap("mixed_bfloat16")
    policies["block/.*"] = "int8_from_float32"
    block = MLPBlock((5, 4), dropout_rate=0.1, normalization="batch", dtype=policies, name="block")
    outputs = block(X, training=True)
    modes = {layer.name[:-2]: layer.quantization_mode for layer in block.layers}
    assert modes == {"dense": "int8", "normalization": None, "dropout": None}
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"


def make_two_blocks(kind="block"):
    def make(name):
        if kind == "block":
            return MLPBlock(4, name=name)
        return keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)], name=name)

    return keras.Sequential([keras.Input((5,)), make("body_a"), make("body_b"), BinaryHead()])


def find_quantized(model):
    layers = list(iterate_layers(model))
    return [layer.path for layer in layers if layer.quantization_mode and "dense" in layer.name]


@pytest.mark.skipif(not hasattr(keras.quantizers, "Int8QuantizationConfig"), reason="no filters")
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
def test_filter_of_quantize_finds_a_block_by_path():
    model = make_two_blocks()
    model.quantize("int8", filters=lambda layer: "/body_a/" in f"/{layer.path}")
    assert find_quantized(model) == ["sequential/body_a/dense_0"]
    model = make_two_blocks()
    model.quantize("int8", filters="dense_0")
    assert len(find_quantized(model)) == 2


@pytest.mark.skipif(not hasattr(keras.quantizers, "Int8QuantizationConfig"), reason="no filters")
@pytest.mark.parametrize("kind", ["block", "model"])
def test_filter_of_quantize_is_not_compared_with_the_name_of_a_group(kind):
    """Keras asks each innermost layer by its own name: when that changes, so does MLPBlock's page.

    The names of sublayers begin the names in files, logs, layout maps and maps of policies, so
    they cannot hold the block's.
    """
    model = make_two_blocks(kind)
    model.quantize("int8", filters="body_a")
    assert find_quantized(model) == []


def enable_lora(model):
    layer = model.get_layer("body").layers[0]
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.full((2, 8), 0.1))


class Numbers:
    """The tokenizer that Keras asks for, of text that is numbers already."""

    def tokenize(self, text):
        return np.asarray(text)


def calibrate(model, mode):
    config = getattr(keras.quantizers, CALIBRATED[mode])(
        dataset=list(WORDS), tokenizer=Numbers(), num_samples=4, sequence_length=7, group_size=-1
    )
    embedding, body = model.get_layer("words"), model.get_layer("body")
    config.quantization_layer_structure = {
        "pre_block_layers": [embedding],
        "sequential_blocks": [body],
    }
    model.quantize(mode, config=config)
    # Keras would save the layers within the config of each layer, without end.
    config.quantization_layer_structure = None


CALIBRATED = {"gptq": "GPTQConfig", "awq": "AWQConfig"}
WORDS = np.random.default_rng(0).integers(0, 20, (6, 7)).astype("int32")
CHANGES = {
    "lora": enable_lora,
    "lora_int8": lambda model: (enable_lora(model), model.quantize("int8")),
    "int4": lambda model: model.quantize("int4"),
    "float8": lambda model: model.quantize("float8"),
    "gptq": lambda model: calibrate(model, "gptq"),
    "awq": lambda model: calibrate(model, "awq"),
}
quantizes = pytest.mark.filterwarnings(
    "ignore:Layer .* does not have a `quantize` method:UserWarning",
    "ignore:Invalid quantization mode:UserWarning",  # of the embedding
)


def make_changed(change):
    """Return a model whose block was changed, and its predictions, which moved a little."""
    if change in CALIBRATED and not hasattr(keras.quantizers, CALIBRATED[change]):
        pytest.skip(f"this Keras does not have {change}")
    inputs = keras.Input((7,), dtype="int32")
    words = keras.layers.Embedding(20, 8, name="words")(inputs)
    hidden = MLPBlock((8, 6), residual=True, name="body")(words)
    outputs = BinaryHead()(keras.layers.GlobalAveragePooling1D()(hidden))
    model = keras.Model(inputs, outputs)
    before = to_numpy(model(WORDS))
    CHANGES[change](model)
    after = model.predict(WORDS, verbose=0)
    assert 0 < np.abs(after - before).max() < 0.05
    return model, after


@quantizes
@pytest.mark.parametrize("change", ["lora", "lora_int8", "int4", "float8"])
def test_changed_block_is_saved_and_converted(change, tmp_path):
    model, expected = make_changed(change)
    again = reload(model, tmp_path)
    # Keras adds LoRA weights to an int8 kernel before it saves it, and rounds again.
    error = 1e-4 if change == "lora_int8" else 1e-7
    np.testing.assert_allclose(again.predict(WORDS, verbose=0), expected, rtol=0, atol=error)
    bodies = [each.get_layer("body") for each in (again, model)]
    configs = [json.dumps(body.get_config()) for body in bodies]
    assert configs[0] == configs[1]
    mode = None if change == "lora" else change.removeprefix("lora_")
    assert {layer.quantization_mode for layer in bodies[0].layers} == {mode}
    core = to_core_layers(model)
    np.testing.assert_allclose(core.predict(WORDS, verbose=0), expected, rtol=0, atol=error)


@quantizes
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere it takes a process")
@pytest.mark.parametrize("change", ["int4", "gptq"])
def test_changed_block_is_exported(change, tmp_path):
    model, expected = make_changed(change)
    exported = export(model, tmp_path / "model", "tf_saved_model", sample=WORDS)
    assert exported.max_difference < 1e-6
    np.testing.assert_array_equal(model.predict(WORDS, verbose=0), expected)


@quantizes
@pytest.mark.parametrize("change", ["gptq", "awq"])
def test_calibrated_block_cannot_be_loaded_as_no_calibrated_layer_can(change, tmp_path):
    """Keras 3.15 writes no zero points: when it does, move these to the test of the others."""
    model, _ = make_changed(change)
    with pytest.raises(ValueError, match=r"expected .* variables, but received"):
        reload(model, tmp_path)


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
