"""Pictures of what was logged. They need matplotlib, which is imported only when one is drawn."""

from keras_binclf.plots.adam import plot_layers, plot_moments
from keras_binclf.plots.search import plot_search

__all__ = ["plot_layers", "plot_moments", "plot_search"]
