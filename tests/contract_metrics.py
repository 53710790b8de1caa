"""The contract of metrics: what every registered metric must do in each of its cases."""

import copy
import functools
import inspect
import json
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from contract import BACKEND, CASES, Case, make_inputs, to_numpy
from keras import ops

import keras_binclf

LABELS = np.random.default_rng(3).random((24, 1)) < 0.4
FEATURES = make_inputs(Case("features", {}), rows=24)


def make_metric(cls: type, case: Case) -> keras.metrics.Metric:
    return cls(**copy.deepcopy(case.arguments))


def make_scores(case: Case) -> np.ndarray:
    logits = np.random.default_rng(4).normal(size=(24, 1)) + LABELS
    scores = logits if case.arguments.get("from_logits") else 1 / (1 + np.exp(-logits))
    return scores.astype("float32")


def make_classifier(metrics: list[keras.metrics.Metric], from_logits: bool) -> keras.Model:
    activation_out = None if from_logits else "sigmoid"
    return keras_binclf.binary_classifier(
        5, hidden_units=4, activation_out=activation_out, metrics=metrics
    )


def make_monitored_model(cls: type, case: Case) -> keras.Model:
    """Return a classifier with the metric, trained a little."""
    model = make_classifier([make_metric(cls, case)], bool(case.arguments.get("from_logits")))
    model.fit(FEATURES, LABELS, verbose=0)
    return model


def measure(metric: keras.metrics.Metric, case: Case, **changes: Any) -> float:
    arguments = {"y_true": LABELS, "y_pred": make_scores(case), **changes}
    metric.update_state(**arguments)
    return float(to_numpy(metric.result()))


def name_uniquely(cls: type, case: Case) -> str:
    return f"{cls.__name__}_{case.name}"


@functools.cache
def evaluate_in_every_form(from_logits: bool) -> dict[str, dict[str, float]]:
    """Return the values of all metrics of one kind, in a model and in what it is copied to."""
    metrics = [
        cls(**{**copy.deepcopy(case.arguments), "name": name_uniquely(cls, case)})
        for cls, cases in CASES.items()
        for case in cases
        if issubclass(cls, keras.metrics.Metric)
        and bool(case.arguments.get("from_logits")) == from_logits
    ]
    model = make_classifier(metrics, from_logits)
    model.optimizer.build(model.trainable_variables)
    # From zeros, all rows would have one score.
    keras_binclf.find_head(model).kernel.assign([[1.0], [-1.0], [0.5], [2.0]])
    # Before the files: Keras does not find the optimizer of a copy that was made after an .h5 file.
    forms = {"model": model, "deepcopy": copy.deepcopy(model)}
    forms["pickle"] = pickle.loads(pickle.dumps(model))
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".keras", ".h5"):
            model.save(Path(folder, f"model{suffix}"))
            forms[suffix] = keras.models.load_model(Path(folder, f"model{suffix}"))
    return {
        form: each.evaluate(FEATURES, LABELS, verbose=0, return_dict=True)
        for form, each in forms.items()
    }


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
    results = evaluate_in_every_form(bool(case.arguments.get("from_logits")))
    name = name_uniquely(cls, case)
    assert len(results) == 5
    assert {form: result[name] for form, result in results.items()} == dict.fromkeys(
        results, results["model"][name]
    )


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
