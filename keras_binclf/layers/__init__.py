"""Layers: whatever has weights."""

from keras_binclf.layers.binary_head import BinaryHead
from keras_binclf.layers.features import (
    CategoricalEmbedding,
    FeatureScaler,
    NumericalEmbedding,
    TabularEncoder,
)
from keras_binclf.layers.mlp_block import MLPBlock

__all__ = [
    "BinaryHead",
    "CategoricalEmbedding",
    "FeatureScaler",
    "MLPBlock",
    "NumericalEmbedding",
    "TabularEncoder",
]
