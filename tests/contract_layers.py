"""The contract of layers: what every registered layer must do in each of its cases.

Checks that would run the same code of Keras for each case take turns: the cases of a class go
through all policies, compiled and not, between them.
"""

import copy
import dataclasses
import inspect
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from contract import BACKEND, CASES, Case, make_inputs, to_numpy
from keras import ops

import keras_binclf
from keras_binclf._layer_state import iterate_layers

BASE_KEYS = {"name", "trainable", "dtype"}
FAST = BACKEND == "jax"
"""Whether to compile where either will do: XLA takes long on TensorFlow, eager steps on JAX."""
ALWAYS_FLOAT32 = (
    keras_binclf.BinaryHead,
    keras_binclf.CategoricalEmbedding,
    keras_binclf.FeatureScaler,
    keras_binclf.NumericalEmbedding,
    keras_binclf.TabularEncoder,
)
POLICIES = ("mixed_float16", "mixed_bfloat16", "bfloat16")


def make_layer(cls: type, case: Case, **options: Any) -> keras.Layer:
    layer = cls(**copy.deepcopy(case.arguments), **{"name": "tested", **options})
    if case.adapt:
        layer.adapt(make_inputs(case, rows=64))
    return layer


def build_once(layer: keras.Layer, case: Case) -> None:
    """Build a layer that `adapt` has not built yet."""
    if not layer.built:
        layer.build((None, *case.shape))


def make_model(cls: type, case: Case) -> keras.Model:
    layer = make_layer(cls, case)
    build_once(layer, case)
    # Something must be there to train.
    beside = [] if layer.trainable_weights else [keras.layers.Dense(2)]
    return keras.Sequential([keras.Input(case.shape), layer, *beside])


def predict(model: keras.Layer, x: np.ndarray) -> np.ndarray:
    return to_numpy(model(x))


def train_step(model: keras.Model, case: Case, **compile_options: Any) -> float:
    """Train one step towards a constant, and return the loss."""
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", **compile_options)
    x = make_inputs(case)
    return float(model.train_on_batch(x, np.full(model.compute_output_shape(x.shape), 0.8)))


def assert_equal_models(before: keras.Model, after: keras.Model, case: Case) -> None:
    """Equal to the last bit: the same numbers go through the same operations."""
    x = make_inputs(case)
    np.testing.assert_array_equal(predict(before, x), predict(after, x))
    assert before.count_params() == after.count_params()
    for ours, theirs in zip(before.weights, after.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))


# ---- serialization


def config_keys_are_constructor_arguments(cls: type, case: Case, folder: Path) -> None:
    parameters = inspect.signature(cls.__init__).parameters.values()
    arguments = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}
    assert set(make_layer(cls, case).get_config()) == arguments | BASE_KEYS


def config_survives_json(cls: type, case: Case, folder: Path) -> None:
    unbuilt, built = make_layer(cls, case), make_layer(cls, case)
    build_once(built, case)
    for layer in (unbuilt, built):
        again = cls.from_config(json.loads(json.dumps(layer.get_config())))
        assert again.get_config() == layer.get_config()


def registered_name_is_found_by_keras(cls: type, case: Case, folder: Path) -> None:
    serialized = keras.saving.serialize_keras_object(make_layer(cls, case))
    assert serialized["registered_name"] == f"keras_binclf>{cls.__name__}"
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert type(again) is cls


def copies_and_files_keep_everything(cls: type, case: Case, folder: Path) -> None:
    model = make_model(cls, case)
    train_step(model, case, jit_compile=FAST)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_equal_models(model, clone, case)
    # Before the files: Keras does not find the optimizer of a copy that was made after an .h5 file.
    assert_equal_models(model, copy.deepcopy(model), case)
    assert_equal_models(model, pickle.loads(pickle.dumps(model)), case)
    model.save(folder / "model.keras")
    again = keras.models.load_model(folder / "model.keras")
    assert_equal_models(model, again, case)
    model.save(folder / "model.h5")
    assert_equal_models(model, keras.models.load_model(folder / "model.h5", compile=False), case)
    model.save_weights(folder / "model.weights.h5")
    fresh = make_model(cls, case)
    fresh.load_weights(folder / "model.weights.h5")
    assert_equal_models(model, fresh, case)
    assert np.isfinite(again.train_on_batch(make_inputs(case), predict(model, make_inputs(case))))


# ---- behaviour


def build_alone_creates_every_weight(cls: type, case: Case, folder: Path) -> None:
    layer = make_layer(cls, case)
    build_once(layer, case)
    built = [id(weight) for weight in layer.weights]
    layer(make_inputs(case), training=True)
    assert built == [id(weight) for weight in layer.weights]
    assert layer.built
    assert all(part.built for part in iterate_layers(layer))


def symbolic_shape_equals_eager_shape(cls: type, case: Case, folder: Path) -> None:
    layer = make_layer(cls, case)
    symbolic = layer(keras.Input(case.shape))
    eager = layer(make_inputs(case))
    assert symbolic.shape == (None, *eager.shape[1:])
    assert symbolic.shape == layer.compute_output_shape((None, *case.shape))
    assert keras.backend.standardize_dtype(eager.dtype) == symbolic.dtype


def one_training_step_moves_trainable_weights_only(cls: type, case: Case, folder: Path) -> None:
    model = make_model(cls, case)
    trainable = [to_numpy(weight) for weight in model.trainable_weights]
    assert np.isfinite(train_step(model, case, jit_compile=BACKEND != "torch"))
    moved = [
        not np.array_equal(before, to_numpy(weight))
        for before, weight in zip(trainable, model.trainable_weights, strict=True)
    ]
    assert all(moved), [
        w.path for w, m in zip(model.trainable_weights, moved, strict=True) if not m
    ]


