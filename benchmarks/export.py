"""Each kind of model exported in each format: differences from the model, and seconds.

    python benchmarks/export.py
    KERAS_BACKEND=jax python benchmarks/export.py --kinds functional subclassed

Needs `pip install "keras-binclf[export]"`. On JAX and PyTorch each cell takes a process of its own,
about ten seconds.
"""

import argparse
import importlib
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from keras_binclf import BinaryHead, MLPBlock, binary_classifier, export, find_head

SUFFIXES = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
CONSUMERS = {
    "tf_saved_model": "tf.saved_model.load",
    "onnx": "ONNX Runtime",
    "litert": "LiteRT interpreter",
    "openvino": "OpenVINO, f32",
}
NUM_ROWS, FEATURES, WORDS = 10_000, 20, 50
RNG = np.random.default_rng(0)
X = RNG.normal(size=(NUM_ROWS, FEATURES)).astype("float32")


@keras.saving.register_keras_serializable(package="benchmarks")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block, self.head = MLPBlock((64, 32), activation="gelu"), BinaryHead(activation=None)

    def call(self, inputs):
        return self.head(self.block(inputs))


def sequential():
    layers = [keras.Input((FEATURES,)), MLPBlock((64, 32), normalization="batch"), BinaryHead()]
    return keras.Sequential(layers), X


def functional():
    inputs = keras.Input((FEATURES,), name="table")
    hidden = MLPBlock((64, 64), activation="gelu", residual=True, normalization="layer")(inputs)
    return keras.Model(inputs, BinaryHead()(hidden)), X


def subclassed():
    model = Subclassed()
    model(X[:1])
    return model, X


def with_scaler():
    x = (X * 1e3 + 1e5).astype("float32")
    scaler = keras.layers.Normalization()
    scaler.adapt(x)
    model = binary_classifier(FEATURES, scaler=scaler, compile=False)
    kernel = find_head(model).kernel
    # It starts from zeros, with one score for all rows.
    kernel.assign(keras.initializers.GlorotUniform()(kernel.shape))
    return model, x


def with_embedding():
    table, city = (
        keras.Input((FEATURES,), name="table"),
        keras.Input((1,), dtype="int32", name="city"),
    )
    words = keras.layers.Flatten()(keras.layers.Embedding(WORDS, 8)(city))
    hidden = MLPBlock((64, 32))(keras.layers.Concatenate()([table, words]))
    cities = RNG.integers(0, WORDS, (NUM_ROWS, 1)).astype("int32")
    inputs = {"table": table, "city": city}
    return keras.Model(inputs, BinaryHead()(hidden)), {"table": X, "city": cities}


KINDS = {
    "Sequential": sequential,
    "functional": functional,
    "subclassed": subclassed,
    "scaler": with_scaler,
    "embedding": with_embedding,
}


def cut_in_the_middle(model, x):
    """Put the threshold where no score is within rounding of it."""
    head = find_head(model)
    scores = head.probabilities(model.predict(x, verbose=0, batch_size=NUM_ROWS))
    scores = np.unique(keras.ops.convert_to_numpy(scores))
    middle = scores[len(scores) // 3 : -len(scores) // 3]
    widest = np.diff(middle).argmax()
    head.threshold = middle[widest : widest + 2].mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--formats", nargs="+", choices=SUFFIXES, default=list(SUFFIXES))
    options = parser.parse_args()
    backend = keras.backend.backend()
    print(f"| from {backend} | format | consumer | largest difference | other labels | seconds |")
    print("|---|---|---|---|---|---|")
    for kind in options.kinds:
        keras.utils.set_random_seed(0)
        model, x = KINDS[kind]()
        cut_in_the_middle(model, x)
        for name in options.formats:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                found = export(model, Path(folder) / f"model{SUFFIXES[name]}", name, sample=x)
                seconds = time.perf_counter() - start
            labels = f"{found.num_disagreements} of {found.num_rows:,}"
            cells = (kind, name, CONSUMERS[name], f"{found.max_difference:.1e}", labels)
            print("| " + " | ".join([*cells, f"{seconds:.1f}"]) + " |", flush=True)


if __name__ == "__main__":
    # A class in a script cannot be imported by another process; one in a module can.
    importlib.import_module("export").main()
