"""Hyperparameter search with Keras Tuner: the space of classifiers, and the results of a search.

`space` has the hyperparameters, `trial` builds and trains the model of one trial, `search` checks
and reads whole searches. `BinaryClassifierHyperModel` joins them.
"""

import importlib

try:
    importlib.import_module("keras_tuner")
except ModuleNotFoundError as error:
    from keras_binclf._missing import explain_missing_tuner

    raise explain_missing_tuner(error) from error

from keras_binclf.tuner.binary_classifier_hyper_model import BinaryClassifierHyperModel
from keras_binclf.tuner.search.results import build_best, results_dataframe

__all__ = ["BinaryClassifierHyperModel", "build_best", "results_dataframe"]
