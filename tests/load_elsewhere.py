"""Load every model in a folder, as a project does that knows nothing of the training.

    python load_elsewhere.py FOLDER [--other-backend]

Beside each `NAME.keras` lies a `NAME.npz` with rows to predict; what came of them goes to
`NAME.loaded.npz`. Nothing of the tests is imported, but for the module with a model's own classes,
which its file names; those models come last, so that the others are loaded without it.
"""

import importlib
import sys
import traceback
from pathlib import Path

import keras
import numpy as np

import keras_binclf

BATCH_SIZE = 8
"""Half of the rows: the loss of the second step shows what the optimizer did in the first."""


def pack(name, value):
    """Return an array, or a dict of them, as entries of an `.npz` file."""
    if isinstance(value, dict):
        return {f"{name}/{key}": array for key, array in value.items()}
    return {name: value}


def unpack(arrays, name):
    if name in arrays:
        return arrays[name]
    return {key.split("/")[1]: arrays[key] for key in arrays if key.startswith(f"{name}/")}


def find_encoder(model):
    encoders = [layer for layer in model.layers if isinstance(layer, keras_binclf.TabularEncoder)]
    return encoders[0] if encoders else None


def encode(model, x):
    """Return rows as Keras takes them: where the model holds an encoder, `x` is a table."""
    encoder = find_encoder(model)
    return x if encoder is None else encoder.encode(x)


def answer(model, x):
    """Return outputs, labels and threshold of each head, as entries of an `.npz` file."""
    outputs = model.predict(encode(model, x), verbose=0)
    answers = {}
    if find_encoder(model) is not None:
        answers["encoded/"] = encode(model, x)
        answers["reordered/"] = keras_binclf.predict_labels(model, dict(reversed(x.items())))
    for name, output in outputs.items() if isinstance(outputs, dict) else [("", outputs)]:
        head = keras_binclf.find_head(model, name or None)
        answers[f"outputs/{name}"] = output
        answers[f"labels/{name}"] = keras_binclf.predict_labels(model, x, head=name or None)
        answers[f"threshold/{name}"] = np.float64(head.threshold)
    return answers


def train(model, x, y):
    """Train two steps and return what Keras says about them."""
    return model.fit(encode(model, x), y, batch_size=BATCH_SIZE, shuffle=False, verbose=0).history


def load(path, from_other_backend):
    if not from_other_backend:
        return keras.models.load_model(path)
    # PyTorch writes the names of its own optimizer classes, which train on PyTorch only.
    custom_objects = {"Adam": keras.optimizers.Adam, "SGD": keras.optimizers.SGD}
    model = keras.models.load_model(path, custom_objects=custom_objects)
    # JAX writes `jit_compile=True`, which PyTorch takes for `torch.compile`: half a minute.
    model.jit_compile = keras.backend.backend() == "jax"
    return model


def main(folder, from_other_backend):
    inputs = {path: dict(np.load(path.with_suffix(".npz"))) for path in folder.glob("*.keras")}
    for path in sorted(inputs, key=lambda path: (str(inputs[path]["module"]), path)):
        arrays = inputs[path]
        try:
            if module := str(arrays["module"]):
                importlib.import_module(module)
            model = load(path, from_other_backend)
            found = answer(model, unpack(arrays, "x"))
            found["losses"] = train(model, unpack(arrays, "x"), unpack(arrays, "y"))["loss"]
        except Exception:
            found = {"error": traceback.format_exc()}
        np.savez(path.with_suffix(".loaded.npz"), **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--other-backend" in sys.argv)
