"""Embeddings of numbers: several learned functions of each."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_binclf._registry import register
from keras_binclf._validation import (
    Shape,
    Tensor,
    check_choice,
    check_integer_at_least,
    check_positive,
)
from keras_binclf.layers.features._arguments import check_counts
from keras_binclf.layers.features._bins import (
    encode_bins,
    find_edges,
    measure_slopes,
    stack_edges,
)
from keras_binclf.layers.features._feature_layer import (
    Array,
    FeatureLayer,
    flatten_last,
    join,
    not_adapted,
    take_columns,
)
from keras_binclf.layers.features._rows import read_rows

METHODS = ("piecewise_linear", "periodic")


@register
class NumericalEmbedding(FeatureLayer):
    """Give a network several functions of each number, so that it can bend and jump with it.

    A dense layer sees a number on one straight line, and needs many units to learn that risk rises
    at 25 and falls at 60. Here each feature `x` gets `dim` outputs, with weights of its own:

    - `"piecewise_linear"`: `x · w + b + e(x) · kernel`, where `e(x)` counts the bins that `x` has
      passed, the last in part: `[1, …, 1, (x − left) / width, 0, …, 0]`. Bins lie between quantiles
      that `adapt` learns, so that each holds as many rows. The kernel is zero at first: training
      starts from straight lines.
    - `"periodic"`: `[cos(2π · x · frequencies + phases) · kernel + b, x]`.

    Features of at most two different values in `adapt` pass through, for a straight line tells all
    of such. Scale the features first, with `FeatureScaler`: the straight lines and the frequencies
    start on its scale. Gaps are to be filled before.

    `"piecewise_linear"` must be adapted. `"periodic"` needs `adapt` only to find the features of
    two values; without it all are embedded.

    Args:
        dim: int, the number of outputs of each feature. Defaults to `8`.
        method: `"piecewise_linear"` or `"periodic"`. Defaults to `"piecewise_linear"`.
        num_bins: int of at least 2, the largest number of bins of a feature; equal quantiles count
            once, so that features of few different values have fewer. Only for
            `"piecewise_linear"`. Defaults to `32`.
        num_frequencies: int, the number of cosines of a feature. Only for `"periodic"`. Defaults to
            `16`.
        frequency_scale: positive float, the standard deviation of the first frequencies, in
            periods per unit of `x`. Only for `"periodic"`. Defaults to `0.1`.
        feature_bins: list of ints, the number of bins of each feature, as `adapt` finds it and
            `get_config` writes it, so that a copy has the same shapes before its weights arrive: 0
            where a feature passes through, and 1 for the others of `"periodic"`. Not meant to be
            written by hand. Defaults to `None`.
        **kwargs: `name`, `dtype`, `trainable` and the other arguments of `keras.layers.Layer`.

    Input shape:
        `(batch_size, ..., features)`.

    Output shape:
        `(batch_size, ..., num_outputs)`: `dim` for each feature that is embedded, in their order,
        then the features that pass through, in theirs.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for an argument of the wrong value, and for a `"piecewise_linear"` layer that is
            used before `adapt`.

    Example:

    ```python
    import numpy as np
    from keras_binclf import NumericalEmbedding

    x = np.random.default_rng(0).normal(size=(100, 3)).astype("float32")
    x[:, 1] = x[:, 1] > 0  # passes through
    embedding = NumericalEmbedding(dim=4)
    embedding.adapt(x)
    assert embedding(x).shape == (100, 4 + 4 + 1)
    assert embedding.feature_bins == (32, 0, 32)
    ```

    References:
        - Both methods: Gorishniy, Rubachev and Babenko 2022, "On Embeddings for Numerical Features
          in Tabular Deep Learning", https://arxiv.org/abs/2203.05556
        - Straight lines beside a kernel of zeros, without an activation: version "B" of
          `PiecewiseLinearEmbeddings`, https://github.com/yandex-research/rtdl-num-embeddings, of
          Gorishniy, Kotelnikov and Babenko 2024, "TabM", https://arxiv.org/abs/2410.24210
        - One cosine with a phase, no activation and `x` itself (PBLD), 16 frequencies, scale 0.1:
          Holzmüller et al. 2024, https://arxiv.org/abs/2407.04491; `num_emb_type='pbld'` of
          https://github.com/dholzmueller/pytabkit
    """

    def __init__(
        self,
        dim: int = 8,
        method: str = "piecewise_linear",
        *,
        num_bins: int = 32,
        num_frequencies: int = 16,
        frequency_scale: float = 0.1,
        feature_bins: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        check_choice(method, "method", owner, METHODS)
        # One of the outputs of "periodic" is the number itself.
        dim = check_integer_at_least(dim, 2 if method == "periodic" else 1, "dim", owner)
        num_bins = check_integer_at_least(num_bins, 2, "num_bins", owner)
        num_frequencies = check_integer_at_least(num_frequencies, 1, "num_frequencies", owner)
        frequency_scale = check_positive(frequency_scale, "frequency_scale", owner)
        if feature_bins is not None:
            feature_bins = check_counts(feature_bins, 0, "feature_bins", owner)
        super().__init__(**kwargs)
        self.dim = dim
        self.method = method
        self.num_bins = num_bins
        self.num_frequencies = num_frequencies
        self.frequency_scale = frequency_scale
        self.feature_bins = feature_bins

    @property
    def num_features(self) -> int | None:
        """The number of features that the layer was adapted to or built for, or None."""
        return None if self.feature_bins is None else len(self.feature_bins)

    @property
    def num_outputs(self) -> int | None:
        """The number of outputs, or None where the layer is neither adapted nor built."""
        if self.feature_bins is None:
            return None
        return self.dim * len(self._embedded) + len(self._passing)

    @property
    def is_adapted(self) -> bool:
        """Whether what `adapt` learns is there: learned or loaded."""
        if not self.built or self.method == "periodic" or not self._embedded:
            return self.feature_bins is not None
        return bool(np.isfinite(ops.convert_to_numpy(self.edges)).all())

    def adapt(self, data: Any) -> None:
        """Learn the edges of the bins, and which features have at most two values.

        Args:
            data: array, tensor or numeric table of shape `(rows, ..., features)`, or a data set,
                data loader or generator of batches of them, alone or as `(x, y, ...)`.

        Raises:
            TypeError: for data that is not numeric.
            ValueError: for no rows, values that are missing, infinite or too far apart, and, once
                the layer is built, for data that needs other shapes.
        """
        rows = read_rows(data, type(self).__name__, self.compute_dtype)
        edges = find_edges(rows, self.num_bins)
        bins = tuple(max(len(one) - 1, 0) for one in edges)
        if self.method == "periodic":
            bins = tuple(min(count, 1) for count in bins)
        if self.built and bins != self.feature_bins:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} is built for features with "
                f"{list(self.feature_bins or ())} bins. Received: data with {list(bins)}. Adapt a "
                "new layer."
            )
        self.feature_bins = bins
        if not self.built:
            self.build((None, len(bins)))
        if self.method == "piecewise_linear" and self._embedded:
            self.edges.assign(stack_edges([edges[i] for i in self._embedded]))

    def build(self, input_shape: Shape) -> None:
        """Create the edges, which are NaN until they are learned or loaded, and the kernels.

        Args:
            input_shape: `(batch_size, ..., features)`.

        Raises:
            ValueError: before `adapt` where that is needed, and for another number of features.
        """
        if self.feature_bins is None and self.method == "piecewise_linear":
            raise not_adapted(self)
        features = self._fix_features(input_shape, self.num_features)
        if self.feature_bins is None:
            self.feature_bins = (1,) * features
        if self._embedded and self.method == "piecewise_linear":
            self._build_piecewise_linear()
        elif self._embedded:
            self._build_periodic()

    def call(self, inputs: Tensor) -> Tensor:
        """Return the embedded features, then those that pass through.

        Args:
            inputs: tensor of shape `(batch_size, ..., features)`.

        Returns:
            Tensor of shape `(batch_size, ..., num_outputs)`.
        """
        if not self._embedded:
            return self._apply(inputs, None)
        if self.method == "periodic":
            return self._apply(inputs, self._embed_periodic)
        return self._apply(inputs, self._embed_piecewise_linear)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `(batch_size, ..., num_outputs)`."""
        if self.num_outputs is not None:
            return (*input_shape[:-1], self.num_outputs)
        if self.method == "piecewise_linear":
            raise not_adapted(self)
        return (*input_shape[:-1], self.dim * int(input_shape[-1] or 0))

    def to_core(self) -> Callable[[Tensor], Tensor]:
        """Return a function of Keras layers and operations that computes the same.

        `keras_binclf.to_core_layers` asks for it. The kernels are copied into one
        `keras.layers.EinsumDense` each, and what `adapt` learned into constants.
        """
        if not self._embedded:
            return lambda inputs: self._apply(inputs, None)
        make = self._make_periodic if self.method == "periodic" else self._make_piecewise_linear
        return lambda inputs: self._apply(inputs, make())

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the number of bins of each feature."""
        bins = self.feature_bins
        return {
            **super().get_config(),
            "dim": self.dim,
            "method": self.method,
            "num_bins": self.num_bins,
            "num_frequencies": self.num_frequencies,
            "frequency_scale": self.frequency_scale,
            "feature_bins": None if bins is None else list(bins),
        }

    @property
    def _embedded(self) -> tuple[int, ...]:
        return tuple(i for i, count in enumerate(self.feature_bins or ()) if count)

    @property
    def _counts(self) -> tuple[int, ...]:
        """The number of bins of each feature that is embedded."""
        return tuple(count for count in self.feature_bins or () if count)

    @property
    def _passing(self) -> tuple[int, ...]:
        return tuple(i for i, count in enumerate(self.feature_bins or ()) if not count)

    def _apply(self, inputs: Tensor, embed: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Embed some columns by `embed`, which adds a last axis of `dim`, and not the others."""
        x = ops.cast(inputs, self.compute_dtype)
        parts = [] if embed is None else [flatten_last(embed(take_columns(x, self._embedded)))]
        if self._passing:
            parts.append(take_columns(x, self._passing))
        return join(parts)

    # ---- piecewise linear

    def _build_piecewise_linear(self) -> None:
        features, bins = len(self._embedded), max(self.feature_bins or ())
        self.edges = self._add_statistic("edges", (features, bins + 1))
        self.kernel = self._add_kernel("kernel", (features, bins, self.dim), "zeros")
        self.linear_kernel = self._add_kernel("linear_kernel", (features, self.dim), _uniform(1.0))
        self.bias = self._add_kernel("bias", (features, self.dim), _uniform(1.0))

    def _embed_piecewise_linear(self, x: Tensor) -> Tensor:
        encoded = self._encode(x, *measure_slopes(self.edges, self._counts))
        steps = ops.einsum("...fk,fkd->...fd", encoded, self.kernel)
        lines = ops.add(ops.multiply(ops.expand_dims(x, -1), self.linear_kernel), self.bias)
        return ops.add(lines, steps)

    def _make_piecewise_linear(self) -> Callable[[Tensor], Tensor]:
        left, slopes = (
            ops.convert_to_numpy(part) for part in measure_slopes(self.edges, self._counts)
        )
        weights = (self.kernel, self.linear_kernel, self.bias)
        kernel, lines, bias = (ops.convert_to_numpy(weight) for weight in weights)
        # The straight line is one more component of the encoding.
        dense = self._make_dense(np.concatenate([kernel, lines[:, None]], axis=1), bias)
        return lambda x: dense(join([self._encode(x, left, slopes), ops.expand_dims(x, -1)]))

    def _encode(self, x: Tensor, left: Any, slopes: Any) -> Tensor:
        return encode_bins(x, left, slopes, self._counts)

    # ---- periodic

    def _build_periodic(self) -> None:
        features, number, dim = len(self._embedded), self.num_frequencies, self.dim - 1
        normal = keras.initializers.RandomNormal(stddev=self.frequency_scale)
        self.frequencies = self._add_kernel("frequencies", (features, number), normal)
        self.phases = self._add_kernel("phases", (features, number), _uniform(math.pi))
        width = number**-0.5
        self.kernel = self._add_kernel("kernel", (features, number, dim), _uniform(width))
        self.bias = self._add_kernel("bias", (features, dim), _uniform(width))

    def _embed_periodic(self, x: Tensor) -> Tensor:
        x = ops.expand_dims(x, -1)
        waves = self._wave(x, self.frequencies, self.phases)
        return join([ops.add(ops.einsum("...fk,fkd->...fd", waves, self.kernel), self.bias), x])

    def _make_periodic(self) -> Callable[[Tensor], Tensor]:
        weights = (self.frequencies, self.phases, self.kernel, self.bias)
        frequencies, phases, kernel, bias = (ops.convert_to_numpy(weight) for weight in weights)
        dense = self._make_dense(kernel, bias)

        def embed(x: Tensor) -> Tensor:
            x = ops.expand_dims(x, -1)
            return join([dense(self._wave(x, frequencies, phases)), x])

        return embed

    def _wave(self, x: Tensor, frequencies: Any, phases: Any) -> Tensor:
        angles = ops.multiply(ops.multiply(x, frequencies), 2 * math.pi)
        return ops.cos(ops.add(angles, phases))

    # ---- both

    def _add_kernel(self, name: str, shape: tuple[int, ...], initializer: Any) -> Any:
        """Add a weight under a name by which optimizers such as Muon know an embedding."""
        return self.add_weight(name=f"embedding_{name}", shape=shape, initializer=initializer)

    def _make_dense(self, kernel: Array, bias: Array) -> keras.layers.EinsumDense:
        dense = keras.layers.EinsumDense(
            "...fk,fkd->...fd",
            output_shape=bias.shape,
            bias_axes="fd",
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name=f"{self.name}_dense",
        )
        dense.build((None, *kernel.shape[:2]))
        dense.set_weights([kernel, bias])
        return dense


def _uniform(limit: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomUniform(-limit, limit)
