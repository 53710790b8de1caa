"""Columns that say the same as the labels."""

from typing import Any

import numpy as np

from keras_binclf.layers.features._columns import Array, Name
from keras_binclf.layers.features._layout import Layout


def find_targets(matrix: Array, layout: Layout, y: Any) -> list[Name]:
    """Return the names of the columns whose values, or gaps, tell all labels.

    Args:
        matrix: the encoded table.
        layout: where its columns stand.
        y: labels, one for each row.

    Raises:
        ValueError: for another number of labels than of rows.
    """
    labels = np.asarray(y).reshape(-1)
    if len(labels) != len(matrix):
        raise ValueError(
            f"`y` of TabularEncoder.adapt must have one label a row. Received: {len(labels)} "
            f"labels for {len(matrix)} rows."
        )
    is_first = labels == labels[0]
    if is_first.all():
        return []
    return [
        column.name
        for column, place in layout.places
        if _tells(matrix[:, place.start], column.kind == "category", is_first)
    ]


def _tells(values: Array, is_category: bool, is_first: Array) -> bool:
    """Whether one value stands beside one label only, and nothing but it; or gaps do."""
    gaps = values == 0 if is_category else np.isnan(values)
    if gaps.any():
        return bool((gaps == gaps[0]).tolist() == is_first.tolist())
    own = values == values[0]
    # The first rows differ in most columns.
    if (own[:100] != is_first[:100]).any() or (own != is_first).any():
        return False
    others = values[~own]
    return bool((others == others[0]).all())
