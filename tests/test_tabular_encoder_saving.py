"""TabularEncoder in models: saved, copied, converted, under other dtype policies."""

import copy
import pickle

import keras
import numpy as np
import pytest
from contract import BACKEND, to_numpy
from tabular import make_table

import keras_binclf
from keras_binclf import BinaryHead, MLPBlock, TabularEncoder


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module", params=[None, "piecewise_linear", "periodic"])
def model(table, request):
    encoder = TabularEncoder(embedding=request.param, name="encoder")
    encoder.adapt(table)
    inputs = keras.Input((encoder.num_encoded,))
    model = keras.Model(inputs, BinaryHead()(MLPBlock(8)(encoder(inputs))))
    model.compile("adam", "binary_crossentropy", jit_compile=BACKEND == "jax")
    model.fit(encoder.encode(table), table["flag"].to_numpy(), verbose=0)
    # Without the optimizer, which Keras does not find in copies made after an .h5 file.
    return keras.Model(model.input, model.output)


def assert_takes_the_table(model, before, table):
    """The copy encodes by its own schema, and gives the same numbers to the last bit."""
    encoder, original = model.get_layer("encoder"), before.get_layer("encoder")
    assert encoder is not original
    matrix = original.encode(table)
    np.testing.assert_array_equal(encoder.encode(table[table.columns[::-1]]), matrix)
    np.testing.assert_array_equal(to_numpy(model(matrix)), to_numpy(before(matrix)))
    labels = keras_binclf.predict_labels(before, table)
    found = keras_binclf.predict_labels(model, table[table.columns[::-1]])
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_model_takes_the_table(model, table, tmp_path, suffix):
    model.save(tmp_path / f"model{suffix}")
    again = keras.models.load_model(tmp_path / f"model{suffix}", compile=False)
    assert_takes_the_table(again, model, table)


def test_copies_take_the_table(model, table, tmp_path):
    assert_takes_the_table(copy.deepcopy(model), model, table)
    assert_takes_the_table(pickle.loads(pickle.dumps(model)), model, table)
    clone = keras.models.clone_model(model)
    assert np.isnan(to_numpy(clone(model.layers[1].encode(table)))).all()  # no statistics yet
    clone.set_weights(model.get_weights())
    assert_takes_the_table(clone, model, table)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = keras.models.clone_model(model)
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert_takes_the_table(fresh, model, table)


def test_part_after_encoding_is_made_of_core_layers(model, table):
    matrix = model.get_layer("encoder").encode(table)
    core = keras_binclf.to_core_layers(model)
    assert {type(layer).__module__.split(".")[0] for layer in core.layers} == {"keras"}
    # The operations are the same; compilers may order sums of 64 terms otherwise.
    np.testing.assert_allclose(to_numpy(core(matrix)), to_numpy(model(matrix)), atol=1e-6)


def test_codes_keep_their_digits_under_mixed_precision():
    words = [f"w{i:04}" for i in range(5000) for _ in range(2)]
    keras.config.set_dtype_policy("mixed_bfloat16")
    encoder = TabularEncoder(max_categories=5000)
    encoder.adapt({"a": words, "n": np.arange(10_000) % 7})
    matrix = encoder.encode({"a": words, "n": np.arange(10_000) % 7})
    model = keras.Sequential([keras.Input((2,)), encoder])
    outputs = to_numpy(model(matrix))
    # Neighbouring words of many have vectors of their own: bfloat16 has 8 bits.
    assert len(np.unique(outputs[:, 1:], axis=0)) == 5000
    assert outputs.dtype == "float32"


def test_unadapted_encoder_says_so_wherever_it_is_used(table):
    encoder = TabularEncoder(name="encoder")
    for use in (
        lambda: encoder(np.zeros((2, 3), "float32")),
        lambda: encoder(keras.Input((3,))),
        lambda: encoder.encode(table),
        lambda: encoder.encode_row({"a": 1.0}),
        lambda: encoder.num_encoded,
        lambda: encoder.encoded_names,
        lambda: encoder.is_named,
        lambda: encoder.compute_output_shape((None, 3)),
    ):
        with pytest.raises(ValueError, match=r"'encoder' must be adapted before .*adapt\(table\)"):
            use()
    assert not encoder.is_adapted
    assert encoder.columns is None
    assert str(encoder) == "TabularEncoder 'encoder': not adapted"


def test_failed_adapt_leaves_the_encoder_as_it_was(table):
    encoder = TabularEncoder()
    with pytest.raises(ValueError, match="must be finite"):
        encoder.adapt(table.assign(age=np.inf))
    assert not encoder.is_adapted
    encoder.adapt(table)
    assert encoder.is_adapted
