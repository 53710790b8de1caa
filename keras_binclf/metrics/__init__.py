"""Metrics: whatever accumulates over batches."""

from keras_binclf.metrics.calibration import BrierScore, ExpectedCalibrationError
from keras_binclf.metrics.ranking import BinaryAUC
from keras_binclf.metrics.threshold_metric import BestThreshold, ThresholdMetric

__all__ = [
    "BestThreshold",
    "BinaryAUC",
    "BrierScore",
    "ExpectedCalibrationError",
    "ThresholdMetric",
]
