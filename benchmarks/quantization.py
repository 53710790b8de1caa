"""The cost of quantization: ROC AUC, labels and size, on real tables.

    python benchmarks/quantization.py --data DIR
    python benchmarks/quantization.py --data DIR --sets adult phoneme --seeds 0

Needs `pip install "keras-binclf[export,sklearn]" pyarrow`, the TensorFlow backend, and tables as
tuning.py reads them. README.md beside this file says what is measured.
"""

import argparse
import copy
import os
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from sklearn.metrics import roc_auc_score
from tuning import load, train_default

from keras_binclf import export, find_head, tune_threshold

SETS = ("adult", "bank_marketing", "credit_default_taiwan", "spambase", "phoneme")
KINDS = (None, "float16", "dynamic_range")


def measure_keras(model, x, y, folder):
    """Give area, labels and KiB of the model with its kernels in int8."""
    small = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Layer .* does not have a `quantize`")
        small.quantize("int8")
    probabilities = small.predict(x, batch_size=4096, verbose=0)
    small.save(folder / "int8.keras")
    labels = probabilities > find_head(model).threshold
    return roc_auc_score(y, probabilities), labels, measure_kib(folder / "int8.keras")


def measure_litert(model, x, y, folder, quantization):
    """Give area, labels and KiB of the LiteRT file of the model."""
    path = folder / f"{quantization}.tflite"
    export(model, path, "litert", sample=x, quantization=quantization)
    outputs = Interpreter(model_path=str(path)).get_signature_runner("serving_default")(features=x)
    return roc_auc_score(y, outputs["probability"]), outputs["label"], measure_kib(path)


def measure_kib(path):
    return path.stat().st_size / 1024


def measure(data, name, seed):
    """Give a line of figures for each kind of quantization."""
    rows = load(data, name, seed)
    model = train_default(rows, seed)
    tune_threshold(model, *rows.validation, score="f1")
    x, y = rows.test
    probabilities = model.predict(x, batch_size=4096, verbose=0)
    area = roc_auc_score(y, probabilities)
    labels = probabilities > find_head(model).threshold
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for kind in KINDS:
            found[f"LiteRT {kind or 'float32'}"] = measure_litert(model, x, y, folder, kind)
        found['Keras quantize("int8")'] = measure_keras(model, x, y, folder)
    return {
        kind: (area, other - area, float((given != labels).mean()), kib)
        for kind, (other, given, kib) in found.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the tables")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    print(f"Keras {keras.version()}, {len(arguments.seeds)} splits, load {os.getloadavg()[0]:.1f}")
    print("| set | kind | AUC | change of AUC | of each split | other labels | KiB |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.sets:
        runs = [measure(arguments.data, name, seed) for seed in arguments.seeds]
        for kind in runs[0]:
            area, change, other, kib = np.array([run[kind] for run in runs]).T
            changes = ", ".join(f"{value:+.4f}" for value in change)
            print(
                f"| {name} | {kind} | {area.mean():.4f} | {change.mean():+.4f} | {changes} | "
                f"{other.mean():.2%} | {kib.mean():.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
