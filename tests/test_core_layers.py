"""Models of our layers as models of Keras's own layers."""

import functools
import json

import keras
import numpy as np
import pytest
import serve_elsewhere
import zoo
from tabular import make_table

from keras_binclf import (
    BinaryHead,
    MLPBlock,
    TabularEncoder,
    binary_classifier,
    find_head,
    to_core_layers,
)
from keras_binclf._layer_state import iterate_layers
from keras_binclf._registry import REGISTERED

MAKES = [
    *(zoo.sequential, zoo.functional, zoo.nested, zoo.classifier, zoo.nested_with_its_head),
    *(zoo.time_distributed_block, zoo.time_distributed_head, zoo.convolutional, zoo.masked_gru),
    *(zoo.masked_steps, zoo.classifier_with_lora, zoo.own_train_step),
]


@functools.cache
def make_once(make):
    """Return a model, its rows and its predictions; no test changes the model."""
    model, x, _ = make()
    return model, x, model.predict(x, verbose=0)


@pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)
def test_same_numbers_from_keras_layers_only(make):
    model, x, expected = make_once(make)
    core = to_core_layers(model)
    assert {type(layer).__module__.split(".")[0] for layer in iterate_layers(core)} == {"keras"}
    assert core.name == model.name
    assert not core.compiled
    np.testing.assert_allclose(core.predict(x, verbose=0), expected, rtol=0, atol=1e-6)
    # A model of its own: what is done to it does not reach the other one.
    core.set_weights([np.zeros_like(weight) for weight in core.get_weights()])
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@pytest.mark.parametrize("cls", [c for c in REGISTERED.values() if issubclass(c, keras.Layer)])
def test_every_registered_layer_says_which_core_layers_it_is(cls):
    assert "to_core" in vars(cls)


def test_several_heads_keep_the_outputs_of_the_model():
    model, x, _ = zoo.two_heads()
    expected, found = model.predict(x, verbose=0), to_core_layers(model).predict(x, verbose=0)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6)


