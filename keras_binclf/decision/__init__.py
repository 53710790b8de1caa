"""Decision: labels from scores, tuned thresholds, and calibrated probabilities."""

from keras_binclf._data.heads import find_head
from keras_binclf.decision.calibration import Calibration, calibrate
from keras_binclf.decision.labels import predict_class_names, predict_labels
from keras_binclf.decision.tuned_threshold import TunedThreshold, tune_threshold

__all__ = [
    "Calibration",
    "TunedThreshold",
    "calibrate",
    "find_head",
    "predict_class_names",
    "predict_labels",
    "tune_threshold",
]
