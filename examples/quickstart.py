"""Train on a real table, save, and load again in a process that knows nothing of the training.

The data: 569 breast tumours, 30 measurements each, malignant or benign (Wolberg et al. 1995,
https://doi.org/10.24432/C5DW2B), as scikit-learn ships them.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

import keras_binclf

# What the other project runs: it imports Keras and keras_binclf, and gets a file and some rows.
ELSEWHERE = """
import sys
import keras, keras_binclf
import numpy as np

folder = sys.argv[1]
model = keras.models.load_model(folder + "/tumours.keras")
rows = np.load(folder + "/rows.npy")
np.savez(
    folder + "/elsewhere.npz",
    probability=model.predict(rows, verbose=0),
    label=keras_binclf.predict_labels(model, rows),
    name=keras_binclf.predict_class_names(model, rows),
)
"""


def main() -> None:
    keras.utils.set_random_seed(0)
    data = load_breast_cancer()
    x = data.data.astype("float32")
    y = (data.target == 0).astype("float32")  # 1 is malignant
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.25, stratify=y, random_state=0
    )

    x_train, x_val, y_train, y_val = train_test_split(
        x_train, y_train, test_size=0.33, stratify=y_train, random_state=1
    )

    scaler = keras.layers.Normalization()
    scaler.adapt(x_train)
    model = keras_binclf.binary_classifier(
        input_shape=x.shape[1], scaler=scaler, dropout_rate=0.2, prior=y_train.mean()
    )
    model.summary()
    stop = keras.callbacks.EarlyStopping("val_loss", patience=20, restore_best_weights=True)
    history = model.fit(
        x_train, y_train, validation_data=(x_val, y_val), epochs=200, verbose=0, callbacks=[stop]
    )
    print(f"trained for {len(history.epoch)} epochs")

    # Missing a tumour costs more than a second look.
    print(keras_binclf.tune_threshold(model, x_val, y_val, score="cost", cost_fn=20, cost_fp=1))
    head = keras_binclf.find_head(model)
    head.class_names = ("benign", "malignant")
    probability = model.predict(x_test, verbose=0)
    label = keras_binclf.predict_labels(model, x_test)
    print(f"test ROC AUC: {roc_auc_score(y_test, probability):.4f}")
    missed = int(((label[:, 0] == 0) & (y_test == 1)).sum())
    alarms = int(((label[:, 0] == 1) & (y_test == 0)).sum())
    print(
        f"at threshold {head.threshold:.3g}: {missed} of {int(y_test.sum())} tumours missed, "
        f"{alarms} false alarms among {int((y_test == 0).sum())}"
    )

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "tumours.keras"))
        np.save(Path(folder, "rows.npy"), x_test)
        subprocess.run([sys.executable, "-c", ELSEWHERE, folder], check=True)
        elsewhere = np.load(Path(folder, "elsewhere.npz"))
        np.testing.assert_array_equal(elsewhere["probability"], probability)
        np.testing.assert_array_equal(elsewhere["label"], label)
        print(f"the first three are {', '.join(elsewhere['name'][:3, 0])}")
    print("reloaded in a fresh process: identical")


if __name__ == "__main__":
    main()
