"""Serving: a model answers with low latency."""

from keras_binclf.serving.predictor import Predictor

__all__ = ["Predictor"]
