"""Saving: a model leaves the training program, as a file or as a compiled function."""

from keras_binclf.saving.artefacts import Exported, export
from keras_binclf.saving.core_layers import to_core_layers
from keras_binclf.saving.files.columns import ColumnDescription
from keras_binclf.saving.files.description import (
    FileDescription,
    HeadDescription,
    InputDescription,
    describe,
)
from keras_binclf.serving import Predictor

__all__ = [
    "ColumnDescription",
    "Exported",
    "FileDescription",
    "HeadDescription",
    "InputDescription",
    "Predictor",
    "describe",
    "export",
    "to_core_layers",
]
