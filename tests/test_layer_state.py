"""Layers as data: config and all state survive JSON, wherever the state hangs."""

import json

import keras
import numpy as np
import pytest

from keras_binclf import BinaryClassifierHyperModel, MLPBlock
from keras_binclf._layer_state import copy_state, deserialize_layer, serialize_layer

X = np.random.default_rng(0).normal(50, 10, (64, 3)).astype("float32")
WORDS = np.array([["red"], ["green"], ["red"], ["blue"]])


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def adapted(layer, data=X, **kwargs):
    layer.adapt(data, **kwargs)
    return layer


def moved(layer, x=X):
    """A layer that was built on `x`, with weights that no initializer gives."""
    layer(x)
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.uniform(0.5, 2, weight.shape).astype("float32"))
    return layer


class Holder(keras.layers.Layer):
    """A layer of a user's own: `make` gives its sublayers, `hold` the attribute with them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.held = self.hold(adaptable())

    def adapt(self, x):
        for layer in keras.tree.flatten(self.held):
            layer.adapt(x)
        self.build(x.shape)

    def build(self, shape):
        for layer in keras.tree.flatten(self.held):
            if not layer.built:
                layer.build(shape)

    def call(self, x):
        for layer in keras.tree.flatten(self.held):
            x = layer(x)
        return x


def adaptable():
    return [keras.layers.Normalization(), keras.layers.Normalization()]


@keras.saving.register_keras_serializable(package="layer_state")
class Attribute(Holder):
    def hold(self, layers):
        return layers[0]


@keras.saving.register_keras_serializable(package="layer_state")
class Listed(Holder):
    def hold(self, layers):
        return layers


@keras.saving.register_keras_serializable(package="layer_state")
class Dict(Holder):
    def hold(self, layers):
        return {"first": layers[0], "second": layers[1]}


@keras.saving.register_keras_serializable(package="layer_state")
class ListOfLists(Holder):
    def hold(self, layers):
        return [[layers[0]], [layers[1]]]


@keras.saving.register_keras_serializable(package="layer_state")
class Forgetful(keras.layers.Layer):
    """Its config does not tell of the sublayers that `adapt` makes."""

    held = ()

    def adapt(self, x):
        self.held = [adapted(keras.layers.Normalization(), x)]

    def call(self, x):
        for layer in self.held:
            x = layer(x)
        return x


@keras.saving.register_keras_serializable(package="layer_state")
class Around(keras.layers.Layer):
    """Holds any layer, given to it, and computes as it does."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, shape):
        if not self.inner.built:
            self.inner.build(shape)

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("inner")), **config)


def sequential():
    normalization = adapted(keras.layers.Normalization())
    return keras.Sequential([keras.Input((3,)), normalization, moved(keras.layers.Dense(2))])


def functional():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4)(inputs)
    model = keras.Model(inputs, keras.layers.BatchNormalization()(hidden))
    return moved(model)


def trained():
    model = sequential()
    model.compile("adam", "mse")
    model.fit(X, X[:, :2], epochs=1, verbose=0)
    return model


def with_lora():
    layer = moved(keras.layers.Dense(4))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    return layer


def quantized():
    layer = moved(keras.layers.Dense(4))
    layer.quantize("int8")
    return layer


def in_bfloat16():
    return moved(keras.layers.Dense(4, dtype="bfloat16"))


def text(layer):
    return adapted(layer, WORDS)


def around(layer, x):
    layer = Around(layer)
    layer.build(x.shape)
    return layer


def compute(layer, x):
    """The layer's outputs; other backends than TensorFlow give words to Keras's own layers only."""
    return to_numpy(getattr(layer, "inner", layer)(x))


# A layer, and what it computes from.
KINDS = {
    "normalization": lambda: (adapted(keras.layers.Normalization()), X),
    "attribute": lambda: (adapted(Attribute()), X),
    "list": lambda: (adapted(Listed()), X),
    "dict": lambda: (adapted(Dict()), X),
    "list of lists": lambda: (adapted(ListOfLists()), X),
    "wrapper": lambda: (
        moved(keras.layers.TimeDistributed(keras.layers.Dense(2)), X[None]),
        X[None],
    ),
    "two directions": lambda: (
        moved(keras.layers.Bidirectional(keras.layers.GRU(2)), X[None]),
        X[None],
    ),
    "sequential": lambda: (sequential(), X),
    "functional": lambda: (functional(), X),
    "model in a layer": lambda: (around(sequential(), X), X),
    "trained model": lambda: (trained(), X),
    "block": lambda: (moved(MLPBlock((4, 2), normalization="batch", residual=True)), X),
    "lora": lambda: (with_lora(), X),
    "int8": lambda: (quantized(), X),
    "bfloat16": lambda: (in_bfloat16(), X),
    "discretization": lambda: (adapted(keras.layers.Discretization(num_bins=4)), X),
    "words": lambda: (text(keras.layers.StringLookup()), WORDS),
    "words given": lambda: (keras.layers.StringLookup(vocabulary=["red", "blue"]), WORDS),
    "words weighed": lambda: (text(keras.layers.StringLookup(output_mode="tf_idf")), WORDS),
    "words in a layer": lambda: (around(text(keras.layers.StringLookup()), WORDS), WORDS),
    "integers": lambda: (
        adapted(keras.layers.IntegerLookup(), [[3], [900]]),
        np.array([[900], [4]]),
    ),
    "text": lambda: (text(keras.layers.TextVectorization()), WORDS),
    "given statistics": lambda: (keras.layers.Normalization(mean=[1, 2, 3], variance=[4, 5, 6]), X),
    "nothing": lambda: (keras.layers.Rescaling(0.5), X),
}