def test_trains_as_the_model_does():
    """Regularization and batch statistics are there too."""
    inputs = keras.Input((6,))
    block = MLPBlock(
        (8, 4), normalization="batch", residual=True, kernel_regularizer="l2", activation="tanh"
    )
    model = keras.Model(inputs, BinaryHead(kernel_regularizer="l2")(block(inputs)))
    core = to_core_layers(model)
    x, y = zoo.make_table(6)
    losses = []
    for each in (model, core):
        each.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
        losses.append(each.fit(x, y, epochs=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    np.testing.assert_allclose(core.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


def test_drops_out_while_it_trains():
    model = keras.Sequential([keras.Input((6,)), MLPBlock(64, dropout_rate=0.5), BinaryHead()])
    core = to_core_layers(model)
    x = np.ones((1, 6), "float32")
    outputs = [zoo.to_numpy(core(x, training=t)).item() for t in (False, True, True)]
    assert len(set(outputs)) == 3
    assert outputs[0] == pytest.approx(zoo.to_numpy(model(x)).item())


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`:UserWarning")
def test_quantized_layers_stay_so():
    model = zoo.with_random_head(binary_classifier(6, compile=False))
    model.quantize("int8")
    core = to_core_layers(model)
    x, _ = zoo.make_table(6)
    np.testing.assert_array_equal(core.predict(x, verbose=0), model.predict(x, verbose=0))
    assert any(layer.dtype_policy.quantization_mode == "int8" for layer in core.layers)


def test_block_in_two_places_stays_one():
    first, second = keras.Input((3,)), keras.Input((3,))
    block = MLPBlock(4)
    model = keras.Model(
        [first, second], BinaryHead()(keras.layers.Add()([block(first), block(second)]))
    )
    core = to_core_layers(model)
    assert core.count_params() == 3 * 4 + 4 + 4 + 1
    x = [np.ones((2, 3), "float32"), np.zeros((2, 3), "float32")]
    np.testing.assert_allclose(core.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "int8_from_float32", "map"])
def test_policies_are_kept(policy):
    dtype = policy
    if policy == "map":
        dtype = keras.dtype_policies.DTypePolicyMap("float32")
        dtype["block/dense_0"] = "bfloat16"
    inputs = keras.Input((6,))
    block = MLPBlock((5, 4), dtype=dtype, residual=True, dropout_rate=0.1, name="block")
    model = keras.Model(inputs, BinaryHead()(block(inputs)))
    core = to_core_layers(model)
    x, _ = zoo.make_table(6)
    np.testing.assert_array_equal(core.predict(x, verbose=0), model.predict(x, verbose=0))
    expected = {"map": "bfloat16"}.get(policy, policy)
    assert core.get_layer("block_dense_0").dtype_policy.name == expected
    added = {"mixed_bfloat16": "mixed_bfloat16"}.get(policy, "float32")
    assert core.get_layer("block_add_0").dtype_policy.name == added


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder with what a process without the package made of four models, with labels."""
    folder = tmp_path_factory.mktemp("core")
    for make in MAKES[:4]:
        model, x, _ = make_once(make)
        find_head(model).threshold = np.median(get_probabilities(make)) + 1e-4
        to_core_layers(model, labels=True).save(folder / f"{make.__name__}.keras")
        inputs = x if isinstance(x, dict) else {"inputs": x}
        np.savez(folder / f"{make.__name__}.npz", **inputs)
    backend = keras.backend.backend()
    zoo.run_python(serve_elsewhere.__file__, folder, backend=backend, cwd=folder)
    return folder


def get_probabilities(make):
    model, _, expected = make_once(make)
    return zoo.to_numpy(find_head(model).probabilities(expected))


@pytest.mark.parametrize("make", MAKES[:4], ids=lambda make: make.__name__)
def test_with_labels_it_loads_where_the_package_is_not(served, make):
    found = np.load(served / f"{make.__name__}.keras.served.npz")
    probability, threshold = get_probabilities(make), find_head(make_once(make)[0]).threshold
    np.testing.assert_allclose(found["probability"], probability, rtol=0, atol=1e-6)
    # No row lies within rounding of the threshold.
    assert np.abs(probability - threshold).min() > 1e-5
    assert set(found["label"].flat) == {0, 1}
    np.testing.assert_array_equal(found["label"], probability > threshold)


def test_schema_stands_beside_the_layers(tmp_path):
    """A model of two inputs, of which one takes a table: its columns, by the name of that input."""
    table = make_table(50)
    encoder = TabularEncoder()
    encoder.adapt(table)
    inputs = [keras.Input((encoder.num_encoded,), name="people"), keras.Input((2,), name="other")]
    merged = keras.layers.Concatenate()([encoder(inputs[0]), inputs[1]])
    model = keras.Model(inputs, BinaryHead()(merged))
    path = tmp_path / "columns.json"
    path.write_text("of an earlier model")
    core = to_core_layers(model, schema_path=path)
    schemas = json.loads(path.read_text("utf-8"))
    assert schemas == {"people": encoder.get_config()["columns"]}
    # Whoever has the package can make the encoder again.
    again = TabularEncoder(columns=schemas["people"])
    x = [again.encode(table), np.ones((50, 2), "float32")]
    np.testing.assert_allclose(core.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


class Holder(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = MLPBlock(3)

    def call(self, inputs):
        return self.block(inputs)


class Inverted(BinaryHead):
    def call(self, inputs):
        return 1 - super().call(inputs)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: keras.Sequential([keras.Input((3,)), Inverted()]),
            ValueError,
            r"cannot take Inverted 'inverted' apart",
        ),
        (lambda: "model", TypeError, r"`model` of to_core_layers must be a keras\.Model.*str"),
        (lambda: zoo.subclassed()[0], ValueError, "takes functional and Sequential models"),
        (lambda: keras.Sequential([BinaryHead()]), ValueError, "needs a built model"),
        (
            lambda: keras.Sequential([keras.Input((3,)), Holder(), BinaryHead()]),
            ValueError,
            r"cannot take Holder 'holder' apart, which holds MLPBlock",
        ),
    ],
)
def test_what_has_no_core_layers(make, error, message):
    with pytest.raises(error, match=message):
        to_core_layers(make())


class Doubled(MLPBlock):
    """A derived class that says which core layers it is."""

    def call(self, inputs, mask=None, training=None):
        return 2 * super().call(inputs, mask=mask, training=training)

    def to_core(self):
        block, double = super().to_core(), keras.layers.Rescaling(2.0)
        return lambda inputs: double(block(inputs))


def test_derived_class_with_core_layers_of_its_own_is_converted():
    model = keras.Sequential([keras.Input((3,)), Doubled(4), BinaryHead()])
    core, x = to_core_layers(model), np.ones((2, 3), "float32")
    assert "Rescaling" in [type(layer).__name__ for layer in core.layers]
    np.testing.assert_allclose(core.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
