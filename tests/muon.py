"""Whether `keras.optimizers.Muon` trains with the installed Keras on this backend."""

import keras
import pytest


def can_train():
    variable = keras.Variable([[1.0, 2.0], [3.0, 4.0]])
    optimizer = keras.optimizers.Muon(0.1)
    optimizer.build([variable])
    try:
        optimizer.apply([keras.ops.ones((2, 2))], [variable])
    except AttributeError as error:
        # Keras 3.11 gives it variables of TensorFlow, which have no `path`.
        return "path" not in str(error)
    return True


needs_muon = pytest.mark.skipif(not can_train(), reason="this Keras has no Muon that trains here")
