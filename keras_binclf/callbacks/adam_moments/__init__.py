"""AdamMomentLogger and its parts."""

from keras_binclf.callbacks.adam_moments.adam_moment_logger import AdamMomentLogger

__all__ = ["AdamMomentLogger"]
