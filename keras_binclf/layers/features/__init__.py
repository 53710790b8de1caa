"""Layers that prepare the columns of a table."""

from keras_binclf.layers.features.categorical_embedding import CategoricalEmbedding
from keras_binclf.layers.features.feature_scaler import FeatureScaler
from keras_binclf.layers.features.numerical_embedding import NumericalEmbedding
from keras_binclf.layers.features.tabular_encoder import TabularEncoder

__all__ = ["CategoricalEmbedding", "FeatureScaler", "NumericalEmbedding", "TabularEncoder"]
