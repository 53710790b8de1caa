"""Saving: a model leaves the training program, as a file or as a compiled function."""

from keras_binclf.saving.describe import (
    FileDescription,
    HeadDescription,
    InputDescription,
    describe,
)
from keras_binclf.saving.predictor import Predictor

__all__ = [
    "FileDescription",
    "HeadDescription",
    "InputDescription",
    "Predictor",
    "describe",
]
