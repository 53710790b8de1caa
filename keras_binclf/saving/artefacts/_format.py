"""The base class of the formats, each of which is a module of its own in this folder."""

import abc
import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras

from keras_binclf.layers import BinaryHead
from keras_binclf.saving.artefacts._served_inputs import Batch, ServedInputs

OUTPUTS = ("probability", "label")
METADATA = "keras_binclf.json"
"""Name of the metadata, in the formats that keep them as a file."""


@dataclasses.dataclass(frozen=True)
class Artefact:
    """A file, or a folder, to write.

    Attributes:
        format: one of `FORMATS`.
        path: where to write.
        notes: the metadata, of types that JSON has.
        quantization: one of the format's quantizations, or None.
    """

    format: str
    path: Path
    notes: Mapping[str, Any]
    quantization: str | None = None


class Format(abc.ABC):
    """A file format: how a model is written in it, and how it is run from it.

    Attributes:
        name: its name in `export`.
        suffix: how its path ends; empty for a folder.
        extra: the extra of this package that installs `writers` and `runners`.
        writers: modules that write it.
        runners: modules that run it.
        tolerance: the largest difference from the model's probabilities that rounding explains.
        quantizations: the kinds of quantization that it offers.
        has_text: whether its inputs can be text.
        has_separate_names: whether an input can have the name of an output.
        takes_columns: whether it looks words up, so that its inputs are the columns of a table
            where the model has an encoder for it; else it takes the encoded table.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    extra: ClassVar[str] = ""
    writers: ClassVar[tuple[str, ...]] = ()
    runners: ClassVar[tuple[str, ...]] = ()
    tolerance: ClassVar[float]
    quantizations: ClassVar[tuple[str, ...]] = ()
    has_text: ClassVar[bool] = True
    has_separate_names: ClassVar[bool] = True
    takes_columns: ClassVar[bool] = False

    @abc.abstractmethod
    def write(
        self, artefact: Artefact, model: keras.Model, head: BinaryHead, inputs: ServedInputs
    ) -> None:
        """Write an artefact with the outputs `probability` and `label`.

        Args:
            artefact: path, metadata and quantization.
            model: model on the TensorFlow backend.
            head: its head.
            inputs: inputs of the artefact.
        """

    @abc.abstractmethod
    def run(self, path: Path, rows: Batch) -> Mapping[str, Any]:
        """Run an artefact in the runtime of its users, and return its outputs by name."""

    def simplify_name(self, name: str) -> str:
        """Return what a runtime tells inputs apart by: their names, unless it changes these."""
        return name

    def list_files(self, path: Path) -> list[Path]:
        """Return the files or folders that an artefact at `path` consists of."""
        return [path]

    def list_missing_packages(self, verify: bool) -> list[str]:
        """Return the modules that are needed and not installed."""
        needed = [*self.writers, *(self.runners if verify else ())]
        return [name for name in dict.fromkeys(needed) if importlib.util.find_spec(name) is None]
