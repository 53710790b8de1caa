"""The inputs of the models of a search: their names, their shapes and the layer behind each."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_binclf._data.inputs import InputSpec, ModelInputs
from keras_binclf._validation import error_message, to_list
from keras_binclf.models import check_input_shape

SINGLE = "features"
"""Name of the input of a model that has one."""

Shapes = tuple[int, ...] | dict[str, Any] | list[Any]
"""Shape of one example, or a dict or a list of the shapes of several inputs."""


@dataclasses.dataclass(frozen=True)
class SearchInput:
    """One input of the models.

    Attributes:
        name: name of the input.
        shape: of one example, without the batch.
        key: key or place among several inputs; None for the only one.
    """

    name: str
    shape: tuple[int, ...]
    key: str | int | None = None

    def name_part(self, argument: str) -> str:
        """Return the words for this input's part of an argument, such as `x['image']`."""
        if self.key is None:
            return argument
        first, of, place = argument.partition(" of ")
        return f"{first}[{self.key!r}]{of}{place}"


@dataclasses.dataclass(frozen=True)
class SearchInputs:
    """All inputs of the models.

    Attributes:
        structure: a `SearchInput`, or a dict or list of them.
    """

    structure: Any

    @property
    def parts(self) -> list[SearchInput]:
        """The inputs, in the order of `keras.tree.flatten`."""
        return list(keras.tree.flatten(self.structure))

    @property
    def is_single(self) -> bool:
        """Whether there is one input, which is not in a dict or list."""
        return isinstance(self.structure, SearchInput)

    @property
    def shapes(self) -> Shapes:
        """The shapes, in the same structure."""
        shapes: Shapes = keras.tree.map_structure(lambda part: part.shape, self.structure)
        return shapes

    def to_json(self) -> Any:
        """Return the shapes with lists for tuples."""
        return keras.tree.map_structure(lambda part: list(part.shape), self.structure)

    @property
    def model_inputs(self) -> ModelInputs:
        """The inputs as those of a model, for a reader of rows."""
        structure = keras.tree.map_structure(
            lambda part: InputSpec(part.name, part.shape, "float32", part.name), self.structure
        )
        return ModelInputs(tuple(keras.tree.flatten(structure)), (structure,), ("inputs",))

    def check_several(self, backbone: Any, scaler: Any, owner: str) -> None:
        """Raise for several inputs that nothing joins, or a scaler for all of them.

        Args:
            backbone: argument of the public class.
            scaler: argument of the public class.
            owner: its name, for messages.
        """
        if self.is_single:
            return
        if backbone is None:
            expected = "a function (hp, inputs) -> tensor where there are several inputs"
            raise ValueError(error_message("backbone", owner, expected, None))
        if scaler is not None:
            hint = "Call it in `backbone`, on the input that it was adapted to."
            expected = "left out where there are several inputs"
            raise ValueError(error_message("scaler", owner, expected, scaler, hint))

    def pack(self, values: Iterable[Any]) -> Any:
        """Return values, one for each input, in the same structure."""
        return keras.tree.pack_sequence_as(self.structure, list(values))

    def make_tensors(self) -> Any:
        """Return new symbolic inputs, in the same structure."""
        return keras.tree.map_structure(
            lambda part: keras.Input(part.shape, name=part.name), self.structure
        )


def read_input_shape(value: Any, owner: str) -> SearchInputs:
    """Return the inputs that the argument `input_shape` describes.

    Args:
        value: int or shape of the only input, or a dict or list of several.
        owner: name of the public class, for messages.

    Raises:
        TypeError: for anything else.
        ValueError: for no inputs, sizes below 1, and names that Keras does not take.
    """
    if isinstance(value, Mapping):
        for name in value:
            _check_name(name, value, owner)
        _check_some(value, owner)
        return SearchInputs({name: _read_one(name, name, value[name], owner) for name in value})
    if not _is_several(value):
        return SearchInputs(SearchInput(SINGLE, check_input_shape(value, owner)))
    parts = [_read_one(f"{SINGLE}_{i}", i, shape, owner) for i, shape in enumerate(value)]
    return SearchInputs(parts)


def _is_several(value: Any) -> bool:
    """Whether a list has shapes in it, rather than the sizes of one shape."""
    return isinstance(value, list | tuple) and any(to_list(part) is not None for part in value)


def _read_one(name: str, key: str | int, value: Any, owner: str) -> SearchInput:
    return SearchInput(name, check_input_shape(value, owner, f"input_shape[{key!r}]"), key)


def _check_some(value: Mapping[Any, Any], owner: str) -> None:
    if not value:
        raise ValueError(error_message("input_shape", owner, "a shape for each input", value))


def _check_name(name: Any, value: Any, owner: str) -> None:
    expected = "a dict whose keys are names of inputs, without `/`"
    if not isinstance(name, str):
        raise TypeError(error_message("input_shape", owner, expected, value))
    if not name or "/" in name:
        raise ValueError(error_message("input_shape", owner, expected, value))
