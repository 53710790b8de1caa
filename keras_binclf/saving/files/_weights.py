"""The weights of a saved model, by shape; of the numbers only thresholds are read."""

import contextlib
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_binclf._validation import shortest_float
from keras_binclf.saving.files._archive import damaged
from keras_binclf.saving.files._config import Entry

Group = Any
"""An `h5py.Group`: h5py has no types."""


@contextlib.contextmanager
def open_weights(content: bytes) -> Iterator[Group]:
    """Open the weights of a model, as an HDF5 file.

    Raises:
        ValueError: if it is damaged, also from what is done with the open file.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            yield file
    except Exception as error:  # h5py has one for each thing that can be wrong
        raise damaged("model.weights.h5", error) from error


def count_parameters(file: Group) -> int:
    """Return how many numbers the weights have, without those of optimizers."""
    sizes = []

    def add(path: str, item: Any) -> None:
        *groups, owner, _ = ["", "", *path.split("/")]
        optimizer = any(name.endswith("optimizer") for name in groups)
        if owner == "vars" and not optimizer and getattr(item, "shape", None) is not None:
            sizes.append(math.prod(item.shape))

    # Follows no links to other files.
    file.visititems(add)
    return sum(sizes)


def read_threshold(file: Group, head: Entry) -> float | None:
    """Return the threshold of a head; None where it is not certain which one is its own.

    Keras stores the name of each layer beside its variables, and the layers under the attributes
    that hold them, which have the names of config keys in Keras's own models and wrappers.
    """
    group: Group | None = file
    for key, name in head.way:
        group = None if group is None else _find_child(group, key, name)
    if group is None:
        named = [one for one in _iterate_named(file) if _get_name(one) == head.config.get("name")]
        found = [value for value in map(_read_scalar, named) if value is not None]
        return found[0] if len(found) == 1 else None
    return _read_scalar(group)


def _find_child(group: Group, key: str, name: str) -> Group | None:
    """Return the object of that name under an attribute, or in the list there."""
    child = _get(group, key)
    if child is None:
        return None
    found = [child, *(_get(child, one) for one in child)]
    found = [one for one in found if one is not None and _get_name(one) == name]
    return found[0] if len(found) == 1 else None


def _iterate_named(group: Group) -> Iterator[Group]:
    found: list[Group] = []
    group.visititems(lambda _, item: found.append(item) if _get_name(item) else None)
    return iter(found)


def _get(group: Group, name: str, kind: str = "Group") -> Any:
    """Return what a group holds, if it is of that kind and lies in this file."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    item = group[name]
    return item if isinstance(item, getattr(h5py, kind)) else None


def _get_name(group: Group) -> str | None:
    """Return the name of the layer whose variables a group holds."""
    variables = _get(group, "vars") if hasattr(group, "keys") else None
    name = None if variables is None else variables.attrs.get("name")
    return name if isinstance(name, str) else None


def _read_scalar(group: Group) -> float | None:
    """Return the one float32 scalar of a head, whose other variables have dimensions."""
    variables = _get(group, "vars")
    items = [] if variables is None else [_get(variables, name, "Dataset") for name in variables]
    scalars = [item for item in items if item is not None and item.shape == ()]
    if len(scalars) != 1 or scalars[0].dtype != np.float32:
        return None
    (scalar,) = scalars
    return None if scalar.is_virtual or scalar.external else shortest_float(scalar[()])
