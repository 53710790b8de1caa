"""The model and the optimizer that the values of a trial describe."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_binclf._registry import drop_sharing
from keras_binclf._validation import error_message
from keras_binclf.decision import find_head
from keras_binclf.models import binary_classifier, make_head
from keras_binclf.tuner.space.hyperparameters import BLOCK_OPTIONS, NONE
from keras_binclf.tuner.space.points import get_hidden_units
from keras_binclf.tuner.trial.inputs import SearchInputs


def make_model(
    point: Mapping[str, Any],
    hp: Any,
    backbone: Callable[[Any, Any], Any] | None,
    metrics: Sequence[keras.metrics.Metric],
    **parts: Any,
) -> keras.Model:
    """Return the compiled model of a trial, with or without a backbone.

    Args:
        point: values by name, active ones alone.
        hp: the same as `keras_tuner.HyperParameters`, for the backbone.
        backbone: function of the user, or None.
        metrics: those of the trial, not used before.
        **parts: `inputs`, `scaler`, `prior` and `name`.
    """
    if backbone is None:
        model = _make_classifier(point, **parts)
    else:
        model = _make_with_backbone(backbone, hp, **parts)
    loss = find_head(model).loss(label_smoothing=point["label_smoothing"])
    model.compile(optimizer=_make_optimizer(point), loss=loss, metrics=metrics)
    # Checkpoints hold the optimizer's variables: with places for them they load in full.
    model.optimizer.build(model.trainable_variables)
    return model


def _make_classifier(point: Mapping[str, Any], inputs: SearchInputs, **options: Any) -> keras.Model:
    """Return the `binary_classifier` with the values of a trial, not compiled."""
    block = {key: point[key] for key in BLOCK_OPTIONS if key in point}
    if block.get("normalization") == NONE:
        block["normalization"] = None
    units = get_hidden_units(point)
    shape = inputs.structure.declared
    return binary_classifier(shape, hidden_units=units, compile=False, **block, **options)


def _make_with_backbone(
    backbone: Callable[[Any, Any], Any],
    hp: Any,
    inputs: SearchInputs,
    scaler: keras.Layer | None,
    prior: float | None,
    name: str,
) -> keras.Model:
    """Return a model of the user's function and a head, not compiled.

    Raises:
        TypeError: if the function returns no tensor.
        ValueError: if the tensor is not of shape `(batch_size, features)`.
    """
    tensors = inputs.make_tensors()
    encoded = inputs.apply_encoders(tensors, "BinaryClassifierHyperModel")
    features = backbone(hp, encoded if scaler is None else scaler(encoded))
    head = make_head(prior=prior)
    return keras.Model(tensors, head(_check_features(features)), name=name)


def _check_features(features: Any) -> Any:
    """Return the output of the backbone, or raise if a head cannot read it."""
    if not isinstance(features, keras.KerasTensor):
        raise TypeError(
            "`backbone` must return a tensor that was computed from `inputs`. Received: "
            f"{features!r}."
        )
    if len(features.shape) != 2 or features.shape[-1] is None:
        raise ValueError(
            "`backbone` must return a tensor of shape (batch_size, features). Received: a tensor "
            f"of shape {tuple(features.shape)}. Flatten or pool it, as with "
            "`keras.layers.GlobalAveragePooling2D()`."
        )
    return features


def _make_optimizer(point: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    if point["optimizer"] == "adam":
        return keras.optimizers.Adam(point["learning_rate"])
    return keras.optimizers.AdamW(point["learning_rate"], weight_decay=point["weight_decay"])


def gives_finite_features(
    rows: Sequence[Any], scaler: keras.Layer | None, with_backbone: keras.Model | None
) -> bool:
    """Whether rows with NaN or infinity have become finite numbers before our layers read them.

    A hidden layer can turn an infinite feature into a finite one and still have NaN gradients, so
    the layers of the user are asked: the backbone where there is one, else the scaler.

    Args:
        rows: array of features for each input.
        scaler: the layer that the raw features go through first, or None.
        with_backbone: model of a trial with a backbone, or None.
    """
    with np.errstate(over="ignore"):  # A number too large is infinity to the layers.
        rows = [array.astype("float32") for array in rows]
    if with_backbone is not None:
        layers = keras.Model(with_backbone.input, find_head(with_backbone).input)
        packed = keras.tree.pack_sequence_as(with_backbone.input, rows)
        features = layers(packed, training=False)
    elif scaler is not None:
        features = scaler(rows[0])
    else:
        return False
    return bool(np.isfinite(keras.ops.convert_to_numpy(features)).all())


def serialize_backbone(backbone: Callable[[Any, Any], Any] | None, owner: str) -> Any:
    """Return the config of a registered function.

    Raises:
        ValueError: for a lambda.
    """
    if getattr(backbone, "__name__", "") == "<lambda>":
        hint = "Give a named function, decorated with `keras.saving.register_keras_serializable`."
        expected = "a function that can be found again"
        raise ValueError(error_message("backbone", owner, expected, backbone, hint))
    return backbone and drop_sharing(keras.saving.serialize_keras_object(backbone))


def count_weights(model: keras.Model) -> int:
    """Return the number of trainable weights."""
    return sum(int(keras.ops.size(weight)) for weight in model.trainable_weights)
