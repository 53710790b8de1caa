"""Functional models of the layers."""

import re
from collections.abc import Sequence
from typing import Any

import keras

from keras_binclf._layer_state import deserialize_layer, serialize_layer
from keras_binclf._validation import (
    Tensor,
    check_bool,
    check_choice,
    check_positive,
    error_message,
    is_integer,
    suggest_nearest,
    to_list,
)
from keras_binclf.layers import BinaryHead, FeatureScaler, MLPBlock, TabularEncoder
from keras_binclf.metrics import BestThreshold, BinaryAUC, ThresholdMetric

OWNER = "binary_classifier"
DEFAULT_LEARNING_RATE = 1e-3
SCHEDULE_HINT = "Or give it a keras.optimizers.schedules.LearningRateSchedule."


def binary_classifier(
    input_shape: int | Sequence[int] | TabularEncoder,
    *,
    hidden_units: int | Sequence[int] | None = (64, 32),
    activation: Any = "relu",
    dropout_rate: float | Sequence[float] = 0.0,
    normalization: str | None = None,
    residual: bool = False,
    scaler: keras.Layer | None = None,
    prior: float | None = None,
    activation_out: str | None = "sigmoid",
    learning_rate: Any = DEFAULT_LEARNING_RATE,
    optimizer: Any = None,
    metrics: Any = "default",
    compile: bool = True,
    name: str = "binary_classifier",
) -> keras.Model:
    """Build and compile a classifier for tables: encoder or scaler, hidden layers and head.

    The result is a plain functional `keras.Model` of the layers `features` → encoder or scaler →
    `mlp_block` → `binary_head`, which can be taken apart, changed and compiled again.

    Given an adapted `TabularEncoder`, the model holds a copy of it, so that several models train
    embeddings of their own. Keras's own methods, such as `fit`, then take `encoder.encode(table)`;
    the functions of this package take the table itself, also after the model was loaded.

    The kernel of the head starts from zeros, so an untrained classifier gives every row the prior
    (0.5 without one). Random weights would give noise, which a small table has too few rows to
    train away: benchmarks/tuning.py. The hidden layers learn from the second step on, when the
    head is no longer zero.

    Args:
        input_shape: int, the number of features, or the shape of one example without the batch,
            such as `(20,)`; or an adapted `TabularEncoder`.
        hidden_units: int or list of ints, the width of each hidden layer; `None` for no hidden
            layer, which is logistic regression. Defaults to `(64, 32)`.
        activation: activation of the hidden layers, as in `MLPBlock`. Defaults to `"relu"`.
        dropout_rate: float in [0, 1), or a list of one per hidden layer. Defaults to `0.0`.
        normalization: `None`, `"batch"`, `"layer"` or `"rms"`. Defaults to `None`.
        residual: bool, whether to add each hidden layer's input to its output. Defaults to
            `False`.
        scaler: layer that the raw features go through first, such as an adapted
            `keras.layers.Normalization`, or `None`. It becomes part of the model. Under mixed
            precision make it with `dtype="float32"`. An encoder scales by itself. Defaults to
            `None`.
        prior: float in (0, 1), the share of positives, which sets the initial bias, or `None`.
            Defaults to `None`.
        activation_out: `"sigmoid"` to emit probabilities, `None` to emit logits. Defaults to
            `"sigmoid"`.
        learning_rate: positive float or `keras.optimizers.schedules.LearningRateSchedule`.
            Defaults to `0.001`.
        optimizer: name of a Keras optimizer, which gets `learning_rate`; an optimizer or its
            serialized config, which have their own; `None` for Adam. `"muon"` leaves the head to
            AdamW; give `keras.optimizers.Muon` `exclude_layers=["binary_head"]` for the same.
            Defaults to `None`.
        metrics: list of metrics as in `keras.Model.compile`, or `"default"` for `accuracy` at the
            threshold 0.5, the areas `auc` and `pr_auc` under the ROC and the precision-recall
            curve, the largest F1, `best_f1`, and its threshold, `best_threshold`, which
            `ThresholdTuner` reads. Where the head emits logits, give metrics that take
            `from_logits`: Keras's own `"accuracy"` would cut at a logit of 0.5. Defaults to
            `"default"`.
        compile: bool, whether to compile the model. Defaults to `True`.
        name: str, the name of the model. Defaults to `"binary_classifier"`.

    Returns:
        A `keras.Model` that maps `(batch_size, *input_shape)` to
        `(batch_size, *input_shape[:-1], 1)`; with an encoder
        `(batch_size, encoder.num_encoded)` to `(batch_size, 1)`.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for an argument of the wrong value; for a `Normalization` that was not adapted,
            was adapted to another number of features, or computes in 16 bits; for an encoder that
            was not adapted, or that stands beside a scaler; for a learning rate
            beside an optimizer that has its own; and for a Muon that would update the head.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_binclf

    rng = np.random.default_rng(0)
    x = rng.normal(50, 10, size=(200, 2)).astype("float32")
    y = (x[:, 0] > x[:, 1]).astype("float32")
    scaler = keras.layers.Normalization()
    scaler.adapt(x)

    model = keras_binclf.binary_classifier(2, scaler=scaler, prior=y.mean(), learning_rate=0.01)
    model.fit(x, y, epochs=20, verbose=0)
    assert (keras_binclf.predict_labels(model, x)[:, 0] == y).mean() > 0.9
    ```

    References:
        - Layers and their defaults: `keras_binclf.MLPBlock`, `keras_binclf.BinaryHead`
        - Adam and its learning rate: Kingma and Ba 2015, "Adam: A Method for Stochastic
          Optimization", https://arxiv.org/abs/1412.6980
        - Head of zeros: Zhang, Dauphin and Ma 2019, "Fixup Initialization",
          https://arxiv.org/abs/1901.09321
        - Muon, which is not for output layers: Jordan et al. 2024,
          https://kellerjordan.github.io/posts/muon
    """
    check_bool(compile, "compile", OWNER)
    check_choice(activation_out, "activation_out", OWNER, ("sigmoid", None))
    inputs, x = _start(input_shape, scaler)
    if hidden_units is None:
        _check_unused(
            activation=activation,
            dropout_rate=dropout_rate,
            normalization=normalization,
            residual=residual,
        )
    else:
        x = MLPBlock(
            hidden_units,
            activation,
            dropout_rate=dropout_rate,
            normalization=normalization,
            residual=residual,
            name="mlp_block",
        )(x)
    head = make_head(activation_out, prior=prior)
    model = keras.Model(inputs, head(x), name=name)
    if compile:
        model.compile(
            optimizer=_get_optimizer(optimizer, learning_rate, head),
            loss=head.loss(),
            metrics=_get_metrics(metrics, head),
        )
    return model


