"""What searches: the space of classifiers for Keras Tuner, and what a search leaves."""

from keras_binclf.tuner.binary_classifier_hyper_model import BinaryClassifierHyperModel
from keras_binclf.tuner.search.results import build_best, results_dataframe

__all__ = ["BinaryClassifierHyperModel", "build_best", "results_dataframe"]
