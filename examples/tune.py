"""Search for a classifier, save the best one with its threshold, and see whether it was worth it.

    python examples/tune.py                          # 569 tumours, three minutes
    python examples/tune.py --data table.parquet --trials 20 --directory search

The data, unless `--data` names a table with a column `target` of 0 and 1: 569 breast tumours, 30
measurements each, malignant or benign (Wolberg et al. 1995, https://doi.org/10.24432/C5DW2B), as
scikit-learn ships them. The search needs `pip install "keras-binclf[sklearn,pandas]"`, and a
parquet table pyarrow.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import keras_tuner
import numpy as np
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import keras_binclf

# What the other project runs: it imports Keras and keras_binclf, and gets a file and some rows.
ELSEWHERE = """
import sys
import keras, keras_binclf
import numpy as np

model = keras.models.load_model(sys.argv[1])
folder = sys.argv[2]
np.save(folder + "/labels.npy", keras_binclf.predict_labels(model, np.load(folder + "/rows.npy")))
"""

SHOWN = ("num_layers", "units", "activation", "dropout_rate", "learning_rate", "batch_size")


class ReportingSearch(keras_tuner.RandomSearch):
    """Random search that prints one line for each trial."""

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self.started = time.perf_counter()

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        seconds = time.perf_counter() - self.started
        number = f"trial {len(self.oracle.trials):>3}/{self.oracle.max_trials}"
        # The oracle has the score; what this method is given may be a copy without it.
        trial = self.oracle.get_trial(trial.trial_id)
        if trial.status != "COMPLETED":
            reason = (trial.message or "").strip().splitlines()[-1:]
            print(f"{number}  {trial.status} {' '.join(reason)}", flush=True)
            return
        best = self.oracle.get_best_trials(1)[0].score
        values = trial.hyperparameters.values
        chosen = [f"{name}={format_value(values[name])}" for name in SHOWN if name in values]
        scores = f"score {trial.score:.4f}  best {best:.4f}"
        print(f"{number}  {scores}  {seconds:5.1f} s  {' '.join(chosen)}", flush=True)


def format_value(value):
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def load(file):
    """Return features, a table or an array, and labels."""
    if file is None:
        data = load_breast_cancer()
        return data.data, (data.target == 0).astype("float32")  # 1 is malignant
    import pandas as pd

    table = pd.read_parquet(file)
    y = table.pop("target").to_numpy("float32")
    return table, y


def split(x, y):
    """Divide the rows 60 : 20 : 20 to train on, to choose by, and to judge by in the end."""
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.25, stratify=y, random_state=1)
    return (x, y), (x_val, y_val), (x_test, y_test)


def make_encoder():
    """Make what turns a table into numbers: medians for missing ones, a column for each word."""
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="missing"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    median = SimpleImputer(strategy="median", keep_empty_features=True)
    return ColumnTransformer(
        [
            ("number", median, make_column_selector(dtype_include="number")),
            ("word", words, make_column_selector(dtype_exclude="number")),
        ],
        sparse_threshold=0,
    )


def encode(train, validation, test):
    """Turn tables into arrays as the training rows say."""
    if isinstance(train[0], np.ndarray):
        return [(x.astype("float32"), y) for x, y in (train, validation, test)]
    encoder = make_encoder().fit(train[0])
    return [(encoder.transform(x).astype("float32"), y) for x, y in (train, validation, test)]


def make_scaler(x):
    """Standardize numbers, and leave columns of 0 and 1, of which rare ones would become large."""
    binary = np.isin(x, (0, 1)).all(axis=0)
    mean, variance = x.mean(axis=0), x.var(axis=0)
    return keras.layers.Normalization(
        mean=np.where(binary, 0, mean), variance=np.where(binary, 1, variance)
    )


def train_default(hypermodel, train, validation):
    """Train the classifier that nobody tuned, in the same way as the trials."""
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    hypermodel.fit(hp, model, *train, validation_data=validation)
    return model


def judge(model, test):
    """Return ROC AUC, and F1 at the threshold that the model carries."""
    x, y = test
    probability = model.predict(x, batch_size=1024, verbose=0)
    label = keras_binclf.predict_labels(model, x)
    return (
        roc_auc_score(y, probability),
        f1_score(y, label),
        keras_binclf.find_head(model).threshold,
    )


def judge_logistic_regression(train, validation, test):
    """Return the same of scikit-learn's, with the best of 99 thresholds on the validation rows."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(*train)
    found, y_val = model.predict_proba(validation[0])[:, 1], validation[1]
    grid = np.linspace(0.01, 0.99, 99)
    threshold = max(grid, key=lambda t: f1_score(y_val, found > t))
    probability = model.predict_proba(test[0])[:, 1]
    return (
        roc_auc_score(test[1], probability),
        f1_score(test[1], probability > threshold),
        threshold,
    )


def check_elsewhere(file, model, x):
    """Raise if the saved model gives other labels in a process that knows nothing of the search."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "rows.npy"), x)
        subprocess.run([sys.executable, "-c", ELSEWHERE, str(file), folder], check=True)
        elsewhere = np.load(Path(folder, "labels.npy"))
    np.testing.assert_array_equal(elsewhere, keras_binclf.predict_labels(model, x))


def run(data, trials, directory):
    keras.utils.set_random_seed(0)
    train, validation, test = encode(*split(*load(data)))
    sizes = " / ".join(f"{len(y):,}" for _, y in (train, validation, test))
    print(f"rows to train / validate / test: {sizes}, {train[1].mean():.1%} of them positive")

    scaler = make_scaler(train[0])
    hypermodel = keras_binclf.BinaryClassifierHyperModel(
        train[0].shape[1], scaler=scaler, prior=float(train[1].mean()), score="auc"
    )
    print(hypermodel.preflight(*train, validation_data=validation, directory=str(directory)))
    tuner = ReportingSearch(
        hypermodel,
        hypermodel.objective,
        max_trials=trials,
        seed=0,
        directory=str(directory),
        project_name=hypermodel.project_name,  # with it the same search is resumed, and no other
    )
    start = time.perf_counter()
    tuner.search(*train, validation_data=validation, verbose=0)
    print(f"searched for {time.perf_counter() - start:.0f} s\n")

    table = keras_binclf.results_dataframe(tuner)
    columns = ["trial", "score", "best_epoch", "fit_seconds", *(n for n in SHOWN if n in table)]
    print(f"the best trials, by ROC AUC on the {len(validation[1]):,} validation rows:")
    print(table[columns].head().to_string(index=False, float_format="{:.4g}".format), end="\n\n")

    file = Path(directory, "best.keras")
    best = keras_binclf.build_best(tuner, file)
    rows = {
        f"best of {trials} trials": judge(best, test),
        "default, not tuned": judge(train_default(hypermodel, train, validation), test),
        "logistic regression": judge_logistic_regression(train, validation, test),
    }
    print(f"{f'on {len(test[1]):,} rows never seen':<24} ROC AUC      F1  at threshold")
    for name, (area, f1, threshold) in rows.items():
        print(f"{name:<24} {area:>7.4f} {f1:>7.4f} {threshold:>13.3f}")
    check_elsewhere(file, best, test[0])
    print(f"\nsaved as {file}; loaded in a fresh process it gives the same labels")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="parquet table with a column `target` of 0 and 1")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--directory", help="where to keep the search; run again to go on with it")
    options = parser.parse_args()
    if options.directory:
        run(options.data, options.trials, options.directory)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(options.data, options.trials, folder)
    print("(in a temporary folder, which is gone: give `--directory` to keep the model)")


if __name__ == "__main__":
    main()
