"""Cases of the contract: instances of every registered class.

The checks that each case must pass are in `contract_layers.py` and `contract_metrics.py`. A class
without cases, or of a kind without checks, fails `test_contract.py`.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

import keras_binclf

BACKEND = keras.backend.backend()


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to make an instance: constructor arguments, and the shape of one row of features.

    A layer is adapted before use where `adapt` is True; its inputs are whole numbers below `codes`,
    unless that is 0.
    """

    name: str
    arguments: dict[str, Any]
    shape: tuple[int, ...] = (5,)
    adapt: bool = False
    codes: int = 0


@keras.saving.register_keras_serializable(package="tests")
def scaled_tanh(x):
    return 1.5 * ops.tanh(x)


@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.layers.Layer):
    """An activation with a weight, which does not say what shape it gives."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, inputs):
        return ops.tanh(inputs) * self.scale


CASES: dict[type, list[Case]] = {
    keras_binclf.BinaryHead: [
        Case("default", {}),
        Case(
            "full",
            {
                "prior": 0.1,
                "threshold": 0.3,
                "kernel_initializer": "he_normal",
                "kernel_regularizer": keras.regularizers.L2(1e-3),
                "bias_regularizer": "l1",
                "class_names": ["stays", "leaves"],
            },
        ),
        Case("logits", {"activation": None, "use_bias": False, "threshold": 0.01}),
        Case("sequence", {"activation": None, "prior": 0.9}, (3, 5)),
    ],
    keras_binclf.MLPBlock: [
        Case("default", {}),
        Case("one_layer", {"hidden_units": 7, "activation": "selu", "use_bias": False}),
        Case(
            "full",
            {
                "hidden_units": (6, 5, 5),
                "dropout_rate": [0.2, 0.0, 0.1],
                "normalization": "batch",
                "residual": True,
                "kernel_initializer": keras.initializers.RandomNormal(stddev=0.1),
                "kernel_regularizer": keras.regularizers.L2(1e-3),
            },
        ),
        Case("layer_norm", {"normalization": "layer", "activation": "gelu"}, (3, 5)),
        Case("rms_norm", {"normalization": "rms", "activation": "silu", "residual": True}),
        Case("own_function", {"hidden_units": [4], "activation": scaled_tanh}),
        Case("prelu", {"hidden_units": [4, 3], "activation": keras.layers.PReLU()}),
        Case("sequence", {"hidden_units": [4, 5], "normalization": "batch"}, (3, 5)),
        Case("own_layer", {"hidden_units": [6, 6], "activation": Scaled()}),
    ],
    keras_binclf.FeatureScaler: [
        Case("default", {}, adapt=True),
        Case("strict", {"missing": "error"}, adapt=True),
        Case("sequence", {}, (3, 5), adapt=True),
    ],
    keras_binclf.NumericalEmbedding: [
        Case("default", {}, adapt=True),
        Case("few_bins", {"dim": 3, "num_bins": 4}, (3, 5), adapt=True),
        Case("periodic", {"method": "periodic", "dim": 4, "num_frequencies": 6}),
    ],
    keras_binclf.CategoricalEmbedding: [
        Case("default", {"num_categories": [2, 20]}, (2,), codes=6),
        Case(
            "full",
            {
                "num_categories": [30, 3, 12],
                "dim": 4,
                "max_one_hot": 5,
                "num_buckets": 15,
                "has_missing": [True, False, False],
                "has_rare": [False, True, True],
                "embeddings_initializer": "he_normal",
            },
            (3,),
            codes=15,
        ),
        Case("sequence", {"num_categories": [12, 12], "has_rare": [True, True]}, (3, 2), codes=9),
    ],
    keras_binclf.TabularEncoder: [
        Case("default", {"embedding": "piecewise_linear"}, adapt=True),
        Case(
            "full",
            {
                "max_categories": 12,
                "min_count": 3,
                "embedding": keras_binclf.NumericalEmbedding(3, "periodic"),
                "kinds": {0: "category", 2: {"kind": "category", "min_count": 1}},
            },
            adapt=True,
            codes=15,
        ),
        Case("words", {"kinds": {0: "category", 1: "category"}}, (3,), adapt=True, codes=14),
    ],
    keras_binclf.ThresholdMetric: [
        Case("default", {}),
        Case("best", {"score": "mcc", "threshold": "best", "num_bins": 512}),
        Case("full", {"score": "fbeta", "beta": 2.0, "threshold": 0.25, "min_recall": 0.1}),
        Case("cost", {"score": "cost", "threshold": "best", "cost_fp": 1.0, "cost_fn": 8.0}),
        Case("logits", {"score": "g_mean", "threshold": 0.6, "from_logits": True, "name": "g"}),
    ],
    keras_binclf.BestThreshold: [
        Case("default", {}),
        Case("full", {"score": "recall", "min_precision": 0.3, "num_bins": 512, "name": "cut"}),
        Case("logits", {"score": "cost", "cost_fp": 2, "cost_fn": 3, "from_logits": True}),
    ],
    keras_binclf.BinaryAUC: [
        Case("default", {}),
        Case("full", {"curve": "PR", "num_bins": 512, "name": "area"}),
        Case("logits", {"curve": "PR", "from_logits": True}),
    ],
    keras_binclf.BrierScore: [
        Case("default", {}),
        Case("full", {"name": "brier"}),
        Case("logits", {"from_logits": True}),
    ],
    keras_binclf.ExpectedCalibrationError: [
        Case("default", {}),
        Case("full", {"num_calibration_bins": 5, "strategy": "quantile", "num_bins": 512}),
        Case("logits", {"from_logits": True, "name": "ece"}),
    ],
}


def make_inputs(case: Case, rows: int = 16, dtype: str = "float32") -> np.ndarray:
    random, shape = np.random.default_rng(7), (rows, *case.shape)
    x = random.integers(0, case.codes, shape) if case.codes else random.normal(size=shape)
    return x.astype(dtype)


def to_numpy(x: Any) -> np.ndarray:
    return ops.convert_to_numpy(x)
