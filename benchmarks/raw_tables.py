"""Tables as they come: the model's own encoder beside scikit-learn's, and a stranger with the file.

    python benchmarks/raw_tables.py --data DIR                      # both parts, about 20 minutes
    python benchmarks/raw_tables.py --data DIR --parts stranger --sets adult mushroom
    KERAS_BACKEND=jax python benchmarks/raw_tables.py --data DIR

DIR holds tables as `NAME.parquet`, with a column `target` of 0 and 1. README.md beside this file
says what is measured.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import keras_binclf

SETS = [
    "german_credit",
    "thyroid_sick",
    "telco_churn",
    "mushroom",
    "bank_marketing",
    "adult",
]
PARTS = ("quality", "stranger")
SPLITS, EPOCHS, PATIENCE = 5, 100, 10

STRANGER = """
import sys
import keras, keras_binclf
import numpy as np
import pandas as pd

model = keras.models.load_model(sys.argv[1] + "/model.keras")
rows = pd.read_csv(sys.argv[1] + "/rows.csv")
other_order = rows[rows.columns[::-1]]
np.savez(
    sys.argv[1] + "/found.npz",
    labels=keras_binclf.predict_labels(model, rows),
    other_order=keras_binclf.predict_labels(model, other_order),
    probability=keras_binclf.Predictor(model, batch_sizes=(512,))(rows),
)
"""


def read_table(folder, name):
    """Return the columns as a CSV of them is read, and the labels.

    The published CSV of `telco_churn` has blanks for the missing charges, so that they are text.
    """
    frame = pd.read_parquet(Path(folder, f"{name}.parquet"))
    y = frame.pop("target").to_numpy("float32")
    if name == "telco_churn":
        charges = frame["TotalCharges"]
        frame["TotalCharges"] = charges.map(str).where(charges.notna(), " ")
    return frame, y


def make_preprocessor():
    """Return the usual preprocessing of scikit-learn: median, standard scaler, one-hot."""
    numbers = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
    )
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="missing"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    return ColumnTransformer(
        [
            ("number", numbers, make_column_selector(dtype_include="number")),
            ("word", words, make_column_selector(dtype_exclude="number")),
        ],
        sparse_threshold=0,
    )


def parse_numbers(frame):
    """Return the table with text that is a number as numbers, as a user of scikit-learn does."""
    frame = frame.copy()
    for name in frame.select_dtypes(exclude="number"):
        parsed = pd.to_numeric(frame[name].str.strip().replace("", None), errors="coerce")
        if (parsed.notna() == frame[name].str.strip().ne("").fillna(False)).all():
            frame[name] = parsed
        else:
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame


def split(y, seed):
    """Divide the rows 60 : 20 : 20 within each class."""
    rest, test = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=seed)
    train, val = train_test_split(rest, test_size=0.25, stratify=y[rest], random_state=seed)
    return train, val, test


def train_model(model, x, y, val):
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=PATIENCE, restore_best_weights=True, mode="min"
    )
    batch_size = 32 if len(y) < 5000 else 256
    options = {"batch_size": batch_size, "epochs": EPOCHS, "callbacks": [stop], "verbose": 0}
    model.fit(x, y, validation_data=val, **options)


def measure_quality(frame, y, seed):
    """Return the test AUC of the default classifier behind each preprocessing."""
    train, val, test = split(y, seed)
    prior = float(y[train].mean())
    encoder = keras_binclf.TabularEncoder()
    encoder.adapt(frame.iloc[train])
    parsed = parse_numbers(frame)
    preprocessor = make_preprocessor().fit(parsed.iloc[train])
    aucs = []
    for encode, start in (
        (lambda rows: encoder.encode(frame.iloc[rows]), encoder),
        (lambda rows: preprocessor.transform(parsed.iloc[rows]).astype("float32"), None),
    ):
        keras.utils.set_random_seed(seed)
        x = encode(train)
        model = keras_binclf.binary_classifier(start or x.shape[1], prior=prior, metrics=None)
        train_model(model, x, y[train], (encode(val), y[val]))
        aucs.append(roc_auc_score(y[test], model.predict(encode(test), verbose=0)[:, 0]))
    return aucs


def run_quality(data, name):
    frame, y = read_table(data, name)
    pairs = [measure_quality(frame, y, seed) for seed in range(SPLITS)]
    ours, theirs = (statistics.mean(column) for column in zip(*pairs, strict=True))
    differences = [a - b for a, b in pairs]
    error = statistics.stdev(differences) / SPLITS**0.5
    mean = statistics.mean(differences)
    mark = " (short)" if mean < -2 * error else ""
    print(
        f"| {name} | {len(y):,} | {theirs:.4f} | {ours:.4f} | {mean:+.4f} ± {error:.4f}{mark} |",
        flush=True,
    )


def run_stranger(data, name):
    """Compare labels in a fresh process, from a CSV, with those of the process that trained."""
    frame, y = read_table(data, name)
    train, val, test = split(y, 0)
    encoder = keras_binclf.TabularEncoder()
    encoder.adapt(frame.iloc[train])
    model = keras_binclf.binary_classifier(encoder, metrics=None)
    model.fit(encoder.encode(frame.iloc[train]), y[train], epochs=2, verbose=0)
    keras_binclf.tune_threshold(model, frame.iloc[val], y[val])
    rows = frame.iloc[test]
    labels = keras_binclf.predict_labels(model, rows)
    probability = keras_binclf.Predictor(model, batch_sizes=(512,))(rows)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        rows.to_csv(Path(folder, "rows.csv"), index=False)
        subprocess.run([sys.executable, "-c", STRANGER, folder], check=True)
        found = np.load(Path(folder, "found.npz"))
        counts = [
            int((found["labels"] != labels).sum()),
            int((found["other_order"] != labels).sum()),
            int((found["probability"] != probability).sum()),
        ]
    print(f"| {name} | {len(rows):,} | {' | '.join(map(str, counts))} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sets", nargs="+", default=SETS)
    given = parser.parse_args()
    print(f"backend {keras.backend.backend()}, Keras {keras.__version__}")
    if "stranger" in given.parts:
        print("\n| set | rows | other labels | in another order | other probabilities |")
        print("|---|---|---|---|---|")
        for name in given.sets:
            run_stranger(given.data, name)
    if "quality" in given.parts:
        print("\n| set | rows | scikit-learn's ColumnTransformer | TabularEncoder | difference |")
        print("|---|---|---|---|---|")
        for name in given.sets:
            run_quality(given.data, name)


if __name__ == "__main__":
    main()
