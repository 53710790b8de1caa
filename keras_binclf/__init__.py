"""Registered, serializable building blocks for binary classification with Keras 3."""

from keras_binclf.decision import find_head, predict_class_names, predict_labels
from keras_binclf.layers import BinaryHead, MLPBlock
from keras_binclf.models import binary_classifier

__version__ = "0.1.0"

__all__ = [
    "BinaryHead",
    "MLPBlock",
    "__version__",
    "binary_classifier",
    "find_head",
    "predict_class_names",
    "predict_labels",
]
