"""The inputs of the models of a search: their names, their shapes and the encoder of each."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras

from keras_binclf._data.inputs import InputSpec, ModelInputs
from keras_binclf._layer_state import deserialize_layer, serialize_layer
from keras_binclf._validation import error_message, to_list
from keras_binclf.layers import TabularEncoder
from keras_binclf.models import check_input_shape, copy_encoder, refuse_scaler

SINGLE = "features"
"""Name of the input of a model that has one."""

Shapes = tuple[int, ...] | TabularEncoder | dict[str, Any] | list[Any]
"""Shape of one example, an encoder of tables, or a dict or a list of those of several inputs."""


@dataclasses.dataclass(frozen=True)
class SearchInput:
    """One input of the models.

    Attributes:
        name: name of the input.
        shape: of one example, without the batch; with an encoder that of an encoded row.
        key: key or place among several inputs; None for the only one.
        encoder: the encoder that the input feeds, of which each model has a copy, or None.
    """

    name: str
    shape: tuple[int, ...]
    key: str | int | None = None
    encoder: TabularEncoder | None = None

    @property
    def declared(self) -> Any:
        """The part of `input_shape` that declares the input: a shape or an encoder."""
        return self.shape if self.encoder is None else self.encoder

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
    def has_encoders(self) -> bool:
        """Whether tables feed any of the inputs."""
        return any(part.encoder is not None for part in self.parts)

    @property
    def shapes(self) -> Shapes:
        """The shapes, and the encoders in their places, in the same structure."""
        shapes: Shapes = keras.tree.map_structure(lambda part: part.declared, self.structure)
        return shapes

    def to_json(self) -> Any:
        """Return the shapes with lists for tuples, and all state of the encoders."""
        return self._map(serialize_layer)

    def identify(self) -> Any:
        """Return as JSON what trials depend on: of encoders the schema and the statistics.

        The first values of their trainable weights are random, as those of other layers are.
        """
        return self._map(_identify_encoder)

    def _map(self, write: Callable[[TabularEncoder], Any]) -> Any:
        return keras.tree.map_structure(
            lambda part: list(part.shape) if part.encoder is None else write(part.encoder),
            self.structure,
        )

    @property
    def model_inputs(self) -> ModelInputs:
        """The inputs as those of a model, for a reader of rows."""
        structure = keras.tree.map_structure(
            lambda part: InputSpec(part.name, part.shape, "float32", part.name), self.structure
        )
        return ModelInputs(tuple(keras.tree.flatten(structure)), (structure,), ("inputs",))

    def check_beside(self, backbone: Any, scaler: Any, owner: str) -> None:
        """Raise for several inputs that nothing joins, and for a scaler that has no place.

        Args:
            backbone: argument of the public class.
            scaler: argument of the public class.
            owner: its name, for messages.
        """
        if self.is_single:
            if self.has_encoders:
                refuse_scaler(scaler, owner)
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

    def apply_encoders(self, tensors: Any, owner: str) -> Any:
        """Return what a new copy of each encoder makes of its input, and other inputs unchanged.

        Args:
            tensors: as of `make_tensors`.
            owner: name of the public class, for messages.
        """
        values = [
            tensor if part.encoder is None else copy_encoder(part.encoder, None, owner)(tensor)
            for part, tensor in zip(self.parts, keras.tree.flatten(tensors), strict=True)
        ]
        return self.pack(values)


def read_input_shape(value: Any, owner: str) -> SearchInputs:
    """Return the inputs that the argument `input_shape` describes.

    Args:
        value: int, shape or encoder of the only input, or a dict or list of several.
        owner: name of the public class, for messages.

    Raises:
        TypeError: for anything else.
        ValueError: for no inputs, sizes below 1, names that Keras does not take, encoders that
            were not adapted, and encoders of the same name.
    """
    if isinstance(value, Mapping):
        for name in value:
            _check_name(name, value, owner)
        _check_some(value, owner)
        named = {name: _read_one(name, name, value[name], owner) for name in value}
        return _check_encoders(SearchInputs(named), owner)
    if not _is_several(value):
        return SearchInputs(_read_one(SINGLE, None, value, owner))
    parts = [_read_one(f"{SINGLE}_{i}", i, shape, owner) for i, shape in enumerate(value)]
    return _check_encoders(SearchInputs(parts), owner)


def deserialize_input_shape(data: Any) -> Any:
    """Return the argument `input_shape` that `SearchInputs.to_json` wrote."""
    if isinstance(data, Mapping):
        if isinstance(data.get("layer"), Mapping) and "state" in data:
            return deserialize_layer(dict(data))
        return {name: deserialize_input_shape(part) for name, part in data.items()}
    if isinstance(data, list | tuple):
        return [deserialize_input_shape(part) for part in data]
    return data


def _is_several(value: Any) -> bool:
    """Whether a list has shapes or encoders in it, rather than the sizes of one shape."""
    return isinstance(value, list | tuple) and any(
        isinstance(part, TabularEncoder) or to_list(part) is not None for part in value
    )


def _read_one(name: str, key: str | int | None, value: Any, owner: str) -> SearchInput:
    if isinstance(value, TabularEncoder):
        encoder = copy_encoder(value, None, owner)
        return SearchInput(name, (encoder.num_encoded,), key, encoder)
    argument = "input_shape" if key is None else f"input_shape[{key!r}]"
    return SearchInput(name, check_input_shape(value, owner, argument), key)


def _check_encoders(inputs: SearchInputs, owner: str) -> SearchInputs:
    """Return the inputs, or raise for two encoders of one name, which no model can hold."""
    names = [part.encoder.name for part in inputs.parts if part.encoder is not None]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"The encoders in `input_shape` of {owner} must have different names. Received: "
            f"several named {twice[0]!r}. Make each with a `name`, and adapt it to its table."
        )
    return inputs


def _identify_encoder(encoder: TabularEncoder) -> Any:
    config = {key: value for key, value in encoder.get_config().items() if key != "name"}
    config["dtype"] = encoder.dtype_policy.name
    statistics = map(keras.ops.convert_to_numpy, encoder.non_trainable_weights)
    return {"config": config, "statistics": [array.tolist() for array in statistics]}


def _check_some(value: Mapping[Any, Any], owner: str) -> None:
    if not value:
        raise ValueError(error_message("input_shape", owner, "a shape for each input", value))


def _check_name(name: Any, value: Any, owner: str) -> None:
    expected = "a dict whose keys are names of inputs, without `/`"
    if not isinstance(name, str):
        raise TypeError(error_message("input_shape", owner, expected, value))
    if not name or "/" in name:
        raise ValueError(error_message("input_shape", owner, expected, value))
