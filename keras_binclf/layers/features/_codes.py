"""Codes of categories: which level of its column each stands for, and hashing."""

import dataclasses
from collections.abc import Iterable, Sequence

import keras
from keras import ops

from keras_binclf._validation import Tensor
from keras_binclf.layers.features._columns import FIRST, MISSING, UNKNOWN
from keras_binclf.layers.features._feature_layer import make_constant

NARROW = ("bool", "int8", "uint8", "int16", "uint16")
"""Types that may not hold the largest code."""

PRIME = 46337
"""The largest prime whose products of remainders fit into int32."""
MULTIPLIER = 28637
"""PRIME over the golden ratio: consecutive codes fall far apart (Knuth 1998, section 6.4)."""
CARRY = 17707
"""Multiplier of what lies above PRIME."""


@dataclasses.dataclass(frozen=True)
class CodedColumn:
    """What one column of codes becomes: `levels` numbers or, where `is_embedded`, a vector."""

    num_categories: int
    num_buckets: int | None
    has_missing: bool
    has_rare: bool
    max_one_hot: int

    @property
    def first(self) -> int:
        """The level of the first category; before it those of missing and of rare."""
        return self.has_missing + self.has_rare

    @property
    def unknown(self) -> int:
        """The level of an unknown category: that of rare ones, and -1 where there are none."""
        return int(self.has_missing) if self.has_rare else -1

    @property
    def missing(self) -> int:
        """The level of a missing value."""
        return 0 if self.has_missing else self.unknown

    @property
    def is_hashed(self) -> bool:
        """Whether categories share vectors."""
        return self.num_buckets is not None and self.num_categories > self.num_buckets

    @property
    def levels(self) -> int:
        """The number of levels: missing, rare and the categories, as far as there are any."""
        hashed = self.num_buckets if self.is_hashed else None
        return self.first + (hashed or self.num_categories)

    @property
    def is_embedded(self) -> bool:
        """Whether the levels have a trainable vector each, and not a place in a one-hot one."""
        return self.levels > self.max_one_hot


def find_levels(codes: Tensor, columns: Sequence[CodedColumn]) -> Tensor:
    """Return the level of each code in its column, -1 where it has none.

    Args:
        codes: tensor of shape `(..., columns)`, of any type.
        columns: the columns.
    """
    codes = _check_codes(codes, columns)
    index = ops.subtract(codes, FIRST)
    if any(column.is_hashed for column in columns):
        buckets = next(column.num_buckets for column in columns if column.is_hashed) or 0
        is_hashed = ops.greater(make_constant(int(c.is_hashed) for c in columns), 0)
        index = ops.where(is_hashed, hash_index(index, buckets), index)
    missing, unknown, first = (
        make_constant(values)
        for values in (
            (column.missing for column in columns),
            (column.unknown for column in columns),
            (column.first for column in columns),
        )
    )
    # `==` of a tensor that stands for an input compares objects.
    levels = ops.where(ops.equal(codes, MISSING), missing, unknown)
    # Keras makes `BiasAdd` of a sum whose second part is a vector; LiteRT has no integer one.
    return ops.where(ops.greater_equal(codes, FIRST), ops.add(first, index), levels)


def hash_index(index: Tensor, num_buckets: int) -> Tensor:
    """Return the bucket of each category; all products fit into int32."""
    index = ops.maximum(index, 0)
    low, high = ops.mod(index, PRIME), ops.floor_divide(index, PRIME)
    mixed = ops.mod(low * MULTIPLIER, PRIME) + ops.mod(ops.mod(high, PRIME) * CARRY, PRIME)
    return ops.floor_divide(ops.mod(mixed, PRIME) * num_buckets, PRIME)


def _check_codes(codes: Tensor, columns: Iterable[CodedColumn]) -> Tensor:
    """Return int32 codes, 1 for everything that is no code of its column."""
    if keras.backend.standardize_dtype(codes.dtype) in NARROW:
        codes = ops.cast(codes, "int32")
    dtype = keras.backend.standardize_dtype(codes.dtype)
    largest = make_constant((c.num_categories + FIRST - 1 for c in columns), dtype)
    # A comparison with NaN is false.
    is_code = ops.logical_and(ops.greater_equal(codes, MISSING), ops.less_equal(codes, largest))
    if "float" in dtype:
        is_code = ops.logical_and(is_code, ops.equal(ops.floor(codes), codes))
    return ops.cast(ops.where(is_code, codes, ops.full_like(codes, UNKNOWN)), "int32")
