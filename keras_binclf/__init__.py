"""Registered, serializable building blocks for binary classification with Keras 3."""

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
