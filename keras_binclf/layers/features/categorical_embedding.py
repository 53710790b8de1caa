"""Vectors for the categories of a table, from their codes."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_binclf._registry import register
from keras_binclf._validation import (
    Shape,
    Tensor,
    check_integer_at_least,
    error_message,
)
from keras_binclf.layers.features._arguments import check_counts, check_flags
from keras_binclf.layers.features._codes import PRIME, CodedColumn, find_levels
from keras_binclf.layers.features._feature_layer import (
    FeatureLayer,
    flatten_last,
    join,
    make_constant,
    take_columns,
)


@register
class CategoricalEmbedding(FeatureLayer):
    """Turn codes of categories into numbers: a one-hot vector for few, a learned one for many.

    The inputs are whole numbers, one column for each categorical column of a table: **0 missing,
    1 unknown, 2 rare, and 3 + i for category i**, most frequent first, as `TabularEncoder.encode`
    writes them. Each column has `num_categories` levels, one more where it has missing values and
    one more where it has rare ones. Up to `max_one_hot` levels it becomes a one-hot vector of as
    many outputs, beyond that a trainable vector of `dim`.

    An unknown category is treated as a rare one: of both the network has seen little. In a column
    without rare categories it becomes zeros. The same holds for a missing value in a column
    without missing ones, and for everything that is no code of the column: numbers out of range,
    fractions and NaN.

    With `num_buckets = b` the categories of a column that has more share `b` vectors. A
    multiplicative hash spreads them about as evenly as at random: `n` categories use
    `b (1 − (1 − 1/b)ⁿ)` vectors, and the share `(1 − 1/b)ⁿ` of them has its vector alone: 90% where
    there are a tenth as many categories as vectors, 37% where there are as many.

    All vectors are rows of one table, in which one gather finds those of all columns.

    Args:
        num_categories: list of ints, the number of categories of each column, without missing,
            unknown and rare.
        dim: int, the number of outputs of an embedded column. Defaults to `8`.
        max_one_hot: int, the largest number of levels of a one-hot column. Defaults to `9`.
        num_buckets: int of at most 46337, the number of vectors of a column of more categories, or
            `None` for a vector each. Defaults to `None`.
        has_missing: list of bools, which columns have a vector for missing values, or `None` for
            all. Defaults to `None`.
        has_rare: list of bools, which columns have a vector for rare and unknown categories, or
            `None` for none. Defaults to `None`.
        embeddings_initializer: initializer of the vectors, or `None` for uniform within
            `±1 / sqrt(dim)`. Defaults to `None`.
        **kwargs: `name`, `dtype`, `trainable` and the other arguments of `keras.layers.Layer`.

    Input shape:
        `(batch_size, ..., columns)`, integers or floats. float32 tells codes up to 16,777,216.

    Output shape:
        `(batch_size, ..., num_outputs)`: the columns in their order, each as wide as
        `output_widths` says. A one-hot vector holds missing, rare and the categories, in this
        order, as far as the column has them.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for an argument of the wrong value, and inputs of another number of columns.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_binclf import CategoricalEmbedding

    # Column 0: missing and two categories. Column 1: rare and twenty categories.
    layer = CategoricalEmbedding([2, 20], has_missing=[True, False], has_rare=[False, True])
    outputs = keras.ops.convert_to_numpy(layer(np.array([[3, 22], [0, 2], [1, 1]])))
    assert layer.output_widths == (3, 8) and outputs.shape == (3, 11)
    assert outputs[:, :3].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert (outputs[1, 3:] == outputs[2, 3:]).all()  # unknown is as rare
    ```

    References:
        - Embeddings of categories: Guo and Berkhahn 2016, https://arxiv.org/abs/1604.06737
        - Vectors of 8, one-hot up to 9: Holzmüller et al. 2024, https://arxiv.org/abs/2407.04491;
          `embedding_size` and `max_one_hot_cat_size` of https://github.com/dholzmueller/pytabkit
        - First vectors: Gorishniy et al. 2021, "Revisiting Deep Learning Models for Tabular Data",
          https://arxiv.org/abs/2106.11959
        - Hashed categories: Weinberger et al. 2009, https://arxiv.org/abs/0902.2206; multiplicative
          hashing by the golden ratio: Knuth 1998, "The Art of Computer Programming" 3, 6.4
    """

    def __init__(
        self,
        num_categories: Sequence[int],
        *,
        dim: int = 8,
        max_one_hot: int = 9,
        num_buckets: int | None = None,
        has_missing: Sequence[bool] | None = None,
        has_rare: Sequence[bool] | None = None,
        embeddings_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        num_categories = check_counts(num_categories, 1, "num_categories", owner)
        dim = check_integer_at_least(dim, 1, "dim", owner)
        max_one_hot = check_integer_at_least(max_one_hot, 0, "max_one_hot", owner)
        if num_buckets is not None:
            num_buckets = _check_buckets(num_buckets, owner)
        count = len(num_categories)
        super().__init__(**kwargs)
        self.num_categories = num_categories
        self.dim = dim
        self.max_one_hot = max_one_hot
        self.num_buckets = num_buckets
        self.has_missing = _check_each(has_missing, True, count, "has_missing", owner)
        self.has_rare = _check_each(has_rare, False, count, "has_rare", owner)
        self.embeddings_initializer = (
            None
            if embeddings_initializer is None
            else keras.initializers.get(embeddings_initializer)
        )
        each = zip(num_categories, self.has_missing, self.has_rare, strict=True)
        self._columns = tuple(CodedColumn(n, num_buckets, m, r, max_one_hot) for n, m, r in each)

    @property
    def output_widths(self) -> tuple[int, ...]:
        """The number of outputs of each column."""
        return tuple(self.dim if c.is_embedded else c.levels for c in self._columns)

    @property
    def num_outputs(self) -> int:
        """The number of outputs of all columns."""
        return sum(self.output_widths)

    def build(self, input_shape: Shape) -> None:
        """Create the table of vectors.

        Args:
            input_shape: `(batch_size, ..., columns)`.

        Raises:
            ValueError: for another number of columns.
        """
        self._fix_features(input_shape, len(self._columns))
        rows = sum(c.levels for c in self._columns if c.is_embedded)
        if rows:
            limit = self.dim**-0.5
            initializer = self.embeddings_initializer
            # The name tells optimizers such as Muon that it is an embedding.
            self.embeddings = self.add_weight(
                name="embeddings",
                shape=(rows, self.dim),
                initializer=initializer or keras.initializers.RandomUniform(-limit, limit),
            )

    def call(self, inputs: Tensor) -> Tensor:
        """Return the vectors of all columns side by side.

        Args:
            inputs: tensor of codes of shape `(batch_size, ..., columns)`.

        Returns:
            Tensor of shape `(batch_size, ..., num_outputs)`.
        """
        return self._apply(inputs, lambda rows: ops.take(self.embeddings, rows, axis=0))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `(batch_size, ..., num_outputs)`."""
        return (*input_shape[:-1], self.num_outputs)

    def to_core(self) -> Callable[[Tensor], Tensor]:
        """Return a function of Keras operations and a `keras.layers.Embedding` that is equal.

        `keras_binclf.to_core_layers` asks for it. The vectors are copied.
        """
        if not self._list(embedded=True):
            return lambda inputs: self._apply(inputs, None)
        embedding = keras.layers.Embedding(
            *self.embeddings.shape,
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name=f"{self.name}_embedding",
        )
        embedding.build()
        embedding.set_weights([ops.convert_to_numpy(self.embeddings)])
        return lambda inputs: self._apply(inputs, embedding)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_categories": list(self.num_categories),
            "dim": self.dim,
            "max_one_hot": self.max_one_hot,
            "num_buckets": self.num_buckets,
            "has_missing": list(self.has_missing),
            "has_rare": list(self.has_rare),
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
        }

    def _list(self, *, embedded: bool) -> list[int]:
        return [i for i, column in enumerate(self._columns) if column.is_embedded == embedded]

    def _apply(self, inputs: Tensor, embed: Callable[[Tensor], Tensor] | None) -> Tensor:
        levels = find_levels(inputs, self._columns)
        one_hot, embedded = self._list(embedded=False), self._list(embedded=True)
        parts = []
        if one_hot:
            parts.append(self._compare(levels, one_hot))
        if embedded and embed is not None:
            parts.append(flatten_last(self._look_up(levels, embedded, embed)))
        return take_columns(join(parts), self._order(one_hot + embedded))

    def _compare(self, levels: Tensor, columns: Sequence[int]) -> Tensor:
        """Return the one-hot vectors of some columns side by side, by one comparison."""
        sizes = [self._columns[i].levels for i in columns]
        own = make_constant(level for size in sizes for level in range(size))
        pairs = zip(columns, sizes, strict=True)
        repeated = take_columns(levels, [i for i, size in pairs for _ in range(size)])
        return ops.cast(ops.equal(repeated, own), self.compute_dtype)

    def _look_up(
        self, levels: Tensor, columns: Sequence[int], embed: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return the vectors of some columns, of shape `(..., columns, dim)`."""
        own = take_columns(levels, columns)
        sizes = [self._columns[i].levels for i in columns]
        starts = make_constant(itertools.accumulate(sizes[:-1], initial=0))
        vectors = embed(ops.add(starts, ops.maximum(own, 0)))
        if all(self._columns[i].has_rare for i in columns):
            return vectors
        is_known = ops.cast(ops.expand_dims(ops.greater_equal(own, 0), -1), self.compute_dtype)
        return ops.multiply(vectors, is_known)

    def _order(self, columns: Sequence[int]) -> list[int]:
        """Return where each output stands in the parts of `columns`, one after the other."""
        widths = self.output_widths
        starts = itertools.accumulate((widths[i] for i in columns), initial=0)
        # One more start than columns: the end.
        places = dict(zip(columns, starts, strict=False))
        return [places[i] + k for i, width in enumerate(widths) for k in range(width)]


def _check_each(value: Any, default: bool, count: int, name: str, owner: str) -> tuple[bool, ...]:
    """Return one flag for each column, or raise."""
    if value is None:
        return (default,) * count
    flags = check_flags(value, name, owner)
    if len(flags) != count:
        expected = f"None or a list of {count} bools, one for each of `num_categories`"
        raise ValueError(error_message(name, owner, expected, value))
    return flags


def _check_buckets(value: Any, owner: str) -> int:
    buckets = check_integer_at_least(value, 1, "num_buckets", owner)
    if buckets > PRIME:
        expected = f"None or an int of at most {PRIME}"
        raise ValueError(error_message("num_buckets", owner, expected, value))
    return buckets