def _start(input_shape: Any, scaler: Any) -> tuple[Tensor, Tensor]:
    """Return the input of the model, and the features that the hidden layers take."""
    if isinstance(input_shape, TabularEncoder):
        encoder = copy_encoder(input_shape, scaler, OWNER)
        inputs = keras.Input((encoder.num_encoded,), name="features")
        return inputs, encoder(inputs)
    inputs = keras.Input(check_input_shape(input_shape, OWNER), name="features")
    x = inputs if scaler is None else check_scaler(scaler, inputs.shape[-1], OWNER)(inputs)
    return inputs, x


def copy_encoder(encoder: TabularEncoder, scaler: Any, owner: str) -> TabularEncoder:
    """Return an equal encoder for a model, or raise where it cannot stand in one."""
    refuse_scaler(scaler, owner)
    if not encoder.is_adapted:
        raise ValueError(
            f"The encoder of {owner} must be adapted. Received: TabularEncoder {encoder.name!r}, "
            "which was not. Call `encoder.adapt(table)` with the training rows."
        )
    copy: TabularEncoder = deserialize_layer(serialize_layer(encoder))
    return copy


def refuse_scaler(scaler: Any, owner: str) -> None:
    """Raise for a scaler beside an encoder."""
    if scaler is not None:
        hint = "The encoder scales the columns."
        raise ValueError(error_message("scaler", owner, "None beside an encoder", scaler, hint))


def make_head(activation: str | None = "sigmoid", *, prior: float | None = None) -> BinaryHead:
    """Return a head that gives every row the prior until it is trained."""
    return BinaryHead(activation, prior=prior, kernel_initializer="zeros", name="binary_head")


def check_input_shape(value: Any, owner: str, name: str = "input_shape") -> tuple[int, ...]:
    """Return the shape of one example as a tuple, or raise."""
    expected = "a positive int or a non-empty tuple of them, without the batch, or a TabularEncoder"
    listed = to_list(value)
    shape = (value,) if listed is None else tuple(listed)
    if not all(is_integer(size) for size in shape):
        raise TypeError(error_message(name, owner, expected, value))
    if not shape or min(shape) < 1:
        raise ValueError(error_message(name, owner, expected, value))
    return tuple(int(size) for size in shape)


def check_scaler(scaler: Any, num_features: int, owner: str) -> keras.Layer:
    """Return the layer if it can stand before the hidden layers, else raise."""
    if not isinstance(scaler, keras.Layer):
        raise TypeError(error_message("scaler", owner, "a keras.layers.Layer or None", scaler))
    if isinstance(scaler, keras.layers.Normalization):
        _check_normalization(scaler, num_features, owner)
    if isinstance(scaler, FeatureScaler):
        _check_feature_scaler(scaler, num_features, owner)
    return scaler


def _check_feature_scaler(scaler: FeatureScaler, num_features: int, owner: str) -> None:
    if not scaler.is_adapted:
        hint = "Call `scaler.adapt(x_train)` first."
        raise ValueError(error_message("scaler", owner, "adapted", scaler, hint))
    if scaler.num_features != num_features:
        expected = f"adapted to the {num_features} features of `input_shape`"
        hint = f"It was adapted to {scaler.num_features}."
        raise ValueError(error_message("scaler", owner, expected, scaler, hint))