# Keras 3.11 asks JAX for int64 there.
@pytest.mark.filterwarnings("ignore:Exception encountered when calling Discretization:UserWarning")
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_the_copy_computes_the_same(kind):
    if kind == "words weighed" and keras.__version__.startswith("3.11."):
        pytest.skip("Keras 3.11 cannot load a StringLookup with tf_idf that was adapted")
    layer, x = KINDS[kind]()
    expected = compute(layer, x)
    copy = deserialize_layer(json.loads(json.dumps(serialize_layer(layer))))
    assert copy is not layer
    np.testing.assert_array_equal(compute(copy, x), expected)


@pytest.mark.parametrize(
    "kind", ["attribute", "list of lists", "wrapper", "words in a layer", "block"]
)
def test_state_is_copied_into_a_layer_that_is_there(kind):
    layer, x = KINDS[kind]()
    copy = type(layer).from_config(layer.get_config())
    if layer.weights:
        compute(copy, x)
    copy_state(layer, copy)
    np.testing.assert_array_equal(compute(copy, x), compute(layer, x))


def test_the_copy_draws_the_same_random_numbers():
    # PyTorch draws for `Dropout` from the generator of the process.
    layer = keras.Sequential([keras.layers.GaussianNoise(1.0), keras.layers.GaussianDropout(0.5)])
    layer(X, training=True)
    copy = deserialize_layer(serialize_layer(layer))
    np.testing.assert_array_equal(
        to_numpy(copy(X, training=True)), to_numpy(layer(X, training=True))
    )


def test_random_states_are_no_part_of_a_search_s_name():
    names = {
        BinaryClassifierHyperModel(3, scaler=keras.layers.Dropout(0.5, name="noise")).project_name
        for _ in range(2)
    }
    assert len(names) == 1


def test_equal_layers_are_equal_data():
    assert serialize_layer(adapted(Attribute(name="a"))) == serialize_layer(
        adapted(Attribute(name="a"))
    )
    assert serialize_layer(adapted(Attribute(name="a"))) != serialize_layer(
        adapted(Attribute(name="a"), X + 1)
    )


def test_data_of_a_large_layer_is_little_more_than_its_weights():
    layer = keras.layers.Dense(500)
    layer.build((None, 500))
    num_bytes = 4 * layer.count_params()
    assert len(json.dumps(serialize_layer(layer))) < 1.4 * num_bytes


def test_sublayers_that_the_config_does_not_tell_of_are_an_error():
    data = serialize_layer(adapted(Forgetful(name="forgetful")))
    with pytest.raises(
        ValueError, match=r"Forgetful 'forgetful' must hold the same layers.*Normalization"
    ):
        deserialize_layer(data)


def test_assets_outside_the_folder_are_an_error(tmp_path):
    data = serialize_layer(text(keras.layers.StringLookup()))
    files = data["state"]["assets"][0]
    for name in ("../vocabulary.txt", str(tmp_path / "vocabulary.txt")):
        data["state"]["assets"][0] = dict.fromkeys([name], files["vocabulary.txt"])
        with pytest.raises(ValueError, match="must lie in its layer's folder"):
            deserialize_layer(data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["attribute", "list", "dict", "sequential"])
def test_a_search_scales_rows_as_the_layer_that_it_was_given(kind):
    layer, x = KINDS[kind]()
    hypermodel = BinaryClassifierHyperModel(3, scaler=layer)
    again = BinaryClassifierHyperModel.from_config(hypermodel.get_config())
    for one in (hypermodel, again):
        np.testing.assert_array_equal(to_numpy(one.scaler(x)), to_numpy(layer(x)))


def to_first_form(layer):
    """A layer as version 0.1.0 wrote it into a hypermodel's config."""
    store = {}
    layer.save_own_variables(store)
    own = {
        name: {"dtype": str(to_numpy(value).dtype), "values": to_numpy(value).tolist()}
        for name, value in store.items()
    }
    return {
        "own": own,
        "children": [to_first_form(child) for child in getattr(layer, "layers", [])],
    }


@pytest.mark.parametrize("kind", ["normalization", "sequential"])
def test_a_scaler_in_the_form_of_the_first_version_loads(kind):
    layer, x = KINDS[kind]()
    config = BinaryClassifierHyperModel(3, scaler=layer).get_config()
    config["scaler"] = {
        "layer": config["scaler"]["layer"],
        "build_config": json.loads(json.dumps(layer.get_build_config())),
        "weights": to_first_form(layer),
    }
    loaded = BinaryClassifierHyperModel.from_config(json.loads(json.dumps(config)))
    np.testing.assert_array_equal(to_numpy(loaded.scaler(x)), to_numpy(layer(x)))
