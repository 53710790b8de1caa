"""Registered, serializable building blocks for binary classification with Keras 3."""

import importlib
from typing import TYPE_CHECKING, Any

try:
    importlib.import_module("keras")
except ModuleNotFoundError as error:
    from keras_binclf._missing import explain_missing

    raise explain_missing(error) from error

from keras_binclf._version import __version__
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
from keras_binclf.layers import (
    BinaryHead,
    CategoricalEmbedding,
    FeatureScaler,
    MLPBlock,
    NumericalEmbedding,
    TabularEncoder,
)
from keras_binclf.metrics import (
    BestThreshold,
    BinaryAUC,
    BrierScore,
    ExpectedCalibrationError,
    ThresholdMetric,
)
from keras_binclf.models import binary_classifier
from keras_binclf.saving import export, to_core_layers
from keras_binclf.serving import Predictor

if TYPE_CHECKING:
    from keras_binclf import plots as plots
    from keras_binclf.tuner import (
        BinaryClassifierHyperModel,
        build_best,
        results_dataframe,
    )

__all__ = [
    "AdamMomentLogger",
    "BestThreshold",
    "BinaryAUC",
    "BinaryClassifierHyperModel",
    "BinaryHead",
    "BrierScore",
    "Calibration",
    "CategoricalEmbedding",
    "ExpectedCalibrationError",
    "FeatureScaler",
    "MLPBlock",
    "NumericalEmbedding",
    "Predictor",
    "TabularEncoder",
    "ThresholdMetric",
    "ThresholdTuner",
    "TunedThreshold",
    "__version__",
    "binary_classifier",
    "build_best",
    "calibrate",
    "export",
    "find_head",
    "predict_class_names",
    "predict_labels",
    "results_dataframe",
    "to_core_layers",
    "tune_threshold",
]


# Keras Tuner and matplotlib take longer to import than the rest together.
_LAZY = {
    "BinaryClassifierHyperModel": "tuner",
    "build_best": "tuner",
    "results_dataframe": "tuner",
    "plots": None,
    "tuner": None,
}


def __getattr__(name: str) -> Any:
    """Import a part of the package that needs a heavy package, when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = _LAZY[name]
    module = importlib.import_module(f"{__name__}.{room or name}")
    return getattr(module, name) if room else module


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
