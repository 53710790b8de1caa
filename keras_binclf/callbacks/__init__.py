"""Callbacks: whatever watches training."""

from keras_binclf.callbacks.threshold_tuner import ThresholdTuner

__all__ = ["ThresholdTuner"]
