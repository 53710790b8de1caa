"""The output layer of a binary classifier."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_binclf._registry import SavedLayer, register
from keras_binclf._validation import (
    Shape,
    Tensor,
    check_bool,
    check_choice,
    check_features,
    check_threshold,
    is_threshold,
    shortest_float,
)
from keras_binclf.layers._head_arguments import check_class_names, check_prior, get_initial_bias
from keras_binclf.layers._policy import get_full_precision, get_policy
from keras_binclf.layers.emission import is_emitting_logits

THRESHOLD_HINT = "A threshold is a probability, also where the head emits logits."


@register
class BinaryHead(SavedLayer, keras.layers.Layer):
    """Output layer of a binary classifier, which holds the decision threshold.

    Use it as the last layer of any Keras model that answers yes or no. It computes
    `logit = inputs · kernel + bias` and emits either `probability = sigmoid(logit)` or the logit.
    A row is positive if and only if `probability > threshold`, the rule of all Keras metrics.

    The decision threshold is a non-trainable scalar weight, so `.keras`, `.h5`, weights-only
    files, checkpoints and `get_weights` all carry it into the project where the model is used.

    The head computes in float32 under any mixed-precision, quantized or half-precision policy
    (in float64 under a float64 policy): a float16 sigmoid has no gradient from a logit of 12 on.
    With `activation="sigmoid"` the sigmoid is the last operation, so that TensorFlow recovers the
    exact logits in the loss; JAX and PyTorch clip the probability at 1e-7, which costs the gradient
    from a logit of about 17 on. `activation=None` with `head.loss()` is exact on every backend.

    `keras.optimizers.Muon` orthogonalizes the update of every matrix, which suits no output layer:
    name the head in its `exclude_layers`, as in `Muon(exclude_layers=["binary_head"])`, and AdamW
    updates the head.

    Args:
        activation: `"sigmoid"` to emit probabilities, `None` to emit logits. Defaults to
            `"sigmoid"`.
        prior: float in (0, 1), the share of positives in the training data, or `None`. Sets the
            initial bias to `log(prior / (1 - prior))`; `None` starts it at zero. Defaults to
            `None`.
        threshold: float in (0, 1), the probability above which a row is positive. Stored in
            float32. Defaults to `0.5`.
        use_bias: bool, whether to add a bias. Defaults to `True`.
        kernel_initializer: initializer of the kernel, as in `keras.layers.Dense`. Defaults to
            `"glorot_uniform"`.
        kernel_regularizer: regularizer of the kernel, or `None`. Defaults to `None`.
        bias_regularizer: regularizer of the bias, or `None`. Defaults to `None`.
        class_names: pair of distinct strings, negative class first, or `None`. Defaults to
            `None`.
        **kwargs: `name`, `trainable` and the other arguments of `keras.layers.Layer`.

    Input shape:
        `(batch_size, ..., features)`; the number of features must be known.

    Output shape:
        `(batch_size, ..., 1)`.

    Raises:
        TypeError: for an argument of the wrong kind, such as `threshold="high"`.
        ValueError: for an argument of the wrong value, such as `threshold=1.5`, and for inputs
            whose number of features is not known.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_binclf import BinaryHead

    inputs = keras.Input((20,))
    hidden = keras.layers.Dense(16, activation="relu")(inputs)
    head = BinaryHead(prior=0.02, threshold=0.1, class_names=("stays", "leaves"))
    model = keras.Model(inputs, head(hidden))
    model.compile("adam", loss=head.loss())

    probability = model.predict(np.zeros((3, 20)), verbose=0)
    assert probability.shape == (3, 1)
    assert np.allclose(probability, 0.02)
    head.threshold = 0.01
    assert keras.ops.convert_to_numpy(head.labels(probability)).tolist() == [[1], [1], [1]]
    ```

    References:
        - Initial bias at the base rate, so that a rare class does not dominate the first steps:
          Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1,
          https://arxiv.org/abs/1708.02002
        - Initial kernel, the default of `keras.layers.Dense`: Glorot and Bengio 2010,
          https://proceedings.mlr.press/v9/glorot10a.html
        - 0.5, the threshold with the fewest expected errors for calibrated probabilities and equal
          costs: Elkan 2001, "The Foundations of Cost-Sensitive Learning",
          https://cseweb.ucsd.edu/~elkan/rescale.pdf
        - Muon and output layers: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon
    """

    def __init__(
        self,
        activation: str | None = "sigmoid",
        *,
        prior: float | None = None,
        threshold: float = 0.5,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        check_choice(
            activation,
            "activation",
            owner,
            ("sigmoid", None),
            hint="`None` emits logits; other functions do not give a probability.",
        )
        use_bias = check_bool(use_bias, "use_bias", owner)
        prior = check_prior(prior, use_bias, owner)
        policy = get_full_precision(get_policy(kwargs.get("dtype"), owner))
        super().__init__(**{**kwargs, "dtype": policy})
        self.activation = activation
        self.prior = prior
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.class_names = class_names
        self._initial_threshold = check_threshold(threshold, owner, THRESHOLD_HINT)
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.supports_masking = True

    @property
    def class_names(self) -> tuple[str, str] | None:
        """The names of the classes, negative first, or None."""
        return self._class_names

    @class_names.setter
    def class_names(self, value: Sequence[str] | None) -> None:
        self._class_names = check_class_names(value, type(self).__name__)

    @property
    def threshold(self) -> float:
        """The probability above which a row is positive.

        Reading returns the shortest decimal that rounds to the float32 weight: 0.3 stays 0.3.
        Assigning checks the value and sets the weight. In a callback, reach the head through
        `self.model`, as for any weight; compiled code uses the variable `head.threshold_weight`.
        """
        if not self.built:
            return self._initial_threshold
        return shortest_float(ops.convert_to_numpy(self.threshold_weight))

    @threshold.setter
    def threshold(self, value: float) -> None:
        value = check_threshold(value, type(self).__name__, THRESHOLD_HINT)
        if self.built:
            self.threshold_weight.assign(value)
        else:
            self._initial_threshold = value

    @property
    def from_logits(self) -> bool:
        """Whether the head emits logits rather than probabilities."""
        return self.activation is None

    def build(self, input_shape: Shape) -> None:
        """Create kernel, bias and threshold.

        Args:
            input_shape: `(batch_size, ..., features)`.

        Raises:
            ValueError: if the number of features is not known.
        """
        features = check_features(input_shape, type(self).__name__)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features, 1),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(1,),
                initializer=keras.initializers.Constant(get_initial_bias(self.prior)),
                regularizer=self.bias_regularizer,
            )
        self.threshold_weight = self.add_weight(
            name="threshold",
            shape=(),
            initializer=keras.initializers.Constant(self._initial_threshold),
            dtype="float32",
            trainable=False,
            autocast=False,
        )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: features})

    def call(self, inputs: Tensor) -> Tensor:
        """Return probabilities, or logits where `from_logits`.

        Args:
            inputs: tensor of shape `(batch_size, ..., features)`.

        Returns:
            Tensor of shape `(batch_size, ..., 1)` in float32.
        """
        logits = ops.matmul(ops.cast(inputs, self.compute_dtype), self.kernel)
        if self.bias is not None:
            logits = ops.add(logits, self.bias)
        if self.from_logits or is_emitting_logits(self):
            return logits
        return keras.activations.sigmoid(logits)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `(batch_size, ..., 1)`."""
        return (*input_shape[:-1], 1)

    def loss(self, **kwargs: Any) -> keras.losses.Loss:
        """Return the binary cross-entropy that matches the outputs of the head.

        Args:
            **kwargs: arguments of `keras.losses.BinaryCrossentropy`, such as `label_smoothing`.

        Returns:
            A `keras.losses.BinaryCrossentropy` with the right `from_logits`.

        Raises:
            TypeError: if `from_logits` is given, which follows from `activation`.
        """
        if "from_logits" in kwargs:
            raise TypeError(
                "`loss` of BinaryHead sets `from_logits` itself, from `activation`. "
                f"Received: from_logits={kwargs['from_logits']!r}. Leave it out."
            )
        return keras.losses.BinaryCrossentropy(from_logits=self.from_logits, **kwargs)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Turn the outputs of the head into probabilities.

        Args:
            outputs: tensor or array that this head emitted, of any shape.

        Returns:
            Tensor of the same shape, in the head's compute dtype.
        """
        outputs = ops.cast(ops.convert_to_tensor(outputs), self.compute_dtype)
        return ops.sigmoid(outputs) if self.from_logits else outputs

    def labels(self, outputs: Tensor) -> Tensor:
        """Turn the outputs of the head into labels: 1 where `probability > threshold`, else 0.

        A NaN compares as false; `keras_binclf.predict_labels` refuses it.

        Args:
            outputs: tensor or array that this head emitted, of any shape.

        Returns:
            int32 tensor of the same shape.
        """
        threshold = self.threshold_weight if self.built else self._initial_threshold
        probabilities = ops.cast(self.probabilities(outputs), "float32")
        return ops.cast(ops.greater(probabilities, threshold), "int32")

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Leave the head in float32: one column is small, and its rounding would move labels.

        `model.quantize("int8")` calls this for every layer of a model.
        """

    def to_core(self) -> keras.layers.Dense:
        """Return an equal `keras.layers.Dense`, with a copy of the weights.

        `keras_binclf.to_core_layers` asks for it.
        """
        names = ("activation", "use_bias", "kernel_regularizer", "bias_regularizer", "name")
        arguments = {name: getattr(self, name) for name in (*names, "trainable")}
        dense = keras.layers.Dense(1, dtype=self.dtype_policy, **arguments)
        dense.build((None, self.kernel.shape[0]))
        weights = [self.kernel] if self.bias is None else [self.kernel, self.bias]
        dense.set_weights([ops.convert_to_numpy(weight) for weight in weights])
        return dense

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the current threshold."""
        threshold = self.threshold
        if not is_threshold(threshold):
            # `set_weights` can put any number there, but the constructor refuses it.
            threshold = self._initial_threshold
        return {
            **super().get_config(),
            "activation": self.activation,
            "prior": self.prior,
            "threshold": threshold,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "class_names": None if self.class_names is None else list(self.class_names),
        }
