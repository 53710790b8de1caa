"""What every registered class must do, stated once and run over the whole registry.

`CASES` says how to make an instance of each class, `CHECKS` what is checked of each kind of
class. A class without cases, or of a kind without checks, fails `test_contract.py`.
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
from keras import ops

import keras_binclf

BACKEND = keras.backend.backend()
BASE_KEYS = {"name", "trainable", "dtype"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to make an instance: constructor arguments, and the shape of one row of features."""

    name: str
    arguments: dict[str, Any]
    shape: tuple[int, ...] = (5,)


@keras.saving.register_keras_serializable(package="tests")
def scaled_tanh(x):
    return 1.5 * ops.tanh(x)


@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.layers.Layer):
    """An activation with a weight, which does not say what shape it gives."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, inputs):
        return ops.tanh(inputs) * self.scale


CASES: dict[type, list[Case]] = {
    keras_binclf.BinaryHead: [
        Case("default", {}),
        Case(
            "full",
            {
                "prior": 0.1,
                "threshold": 0.3,
                "kernel_initializer": "he_normal",
                "kernel_regularizer": keras.regularizers.L2(1e-3),
                "bias_regularizer": "l1",
                "class_names": ["stays", "leaves"],
            },
        ),
        Case("logits", {"activation": None, "use_bias": False, "threshold": 0.01}),
        Case("sequence", {"activation": None, "prior": 0.9}, (3, 5)),
    ],
    keras_binclf.MLPBlock: [
        Case("default", {}),
        Case("one_layer", {"hidden_units": 7, "activation": "selu", "use_bias": False}),
        Case(
            "full",
            {
                "hidden_units": (6, 5, 5),
                "dropout_rate": [0.2, 0.0, 0.1],
                "normalization": "batch",
                "residual": True,
                "kernel_initializer": keras.initializers.RandomNormal(stddev=0.1),
                "kernel_regularizer": keras.regularizers.L2(1e-3),
            },
        ),
        Case("layer_norm", {"normalization": "layer", "activation": "gelu"}, (3, 5)),
        Case("rms_norm", {"normalization": "rms", "activation": "silu", "residual": True}),
        Case("own_function", {"hidden_units": [4], "activation": scaled_tanh}),
        Case("prelu", {"hidden_units": [4, 3], "activation": keras.layers.PReLU()}),
        Case("sequence", {"hidden_units": [4, 5], "normalization": "batch"}, (3, 5)),
        Case("own_layer", {"hidden_units": [6, 6], "activation": Scaled()}),
    ],
    keras_binclf.ThresholdMetric: [
        Case("default", {}),
        Case("best", {"score": "mcc", "threshold": "best", "num_bins": 512}),
        Case("full", {"score": "fbeta", "beta": 2.0, "threshold": 0.25, "min_recall": 0.1}),
        Case("cost", {"score": "cost", "threshold": "best", "cost_fp": 1.0, "cost_fn": 8.0}),
        Case("logits", {"score": "g_mean", "threshold": 0.6, "from_logits": True, "name": "g"}),
    ],
    keras_binclf.BestThreshold: [
        Case("default", {}),
        Case("full", {"score": "recall", "min_precision": 0.3, "num_bins": 512, "name": "cut"}),
        Case("logits", {"score": "cost", "cost_fp": 2, "cost_fn": 3, "from_logits": True}),
    ],
    keras_binclf.BinaryAUC: [
        Case("default", {}),
        Case("full", {"curve": "PR", "num_bins": 512, "name": "area"}),
        Case("logits", {"curve": "PR", "from_logits": True}),
    ],
    keras_binclf.BrierScore: [
        Case("default", {}),
        Case("full", {"name": "brier"}),
        Case("logits", {"from_logits": True}),
    ],
    keras_binclf.ExpectedCalibrationError: [
        Case("default", {}),
        Case("full", {"num_calibration_bins": 5, "strategy": "quantile", "num_bins": 512}),
        Case("logits", {"from_logits": True, "name": "ece"}),
    ],
}


def make_inputs(case: Case, rows: int = 16, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(7).normal(size=(rows, *case.shape)).astype(dtype)


def make_layer(cls: type, case: Case) -> keras.Layer:
    return cls(**copy.deepcopy(case.arguments), name="tested")


def make_model(cls: type, case: Case) -> keras.Model:
    return keras.Sequential([keras.Input(case.shape), make_layer(cls, case)])


def to_numpy(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(x)


def predict(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return to_numpy(model(x, training=False))


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
    built.build((None, *case.shape))
    for layer in (unbuilt, built):
        again = cls.from_config(json.loads(json.dumps(layer.get_config())))
        assert again.get_config() == layer.get_config()


def registered_name_is_found_by_keras(cls: type, case: Case, folder: Path) -> None:
    serialized = keras.saving.serialize_keras_object(make_layer(cls, case))
    assert serialized["registered_name"] == f"keras_binclf>{cls.__name__}"
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert type(again) is cls


def clone_model_keeps_everything(cls: type, case: Case, folder: Path) -> None:
    model = make_model(cls, case)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_equal_models(model, clone, case)


def deepcopy_keeps_everything(cls: type, case: Case, folder: Path) -> None:
    model = make_model(cls, case)
    train_step(model, case)
    assert_equal_models(model, copy.deepcopy(model), case)


def pickle_keeps_everything(cls: type, case: Case, folder: Path) -> None:
    model = make_model(cls, case)
    train_step(model, case)
    assert_equal_models(model, pickle.loads(pickle.dumps(model)), case)


def keras_file_keeps_everything(cls: type, case: Case, folder: Path) -> None:
    model = make_model(cls, case)
    train_step(model, case)
    model.save(folder / "model.keras")
    again = keras.models.load_model(folder / "model.keras")
    assert_equal_models(model, again, case)
    assert np.isfinite(again.train_on_batch(make_inputs(case), predict(model, make_inputs(case))))


def h5_file_keeps_everything(cls: type, case: Case, folder: Path) -> None:
    model = make_model(cls, case)
    train_step(model, case)
    model.save(folder / "model.h5")
    again = keras.models.load_model(folder / "model.h5", compile=False)
    assert_equal_models(model, again, case)


def weights_file_keeps_everything(cls: type, case: Case, folder: Path) -> None:
    model = make_model(cls, case)
    train_step(model, case)
    model.save_weights(folder / "model.weights.h5")
    again = make_model(cls, case)
    again.load_weights(folder / "model.weights.h5")
    assert_equal_models(model, again, case)


# ---- behaviour


def build_alone_creates_every_weight(cls: type, case: Case, folder: Path) -> None:
    layer = make_layer(cls, case)
    layer.build((None, *case.shape))
    built = [id(weight) for weight in layer.weights]
    layer(make_inputs(case), training=True)
    assert built == [id(weight) for weight in layer.weights]
    assert layer.built
    assert all(part.built for part in layer._flatten_layers())


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
    assert np.isfinite(train_step(model, case))
    moved = [
        not np.array_equal(before, to_numpy(weight))
        for before, weight in zip(trainable, model.trainable_weights, strict=True)
    ]
    assert all(moved), [
        w.path for w, m in zip(model.trainable_weights, moved, strict=True) if not m
    ]


def frozen_stays_as_it_is(cls: type, case: Case, folder: Path) -> None:
    layer = cls(**copy.deepcopy(case.arguments), trainable=False)
    inputs = keras.Input(case.shape)
    model = keras.Model(inputs, layer(keras.layers.Dense(case.shape[-1])(inputs)))
    before = [to_numpy(weight) for weight in layer.weights]
    train_step(model, case)
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


def policy_keeps_numbers_finite(cls: type, case: Case, folder: Path, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    model = make_model(cls, case)
    layer = model.layers[-1]
    keeps_precision = cls is keras_binclf.BinaryHead
    expected = "float32" if keeps_precision else keras.config.dtype_policy().compute_dtype
    x = make_inputs(case)
    outputs = model(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == expected == layer.compute_dtype
    assert np.isfinite(train_step(model, case))
    assert np.all(np.isfinite(to_numpy(ops.cast(model(x), "float32"))))
    model.save(folder / "model.keras")
    keras.config.set_dtype_policy("float32")
    again = keras.models.load_model(folder / "model.keras", compile=False)
    assert again.layers[-1].dtype_policy.name == layer.dtype_policy.name
    np.testing.assert_array_equal(
        to_numpy(ops.cast(model(x), "float32")), to_numpy(ops.cast(again(x), "float32"))
    )


def works_in_mixed_float16(cls: type, case: Case, folder: Path) -> None:
    policy_keeps_numbers_finite(cls, case, folder, "mixed_float16")


def works_in_mixed_bfloat16(cls: type, case: Case, folder: Path) -> None:
    policy_keeps_numbers_finite(cls, case, folder, "mixed_bfloat16")


def works_in_bfloat16(cls: type, case: Case, folder: Path) -> None:
    if BACKEND == "tensorflow":
        # Keras adds a bfloat16 regularization loss to a float32 loss, which TensorFlow refuses;
        # a plain Dense fails in the same way.
        arguments = {k: v for k, v in case.arguments.items() if k != "kernel_regularizer"}
        case = dataclasses.replace(case, arguments=arguments)
    policy_keeps_numbers_finite(cls, case, folder, "bfloat16")


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
    if BACKEND != "torch":
        assert np.isfinite(train_step(model, case, jit_compile=True))


def accepts_integers_and_float64(cls: type, case: Case, folder: Path) -> None:
    model = make_model(cls, case)
    x = np.round(make_inputs(case) * 3)
    expected = predict(model, x)
    for dtype in ("int32", "int64", "float64", "bool"):
        if dtype == "bool":
            expected = predict(model, (x > 0).astype("float32"))
            x = x > 0
        outputs = model.layers[-1](ops.convert_to_tensor(x.astype(dtype)))
        np.testing.assert_array_equal(to_numpy(outputs), expected)


LAYER_CHECKS: list[Callable[[type, Case, Path], None]] = [
    config_keys_are_constructor_arguments,
    config_survives_json,
    registered_name_is_found_by_keras,
    clone_model_keeps_everything,
    deepcopy_keeps_everything,
    pickle_keeps_everything,
    keras_file_keeps_everything,
    h5_file_keeps_everything,
    weights_file_keeps_everything,
    build_alone_creates_every_weight,
    symbolic_shape_equals_eager_shape,
    one_training_step_moves_trainable_weights_only,
    frozen_stays_as_it_is,
    mask_passes_through,
    works_in_mixed_float16,
    works_in_mixed_bfloat16,
    works_in_bfloat16,
    compiles_to_the_same_numbers,
    accepts_integers_and_float64,
]

# ---- metrics

LABELS = np.random.default_rng(3).random((24, 1)) < 0.4


def make_metric(cls: type, case: Case) -> keras.metrics.Metric:
    return cls(**copy.deepcopy(case.arguments))


def make_scores(case: Case) -> np.ndarray:
    logits = np.random.default_rng(4).normal(size=(24, 1)) + LABELS
    scores = logits if case.arguments.get("from_logits") else 1 / (1 + np.exp(-logits))
    return scores.astype("float32")


def make_monitored_model(cls: type, case: Case) -> keras.Model:
    """A classifier, trained a little, with the metric."""
    activation_out = None if case.arguments.get("from_logits") else "sigmoid"
    model = keras_binclf.binary_classifier(
        5, hidden_units=4, activation_out=activation_out, metrics=[make_metric(cls, case)]
    )
    model.fit(make_inputs(case, rows=24), LABELS, verbose=0)
    return model


def measure(metric: keras.metrics.Metric, case: Case, **changes: Any) -> float:
    arguments = {"y_true": LABELS, "y_pred": make_scores(case), **changes}
    metric.update_state(**arguments)
    return float(to_numpy(metric.result()))


def assert_equal_evaluation(before: keras.Model, after: keras.Model, case: Case) -> None:
    x = make_inputs(case, rows=24)
    expected = before.evaluate(x, LABELS, verbose=0, return_dict=True)
    assert len(expected) == 2
    assert after.evaluate(x, LABELS, verbose=0, return_dict=True) == expected


def metric_config_is_its_arguments_and_survives_json(cls: type, case: Case, folder: Path) -> None:
    metric = make_metric(cls, case)
    arguments = set(inspect.signature(cls.__init__).parameters) - {"self"}
    assert set(metric.get_config()) == arguments
    again = cls.from_config(json.loads(json.dumps(metric.get_config())))
    assert again.get_config() == metric.get_config()
    assert measure(again, case) == measure(metric, case)


def metric_is_found_by_its_registered_name(cls: type, case: Case, folder: Path) -> None:
    serialized = keras.saving.serialize_keras_object(make_metric(cls, case))
    assert serialized["registered_name"] == f"keras_binclf>{cls.__name__}"
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert type(again) is cls


def metric_name_is_never_numbered(cls: type, case: Case, folder: Path) -> None:
    names = {make_metric(cls, case).name for _ in range(3)}
    assert len(names) == 1
    assert not any(character.isdigit() for character in names.pop().removeprefix("f1"))


def metric_comes_back_with_the_model(cls: type, case: Case, folder: Path) -> None:
    model = make_monitored_model(cls, case)
    # Before the files: on JAX, Keras did not find the optimizer of a copy that was made after them.
    assert_equal_evaluation(model, copy.deepcopy(model), case)
    assert_equal_evaluation(model, pickle.loads(pickle.dumps(model)), case)
    for suffix in (".keras", ".h5"):
        model.save(folder / f"model{suffix}")
        again = keras.models.load_model(folder / f"model{suffix}")
        assert_equal_evaluation(model, again, case)


def metric_computes_in_full_precision(cls: type, case: Case, folder: Path) -> None:
    expected = measure(make_metric(cls, case), case)
    for policy in ("mixed_float16", "mixed_bfloat16", "bfloat16"):
        keras.config.set_dtype_policy(policy)
        metric = make_metric(cls, case)
        assert measure(metric, case) == expected
        assert {variable.dtype for variable in metric.variables} == {"float32"}


def metric_compiles_to_the_same_numbers(cls: type, case: Case, folder: Path) -> None:
    metric = make_metric(cls, case)
    expected = measure(metric, case)
    start = [ops.zeros_like(variable.value) for variable in metric.variables]

    def evaluate(variables, labels, scores):
        variables = metric.stateless_update_state(variables, labels, scores)
        return metric.stateless_result(variables)

    arguments = (start, LABELS.astype("float32"), make_scores(case))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        value = tf.function(evaluate, jit_compile=True)(*arguments)
    elif BACKEND == "jax":
        import jax

        value = jax.jit(evaluate)(*arguments)
    else:
        import torch

        arguments = (start, *(ops.convert_to_tensor(item) for item in arguments[1:]))
        value = torch.compile(evaluate, backend="eager", fullgraph=False)(*arguments)
    # Sums of 24 float32 terms in another order.
    np.testing.assert_allclose(to_numpy(value), expected, rtol=1e-5)


def metric_takes_any_form_of_labels(cls: type, case: Case, folder: Path) -> None:
    expected = measure(make_metric(cls, case), case)
    scores = make_scores(case)
    for dtype in ("bool", "int32", "int64", "float32", "float64"):
        labels = LABELS.astype(dtype)
        assert measure(make_metric(cls, case), case, y_true=labels) == expected
        assert measure(make_metric(cls, case), case, y_true=labels[:, 0]) == expected
    assert measure(make_metric(cls, case), case, y_pred=scores[:, 0].tolist()) == expected
    assert measure(make_metric(cls, case), case, y_pred=scores.astype("float64")) == expected


def metric_without_rows_is_nan_and_resets(cls: type, case: Case, folder: Path) -> None:
    metric = make_metric(cls, case)
    assert np.isnan(float(to_numpy(metric.result())))
    expected = measure(metric, case)
    assert np.isfinite(expected)
    metric.reset_state()
    assert np.isnan(float(to_numpy(metric.result())))
    assert measure(metric, case) == expected


def metric_knows_which_way_is_better(cls: type, case: Case, folder: Path) -> None:
    metric = make_metric(cls, case)
    if cls is keras_binclf.BestThreshold:
        assert not hasattr(metric, "_direction")
        return
    truth = LABELS.astype("float32")
    extreme = 20 * (2 * truth - 1) if case.arguments.get("from_logits") else truth
    perfect = measure(make_metric(cls, case), case, y_pred=extreme)
    imperfect = measure(metric, case)
    objective = metric.objective()
    assert objective.name == f"val_{metric.name}"
    better = {"max": perfect > imperfect, "min": perfect < imperfect}
    assert better[objective.direction]
    assert metric._direction == {"max": "up", "min": "down"}[objective.direction]


METRIC_CHECKS: list[Callable[[type, Case, Path], None]] = [
    metric_config_is_its_arguments_and_survives_json,
    metric_is_found_by_its_registered_name,
    metric_name_is_never_numbered,
    metric_comes_back_with_the_model,
    metric_computes_in_full_precision,
    metric_compiles_to_the_same_numbers,
    metric_takes_any_form_of_labels,
    metric_without_rows_is_nan_and_resets,
    metric_knows_which_way_is_better,
]

CHECKS: dict[type, list[Callable[[type, Case, Path], None]]] = {
    keras.layers.Layer: LAYER_CHECKS,
    keras.metrics.Metric: METRIC_CHECKS,
}


def checks_of(cls: type) -> list[Callable[[type, Case, Path], None]]:
    """Return the checks of the kind of class that `cls` is."""
    return [check for kind, checks in CHECKS.items() if issubclass(cls, kind) for check in checks]
