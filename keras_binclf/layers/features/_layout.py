"""Where each column stands in the encoded matrix, and what becomes of it in the layer."""

import dataclasses
import functools

from keras_binclf.layers.features._columns import PARTS, Column


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of a table, and their places in the encoded matrix."""

    columns: tuple[Column, ...]

    @functools.cached_property
    def kept(self) -> tuple[Column, ...]:
        """The columns that are encoded."""
        return tuple(column for column in self.columns if column.kind != "ignored")

    @functools.cached_property
    def encoded_names(self) -> tuple[str, ...]:
        """The names of the columns of the matrix."""
        return tuple(name for column in self.kept for name in column.encoded_names)

    @property
    def is_named(self) -> bool:
        """Whether the columns have names, and not only numbers."""
        return isinstance(self.columns[0].name, str)

    @functools.cached_property
    def places(self) -> tuple[tuple[Column, slice], ...]:
        """The columns that are encoded, each with its part of the matrix."""
        places, start = [], 0
        for column in self.kept:
            stop = start + len(column.encoded_names)
            places.append((column, slice(start, stop)))
            start = stop
        return tuple(places)

    @functools.cached_property
    def scaled(self) -> dict[int, bool]:
        """The places of what is scaled, with whether it had gaps."""
        return {
            place.start: column.has_missing
            for column, place in self.places
            if column.kind != "category"
        }

    @functools.cached_property
    def cyclic(self) -> dict[int, float]:
        """The places of parts that return, with their periods."""
        return {
            place.start + i: period
            for column, place in self.places
            for i, part in enumerate(column.parts)
            if (period := PARTS[part]) is not None
        }

    @functools.cached_property
    def categories(self) -> dict[int, Column]:
        """The places of categories, with their columns."""
        return {place.start: column for column, place in self.places if column.kind == "category"}
