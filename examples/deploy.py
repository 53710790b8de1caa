"""From a trained model to files that other runtimes serve, with the same labels in each.

    python examples/deploy.py [FOLDER]

The data: 569 breast tumours, 30 measurements each, malignant or benign (Wolberg et al. 1995,
https://doi.org/10.24432/C5DW2B), as scikit-learn ships them. The models are served on 10,000 rows
like those. FOLDER, by default a temporary one, gets the artefacts, the rows and the labels.
"""

import copy
import sys
import tempfile
import time
import warnings
from pathlib import Path

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

import keras_binclf
from keras_binclf import Predictor, export, to_core_layers

SUFFIXES = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
NUM_ROWS, ROUNDS = 10_000, 30


def train():
    """Return a tuned model, and held-out rows."""
    keras.utils.set_random_seed(0)
    data = load_breast_cancer()
    x, y = data.data.astype("float32"), (data.target == 0).astype("float32")
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.4, stratify=y, random_state=0
    )
    scaler = keras.layers.Normalization()
    scaler.adapt(x_train)
    model = keras_binclf.binary_classifier(30, scaler=scaler, dropout_rate=0.2)
    model.fit(x_train, y_train, epochs=40, verbose=0)
    keras_binclf.find_head(model).class_names = ("benign", "malignant")
    keras_binclf.tune_threshold(model, x_train, y_train, score="cost", cost_fp=1, cost_fn=10)
    return model, x_test, y_test


def draw(x):
    """Return many rows like `x`."""
    rng = np.random.default_rng(0)
    rows = x[rng.integers(0, len(x), NUM_ROWS)]
    return (rows + rng.normal(0, 0.1, rows.shape) * x.std(axis=0)).astype("float32")


def measure_size(path):
    files = [*path.rglob("*")] if path.is_dir() else [path, path.with_suffix(".bin")]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1024


def time_calls(function):
    """Return the median of the seconds that a call takes, after the first one."""
    function()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main(folder: Path) -> None:
    model, x_test, y_test = train()
    head = keras_binclf.find_head(model)
    print(f"threshold {head.threshold:.4f}, classes {head.class_names}")
    rows = draw(x_test)
    labels = keras_binclf.predict_labels(model, rows)
    np.savez(folder / "tumours.npz", features=rows)
    np.save(folder / "tumours.labels.npy", labels)

    for name, suffix in SUFFIXES.items():
        exported = export(model, folder / f"tumours{suffix}", name, sample=rows)
        print(f"{exported}, {measure_size(exported.path):.0f} KiB")
    # Another project may have Keras, but not this package.
    to_core_layers(model, labels=True).save(folder / "tumours.keras")

    score = Predictor(model)
    row = x_test[0]
    print(f"one row: probability {score(row):.4f}, label {score.labels(row)}")
    through_predict = time_calls(lambda: model.predict(row[None], verbose=0))
    print(f"Predictor: 1/{through_predict / time_calls(lambda: score(row)):.0f} of model.predict")

    print(f"ROC AUC on held-out rows: {roc_auc_score(y_test, score(x_test)):.4f}")
    show_quantized(model, x_test, y_test, rows)


def show_quantized(model, x, y, rows):
    """Print the cost of storing the weights in fewer bytes."""
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("float16", "dynamic_range"):
            path = Path(folder, f"{kind}.tflite")
            export(model, path, "litert", quantization=kind, sample=rows)
            serve = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
            area = roc_auc_score(y, serve(features=x)["probability"])
            print(f"LiteRT in {kind}: {area:.4f}, {measure_size(path):.0f} KiB")

    small = copy.deepcopy(model)
    # Keras warns of each layer that stays as it is.
    warnings.filterwarnings("ignore", "Layer .* does not have a `quantize`")
    small.quantize("int8")
    print(f"Keras in int8: {roc_auc_score(y, small.predict(x, verbose=0)):.4f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
