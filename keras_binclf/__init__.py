"""Registered, serializable building blocks for binary classification with Keras 3."""

import importlib
from typing import TYPE_CHECKING, Any

from keras_binclf.callbacks import AdamMomentLogger, ThresholdTuner
from keras_binclf.decision import (
    Calibration,
    TunedThreshold,
    calibrate,
    find_head,
    predict_class_names,
    predict_labels,
    tune_threshold,
)
from keras_binclf.layers import BinaryHead, MLPBlock
from keras_binclf.metrics import (
    BestThreshold,
    BinaryAUC,
    BrierScore,
    ExpectedCalibrationError,
    ThresholdMetric,
)
from keras_binclf.models import binary_classifier

if TYPE_CHECKING:
    from keras_binclf import plots as plots

__version__ = "0.1.0"

__all__ = [
    "AdamMomentLogger",
    "BestThreshold",
    "BinaryAUC",
    "BinaryHead",
    "BrierScore",
    "Calibration",
    "ExpectedCalibrationError",
    "MLPBlock",
    "ThresholdMetric",
    "ThresholdTuner",
    "TunedThreshold",
    "__version__",
    "binary_classifier",
    "calibrate",
    "find_head",
    "predict_class_names",
    "predict_labels",
    "tune_threshold",
]


def __getattr__(name: str) -> Any:
    """Import `keras_binclf.plots` when it is first asked for."""
    if name == "plots":
        return importlib.import_module("keras_binclf.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "plots"})
