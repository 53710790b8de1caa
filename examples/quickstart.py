"""From a table with words and gaps to a saved model, which scores the table in a fresh process.

The table is made by `customers.py`, by a law that it documents, so the best possible ranking is
known.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from customers import make_customers
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

import keras_binclf

# Another project: it has the model's file and a table, and nothing from the training.
ELSEWHERE = """
import sys
import keras, keras_binclf
import numpy as np
import pandas as pd

folder = sys.argv[1]
model = keras.models.load_model(folder + "/customers.keras")
table = pd.read_csv(folder + "/new.csv")
np.save(folder + "/labels.npy", keras_binclf.predict_labels(model, table))
row = table.iloc[0].to_dict()
print(f"the first one leaves with probability {keras_binclf.Predictor(model)(row):.2f}")
"""


def main() -> None:
    keras.utils.set_random_seed(0)
    table, probability = make_customers(6000)
    y = (table.pop("left") == "yes").astype("float32").to_numpy()
    rest, test = train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=0)
    train, val = train_test_split(rest, test_size=0.25, stratify=y[rest], random_state=0)

    encoder = keras_binclf.TabularEncoder()
    encoder.adapt(table.iloc[train])
    print(encoder)
    model = keras_binclf.binary_classifier(encoder, dropout_rate=0.2, prior=y[train].mean())
    stop = keras.callbacks.EarlyStopping("val_loss", patience=10, restore_best_weights=True)
    history = model.fit(
        encoder.encode(table.iloc[train]),
        y[train],
        validation_data=(encoder.encode(table.iloc[val]), y[val]),
        epochs=100,
        verbose=0,
        callbacks=[stop],
    )
    print(f"trained for {len(history.epoch)} epochs")

    # A customer who leaves costs four times as much as an offer that was not needed.
    costs = {"score": "cost", "cost_fp": 1, "cost_fn": 4}
    print(keras_binclf.tune_threshold(model, table.iloc[val], y[val], **costs))
    labels = keras_binclf.predict_labels(model, table.iloc[test])
    found = model.predict(encoder.encode(table.iloc[test]), verbose=0)[:, 0]
    scores = [roc_auc_score(y[test], scores) for scores in (found, probability[test])]
    print("test ROC AUC: {:.4f}; of the law itself: {:.4f}".format(*scores))

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "customers.keras"))
        table.iloc[test].to_csv(Path(folder, "new.csv"), index=False)
        subprocess.run([sys.executable, "-c", ELSEWHERE, folder], check=True)
        np.testing.assert_array_equal(np.load(Path(folder, "labels.npy")), labels)
    print(f"labelled in a fresh process: identical, {labels.mean():.0%} get an offer")


if __name__ == "__main__":
    main()
