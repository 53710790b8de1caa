"""The inputs of an artefact: those of the model, or raw columns in place of an encoded table."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_binclf._data.inputs import InputSpec, ModelInputs
from keras_binclf.layers.features.raw_columns import read_raw_columns
from keras_binclf.saving.artefacts._graph_encoder import GraphEncoder
from keras_binclf.saving.artefacts._raw_columns import Column

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]
"""Rows: one array for each input, by name."""


@dataclasses.dataclass(frozen=True)
class ServedInputs:
    """The inputs of an artefact.

    Attributes:
        inputs: the inputs of the model.
        columns: the columns that stand for an input of the model, by its name.
    """

    inputs: ModelInputs
    columns: Mapping[str, tuple[Column, ...]]

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """The inputs, in the order of those of the model."""
        return tuple(
            one
            for spec in self.inputs.specs
            for one in ([c.spec for c in self.columns.get(spec.name, ())] or [spec])
        )

    def make_encoders(self) -> dict[str, GraphEncoder]:
        """Return what encodes the columns in a TensorFlow graph, by input of the model."""
        return {name: GraphEncoder(columns) for name, columns in self.columns.items()}

    def encode(self, encoders: Mapping[str, GraphEncoder], tensors: Iterable[Any]) -> list[Any]:
        """Return the inputs of the model for tensors of these inputs.

        Args:
            encoders: the result of `make_encoders`.
            tensors: tensors in the order of `specs`.
        """
        rest = iter(tensors)
        return [
            encoders[spec.name]([next(rest) for _ in self.columns[spec.name]])
            if spec.name in self.columns
            else next(rest)
            for spec in self.inputs.specs
        ]

    def encode_batch(self, batch: Batch) -> dict[str, Array]:
        """Return rows for the model on the TensorFlow backend, from rows for the artefact."""
        if not self.columns:
            return dict(batch)
        tensors = [keras.ops.convert_to_tensor(batch[spec.name]) for spec in self.specs]
        encoded = self.encode(self.make_encoders(), tensors)
        names = [spec.name for spec in self.inputs.specs]
        return {
            name: tensor.numpy() if name in self.columns else batch[name]
            for name, tensor in zip(names, encoded, strict=True)
        }

    def name_columns(self, batch: Batch, tables: Mapping[str, Any]) -> dict[str, Array]:
        """Return rows for the artefact, from rows for the model.

        Args:
            batch: rows for the model, by input.
            tables: the tables from which those rows were encoded, by input of the model; further
                rows of them are left out.
        """
        named: dict[str, Array] = {}
        for spec in self.inputs.specs:
            columns = self.columns.get(spec.name)
            if columns is None:
                named[spec.name] = batch[spec.name]
                continue
            encoder: Any = spec.encoder
            raw = read_raw_columns(encoder, tables[spec.name])
            num_rows = len(batch[spec.name])
            named |= {c.input: raw[c.schema["name"]][:num_rows] for c in columns}
        return named
