"""Scaling of numbers that outliers and gaps do not upset."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_binclf._registry import register
from keras_binclf._validation import Shape, Tensor, check_choice
from keras_binclf.layers.features._arguments import check_flags
from keras_binclf.layers.features._feature_layer import (
    Array,
    FeatureLayer,
    join,
    not_adapted,
    take_columns,
)
from keras_binclf.layers.features._rows import Rows, read_rows

LIMIT = 3.0
"""Bound of the scaled values."""
FAR = 1e9
"""Where the curve is at its bound to the last digit of float64, and its square is finite."""


@register
class FeatureScaler(FeatureLayer):
    """Centre each feature by its median, scale it by its quartiles, and bend outliers smoothly.

    Use it before dense layers, in place of `keras.layers.Normalization`: one amount of a million
    moves a mean and a variance, but no median and no quartile. `adapt` learns the median `m` and
    the distance `r` between the quartiles; a feature of which most values are equal has `r = 0`,
    and half the distance from its least to its greatest value is taken. Then

    `z = (x − m) / r`, and the output is `z / sqrt(1 + (z / 3)²)`,

    which is `z` near 0 and stays within ±3. A feature that is constant in `adapt` becomes 0.

    Missing values are NaN. With `missing="median"` a gap becomes the median, which is 0 after
    scaling, and each feature that had gaps in `adapt` gets one more output: 1 for a gap, else 0.
    With `missing="error"` gaps in `adapt` are an error, and later ones give NaN.

    Statistics are weights. Under mixed precision the layer computes in float32.

    Args:
        missing: `"median"` or `"error"`. Defaults to `"median"`.
        has_missing: list of bools, which features had gaps, as `adapt` finds it and `get_config`
            writes it, so that a copy has the same outputs before its weights arrive. Not meant to
            be written by hand. Defaults to `None`.
        **kwargs: `name`, `dtype`, `trainable` and the other arguments of `keras.layers.Layer`.

    Input shape:
        `(batch_size, ..., features)`.

    Output shape:
        `(batch_size, ..., num_outputs)`: the features in their order, then an indicator for each
        of those that had gaps, in the same order.

    Raises:
        TypeError: for an argument of the wrong kind.
        ValueError: for an argument of the wrong value, and for a layer that is used before `adapt`.

    Example:

    ```python
    import numpy as np
    from keras_binclf import FeatureScaler

    x = np.array([[20.0, 1.0], [30.0, np.nan], [40.0, 2.0], [9000.0, 3.0]])
    scaler = FeatureScaler()
    scaler.adapt(x)
    outputs = np.array(scaler(x))
    assert outputs.shape == (4, 3) and np.abs(outputs).max() <= 3
    assert outputs[1].tolist()[1:] == [0.0, 1.0]  # a gap: the median, and said so
    ```

    References:
        - Robust scaling and smooth clipping, with these fall-backs and the bound 3: Holzmüller et
          al. 2024, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data",
          https://arxiv.org/abs/2407.04491; `RobustScaleFactory` and `smooth_clip_func` of
          https://github.com/dholzmueller/pytabkit
        - Indicators of gaps: Van Ness et al. 2023, "The Missing Indicator Method",
          https://arxiv.org/abs/2211.09259; `sklearn.impute.SimpleImputer(add_indicator=True)`
    """

    def __init__(
        self,
        *,
        missing: str = "median",
        has_missing: Sequence[bool] | None = None,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        check_choice(missing, "missing", owner, ("median", "error"))
        if has_missing is not None:
            has_missing = check_flags(has_missing, "has_missing", owner)
            if missing == "error" and any(has_missing):
                raise ValueError(
                    f"`has_missing` of {owner} must be False everywhere with `missing='error'`. "
                    f"Received: has_missing={list(has_missing)!r}."
                )
        super().__init__(**kwargs)
        self.missing = missing
        self.has_missing = has_missing

    @property
    def num_features(self) -> int | None:
        """The number of features that the layer was adapted to, or None."""
        return None if self.has_missing is None else len(self.has_missing)

    @property
    def num_outputs(self) -> int | None:
        """The number of outputs: features and indicators; None before `adapt`."""
        return None if self.has_missing is None else len(self.has_missing) + sum(self.has_missing)

    @property
    def is_adapted(self) -> bool:
        """Whether `adapt` was called, or the statistics were loaded."""
        return self.built and bool(np.isfinite(ops.convert_to_numpy(self.median)).all())

    def adapt(self, data: Any) -> None:
        """Learn median, quartiles and which features have gaps.

        All rows are kept in memory meanwhile, since quartiles are not sums.

        Args:
            data: array, tensor or numeric table of shape `(rows, ..., features)`, or a data set,
                data loader or generator of batches of them, alone or as `(x, y, ...)`.

        Raises:
            TypeError: for data that is not numeric.
            ValueError: for no rows, infinite values, a feature without any value, gaps with
                `missing="error"`, and, once the layer is built, for gaps in other features.
        """
        rows = read_rows(data, type(self).__name__, self.compute_dtype)
        has_missing = self._find_missing(rows)
        if self.built and has_missing != self.has_missing:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} is built for {self.num_features} features "
                f"with gaps in {_list_true(self.has_missing)}. Received: {len(has_missing)} "
                f"features with gaps in {_list_true(has_missing)}. Adapt a new layer."
            )
        statistics = [_measure(rows, i) for i in range(len(has_missing))]
        self.has_missing = has_missing
        if not self.built:
            self.build((None, len(has_missing)))
        medians, factors = np.transpose(statistics)
        self.median.assign(medians)
        self.factor.assign(factors)

    def build(self, input_shape: Shape) -> None:
        """Create the statistics, which are NaN until they are learned or loaded.

        Args:
            input_shape: `(batch_size, ..., features)`.

        Raises:
            ValueError: before `adapt`, and for another number of features.
        """
        if self.has_missing is None:
            raise not_adapted(self)
        features = self._fix_features(input_shape, self.num_features)
        self.median = self._add_statistic("median", (features,))
        self.factor = self._add_statistic("factor", (features,))

    def call(self, inputs: Tensor) -> Tensor:
        """Return the scaled features and the indicators.

        Args:
            inputs: tensor of shape `(batch_size, ..., features)`, with NaN for gaps.

        Returns:
            Tensor of shape `(batch_size, ..., num_outputs)`.
        """
        return self._scale(inputs, self.median, self.factor)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return `(batch_size, ..., num_outputs)`."""
        if self.num_outputs is None:
            raise not_adapted(self)
        return (*input_shape[:-1], self.num_outputs)

    def to_core(self) -> Callable[[Tensor], Tensor]:
        """Return a function of Keras operations that computes the same from copied statistics.

        `keras_binclf.to_core_layers` asks for it.
        """
        median, factor = (ops.convert_to_numpy(weight) for weight in (self.median, self.factor))
        return lambda inputs: self._scale(inputs, median, factor)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the features that have gaps."""
        flags = self.has_missing
        return {
            **super().get_config(),
            "missing": self.missing,
            "has_missing": None if flags is None else list(flags),
        }

    def _find_missing(self, rows: Rows) -> tuple[bool, ...]:
        """Return which columns have gaps, or raise where that is an error."""
        gaps = np.isnan(rows.values)
        if gaps.all(axis=0).any():
            column = rows.names[int(gaps.all(axis=0).argmax())]
            raise ValueError(
                f"`data` of {rows.owner}.adapt must have values in every column. Received: none in "
                f"column {column!r}. Leave it out."
            )
        if gaps.any() and self.missing == "error":
            raise ValueError(
                f"`data` of {rows.owner}.adapt must have no gaps with `missing='error'`. Received: "
                f"NaN in {rows.describe_cell(gaps)}. Fill it, or give `missing='median'`."
            )
        return tuple(bool(flag) for flag in np.atleast_1d(gaps.any(axis=0)))

    def _scale(self, inputs: Tensor, median: Any, factor: Any) -> Tensor:
        x = ops.cast(inputs, self.compute_dtype)
        gaps = ops.isnan(x)
        # The square of a number beyond FAR may be infinite, and would give 0.
        z = ops.clip(ops.multiply(ops.subtract(x, median), factor), -FAR, FAR)
        bent = ops.divide(z, ops.sqrt(1.0 + ops.square(z / LIMIT)))
        if self.missing == "error":
            # Some runtimes clip NaN to a bound.
            return ops.where(gaps, x, bent)
        # The statistics that were never set are NaN, and their outputs stay so.
        scaled = ops.where(gaps, ops.multiply(median, 0.0), bent)
        flags = self.has_missing or ()
        with_gaps = [i for i, flag in enumerate(flags) if flag]
        if not with_gaps:
            return scaled
        indicators = take_columns(ops.cast(gaps, self.compute_dtype), with_gaps)
        return join([scaled, indicators])


def _measure(rows: Rows, column: int) -> tuple[float, float]:
    """Return median and factor of a column: 1 over its range, and 0 where that is 0."""
    values: Array = rows.values[:, column].astype("float64")
    values = values[~np.isnan(values)]
    lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75))
    spread = upper - lower or 0.5 * (values.max() - values.min())
    factor = 1.0 / spread if spread else 0.0
    limits = np.finfo(rows.values.dtype)
    if factor > limits.max or spread > limits.max:
        raise ValueError(
            f"`data` of {rows.owner}.adapt must have a spread that {rows.values.dtype} can hold. "
            f"Received: {float(spread)!r} between the quartiles of column {rows.names[column]!r}. "
            "Give it in another unit."
        )
    return float(median), float(factor)


def _list_true(flags: Any) -> str:
    return f"columns {[i for i, flag in enumerate(flags or ()) if flag]}"
