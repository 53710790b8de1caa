"""The weights of a saved model, by shape; of the numbers only thresholds are read.

Each object of the HDF5 file is opened once, from the group that holds it, and a bounded number of
them: opening one by its path costs as much as the path is deep.
"""

import contextlib
import dataclasses
import io
import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from keras_binclf._validation import shortest_float
from keras_binclf.saving.files._archive import damaged
from keras_binclf.saving.files._config import Entry

MAX_OBJECTS = 20_000
"""Groups and variables, without the optimizer's: five for a dense layer."""
MAX_MEMBERS = 5_000
"""Of one group: HDF5 finds a member by comparing names one by one where a file asks for that."""
MAX_DEPTH = 200
"""Of groups: three for each model within a model."""
MAX_NAME = 1_000
"""Bytes of a layer's name."""
MAX_EXPANSION = 1_000
"""Numbers a byte of the file: deflate, which HDF5 can use, shrinks zeros so much."""

Identifier = Any
"""An object of h5py's low level: h5py has no types."""


class TooLargeError(ValueError):
    """The weights are larger in some way than is read; the message says in which."""


@dataclasses.dataclass(slots=True)
class Group:
    """A group of the file: of a layer, or of an attribute that holds layers."""

    layer: str | None = None
    """Name of the layer whose variables it holds, None for no layer."""
    threshold: float | None = None
    """The one float32 scalar among the variables, read for the layers that were asked for."""
    groups: "dict[str, Group]" = dataclasses.field(default_factory=dict)
    """The groups within, by the attribute, or the place in a list, that they stand for."""
    layers: "dict[str, Group | None] | None" = None
    """Those by the name of their layer, made when first needed; None where several have it."""

    def find(self, attribute: str, layer: str) -> "Group | None":
        """Return the group of a layer that is an attribute, or in a list that is one."""
        child = self.groups.get(attribute)
        if child is None:
            return None
        if child.layers is None:
            child.layers = {}
            for one in (child, *child.groups.values()):
                if one.layer is not None:
                    child.layers[one.layer] = None if one.layer in child.layers else one
        return child.layers.get(layer)


class Weights:
    """The groups of a file, and the number of its parameters."""

    def __init__(self, content: bytes, layers: Collection[str]) -> None:
        """Read a file.

        Args:
            content: the HDF5 file.
            layers: names of the layers whose thresholds are read.

        Raises:
            TooLargeError: if it holds more than is read.
            ValueError: if it is damaged.
        """
        self.root = Group()
        self.num_parameters = 0
        self._thresholds: dict[str, list[float]] = {}
        self._wanted = layers
        self._left = MAX_OBJECTS
        self._seen: set[int] = set()
        with _open(content) as file:
            self._read(file)
        if self.num_parameters > MAX_EXPANSION * len(content):
            raise TooLargeError("shapes of more numbers than the file can hold")

    def read_threshold(self, head: Entry) -> float | None:
        """Return the threshold of a head; None where it is not certain which one is its own.

        Keras stores the name of each layer beside its variables, and the layers under the
        attributes that hold them, which have the names of config keys in Keras's own models and
        wrappers.
        """
        group: Group | None = self.root
        for key, name in head.way:
            group = None if group is None else group.find(key, name)
        if group is not None:
            return group.threshold
        found = self._thresholds.get(head.name, [])
        return found[0] if len(found) == 1 else None

    def _read(self, root: Identifier) -> None:
        waiting = [(root, self.root, 0)]
        while waiting:
            identifier, group, depth = waiting.pop()
            if depth > MAX_DEPTH:
                raise TooLargeError(f"groups deeper than {MAX_DEPTH} levels")
            for name, child in self._iterate_children(identifier):
                if not _is_group(child):
                    continue
                if name == "vars":
                    self._read_variables(child, group)
                else:
                    inner = group.groups[name] = Group()
                    waiting.append((child, inner, depth + 1))

    def _iterate_children(self, identifier: Identifier) -> Iterator[tuple[str, Identifier]]:
        """Yield the objects of a group, each one once in a file, also where it has several names.

        Links to other files are not followed, nor is the optimizer's group.
        """
        import h5py

        num_members = identifier.get_num_objs()
        if num_members > MAX_MEMBERS:
            raise TooLargeError(f"groups of more than {MAX_MEMBERS:,} members")
        self._left -= num_members
        if self._left < 0:
            raise TooLargeError(f"more than {MAX_OBJECTS:,} groups and variables")
        for name in identifier:
            if name.endswith(b"optimizer"):
                continue
            if identifier.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                continue
            child = h5py.h5o.open(identifier, name)
            address = h5py.h5o.get_info(child).addr
            if address not in self._seen:
                self._seen.add(address)
                yield name.decode("utf-8", "replace"), child

    def _read_variables(self, variables: Identifier, group: Group) -> None:
        group.layer = _read_name(variables)
        scalars = []
        for _, child in self._iterate_children(variables):
            shape = _get_shape(child)
            if shape is not None:
                self.num_parameters += math.prod(shape)
            if shape == ():
                scalars.append(child)
        if group.layer in self._wanted and len(scalars) == 1:
            group.threshold = _read_scalar(scalars[0])
            if group.threshold is not None:
                self._thresholds.setdefault(str(group.layer), []).append(group.threshold)


@contextlib.contextmanager
def _open(content: bytes) -> Iterator[Identifier]:
    """Open the root of an HDF5 file; all that h5py raises becomes a `ValueError`."""
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            yield h5py.h5g.open(file.id, b"/")
    except TooLargeError:
        raise
    except Exception as error:  # h5py has one for each thing that can be wrong
        raise damaged("model.weights.h5", error) from error


def _is_group(identifier: Identifier) -> bool:
    import h5py

    return isinstance(identifier, h5py.h5g.GroupID)


def _read_name(variables: Identifier) -> str | None:
    """Return the name of the layer that wrote some variables."""
    import h5py

    if not h5py.h5a.exists(variables, b"name"):
        return None
    attribute = h5py.h5a.open(variables, b"name")
    is_text = isinstance(attribute.get_type(), h5py.h5t.TypeStringID)
    if not is_text or attribute.shape != () or attribute.get_storage_size() > MAX_NAME:
        return None
    name = h5py.Group(variables).attrs["name"]
    # Text of any length costs the attribute a few bytes, and many may share it.
    if len(name) > MAX_NAME:
        raise TooLargeError(f"names of layers of more than {MAX_NAME:,} characters")
    return name if isinstance(name, str) else None


def _get_shape(identifier: Identifier) -> tuple[int, ...] | None:
    """Return the shape of a dataset; None for another object, and for one without numbers here."""
    import h5py

    if not isinstance(identifier, h5py.h5d.DatasetID):
        return None
    if identifier.get_create_plist().get_layout() == h5py.h5d.VIRTUAL:
        return None  # to tell its shape, HDF5 would open other files
    space = identifier.get_space()
    if space.get_simple_extent_type() == h5py.h5s.NULL:
        return None
    shape: tuple[int, ...] = space.get_simple_extent_dims()
    return shape


def _read_scalar(identifier: Identifier) -> float | None:
    """Return a float32 that lies in this file, None for any other scalar."""
    import h5py

    scalar = h5py.Dataset(identifier)
    if scalar.dtype != np.float32 or scalar.external:
        return None
    value = shortest_float(scalar[()])
    return value if math.isfinite(value) else None
