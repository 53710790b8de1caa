"""Train a classifier and write it, with what the page needs to show it, into this folder.

    pip install "keras-binclf[sklearn,onnx]"
    python make_model.py

The data: 569 breast tumours, malignant or benign (Wolberg et al. 1995,
https://doi.org/10.24432/C5DW2B), as scikit-learn ships them. Of the 30 measurements the page has
five, which a person can picture.

It writes `model.onnx`, `page.json` with the sliders, and `expected.json` with what the Keras model
says to some settings of them, which `test_page.mjs` compares with the page.
"""

import json
from pathlib import Path

import keras
import numpy as np
import onnx
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

import keras_binclf
from keras_binclf.saving import export

FOLDER = Path(__file__).parent
# Column, name, unit, what it says, and the step of its slider. The measurements are taken from the
# cell nuclei in one image; the table gives no unit for the radius. Its "smoothness" and "symmetry"
# grow as nuclei get rougher and less symmetric, so the page names them after that.
FEATURES = [
    ("mean radius", "Radius", None, "centre to outline of a nucleus, mean", 0.1),
    ("mean texture", "Texture", "grey levels", "standard deviation inside the nuclei", 0.2),
    ("mean smoothness", "Roughness", None, "how much the radius varies locally", 0.001),
    ("mean concave points", "Concave points", None, "dents in the outline", 0.001),
    ("mean symmetry", "Asymmetry", None, "difference between the two halves", 0.002),
]
STEPS = np.array([feature[-1] for feature in FEATURES])
# Missing a tumour costs as much as this many second looks.
COST_FN = 20
NUM_SETTINGS = 51


def main() -> None:
    keras.utils.set_random_seed(0)
    data = load_breast_cancer()
    x = data.data[:, [list(data.feature_names).index(column) for column, *_ in FEATURES]]
    y = (data.target == 0).astype("float32")  # 1 is malignant
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.25, stratify=y, random_state=0
    )
    model = train(x_train, y_train)
    facts = judge(model, x_test, y_test)

    path = FOLDER / "model.onnx"
    path.unlink(missing_ok=True)
    print(export(model, path, "onnx", sample=x_test.astype("float32")))
    # onnxruntime-web does not give the metadata of a file, so the page gets them beside it.
    notes = {prop.key: json.loads(prop.value) for prop in onnx.load(path).metadata_props}
    page = {
        "class_names": notes["class_names"],
        "threshold": notes["threshold"],
        "cost_fn": COST_FN,
        "features": make_sliders(x),
        "test": facts,
    }
    write_json("page.json", page)
    write_json("expected.json", make_expected(model, page, x_test))


def train(x: np.ndarray, y: np.ndarray) -> keras.Model:
    """Return a classifier with a threshold and class names of its own."""
    x_train, x_val, y_train, y_val = train_test_split(
        x.astype("float32"), y, test_size=0.33, stratify=y, random_state=1
    )
    scaler = keras.layers.Normalization()
    scaler.adapt(x_train)
    model = keras_binclf.binary_classifier(
        x.shape[1], hidden_units=(16,), scaler=scaler, prior=y_train.mean(), learning_rate=0.01
    )
    stop = keras.callbacks.EarlyStopping("val_loss", patience=20, restore_best_weights=True)
    model.fit(
        x_train, y_train, validation_data=(x_val, y_val), epochs=200, verbose=0, callbacks=[stop]
    )
    tuned = keras_binclf.tune_threshold(
        model, x_val, y_val, score="cost", cost_fn=COST_FN, cost_fp=1
    )
    print(tuned)
    keras_binclf.find_head(model).class_names = ("benign", "malignant")
    return model


def judge(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return what the page says about tumours that the model has never seen."""
    label = keras_binclf.predict_labels(model, x)[:, 0]
    auc = roc_auc_score(y, model.predict(x, verbose=0))
    facts = {
        "positives": int(y.sum()),
        "missed": int(((label == 0) & (y == 1)).sum()),
        "negatives": int((y == 0).sum()),
        "false_alarms": int(((label == 1) & (y == 0)).sum()),
        "roc_auc": float(auc),
    }
    print(facts)
    return facts


def make_sliders(x: np.ndarray) -> list[dict[str, object]]:
    """Return the range of each slider, all of it whole steps, and where it starts."""
    low = round_to_steps(np.floor(x.min(axis=0) / STEPS) * STEPS)
    high = round_to_steps(np.ceil(x.max(axis=0) / STEPS) * STEPS)
    median = round_to_steps(np.median(x, axis=0))
    return [
        {
            "name": name,
            "unit": unit,
            "description": description,
            "min": float(low[i]),
            "max": float(high[i]),
            "step": step,
            "median": float(median[i]),
        }
        for i, (_, name, unit, description, step) in enumerate(FEATURES)
    ]


def round_to_steps(x: np.ndarray) -> np.ndarray:
    """Return the values that a slider can have, as the page reads them: 0.053, not 0.0530001."""
    return np.round(np.round(x / STEPS) * STEPS, 3)


def make_expected(model: keras.Model, page: dict, x: np.ndarray) -> list[dict[str, object]]:
    """Return settings of the sliders and what the model says to them.

    Some are rows of the table, some random, and some lie near the threshold, though not within
    what rounding may move. The first is where the page starts.
    """
    random = np.random.default_rng(0)
    low, high, start = (
        np.array([feature[key] for feature in page["features"]]) for key in ("min", "max", "median")
    )
    anywhere = round_to_steps(random.uniform(low, high, (5000, len(STEPS))))
    distance = np.abs(model.predict(anywhere, verbose=0)[:, 0] - page["threshold"])
    near = [i for i in np.argsort(distance) if distance[i] > 1e-4]
    some, third = random.permutation(len(x)), (NUM_SETTINGS - 1) // 3
    settings = np.concatenate(
        [
            [start],
            round_to_steps(x[some[:third]]),
            anywhere[near[:third]],
            anywhere[random.permutation(near[third:])[: NUM_SETTINGS - 1 - 2 * third]],
        ]
    )
    probability = model.predict(settings, verbose=0)[:, 0]
    label = keras_binclf.predict_labels(model, settings)[:, 0]
    return [
        {"values": values.tolist(), "probability": float(p), "label": int(k)}
        for values, p, k in zip(settings, probability, label, strict=True)
    ]


def write_json(name: str, value: object) -> None:
    (FOLDER / name).write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