def frozen_stays_as_it_is(cls: type, case: Case, folder: Path) -> None:
    layer = make_layer(cls, case, trainable=False)
    inputs = keras.Input(case.shape)
    dense = keras.layers.Dense(case.shape[-1])
    # Codes have no gradient, so what is trained comes after them.
    model = keras.Model(inputs, dense(layer(inputs)) if case.codes else layer(dense(inputs)))
    before = [to_numpy(weight) for weight in layer.weights]
    train_step(model, case, jit_compile=FAST)
    assert layer.trainable_weights == []
    for value, weight in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(value, to_numpy(weight))


def mask_passes_through(cls: type, case: Case, folder: Path) -> None:
    sequence = make_inputs(dataclasses.replace(case, shape=(4, case.shape[-1])))
    sequence[:, 2:] = 0.0
    inputs = keras.Input(sequence.shape[1:])
    masked = keras.layers.Masking()(inputs)
    layer = make_layer(cls, case)
    model = keras.Model(inputs, layer(masked))
    mask = layer.compute_mask(sequence, sequence[..., 0] != 0)
    np.testing.assert_array_equal(to_numpy(mask), sequence[..., 0] != 0)
    # The loss, which reads the mask that the layer passed on, does not see masked steps.
    model.compile(optimizer="sgd", loss="mse", jit_compile=False)
    target = predict(model, sequence)
    target[:, 2:] += 100.0
    assert model.evaluate(sequence, target, verbose=0) < 1e-3 + sum(
        float(to_numpy(loss)) for loss in model.losses
    )


def policies_keep_numbers_finite(cls: type, case: Case, folder: Path) -> None:
    for policy in (*POLICIES, "int8_from_mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        layer = make_layer(cls, case)
        outputs = layer(make_inputs(case))
        expected = keras.config.dtype_policy().compute_dtype
        expected = "float32" if cls in ALWAYS_FLOAT32 else expected
        assert keras.backend.standardize_dtype(outputs.dtype) == expected == layer.compute_dtype
        assert np.all(np.isfinite(to_numpy(ops.cast(outputs, "float32"))))


def trains_and_is_saved_under_a_policy(cls: type, case: Case, folder: Path) -> None:
    turn = [other.name for other in CASES[cls]].index(case.name)
    policy, is_compiled = POLICIES[turn % 3], turn // 3 % 2 == 0
    if BACKEND == "tensorflow" and policy == "bfloat16":
        # Keras adds a bfloat16 regularization loss to a float32 loss, which TensorFlow refuses;
        # a plain Dense fails in the same way.
        arguments = {k: v for k, v in case.arguments.items() if k != "kernel_regularizer"}
        case = dataclasses.replace(case, arguments=arguments)
    keras.config.set_dtype_policy(policy)
    model, x = make_model(cls, case), make_inputs(case)
    is_compiled &= BACKEND != "torch"
    assert np.isfinite(train_step(model, case, jit_compile=is_compiled))
    outputs = to_numpy(ops.cast(model(x), "float32"))
    assert np.all(np.isfinite(outputs))
    model.save(folder / "model.keras")
    keras.config.set_dtype_policy("float32")
    again = keras.models.load_model(folder / "model.keras", compile=False)
    assert again.layers[0].dtype_policy.name == model.layers[0].dtype_policy.name
    np.testing.assert_array_equal(to_numpy(ops.cast(again(x), "float32")), outputs)


def compiles_to_the_same_numbers(cls: type, case: Case, folder: Path) -> None:
    """XLA on TensorFlow and JAX; on PyTorch the graph that `torch.compile` traces."""
    model = make_model(cls, case)
    x = make_inputs(case)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        outputs = tf.function(model, jit_compile=True)(x)
    elif BACKEND == "jax":
        import jax

        outputs = jax.jit(lambda x: model(x))(x)
    else:
        import torch

        # The "eager" compiler runs the traced graph as it is: no C++ compiler needed.
        outputs = torch.compile(model, backend="eager", fullgraph=False)(x)
    # XLA fuses and reorders float32 sums of at most 64 terms.
    np.testing.assert_allclose(to_numpy(outputs), predict(model, x), rtol=1e-5, atol=1e-6)


def accepts_integers_and_float64(cls: type, case: Case, folder: Path) -> None:
    model = make_model(cls, case)
    x = np.round(make_inputs(case) * 3)
    layer = model.get_layer("tested")
    expected = predict(layer, x)
    for dtype in ("int32", "int64", "float64", "bool"):
        if dtype == "bool":
            expected = predict(layer, (x > 0).astype("float32"))
            x = x > 0
        outputs = layer(ops.convert_to_tensor(x.astype(dtype)))
        np.testing.assert_array_equal(to_numpy(outputs), expected)


LAYER_CHECKS: list[Callable[[type, Case, Path], None]] = [
    config_keys_are_constructor_arguments,
    config_survives_json,
    registered_name_is_found_by_keras,
    copies_and_files_keep_everything,
    build_alone_creates_every_weight,
    symbolic_shape_equals_eager_shape,
    one_training_step_moves_trainable_weights_only,
    frozen_stays_as_it_is,
    mask_passes_through,
    policies_keep_numbers_finite,
    trains_and_is_saved_under_a_policy,
    compiles_to_the_same_numbers,
    accepts_integers_and_float64,
]
