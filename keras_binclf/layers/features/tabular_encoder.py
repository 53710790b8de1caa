"""The layer that takes a table: words, gaps, dates and numbers."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import ops

from keras_binclf._registry import register
from keras_binclf._validation import Shape, Tensor, check_integer_at_least
from keras_binclf.layers.features._columns import Array, Column, Name, check_columns
from keras_binclf.layers.features._embeddings import (
    make_embedding,
    read_embedding,
    serialize_embedding,
)
from keras_binclf.layers.features._encoding import check_names, encode_table
from keras_binclf.layers.features._feature_layer import FeatureLayer, join, take_columns
from keras_binclf.layers.features._kinds import learn_column
from keras_binclf.layers.features._layout import Layout
from keras_binclf.layers.features._overrides import (
    check_kinds,
    check_max_categories,
    find_options,
    kinds_to_json,
)
from keras_binclf.layers.features._row import encode_row, list_words
from keras_binclf.layers.features._streams import read_labelled
from keras_binclf.layers.features._summary import write_summary
from keras_binclf.layers.features._table import Table, read_table
from keras_binclf.layers.features._targets import find_targets
from keras_binclf.layers.features.categorical_embedding import CategoricalEmbedding
from keras_binclf.layers.features.feature_scaler import FeatureScaler
from keras_binclf.layers.features.numerical_embedding import NumericalEmbedding


@register
class TabularEncoder(FeatureLayer):
    """Take a table into a model: numbers, words, booleans and dates, with gaps in all of them.

    `adapt` learns from the training table the kind of each column, its categories and its
    statistics; `print(encoder)` shows them. Then encoding has two steps:

    - `encode` turns a table into one float32 matrix, on the host, since no compiled graph reads
      text and dates on every backend. Columns are found by name.
    - The layer turns this matrix into features, within the model.

    The schema is part of the layer's config and the statistics are weights, so a saved model takes
    the table, too. The kinds of columns:

    - `"number"`: numbers, and text of which all that is not blank is a number. An offset is
      subtracted in float64 where float32 would lose digits. Then `FeatureScaler` and `embedding`.
    - `"boolean"`: booleans, and true/false, yes/no, t/f and y/n in any case: 0 and 1, then as
      numbers.
    - `"category"`: other text, and declared categories. Codes are 0 for missing, 1 unknown, 2 rare
      and 3 + i, most frequent first, then `CategoricalEmbedding`. Words are compared exactly. The
      `max_categories` most frequent ones in at least `min_count` rows have a vector each, all
      others share one. Words that were never seen count as rare ones where there were some, and
      else have a vector of zeros.
    - `"date"`: dates, times and text of ISO 8601: the days as a number, and as sine and cosine
      those of time of day, day of the week and day of the year that come again. Dates with a time
      zone are taken in UTC. A duration is a number of days.
    - `"ignored"`: columns of gaps only, of one value, and of a word or a number for each row.

    A gap is None, NaN, NA, NaT, and text that is empty or blank. It becomes the median and an
    indicator where the column had gaps in `adapt`; a missing category has a vector of its own.

    Args:
        max_categories: int, the largest number of categories of a column with a code of their own.
            Defaults to `100`.
        min_count: int, the least number of rows of such a category. Defaults to `2`.
        embedding: `None`, `"piecewise_linear"`, `"periodic"`, or a `NumericalEmbedding`, of which
            the config is copied: what numbers go through after scaling. Defaults to `None`.
        kinds: dict of kinds by name of the column, where `adapt` shall not choose, or of dicts
            with `"kind"`, `"max_categories"` and `"min_count"`. Defaults to `None`.
        columns: list of dicts, the schema that `adapt` learned, as `get_config` writes it. Not
            meant to be written by hand. Defaults to `None`.
        **kwargs: `name`, `dtype`, `trainable` and the other arguments of `keras.layers.Layer`.

    Input shape:
        `(batch_size, ..., num_encoded)`, as `encode` returns it.

    Output shape:
        `(batch_size, ..., features)`: numbers, then sines and cosines, then categories.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for an argument of the wrong value, and for a layer that is used before `adapt`.

    Example:

    ```python
    import pandas as pd
    from keras_binclf import TabularEncoder

    table = pd.DataFrame({"age": [31, 45, None, 28], "city": ["Rome", "Oslo", "Rome", "Oslo"]})
    encoder = TabularEncoder()
    encoder.adapt(table)
    assert [column.kind for column in encoder.columns] == ["number", "category"]
    matrix = encoder.encode(table)
    assert matrix.shape == (4, 2) and matrix[:, 1].tolist() == [4, 3, 4, 3]
    # The scaled age, whether it is missing, and the two cities.
    assert encoder(matrix).shape == (4, 4)
    ```

    References:
        - Kinds of columns: `TableVectorizer` of skrub, https://skrub-data.org
        - Scaling and embeddings: see `FeatureScaler`, `NumericalEmbedding`, `CategoricalEmbedding`
        - Indicators of gaps, constant columns dropped: Erickson et al. 2025, "TabArena",
          https://arxiv.org/abs/2506.16791
    """

    def __init__(
        self,
        *,
        max_categories: int = 100,
        min_count: int = 2,
        embedding: Any = None,
        kinds: Mapping[Name, Any] | None = None,
        columns: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        max_categories = check_max_categories(max_categories, owner)
        min_count = check_integer_at_least(min_count, 1, "min_count", owner)
        kinds = check_kinds(kinds, owner)
        embedding = read_embedding(embedding, owner)
        layout = None if columns is None else Layout(check_columns(columns, owner))
        super().__init__(**kwargs)
        self.max_categories = max_categories
        self.min_count = min_count
        self.kinds = kinds
        # A layer kept as an attribute would be saved as one more sublayer, never built.
        self.embedding = embedding
        self.scaler: FeatureScaler | None = None
        self.numerical_embedding: NumericalEmbedding | None = None
        self.categorical_embedding: CategoricalEmbedding | None = None
        self._layout = layout
        self._words: Any = None
        if layout is not None:
            self._make_children(layout)

    # ---- the schema

    @property
    def columns(self) -> tuple[Column, ...] | None:
        """What was learned of each column, in the order of the table; None before `adapt`."""
        return None if self._layout is None else self._layout.columns

    @property
    def is_adapted(self) -> bool:
        """Whether the schema is known: learned, or loaded."""
        return self._layout is not None

    @property
    def is_named(self) -> bool:
        """Whether columns are found by name: the layer was adapted to a table, not to an array."""
        return self._get_layout().is_named

    @property
    def num_encoded(self) -> int:
        """The number of columns of the encoded matrix."""
        return len(self._get_layout().encoded_names)

    @property
    def encoded_names(self) -> tuple[str, ...]:
        """A name for each column of the encoded matrix, such as "age" or "joined/elapsed"."""
        return self._get_layout().encoded_names

    def __str__(self) -> str:
        """Return the schema as a table of columns."""
        if self._layout is None:
            return f"{type(self).__name__} {self.name!r}: not adapted"
        return write_summary(self._layout.columns)

    # ---- on the host

    def adapt(self, table: Any, y: Any = None) -> None:
        """Learn the kinds of the columns, their categories and statistics, and build the layer.

        A data set is read into memory, since quartiles are not sums.

        Args:
            table: pandas, polars or pyarrow table, dict of arrays, NumPy array of two dimensions
                (its columns are then known by their numbers), or a data set, data loader or
                generator of batches of such tables, alone or as `(table, y, ...)`.
            y: labels, one for each row, or None. They change nothing: where a column tells all of
                them, as a target that was left in the table does, there is a warning.

        Raises:
            TypeError: for a table of the wrong kind, and columns of lists or other objects.
            ValueError: for no rows, columns of the same name or of mixed types, infinite numbers,
                names in `kinds` that are no columns, tables of which all columns are ignored, and
                a layer that was adapted before.
        """
        owner = f"{type(self).__name__}.adapt"
        if self.is_adapted:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} is adapted already, and models may hold it. "
                "Make a new one."
            )
        data, labels = read_labelled(table, y, owner)
        if not data.num_rows:
            raise ValueError(f"`table` of {owner} must have rows. Received: none.")
        layout, matrix = self._learn(data, owner)
        if labels is not None:
            _warn_of_targets(find_targets(matrix, layout, labels))
        self._adapt_children(layout, matrix)
        self._layout = layout
        self.build((None, matrix.shape[1]))

    def encode(self, table: Any) -> Array:
        """Return the encoded table, as the layer and `model.fit` take it.

        Args:
            table: as for `adapt`, but no data set. Columns are found by name, in any order, and
                others are ignored.

        Returns:
            float32 array of shape `(rows, num_encoded)`: numbers with NaN for gaps, and codes.

        Raises:
            TypeError: for a table of the wrong kind.
            ValueError: before `adapt`, for a missing column, for values of another kind than in
                `adapt`, and for infinite numbers.
        """
        layout = self._get_layout()
        data = read_table(table, f"{type(self).__name__}.encode")
        check_names(layout, data)
        return encode_table(layout, data.num_rows, data.read)

    def encode_row(self, row: Any) -> Array:
        """Return one encoded row, faster than `encode` does.

        Args:
            row: dict of values by column, or a Series of pandas; for a layer that was adapted to
                arrays a vector, or a dict by number.

        Returns:
            float32 array of shape `(1, num_encoded)`.

        Raises:
            TypeError: for a row of the wrong kind.
            ValueError: as of `encode`.
        """
        layout = self._get_layout()
        if self._words is None:
            self._words = _Words(list_words(layout))
        return encode_row(layout, self._words.by_column, row)

    # ---- in the model

    def build(self, input_shape: Shape) -> None:
        """Build the layers that scale and embed.

        Args:
            input_shape: `(batch_size, ..., num_encoded)`.

        Raises:
            ValueError: before `adapt`, and for another number of columns.
        """
        layout = self._get_layout()
        self._fix_features(input_shape, len(layout.encoded_names))
        scaler, embedding = self.scaler, self.numerical_embedding
        if scaler is not None and not scaler.built:
            scaler.build((None, len(layout.scaled)))
        if scaler is not None and embedding is not None and not embedding.built:
            embedding.build((None, scaler.num_outputs))
        if self.categorical_embedding is not None:
            self.categorical_embedding.build((None, len(layout.categories)))

    def call(self, inputs: Tensor) -> Tensor:
        """Return the features of encoded rows.

        Args:
            inputs: tensor of shape `(batch_size, ..., num_encoded)`.

        Returns:
            Tensor of shape `(batch_size, ..., features)`.
        """
        return self._apply(
            inputs, self.scaler, self.numerical_embedding, self.categorical_embedding
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `(batch_size, ..., features)`."""
        width = 2 * len(self._get_layout().cyclic)
        for child in (self.numerical_embedding or self.scaler, self.categorical_embedding):
            width += 0 if child is None else child.num_outputs or 0
        return (*input_shape[:-1], width)

    def to_core(self) -> Callable[[Tensor], Tensor]:
        """Return a function of Keras operations and layers that computes the same.

        `keras_binclf.to_core_layers` asks for it. It takes the encoded matrix.
        """
        children = (self.scaler, self.numerical_embedding, self.categorical_embedding)
        parts = [None if child is None else child.to_core() for child in children]
        return lambda inputs: self._apply(inputs, *parts)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the schema."""
        embedding: Any = self.embedding
        if self.numerical_embedding is not None:
            embedding = serialize_embedding(self.numerical_embedding)
        columns = self.columns
        return {
            **super().get_config(),
            "max_categories": self.max_categories,
            "min_count": self.min_count,
            "embedding": embedding,
            "kinds": kinds_to_json(self.kinds),
            "columns": None if columns is None else [column.to_dict() for column in columns],
        }

    def _get_layout(self) -> Layout:
        if self._layout is None:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} must be adapted before it is used, since "
                "what it does depends on the table. Call `encoder.adapt(table)` first."
            )
        return self._layout

    def _learn(self, data: Table, owner: str) -> tuple[Layout, Array]:
        """Return what is learned of a table, and the encoded table."""
        options = find_options(self.kinds, data.names, self.max_categories, self.min_count)
        values = {name: data.read(name) for name in data.names}
        layout = Layout(tuple(learn_column(n, values[n], options[n]) for n in data.names))
        if not layout.kept:
            reasons = "; ".join(f"{c.name!r}: {c.reason}" for c in layout.columns[:5])
            raise ValueError(
                f"`table` of {owner} must have a column that is not ignored. Received: "
                f"{reasons or 'no columns'}. `kinds` gives a column another kind."
            )
        return layout, encode_table(layout, data.num_rows, values.__getitem__)

    def _make_children(self, layout: Layout) -> None:
        """Make the layers that scale and embed, as the schema says."""
        if layout.scaled:
            self.scaler = self._make(FeatureScaler, has_missing=list(layout.scaled.values()))
            self.numerical_embedding = self._make_embedding(fresh=False)
        self._make_categorical_embedding(layout)

    def _make_categorical_embedding(self, layout: Layout) -> None:
        columns = list(layout.categories.values())
        if columns:
            self.categorical_embedding = self._make(
                CategoricalEmbedding,
                num_categories=[len(column.categories) for column in columns],
                has_missing=[column.has_missing for column in columns],
                has_rare=[column.has_rare for column in columns],
            )

    def _make(self, cls: Any, **arguments: Any) -> Any:
        name = CHILDREN[cls]
        return cls(**arguments, name=name, dtype=self.dtype_policy, trainable=self.trainable)

    def _make_embedding(self, *, fresh: bool) -> Any:
        return make_embedding(self.embedding, self.dtype_policy, self.trainable, fresh=fresh)

    def _adapt_children(self, layout: Layout, matrix: Array) -> None:
        """Make the layers that scale and embed, and let them learn from the encoded table."""
        if layout.scaled:
            scaler = self._make(FeatureScaler)
            numbers = matrix[:, list(layout.scaled)]
            scaler.adapt(numbers)
            embedding = self._make_embedding(fresh=True)
            if embedding is not None:
                embedding.adapt(ops.convert_to_numpy(scaler(numbers)))
            self.scaler, self.numerical_embedding = scaler, embedding
        self._make_categorical_embedding(layout)

    def _apply(self, inputs: Tensor, scale: Any, embed: Any, embed_categories: Any) -> Tensor:
        layout = self._get_layout()
        x = ops.cast(inputs, self.compute_dtype)
        parts = []
        if scale is not None:
            numbers = scale(take_columns(x, layout.scaled))
            parts.append(numbers if embed is None else embed(numbers))
        if layout.cyclic:
            parts += _turn(take_columns(x, layout.cyclic), list(layout.cyclic.values()))
        if embed_categories is not None:
            parts.append(embed_categories(take_columns(x, layout.categories)))
        return join(parts)


CHILDREN: dict[Any, str] = {
    FeatureScaler: "scaler",
    CategoricalEmbedding: "categorical_embedding",
}


class _Words:
    """Holds a dict without Keras wrapping it, which would slow every look-up down."""

    def __init__(self, by_column: Any) -> None:
        self.by_column = by_column


def _turn(x: Tensor, periods: Sequence[float]) -> list[Tensor]:
    """Return the sines and the cosines of parts that return; 0 for gaps."""
    gaps = ops.isnan(x)
    factors = ops.convert_to_tensor([2.0 * math.pi / period for period in periods], x.dtype)
    angles = ops.multiply(ops.where(gaps, 0.0, x), factors)
    return [ops.where(gaps, 0.0, turned) for turned in (ops.sin(angles), ops.cos(angles))]


def _warn_of_targets(names: Sequence[Name]) -> None:
    for name in names:
        warnings.warn(
            f"Column {name!r} of the table for TabularEncoder.adapt tells every label in `y`. If "
            "it is the target, or is known only after it, leave it out of the table.",
            stacklevel=3,
        )