def _check_normalization(scaler: keras.layers.Normalization, num_features: int, owner: str) -> None:
    """Raise for a scaler that Keras accepts, and that makes the model's outputs useless."""
    if scaler.compute_dtype in ("float16", "bfloat16"):
        hint = "Raw features overflow or lose digits in 16 bits: give it `dtype='float32'`."
        raise ValueError(error_message("scaler", owner, "of a 32-bit dtype", scaler, hint))
    if scaler.built:
        width = scaler.mean.shape[-1]
        if tuple(scaler.axis) == (-1,) and width != num_features:
            hint = f"It was adapted to {width}."
            expected = f"adapted to the {num_features} features of `input_shape`"
            raise ValueError(error_message("scaler", owner, expected, scaler, hint))
    elif scaler.input_mean is None:
        # Keras would build it with mean 0 and variance 1.
        hint = "Call `scaler.adapt(x_train)` first."
        expected = "adapted, or given its mean and variance"
        raise ValueError(error_message("scaler", owner, expected, scaler, hint))


def _check_unused(**options: Any) -> None:
    """Raise for options of hidden layers where there are no hidden layers."""
    defaults = {"activation": "relu", "dropout_rate": 0.0, "normalization": None, "residual": False}
    for name, value in options.items():
        if value is not defaults[name] and value != defaults[name]:
            expected = "left out where `hidden_units=None`"
            raise ValueError(error_message(name, OWNER, expected, value))


def _get_optimizer(
    optimizer: Any, learning_rate: Any, head: BinaryHead
) -> keras.optimizers.Optimizer:
    if optimizer is None or isinstance(optimizer, str):
        if not isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            learning_rate = check_positive(learning_rate, "learning_rate", OWNER, SCHEDULE_HINT)
        optimizer_class = type(_find_optimizer(optimizer or "adam"))
        is_muon = issubclass(optimizer_class, keras.optimizers.Muon)
        options = {"exclude_layers": [head.name]} if is_muon else {}
        return optimizer_class(learning_rate=learning_rate, **options)
    found = _find_optimizer(optimizer)
    if learning_rate != DEFAULT_LEARNING_RATE:
        hint = "The optimizer has a learning rate of its own: set it there."
        expected = "left out where `optimizer` is an instance or a config"
        raise ValueError(error_message("learning_rate", OWNER, expected, learning_rate, hint))
    _check_muon(found, head)
    return found


def _find_optimizer(value: Any) -> keras.optimizers.Optimizer:
    """Return the optimizer that a name or a config stands for, or the instance itself."""
    try:
        # Keras writes into the config.
        return keras.optimizers.get(dict(value) if isinstance(value, dict) else value)
    except (TypeError, ValueError, KeyError) as error:
        expected = "the name of a Keras optimizer, an optimizer, its serialized config or None"
        kind = ValueError if isinstance(value, str | dict) else TypeError
        hint = suggest_nearest(value, _list_optimizers()) if isinstance(value, str) else ""
        if isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer):
            hint = f"Did you mean `{value.__name__}()`?"
        raise kind(error_message("optimizer", OWNER, expected, value, hint)) from error


def _list_optimizers() -> list[str]:
    classes = [value for value in vars(keras.optimizers).values() if isinstance(value, type)]
    others = (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
    known = [c for c in classes if issubclass(c, keras.optimizers.Optimizer) and c not in others]
    return [c.__name__.lower() for c in known]


def _check_muon(optimizer: Any, head: BinaryHead) -> None:
    """Raise for a Muon that orthogonalizes the updates of the head, a matrix of one column."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not isinstance(optimizer, keras.optimizers.Muon):
        return
    patterns = optimizer.exclude_layers
    if not any(re.search(pattern, head.kernel.path) for pattern in patterns):
        raise ValueError(
            f"`optimizer` of {OWNER} must leave the output layer to AdamW. Received: a Muon with "
            f"exclude_layers={patterns!r}. Give it `exclude_layers=[{head.name!r}]`."
        )


def _get_metrics(metrics: Any, head: BinaryHead) -> Any:
    if not isinstance(metrics, str):
        _check_names(metrics)
        return metrics
    if metrics != "default":
        expected = '"default", a list of metrics or None'
        raise ValueError(error_message("metrics", OWNER, expected, metrics))
    return [
        ThresholdMetric("accuracy", from_logits=head.from_logits),
        BinaryAUC("ROC", from_logits=head.from_logits),
        BinaryAUC("PR", from_logits=head.from_logits),
        ThresholdMetric("f1", "best", from_logits=head.from_logits),
        BestThreshold("f1", from_logits=head.from_logits),
    ]


def _check_names(metrics: Any) -> None:
    """Raise for two metrics of one name, of which Keras would report only one."""
    names = [metric.name for metric in to_list(metrics) or [] if hasattr(metric, "name")]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"`metrics` of {OWNER} must have different names. Received more than one named "
            f"{', '.join(map(repr, repeated))}. Give `name` to all but one."
        )
