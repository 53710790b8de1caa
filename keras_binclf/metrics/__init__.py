"""Metrics: streaming counts of labels and scores, and the values made of them."""

from keras_binclf.metrics.best_threshold import BestThreshold
from keras_binclf.metrics.binary_auc import BinaryAUC
from keras_binclf.metrics.brier_score import BrierScore
from keras_binclf.metrics.expected_calibration_error import ExpectedCalibrationError
from keras_binclf.metrics.scores import Criterion
from keras_binclf.metrics.threshold_metric import ThresholdMetric

__all__ = [
    "BestThreshold",
    "BinaryAUC",
    "BrierScore",
    "Criterion",
    "ExpectedCalibrationError",
    "ThresholdMetric",
]
