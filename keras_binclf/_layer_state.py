"""Any Keras layer: the layers in it, and all of its state."""

from collections.abc import Iterator

import keras


def iterate_layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yield a layer and all layers in it, however deep, also in wrappers and subclassed models.

    Keras has no public walk that enters those.
    """
    yield from layer._flatten_layers()
